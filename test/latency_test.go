//go:build kafka

package test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestLatency measures and prints. Its bounds are generous because machines are
// noisy; the figures are the point.
func TestLatency(t *testing.T) {
	f := newFleet(t, bootstrap)
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	c := newClient(t, f.addr["api"])
	n := 0
	fresh := func() string {
		n++
		return fmt.Sprintf("latency-%s-%d", runID, n)
	}

	wallet := fresh()
	for range 200 { // warm up
		c.mustPost(t, wallet, "0.01")
	}
	post := measure(2000, func() { c.mustPost(t, wallet, "0.01") })
	t.Logf("POST alone:                       %v", post)

	rate, refusals := throughput(t, c, 64, 5*time.Second)
	t.Logf("POST at 64 connections:           %.0f/s, %d refused", rate, refusals)
	drained := time.Now()
	wallet = fresh()
	c.await(t, wallet, c.mustPost(t, wallet, "1"), state{nano, false})
	t.Logf("visible to its writer after that: %v", time.Since(drained).Round(time.Millisecond))

	balance := measure(200, func() {
		wallet := fresh()
		c.mustPost(t, wallet, "1")
		c.awaitNow(t, wallet, func(s state) bool { return s.nanos == nano })
	})
	t.Logf("POST sent → balance visible:      %v", balance)
	flag := measure(200, func() {
		wallet := fresh()
		c.mustPost(t, wallet, "10001")
		c.awaitNow(t, wallet, func(s state) bool { return s.above })
	})
	t.Logf("POST sent → flag visible:         %v", flag)

	if post.p50 >= 10*time.Millisecond {
		t.Errorf("p50 of POST is %v, want under 10 ms", post.p50)
	}
	if rate < 2000 {
		t.Errorf("%.0f deposits/s at 64 connections, want at least 2000", rate)
	}
}

// figures sum up a measurement.
type figures struct{ p50, p99, worst time.Duration }

func (f figures) String() string {
	return fmt.Sprintf("p50 %v, p99 %v, max %v", f.p50.Round(10*time.Microsecond), f.p99.Round(10*time.Microsecond), f.worst.Round(10*time.Microsecond))
}

func measure(n int, do func()) figures {
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		do()
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return figures{took[n/2], took[n*99/100], took[n-1]}
}

// throughput lets connections post as fast as they can.
func throughput(t *testing.T, c *client, connections int, d time.Duration) (perSecond float64, refusals int64) {
	t.Helper()
	var done, refusedCount, bad atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i := range connections {
		wg.Go(func() {
			for j := 0; time.Since(began) < d; j++ {
				switch a := c.post(fmt.Sprintf("rate-%s-%d-%d", runID, i, j%20), "0.01", ""); a.verdict {
				case acked:
					done.Add(1)
				case refused:
					refusedCount.Add(1)
				default:
					bad.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if bad.Load() > 0 {
		t.Errorf("%d deposits got no clear answer while Kafka was up", bad.Load())
	}
	return float64(done.Load()) / time.Since(began).Seconds(), refusedCount.Load()
}

// awaitNow asks without a pause until the wallet is as wanted.
func (c *client) awaitNow(t *testing.T, wallet string, ok func(state) bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		s, answered, err := c.check(wallet, "")
		if err != nil {
			t.Fatal(err)
		}
		if answered && ok(s) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still %v after 30 s", wallet, s)
		}
	}
}
