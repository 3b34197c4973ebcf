package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"coinbit/internal/kafkatest"
	"coinbit/internal/stream"
)

// guarded is a broker that does not let everybody in. The test that matters runs
// on Apache Kafka (test/access_test.go); this one is quick.
func guarded(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1))...)
	must(t, err)
	t.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

const password = "canary-password"

func scramUser(user string, acls ...kfake.ACL) []kfake.Opt {
	return []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser(sarama.SASLTypeSCRAMSHA512, "admin", password), kfake.User(sarama.SASLTypeSCRAMSHA512, user, password, acls...)}
}

func serverTLS(t *testing.T, p *kafkatest.PKI) *tls.Config {
	t.Helper()
	cert, key, err := p.Issue("broker", time.Now().Add(time.Hour))
	must(t, err)
	pair, err := tls.LoadX509KeyPair(cert, key)
	must(t, err)
	ca, err := os.ReadFile(p.CA)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool}
}

func as(t *testing.T, s Settings) *Client {
	t.Helper()
	c, err := NewClient(s, slog.New(slog.DiscardHandler))
	must(t, err)
	return c
}

// Who is not let in is told which setting is at fault. (kfake only hangs up on a
// wrong password; Kafka's own words are tested on Kafka.)
func TestRefusals(t *testing.T) {
	pki, err := kafkatest.NewPKI(t.TempDir())
	must(t, err)
	other, err := kafkatest.NewPKI(t.TempDir())
	must(t, err)
	cert, key, err := pki.Issue("alice", time.Now().Add(time.Hour))
	must(t, err)
	foreign, foreignKey, err := other.Issue("alice", time.Now().Add(time.Hour))
	must(t, err)
	mutual := serverTLS(t, pki)
	mutual.ClientAuth = tls.RequireAndVerifyClientCert
	plain, sasl := guarded(t), guarded(t, append(scramUser("alice"), kfake.TLS(serverTLS(t, pki)))...)
	ssl := guarded(t, kfake.TLS(mutual))
	ancient := serverTLS(t, pki)
	ancient.MinVersion, ancient.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	old := guarded(t, kfake.TLS(ancient))
	curves := serverTLS(t, pki) // of which a client has none
	curves.MaxVersion, curves.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}
	odd := guarded(t, kfake.TLS(curves))
	const scram = sarama.SASLTypeSCRAMSHA512
	for name, c := range map[string]struct {
		addr string
		s    Settings
		want []string // nothing: let in
	}{
		"SASL over TLS":              {sasl, Settings{TLSCA: pki.CA, SASLMechanism: scram, SASLUser: "alice", SASLPassword: password}, nil},
		"certificate":                {ssl, Settings{TLSCA: pki.CA, TLSCert: cert, TLSKey: key}, nil},
		"plain":                      {plain, Settings{}, nil},
		"no SASL":                    {sasl, Settings{TLSCA: pki.CA}, []string{"KAFKA_SASL_MECHANISM"}},
		"another authority":          {sasl, Settings{TLSCA: other.CA, SASLMechanism: scram, SASLUser: "alice", SASLPassword: password}, []string{"KAFKA_TLS_CA", "unknown authority"}},
		"no TLS":                     {ssl, Settings{}, []string{"KAFKA_TLS_CA", "speaks TLS"}},
		"no certificate":             {ssl, Settings{TLSCA: pki.CA}, []string{"KAFKA_TLS_CERT", "wants a client certificate"}},
		"TLS 1.1":                    {old, Settings{TLSCA: pki.CA}, []string{": BROKER: ", "speaks no TLS of version 1.2 or newer"}},
		"TLS 1.1, and a certificate": {old, Settings{TLSCA: pki.CA, TLSCert: cert, TLSKey: key}, []string{": BROKER: ", "speaks no TLS of version 1.2 or newer"}},
		"no common cipher":           {odd, Settings{TLSCA: pki.CA}, []string{"cipher"}},
		"foreign certificate":        {ssl, Settings{TLSCA: pki.CA, TLSCert: foreign, TLSKey: foreignKey}, []string{"KAFKA_TLS_CERT", "CN=alice", "valid until"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.s.Brokers = []string{c.addr}
			err := as(t, c.s).Probe(within(t))
			if c.want == nil {
				must(t, err)
				return
			}
			if !errors.Is(err, ErrRefused) || !errors.Is(err, ErrUnreachable) {
				t.Fatalf("got %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "canary") {
				t.Errorf("%q", err)
			}
		})
	}
}

// What is there but no Kafka, or not there, refuses nobody.
func TestNoRefusal(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = ln.Close() }()
	go func() { // hangs up
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	for _, addr := range []string{nobody(t), ln.Addr().String()} {
		if err := newClient(t, addr).Probe(within(t)); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func allow(op kmsg.ACLOperation, topic string) kfake.ACL {
	return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
}

func TestDenied(t *testing.T) {
	addr := guarded(t, scramUser("alice", allow(kmsg.ACLOperationWrite, "deposit"), allow(kmsg.ACLOperationRead, "balance-table"))...)
	user := func(name string) *Client {
		return as(t, Settings{Brokers: []string{addr}, SASLMechanism: sarama.SASLTypeSCRAMSHA512, SASLUser: name, SASLPassword: password})
	}
	alice, topics := user("alice"), stream.TopicsIn(stream.RightsOf("api", "deposit", "balance-table"))
	right := func(op, topic string) stream.Right {
		return stream.Right{Operation: op, Resource: stream.TopicResource, Name: topic}
	}
	ask := func(rights ...stream.Right) error {
		_, err := alice.Ensure(within(t), topics, 2, 0, rights...)
		return err
	}
	says := func(err error, want string) {
		t.Helper()
		if !errors.Is(err, errDenied) || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	says(ask(), "topic deposit does not exist, and KAFKA_SASL_USER=alice lacks Create on it: an admin creates all topics with -service=topics")
	_, err := user("admin").Ensure(within(t), stream.Topics(), 2, 0)
	must(t, err)
	must(t, ask(right(stream.Write, "deposit"), right(stream.Read, "balance-table"), right(stream.Describe, "deposit")))
	says(ask(right(stream.Read, "deposit"), right(stream.Write, "deposit"), right(stream.Write, "balance-table")),
		"KAFKA_SASL_USER=alice lacks Read on topic deposit, Write on topic balance-table: an admin grants it")

	topics = stream.TopicsIn(stream.RightsOf("threshold"))
	says(ask(), "lacks Describe on topic flag_wallet, Describe on topic threshold-table:")
	says(ask(stream.RightsOf("threshold")...), "lacks Read on topic deposit, Write on topic flag_wallet, Read on topic threshold-table, Write on topic threshold-table:")
	_, err = alice.Inspect(within(t), topics, stream.RightsOf("threshold")...)
	says(err, "lacks Read on topic deposit")
	_, err = alice.Committed(within(t), "balance", "deposit")
	says(err, "lacks Describe on group balance")
}

func TestWho(t *testing.T) {
	cert, key := certificate(t)
	for want, s := range map[string]Settings{
		"KAFKA_SASL_USER=u":                      {SASLMechanism: "PLAIN", SASLUser: "u", SASLPassword: "p", TLSCert: cert, TLSKey: key},
		"the certificate of KAFKA_TLS_CERT ()":   {TLSCert: cert, TLSKey: key},
		"a client without KAFKA_SASL_USER and K": {},
	} {
		if got := as(t, s).who(); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// sarama goes on asking for what it may not read; the session ends instead, and
// the failure is told.
func TestDenialEndsTheSession(t *testing.T) {
	topic := &sarama.ConsumerError{Topic: "deposit", Err: sarama.ErrTopicAuthorizationFailed}
	for _, c := range []struct {
		denied, want error
	}{{topic, topic}, {sarama.ErrSASLAuthenticationFailed, sarama.ErrSASLAuthenticationFailed}, {sarama.ErrGroupAuthorizationFailed, errSession}} {
		g := &fakeGroup{}
		g.session = func(ctx context.Context, _ int, _ sarama.ConsumerGroupHandler) error {
			g.tell(t, c.denied)
			<-ctx.Done()
			return nil
		}
		w := wrapped(t, g)
		w.lacks = errSession
		if err := w.Consume(within(t), []string{"deposit"}, nil); !errors.Is(err, c.want) {
			t.Errorf("%v: got %v", c.denied, err)
		}
	}
}

// fakePartition is a partition consumer that fails.
type fakePartition struct {
	sarama.PartitionConsumer
	errs chan *sarama.ConsumerError
}

func (p *fakePartition) Errors() <-chan *sarama.ConsumerError { return p.errs }

type fakeReader struct {
	sarama.Consumer
	partition *fakePartition
}

func (r fakeReader) ConsumePartition(string, int32, int64) (sarama.PartitionConsumer, error) {
	if r.partition == nil {
		return nil, sarama.ErrTopicAuthorizationFailed
	}
	return r.partition, nil
}

func TestTelling(t *testing.T) {
	var told []error
	tell := func(err error) { told = append(told, err) }
	if _, err := Telling(fakeReader{}, tell).ConsumePartition("t", 0, 0); err == nil || len(told) != 1 {
		t.Fatalf("got %v, told %v", err, told)
	}
	inner := &fakePartition{errs: make(chan *sarama.ConsumerError)}
	p, err := Telling(fakeReader{partition: inner}, tell).ConsumePartition("t", 0, 0)
	must(t, err)
	for _, err := range []error{sarama.ErrNotLeaderForPartition, sarama.ErrTopicAuthorizationFailed, sarama.ErrOffsetOutOfRange} {
		inner.errs <- &sarama.ConsumerError{Err: err}
		if got := <-p.Errors(); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
	}
	close(inner.errs)
	if _, open := <-p.Errors(); open || len(told) != 3 {
		t.Errorf("open %v, told %v", open, told)
	}
}
