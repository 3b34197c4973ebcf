//go:build kafka

package test

import (
	"context"
	"sync"
	"testing"
	"time"

	"coinbit/internal/kafkatest"
)

// TestShutdown: SIGTERM under load ends every service in under 5 s with exit
// code 0, and nothing is lost by it.
func TestShutdown(t *testing.T) {
	const period = 3 * time.Second
	f := newFleet(t, bootstrap, "ROLLING_PERIOD="+period.String())
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	log := newLog(t, bootstrap)
	_, seed := seeded(t)
	from := log.ends("deposit")
	l := startLoad(t, newClient(t, f.addr["api"]), "shutdown", 50, seed, 10*time.Millisecond)
	pause(2 * time.Second)
	for _, name := range []string{"flagger", "threshold", "balance", "api"} { // the source of the load last
		took, code := f.term(name, 5*time.Second)
		t.Logf("%s ended after %v with exit code %d", name, took.Round(time.Millisecond), code)
		if code != 0 {
			t.Errorf("%s: exit code %d, want 0", name, code)
		}
	}
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	l.finish(t)
	l.settle(t, log, from, period)
}

// TestShutdownWithoutKafka: with Kafka gone SIGTERM ends every service in under
// 10 s, with exit code 1 because not everything may be flushed.
func TestShutdownWithoutKafka(t *testing.T) {
	broker, kill := disposableKafka(t)
	f := newFleet(t, broker)
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	c := newClient(t, f.addr["api"])
	wallet := "gone-" + runID
	c.await(t, wallet, c.mustPost(t, wallet, "12.34"), state{12*nano + 34*nano/100, false})

	kill()
	var wg sync.WaitGroup
	for _, name := range services {
		wg.Go(func() {
			took, code := f.term(name, 10*time.Second)
			t.Logf("%s ended after %v with exit code %d", name, took.Round(time.Millisecond), code)
			if code != 1 {
				t.Errorf("%s: exit code %d, want 1", name, code)
			}
		})
	}
	wg.Wait()
}

// disposableKafka is a Kafka the test may kill: a real one, or the embedded one
// when the tests run on a Kafka of somebody else's and so need no jars.
func disposableKafka(t *testing.T) (broker string, kill func()) {
	t.Helper()
	if ownKafka {
		c, err := kafkatest.Start(context.Background(), kafkatest.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Stop)
		return c.Bootstrap(), func() { c.Kill(0) }
	}
	addr := freeAddr(t)
	f := newFleet(t, addr)
	f.launch("kafka", "DATA_DIR="+t.TempDir())
	return addr, func() { f.kill9("kafka") }
}
