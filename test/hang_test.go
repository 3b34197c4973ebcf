//go:build kafka

package test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"coinbit/internal/kafkatest"
)

// What a part of the program may take for an answer while Kafka hangs.
const (
	ownAnswer  = time.Second                // of what needs no Kafka
	knownAway  = time.Second                // of a deposit once Kafka is known to be away
	commandEnd = 15 * time.Second           // of a command that reads Kafka
	stopEnd    = 10 * time.Second           // after SIGTERM
	depositEnd = 10*time.Second + ownAnswer // of a deposit that was on its way
)

// residents is the memory of processes, in MB.
func residents(t *testing.T, f *fleet, names ...string) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, name := range names {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.proc(name).PID()))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "VmRSS:")
		kb, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		all[name] = kb >> 10
	}
	return all
}

// ask makes a request that must be answered within limit, with one of the codes.
func ask(t *testing.T, limit time.Duration, addr, path string, codes ...int) {
	t.Helper()
	began := time.Now()
	res, err := (&http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + addr + path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	text, err := readAll(res)
	took := time.Since(began)
	known := false
	for _, c := range codes {
		known = known || res.StatusCode == c
	}
	if err != nil || !known || took > limit {
		t.Errorf("%s: %d after %v, %v: %.200s", path, res.StatusCode, took, err, text)
	}
}

// TestKafkaHangs stops the broker's process without ending it: connections stay open, new
// ones are taken by the kernel, and nothing is ever answered. Everything that needs no Kafka
// answers as always, everything that does gives up in its time, and all goes on by itself.
func TestKafkaHangs(t *testing.T) {
	needsOwnKafka(t)
	c, err := kafkatest.Start(context.Background(), kafkatest.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	f := newFleet(t, c.Bootstrap(), "PARTITIONS=4")
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	const period = 2 * time.Minute
	log := newLog(t, c.Bootstrap())
	from := log.ends("deposit")
	_, seed := seeded(t)
	client := newClient(t, f.addr["api"])
	l := startLoad(t, client, "hang", 50, seed, 10*time.Millisecond)
	position := client.mustPost(t, "hang-known", "12")
	client.await(t, "hang-known", position, state{12 * nano, false})
	pause(2 * time.Second)
	before := residents(t, f, services...)

	stop := func() {
		if err := c.Signal(0, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	resume := func() { _ = c.Signal(0, syscall.SIGCONT) }
	stop()
	t.Cleanup(resume)
	since := time.Now()

	var wg sync.WaitGroup
	over := make(chan struct{})
	for _, s := range []string{"api", "balance", "flagger"} { // what needs no Kafka; threshold ends meanwhile
		wg.Go(func() {
			for {
				ask(t, ownAnswer, f.addr[s], "/healthz", 200)
				ask(t, ownAnswer, f.addr[s], "/readyz", 200, 503)
				ask(t, ownAnswer, f.addr[s], "/metrics", 200)
				select {
				case <-over:
					return
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	for _, path := range []string{"/api/check/hang-known", "/api/wallets/hang-known", "/api/flags"} {
		wg.Go(func() {
			for {
				ask(t, ownAnswer, f.addr["api"], path, 200, 503)
				select {
				case <-over:
					return
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	deposit := func(limit time.Duration) verdict {
		began := time.Now()
		a := client.post("hang-probe", "1", "")
		if took := time.Since(began); a.verdict == broken || took > limit {
			t.Errorf("%v after the stop, a deposit was answered after %v: %s", began.Sub(since).Round(time.Millisecond), took, a.detail)
		}
		return a.verdict
	}
	var first sync.WaitGroup
	for range 50 {
		first.Go(func() { deposit(depositEnd) })
	}
	first.Wait()
	if !eventually(5*time.Second, func() bool { return deposit(depositEnd) == refused }) {
		t.Error("deposits are not refused")
	}
	t.Logf("deposits are refused %v after the stop", time.Since(since).Round(time.Millisecond))

	// A service that is started now, and one that is told to end.
	f.addr["late"] = freeAddr(t)
	f.launchAs(binary, "late", "balance", "ADMIN_PORT="+f.addr["late"])
	wg.Go(func() {
		if !eventually(10*time.Second, func() bool { ok, body := f.ready("late"); return !ok && strings.HasPrefix(body, "503 ") }) {
			t.Error("what is started meanwhile does not answer")
		}
		ask(t, ownAnswer, f.addr["late"], "/healthz", 200)
		pause(10 * time.Second)
		for _, name := range []string{"late", "threshold"} {
			took, code := f.term(name, stopEnd)
			t.Logf("%s ended after %v with exit code %d", name, took.Round(time.Millisecond), code)
			if code != 1 {
				t.Errorf("%s: exit code %d, want 1", name, code)
			}
		}
	})
	for name, args := range map[string][]string{
		"verify": nil, "whatif": {"-threshold=1"}, "statement": {"-wallet=hang-known"}, "deadletter": nil,
		"topics": nil, "flag": {"-wallet=hang-known", "-remove"},
	} {
		wg.Go(func() {
			began := time.Now()
			text, ok := f.command(nil, append([]string{"-service=" + name}, args...)...)
			took := time.Since(began)
			t.Logf("%s ended after %v: %s", name, took.Round(time.Millisecond), strings.TrimSpace(text))
			if ok || took > commandEnd || strings.Count(strings.TrimSpace(text), "\n") > 3 {
				t.Errorf("%s: ok %t after %v", name, ok, took)
			}
		})
	}
	for end := since.Add(45 * time.Second); time.Now().Before(end); pause(100 * time.Millisecond) {
		if v := deposit(knownAway); v != refused {
			t.Errorf("%v after the stop a deposit is not refused but %d", time.Since(since), v)
			break
		}
	}
	for name, mb := range residents(t, f, "api", "balance", "flagger") {
		t.Logf("%s: %d MB, %d before", name, mb, before[name])
		if mb > before[name]+64 {
			t.Errorf("%s has grown from %d to %d MB", name, before[name], mb)
		}
	}
	resume()
	close(over)
	wg.Wait()
	began := time.Now()
	f.start("threshold")
	f.awaitReady(60*time.Second, services...)
	if !eventually(30*time.Second, func() bool { return client.post("hang-probe", "1", "").verdict == acked }) {
		t.Error("deposits are not taken again")
	}
	t.Logf("all is ready again after %v", time.Since(began).Round(time.Millisecond))
	l.finish(t)
	l.settle(t, log, from, period)
	f.mustVerify()
}
