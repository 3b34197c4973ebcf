package kafka

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"coinbit/internal/kafkatest"
	"coinbit/internal/kafkatest/child"
	"coinbit/internal/stream"
)

// copyFile replaces a file as a renewal does: not at once.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o600))
}

// connect opens a connection with a configuration that may be older than the files.
func connect(cfg *sarama.Config, addr string) error {
	b := sarama.NewBroker(addr)
	if err := b.Open(cfg); err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	if _, err := b.Connected(); err != nil {
		return err
	}
	_, err := b.GetMetadata(sarama.NewMetadataRequest(cfg.Version, []string{}))
	return err
}

// A client that was made with files that are of no use to it is let in once there are
// others in their place: certificate and key, and the authority.
func TestRenewedCertificates(t *testing.T) {
	old, err := kafkatest.NewPKI(t.TempDir())
	must(t, err)
	next, err := kafkatest.NewPKI(t.TempDir())
	must(t, err)
	issue := func(p *kafkatest.PKI, name string, life time.Duration) [2]string {
		cert, key, err := p.Issue(name, time.Now().Add(life))
		must(t, err)
		return [2]string{cert, key}
	}
	mutual := func(p *kafkatest.PKI) *tls.Config {
		c := serverTLS(t, p)
		c.ClientAuth = tls.RequireAndVerifyClientCert
		return c
	}
	var server atomic.Pointer[tls.Config]
	server.Store(mutual(old))
	addr := guarded(t, kfake.TLS(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return server.Load(), nil }}))

	dir := t.TempDir()
	s := Settings{Brokers: []string{addr}, TLSCA: filepath.Join(dir, "ca"), TLSCert: filepath.Join(dir, "cert"), TLSKey: filepath.Join(dir, "key")}
	put := func(ca string, pair [2]string) {
		copyFile(t, ca, s.TLSCA)
		copyFile(t, pair[0], s.TLSCert)
		copyFile(t, pair[1], s.TLSKey)
	}
	put(old.CA, issue(old, "expired", -time.Hour))
	log := new(logBook)
	c, err := NewClient(s, log.logger())
	must(t, err)
	cfg := c.base("older than the files")
	refused := func(words ...string) {
		t.Helper()
		err := c.Probe(within(t))
		if !errors.Is(err, ErrRefused) || slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) }) {
			t.Fatalf("got %v, want %q", err, words)
		}
	}
	refused("KAFKA_TLS_CERT", "CN=expired")

	put(old.CA, issue(old, "good", time.Hour))
	must(t, c.Probe(within(t)))
	must(t, connect(cfg, addr))
	cluster, err := c.Ensure(within(t), stream.Topics(), 1, 0)
	must(t, err)
	of := c.In(cluster)
	must(t, of.Probe(within(t)))

	server.Store(mutual(next)) // the whole authority is another
	refused("KAFKA_TLS_CA", "unknown authority")
	both, err := os.ReadFile(next.CA)
	must(t, err)
	more, err := os.ReadFile(old.CA)
	must(t, err)
	must(t, os.WriteFile(s.TLSCA, append(more, both...), 0o600))
	refused("KAFKA_TLS_CERT", "CN=good")
	put(s.TLSCA, issue(next, "renewed", time.Hour))
	must(t, c.Probe(within(t)))
	must(t, of.Probe(within(t)))
	must(t, connect(cfg, addr))
	if n := log.count("KAFKA_TLS_CERT, KAFKA_TLS_KEY: read anew"); n != 2 {
		t.Errorf("two renewals are told %d times", n)
	}
	if !strings.Contains(c.who(), "CN=renewed") {
		t.Errorf("it is %s", c.who())
	}
}

// What cannot be used for a moment changes nothing, and is told once.
func TestHalfRenewed(t *testing.T) {
	pki, err := kafkatest.NewPKI(t.TempDir())
	must(t, err)
	var pairs [2][2]string
	for i, name := range []string{"first", "second"} {
		pairs[i][0], pairs[i][1], err = pki.Issue(name, time.Now().Add(time.Hour))
		must(t, err)
	}
	dir := t.TempDir()
	s := Settings{TLSCA: filepath.Join(dir, "ca"), TLSCert: filepath.Join(dir, "cert"), TLSKey: filepath.Join(dir, "key"),
		SASLMechanism: sarama.SASLTypePlaintext, SASLUser: "u", SASLPasswordFile: filepath.Join(dir, "password")}
	copyFile(t, pki.CA, s.TLSCA)
	copyFile(t, pairs[0][0], s.TLSCert)
	copyFile(t, pairs[0][1], s.TLSKey)
	must(t, os.WriteFile(s.SASLPasswordFile, []byte("canary-1\r\n"), 0o600))
	log := new(logBook)
	c, err := NewClient(s, log.logger())
	must(t, err)
	is := func(subject, password string) {
		t.Helper()
		for range 3 {
			got, _ := c.credentials.certificate()
			if got != "CN="+subject || c.password() != password || c.credentials.tls().RootCAs == nil {
				t.Errorf("%s, %s", got, c.password())
			}
		}
	}
	is("first", "canary-1")
	copyFile(t, pairs[1][0], s.TLSCert) // its key is yet to come
	must(t, os.WriteFile(s.TLSCA, []byte("half of"), 0o600))
	must(t, os.Truncate(s.SASLPasswordFile, 0))
	is("first", "canary-1")
	if n := log.count("cannot be read, going on with what was read before"); n != 3 {
		t.Errorf("three faults are told %d times", n)
	}
	copyFile(t, pairs[1][1], s.TLSKey)
	must(t, os.WriteFile(s.SASLPasswordFile, []byte("canary-2"), 0o600))
	is("second", "canary-2")
	for _, spoil := range []func(){
		func() { must(t, os.Remove(s.SASLPasswordFile)) },
		func() { must(t, os.Mkdir(s.SASLPasswordFile, 0o700)) },
		func() {
			must(t, os.Remove(s.SASLPasswordFile))
			must(t, os.WriteFile(s.SASLPasswordFile, []byte("canary-3\ncanary-4"), 0o600))
		},
		func() { must(t, os.WriteFile(s.SASLPasswordFile, make([]byte, largestFile+1), 0o600)) },
	} {
		spoil()
		is("second", "canary-2")
	}
	if n := log.count("KAFKA_SASL_PASSWORD_FILE: cannot be read"); n != 5 {
		t.Errorf("five faults of the password are told %d times", n)
	}
	if n := log.count("canary") + log.count(dir+"/password"); n != 0 {
		t.Error("the log shows a secret, or where the file is")
	}
	if log.count(`subject="CN=second"`)+log.count("subject=CN=second") != 1 {
		t.Error("the log does not name the new certificate")
	}
}

// What is wrong at the start is told, and never shows what may be the secret itself.
func TestPasswordFileErrors(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "canary-empty")
	must(t, os.WriteFile(empty, []byte("\n"), 0o600))
	for _, name := range []string{"canary-for-the-name", empty, t.TempDir(), "/dev/zero"} {
		_, err := NewClient(Settings{SASLPasswordFile: name}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.HasPrefix(err.Error(), "KAFKA_SASL_PASSWORD_FILE: ") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v", err)
		}
	}
}

// The password that is in the file when a connection is made, or authenticates again, is the
// one that counts, whatever it was when its client was made.
func TestRenewedPassword(t *testing.T) {
	for _, m := range []string{sarama.SASLTypePlaintext, sarama.SASLTypeSCRAMSHA256, sarama.SASLTypeSCRAMSHA512} {
		t.Run(m, func(t *testing.T) {
			addr := guarded(t, kfake.EnableSASL(), kfake.Superuser(m, "alice", password), kfake.BrokerConfigs(map[string]string{"connections.max.reauth.ms": "300"}))
			file := filepath.Join(t.TempDir(), "password")
			must(t, os.WriteFile(file, []byte("another, and a longer one"), 0o600))
			c := as(t, Settings{Brokers: []string{addr}, SASLMechanism: m, SASLUser: "alice", SASLPasswordFile: file})
			cfg := c.base("older than the file")
			if err := connect(cfg, addr); err == nil {
				t.Fatal("the wrong password does")
			}
			must(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
			must(t, connect(cfg, addr))
			must(t, c.Probe(within(t)))

			b := sarama.NewBroker(addr)
			must(t, b.Open(cfg))
			defer func() { _ = b.Close() }()
			ask := func() error {
				_, err := b.GetMetadata(sarama.NewMetadataRequest(cfg.Version, []string{}))
				return err
			}
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				must(t, ask()) // it authenticates again three times
			}
			must(t, os.WriteFile(file, []byte("wrong again"), 0o600))
			eventually(t, "the wrong password in an open connection", func() bool { return ask() != nil })
		})
	}
}

// sink notes what is written to it.
type sink struct {
	net.Conn
	got []byte
}

func (s *sink) Write(p []byte) (int, error) {
	s.got = append(s.got, p...)
	return len(p), nil
}

// plainConn changes the password of the request that has it, whichever its version, and
// nothing else.
func TestPlainConn(t *testing.T) {
	frame := func(key, version int16, flexible bool, body []byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, uint16(key))
		b = binary.BigEndian.AppendUint16(b, uint16(version))
		b = append(b, 0, 0, 0, 7, 0, 1, 'x') // correlation, client id
		if flexible {
			b = append(b, 0)
		}
		b = append(b, body...)
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	}
	auth := func(version int16, token string) []byte {
		r := kmsg.NewPtrSASLAuthenticateRequest()
		r.SetVersion(version)
		r.SASLAuthBytes = []byte(token)
		return frame(r.Key(), version, r.IsFlexible(), r.AppendTo(nil))
	}
	long := strings.Repeat("p", 300)
	for _, passwords := range [][2]string{{"old", "new"}, {"old", long}, {long, "n"}, {"same", "same"}} {
		was, is := "\x00alice\x00"+passwords[0], "\x00alice\x00"+passwords[1]
		for version := range int16(3) {
			other := frame(0, version, false, []byte(was))
			for _, c := range [][2][]byte{
				{auth(version, was), auth(version, is)}, {other, other},
				{auth(version, "\x00bob\x00"+passwords[0]), auth(version, "\x00bob\x00"+passwords[0])}, {[]byte(was[:5]), []byte(was[:5])},
			} {
				s := new(sink)
				n, err := (&plainConn{s, "alice", passwords[0], func() string { return passwords[1] }}).Write(c[0])
				if err != nil || n != len(c[0]) || string(s.got) != string(c[1]) {
					t.Errorf("version %d: %d, %v, %q, want %q", version, n, err, s.got, c[1])
				}
			}
		}
	}
}

// A broker that asks for more work than an exchange is worth is refused at once, and named.
func TestSCRAMIterations(t *testing.T) {
	for _, n := range []string{"2000000000", "+2000000000", "99999999999999999999", "1000001", "4096,i=2000000000"} {
		kafka, err := kfake.NewCluster(append(scramUser("alice"), kfake.NumBrokers(1))...)
		must(t, err)
		defer kafka.Close()
		kafka.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
			kafka.KeepControl()
			_, nonce, _ := strings.Cut(string(r.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes), ",r=")
			answer := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
			answer.SASLAuthBytes = []byte("r=" + nonce + "more,s=c2FsdA==,i=" + n)
			return answer, nil, true
		})
		began := time.Now()
		err = as(t, Settings{Brokers: kafka.ListenAddrs(), SASLMechanism: sarama.SASLTypeSCRAMSHA512, SASLUser: "alice", SASLPassword: password}).Probe(within(t))
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "KAFKA_SASL_MECHANISM, BROKER") || !strings.Contains(err.Error(), "1000000 iterations") || time.Since(began) > 5*time.Second {
			t.Errorf("%s: after %v: %v", n, time.Since(began), err)
		}
	}
}

// A password that SCRAM does not take is told as such, and not shown.
func TestSCRAMPassword(t *testing.T) {
	s := Settings{Brokers: []string{guarded(t, scramUser("alice")...)}, SASLMechanism: sarama.SASLTypeSCRAMSHA512, SASLUser: "alice", SASLPassword: "canary\u0007"}
	err := as(t, s).Probe(within(t))
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "KAFKA_SASL_PASSWORD") || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v", err)
	}
}

// An old server may also choose its version and say nothing.
func TestOldTLSIsNoCertificate(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = ln.Close() }()
	go func() {
		hello := append([]byte{22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2}, make([]byte, 32)...)
		hello = append(hello, 0, 0xc0, 0x13, 0) // no session, a cipher, no compression
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.ReadFull(conn, make([]byte, 100))
			_, _ = conn.Write(hello)
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	ca, _ := certificate(t)
	err = as(t, Settings{Brokers: []string{ln.Addr().String()}, TLSCA: ca}).Probe(within(t))
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "speaks no TLS of version 1.2 or newer") {
		t.Errorf("got %v", err)
	}
}

// Whoever sends a password as it is hears of it, once.
func TestPlainWithoutTLSIsToldOnce(t *testing.T) {
	ca, _ := certificate(t)
	for want, s := range []Settings{
		{SASLMechanism: sarama.SASLTypePlaintext, SASLUser: "u", SASLPassword: "p", TLSCA: ca},
		{SASLMechanism: sarama.SASLTypePlaintext, SASLUser: "u", SASLPassword: "p"},
	} {
		log := new(logBook)
		c, err := NewClient(s, log.logger())
		must(t, err)
		c.base("one")
		c.In(Cluster{}).base("two")
		if n := log.count("sends the password over the network as it is"); n != want {
			t.Errorf("with TLS %t: told %d times", s.TLSCA != "", n)
		}
	}
}

// A Kafka that comes back and does not let its client in any more is not just away.
func TestMonitorTellsARefusal(t *testing.T) {
	old, err := kafkatest.NewPKI(t.TempDir())
	must(t, err)
	next, err := kafkatest.NewPKI(t.TempDir())
	must(t, err)
	port, err := child.FreePort()
	must(t, err)
	start := func(p *kafkatest.PKI) *kfake.Cluster {
		k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.TLS(serverTLS(t, p)))
		must(t, err)
		return k
	}
	kafka := start(old)
	log := new(logBook)
	c, err := NewClient(Settings{Brokers: kafka.ListenAddrs(), TLSCA: old.CA}, log.logger())
	must(t, err)
	ctx, stop := context.WithCancel(within(t))
	done := make(chan struct{})
	var m Monitor
	go func() {
		defer close(done)
		_ = m.Run(ctx, c, c.log)
	}()
	kafka.Close()
	eventually(t, "its absence", m.Away)
	kafka = start(next)
	defer kafka.Close()
	eventually(t, "the reason", func() bool { return log.count("KAFKA_TLS_CA, BROKER") == 1 })
	copyFile(t, next.CA, old.CA)
	eventually(t, "its return", func() bool { return !m.Away() })
	stop()
	<-done
	if n := log.count("kafka refuses this client"); n != 1 {
		t.Errorf("it is told %d times", n)
	}
}
