//go:build kafka

package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coinbit/internal/kafkatest"
	"coinbit/internal/stream"
)

// steady makes deposits to one wallet without a pause in between that matters.
type steady struct {
	client *client
	wallet string
	stop   chan struct{}
	wg     sync.WaitGroup

	acked, others atomic.Int64
	mu            sync.Mutex
	said          []string // by those that were not acknowledged
}

func startSteady(t *testing.T, c *client, name string) *steady {
	s := &steady{client: c, wallet: fmt.Sprintf("%s-%x", name, rand.Uint32()), stop: make(chan struct{})}
	s.wg.Go(func() {
		for {
			select {
			case <-s.stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if a := s.client.post(s.wallet, "1", ""); a.verdict == acked {
				s.acked.Add(1)
			} else {
				s.others.Add(1)
				s.mu.Lock()
				s.said = append(s.said, time.Now().Format("15:04:05.000 ")+a.detail)
				s.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() { s.finish(t) })
	return s
}

// finish stops it. The sum is between what was acknowledged and that with the others.
func (s *steady) finish(t *testing.T) {
	t.Helper()
	select {
	case <-s.stop:
		return
	default:
	}
	close(s.stop)
	s.wg.Wait()
	low, high := s.acked.Load()*nano, (s.acked.Load()+s.others.Load())*nano
	var got state
	if !eventually(30*time.Second, func() bool {
		var ok bool
		got, ok, _ = s.client.check(s.wallet, "")
		return ok && got.nanos >= low && got.nanos <= high
	}) {
		t.Errorf("%s: %v, want from %s to %s", s.wallet, got, decimal(low), decimal(high))
	}
	t.Logf("%s: %d deposits acknowledged, %d not", s.wallet, s.acked.Load(), s.others.Load())
}

// unbroken demands that all that came so far was acknowledged, and that something came.
func (s *steady) unbroken(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.said) > 0 || s.acked.Load() == 0 {
		t.Errorf("%d deposits acknowledged, %d not: %s", s.acked.Load(), len(s.said), strings.Join(s.said[:min(5, len(s.said))], "; "))
	}
}

// goesOn waits for more acknowledged deposits.
func (s *steady) goesOn(t *testing.T) {
	t.Helper()
	more := s.acked.Load() + 20
	if !eventually(40*time.Second, func() bool { return s.acked.Load() >= more }) {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.Errorf("deposits do not go on: %q", s.said[max(0, len(s.said)-3):])
	}
}

// life is how long the certificates of TestRenewal are valid.
func life(t *testing.T) time.Duration {
	s := os.Getenv("LIFE")
	if s == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("LIFE: %v", err)
	}
	return d
}

func (g *guarded) issue(t *testing.T, user string, until time.Time) {
	t.Helper()
	if _, _, err := g.pki.Issue(user, until); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRenewal renews, in the files, all by which services and Kafka know each other. No
// service is started again.
func TestRenewal(t *testing.T) {
	const right = "canary-plain-password"
	g := newGuarded(t, map[string]string{
		"sasl.enabled.mechanisms":                       "SCRAM-SHA-512,PLAIN",
		"listener.name.sasl_ssl.plain.sasl.jaas.config": `org.apache.kafka.common.security.plain.PlainLoginModule required user_balance="` + right + `";`,
	})
	if code, said := g.once("topics", g.sasl("topics")); code != 0 {
		t.Fatalf("exit %d: %s", code, said)
	}
	for _, r := range stream.RightsOf("balance") {
		g.grant("User:CN=balance", r)
	}
	t.Run("certificates", g.renewCertificates)
	t.Run("bad ones at the start", g.badCertificates)
	t.Run("SCRAM password", g.renewPasswords)
	t.Run("PLAIN password", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "password")
		write(t, file, "canary-wrong")
		p := g.run("balance", passwordFile(g.sasl("balance"), file, "KAFKA_SASL_MECHANISM=PLAIN"))
		p.awaitLine(t, 0, func() {}, "kafka refuses this client", "KAFKA_SASL_PASSWORD_FILE", "user balance")
		write(t, file, right+"\n")
		p.awaitReady(t)
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); pause(100 * time.Millisecond) {
			if !p.ready() { // it authenticates again every four seconds
				t.Errorf("it is not ready any more:\n%s", lastLines(p.output()))
				break
			}
		}
	})
	g.stop()
	g.noSecrets(t)
}

// renewCertificates renews certificates of running services before they end, and lets them
// connect anew after that.
func (g *guarded) renewCertificates(t *testing.T) {
	ends := time.Now().Add(life(t))
	for _, s := range services {
		g.issue(t, s, ends)
	}
	procs := map[string]*guardedProc{}
	for _, s := range services {
		procs[s] = g.run(s, g.mtls(s))
	}
	for _, s := range services {
		procs[s].awaitReady(t)
	}
	load := startSteady(t, newClient(t, procs["api"].addr), "certificate")
	load.goesOn(t)
	pause(time.Until(ends) - 3*time.Second)
	load.unbroken(t)
	for _, s := range services {
		g.issue(t, s, time.Now().Add(time.Hour))
	}
	pause(time.Until(ends) + 5*time.Second)
	load.unbroken(t)
	g.cluster.StopBroker(0) // all connections are made anew
	if err := g.cluster.Restart(0); err != nil {
		t.Fatal(err)
	}
	load.goesOn(t)
	for _, s := range services {
		procs[s].awaitReady(t)
		if strings.Contains(procs[s].output(), "refuses this client") {
			t.Errorf("%s was refused:\n%s", s, lastLines(procs[s].output()))
		}
	}
	load.finish(t)
	g.stop()
}

// badCertificates starts services with files that Kafka, or they themselves, cannot take,
// and puts the right ones in their place.
func (g *guarded) badCertificates(t *testing.T) {
	other, err := kafkatest.NewPKI(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	contents := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, contents(other.CA))
	g.issue(t, "balance", time.Now().Add(-time.Minute))
	foreign, foreignKey, err := other.Issue("threshold", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	write(t, g.cert["threshold"][0], contents(foreign))
	write(t, g.cert["threshold"][1], contents(foreignKey))
	api := g.run("api", append(g.mtls("api"), "KAFKA_TLS_CA="+ca))
	balance, threshold := g.run("balance", g.mtls("balance")), g.run("threshold", g.mtls("threshold"))
	flagger := g.run("flagger", g.mtls("flagger"))
	api.awaitLine(t, 0, func() {}, "kafka refuses this client", "KAFKA_TLS_CA")
	balance.awaitLine(t, 0, func() {}, "kafka refuses this client", "KAFKA_TLS_CERT", "CN=balance")
	threshold.awaitLine(t, 0, func() {}, "kafka refuses this client", "KAFKA_TLS_CERT")
	write(t, ca, contents(g.pki.CA))
	g.issue(t, "balance", time.Now().Add(time.Hour))
	g.issue(t, "threshold", time.Now().Add(time.Hour))
	g.wholeWay(t, map[string]*guardedProc{"api": api, "balance": balance, "threshold": threshold, "flagger": flagger}, g.mtls("flag"))
	g.stop()
}

// passwordFile is settings with a file in the password's place, and more.
func passwordFile(env []string, file string, more ...string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, "KAFKA_SASL_PASSWORD=") })
	return slices.Concat(env, []string{"KAFKA_SASL_PASSWORD_FILE=" + file}, more)
}

// renewPasswords gives running services other passwords, while each connection has to
// authenticate again every few seconds.
func (g *guarded) renewPasswords(t *testing.T) {
	dir := t.TempDir()
	file := func(user string) string { return filepath.Join(dir, user) }
	procs := map[string]*guardedProc{}
	for _, s := range services {
		write(t, file(s), g.password[s]+"\n")
		procs[s] = g.run(s, passwordFile(g.sasl(s), file(s)))
	}
	for _, s := range services {
		procs[s].awaitReady(t)
	}
	load := startSteady(t, newClient(t, procs["api"].addr), "password")
	load.goesOn(t)
	load.unbroken(t)
	for _, s := range services {
		g.password[s] = "canary-renewed-" + s
		if err := kafkatest.AddUser(g.admin, s, g.password[s]); err != nil {
			t.Fatal(err)
		}
		write(t, file(s), g.password[s])
	}
	pause(10 * time.Second) // long enough for each to authenticate again
	load.goesOn(t)
	for _, s := range services {
		procs[s].awaitReady(t)
		if !strings.Contains(procs[s].output(), "KAFKA_SASL_PASSWORD_FILE: read anew") {
			t.Errorf("%s does not say that it read the password", s)
		}
	}
	load.finish(t)
	g.stop()
}
