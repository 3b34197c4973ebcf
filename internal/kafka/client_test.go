package kafka

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// certificate writes a self-signed certificate and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return cert, key
}

// Every configuration of every client passes sarama's own check, carries the
// credentials, and is a new one each time.
func TestConfigsAreValid(t *testing.T) {
	cert, key := certificate(t)
	for name, s := range map[string]Settings{
		"plain":     {},
		"TLS":       {TLSCA: cert},
		"mTLS":      {TLSCA: cert, TLSCert: cert, TLSKey: key},
		"mTLS only": {TLSCert: cert, TLSKey: key},
		"PLAIN":     {SASLMechanism: "PLAIN", SASLUser: "u", SASLPassword: "p"},
		"SCRAM 256": {SASLMechanism: "SCRAM-SHA-256", SASLUser: "u", SASLPassword: "p"},
		"SCRAM 512": {TLSCA: cert, SASLMechanism: "SCRAM-SHA-512", SASLUser: "u", SASLPassword: "p"},
	} {
		t.Run(name, func(t *testing.T) {
			s.Brokers = []string{"127.0.0.1:1"}
			c, err := NewClient(s, slog.New(slog.DiscardHandler))
			must(t, err)
			for role, build := range map[string]func() *sarama.Config{
				"base":   func() *sarama.Config { return c.base("coinbit-test") },
				"group":  func() *sarama.Config { return c.groupConfig("coinbit-test") },
				"reader": func() *sarama.Config { return c.readerConfig("coinbit-test") },
			} {
				cfg := build()
				if err := cfg.Validate(); err != nil {
					t.Errorf("%s: %v", role, err)
				}
				if cfg == build() {
					t.Errorf("%s: Goka's builders change what they are given, yet it is shared", role)
				}
				if d, ok := cfg.Net.Proxy.Dialer.(dialer); !ok || !cfg.Net.Proxy.Enable || d.cfg != cfg || cfg.Net.TLS.Enable {
					t.Errorf("%s: it does not dial as we do", role)
				} else if got := d.client.credentials.tls() != nil; got != (s.TLSCA != "" || s.TLSCert != "") {
					t.Errorf("%s: TLS is %t", role, got)
				}
				if cfg.Net.SASL.Enable != (s.SASLMechanism != "") || cfg.Net.SASL.User != s.SASLUser ||
					cfg.Net.SASL.Password != s.SASLPassword {
					t.Errorf("%s: SASL is %+v", role, cfg.Net.SASL)
				}
				if cfg.Metadata.AllowAutoTopicCreation || !cfg.Version.IsAtLeast(sarama.V2_3_0_0) {
					t.Errorf("%s: creates topics by itself, or version %s", role, cfg.Version)
				}
			}
			if n := len(c.base("x").ClientID); n == 0 {
				t.Error("no client id")
			}
		})
	}
}

// What exactness rests on.
func TestConfigsKeepTheirPromises(t *testing.T) {
	c := newClient(t, "127.0.0.1:1")
	g := c.groupConfig("x")
	if g.Consumer.Offsets.Initial != sarama.OffsetOldest {
		t.Error("a deposit before the group's first start would not count")
	}
	if g.Consumer.Group.ResetInvalidOffsets {
		t.Error("an invalid offset would be reset in silence")
	}
	if join := g.Consumer.Group.Rebalance.Timeout; join <= g.Consumer.Group.Session.Timeout || join >= g.Net.ReadTimeout {
		t.Errorf("a join may take %v, a connection waits %v for its answer", join, g.Net.ReadTimeout)
	}
	if g.Consumer.Group.Heartbeat.Interval*3 > g.Consumer.Group.Session.Timeout {
		t.Error("one lost heartbeat would end a session")
	}
}

func TestTLSFileErrorsNameTheSetting(t *testing.T) {
	cert, key := certificate(t)
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	must(t, os.WriteFile(garbage, []byte("no pem"), 0o600))
	for _, tt := range []struct {
		s    Settings
		want string
	}{
		{Settings{TLSCA: "/does/not/exist.pem"}, "KAFKA_TLS_CA"},
		{Settings{TLSCA: garbage}, "KAFKA_TLS_CA"},
		{Settings{TLSCert: "/does/not/exist.pem", TLSKey: key}, "KAFKA_TLS_CERT"},
		{Settings{TLSCert: cert, TLSKey: "/does/not/exist.pem"}, "KAFKA_TLS_KEY"},
		{Settings{TLSCert: garbage, TLSKey: key}, "KAFKA_TLS_CERT"},
		{Settings{TLSCert: cert, TLSKey: cert}, "KAFKA_TLS_KEY"},
	} {
		_, err := NewClient(tt.s, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want an error about %s", tt.s, err, tt.want)
		}
	}
}

// A SCRAM exchange up to the point where a server would answer.
func TestSCRAM(t *testing.T) {
	password := func() string { return "secret" }
	if scramClient("PLAIN", password) != nil {
		t.Error("PLAIN needs no SCRAM client")
	}
	for _, m := range []string{sarama.SASLTypeSCRAMSHA256, sarama.SASLTypeSCRAMSHA512} {
		s := scramClient(m, password)()
		must(t, s.Begin("user", "an old one", ""))
		first, err := s.Step("")
		must(t, err)
		if !strings.Contains(first, "n=user") || strings.Contains(first, "secret") || s.Done() {
			t.Errorf("%s begins with %q", m, first)
		}
		if _, err := s.Step("garbage"); err == nil {
			t.Errorf("%s takes garbage from the server", m)
		}
	}
}

func TestProbe(t *testing.T) {
	must(t, newClient(t, startBroker(t)).Probe(within(t)))
	started := time.Now()
	if err := newClient(t, nobody(t)).Probe(within(t)); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v, want ErrUnreachable", err)
	}
	if d := time.Since(started); d > 5*time.Second {
		t.Fatalf("took %s", d)
	}
}
