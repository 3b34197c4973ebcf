//go:build kafka

package test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
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

	rate, refusals := throughput(t, f.addr["api"], 64, 5*time.Second)
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

// throughput lets connections post as fast as they can. It speaks HTTP by hand:
// on a small machine a general client, with the race detector in it, would cost
// more than the service it measures.
func throughput(t *testing.T, addr string, connections int, d time.Duration) (perSecond float64, refusals int64) {
	t.Helper()
	var done, refused atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i := range connections {
		wg.Go(func() {
			conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetDeadline(began.Add(d + 15*time.Second)); err != nil {
				t.Error(err)
				return
			}
			in := bufio.NewReader(conn)
			for j := 0; time.Since(began) < d; j++ {
				body := fmt.Sprintf(`{"wallet_id":"rate-%s-%d-%d","amount":0.01}`, runID, i, j%20)
				if _, err := fmt.Fprintf(conn, "POST /api/deposit HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
					t.Error(err)
					return
				}
				switch status, err := discardResponse(in); {
				case err != nil:
					t.Error(err)
					return
				case status == http.StatusOK:
					done.Add(1)
				case status == http.StatusServiceUnavailable:
					refused.Add(1)
				default:
					t.Errorf("deposit answered with %d while Kafka was up", status)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(began).Seconds(), refused.Load()
}

// discardResponse reads one response with a Content-Length.
func discardResponse(in *bufio.Reader) (status int, err error) {
	for length := 0; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case status == 0:
			if len(line) < len("HTTP/1.1 200") {
				return 0, fmt.Errorf("no status line: %q", line)
			}
			if status, err = strconv.Atoi(line[9:12]); err != nil {
				return 0, err
			}
		case strings.EqualFold(name, "Content-Length"):
			if length, err = strconv.Atoi(value); err != nil {
				return 0, err
			}
		case line == "":
			_, err = in.Discard(length)
			return status, err
		}
	}
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
