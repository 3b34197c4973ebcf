package api_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// p99 is the 99th percentile of the times that requests take, of four clients
// that keep their connections.
func p99(t *testing.T, addr string) time.Duration {
	const clients, each = 4, 500
	times := make([]time.Duration, clients*each)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
			for i := range each {
				began := time.Now()
				res, err := client.Post("http://"+addr+"/api/deposit", "", strings.NewReader(one))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode != http.StatusOK {
					t.Errorf("beside slow clients: %d", res.StatusCode)
				}
				times[c*each+i] = time.Since(began)
			}
		})
	}
	wg.Wait()
	slices.Sort(times)
	return times[len(times)*99/100]
}

// A thousand clients that begin something and go on slowly or not at all are
// gone within 11 s and do not slow the others.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const clients = 1000
	kinds := []struct {
		name, first string
		drip        string // a byte of it each second
		answered    bool   // the first is a whole request
	}{
		{"nothing", "", "", false},
		{"one byte", "P", "", false},
		{"headers without an end", "POST /api/deposit HTTP/1.1\r\nHost: x\r\nX: ", "yyyyyyyyyyyyyyyyyyyy", false},
		{"one byte of a body", raw(len(one), one[:1]), "", false},
		{"a body a byte a second", raw(len(one), one[:1]), one[1:], false},
		{"no second request", "GET /api/check/w HTTP/1.1\r\nHost: x\r\n\r\n", "", true},
		{"one byte of a second request", "GET /api/check/w HTTP/1.1\r\nHost: x\r\n\r\nP", "", true},
		{"a second request a byte a second", "GET /api/check/w HTTP/1.1\r\nHost: x\r\n\r\n", "POST /api/deposit", true},
	}
	w := newWorld()
	addr := serve(t, w.handler(t), unchanged)
	alone := min(p99(t, addr), p99(t, addr))

	stop := make(chan struct{})
	var clientsDone sync.WaitGroup
	defer clientsDone.Wait()
	defer close(stop)
	lived := make(chan struct {
		kind string
		time.Duration
	}, clients)
	for i := range clients {
		kind := kinds[i%len(kinds)]
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = conn.SetReadDeadline(began.Add(20 * time.Second))
		if _, err := io.WriteString(conn, kind.first); err != nil {
			t.Fatal(err)
		}
		if kind.answered {
			if _, err := conn.Read(make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
			began = time.Now()
		}
		clientsDone.Go(func() { // drips
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for _, b := range []byte(kind.drip) {
				_, _ = conn.Write([]byte{b})
				select {
				case <-tick.C:
				case <-stop:
					return
				}
			}
		})
		clientsDone.Go(func() { // until the server ends it
			_, err := io.Copy(io.Discard, conn)
			took := time.Since(began)
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				took = time.Hour
			}
			_ = conn.Close()
			lived <- struct {
				kind string
				time.Duration
			}{kind.name, took}
		})
	}
	beside := min(p99(t, addr), p99(t, addr))
	t.Logf("p99 of POST /api/deposit: %v alone, %v beside %d slow clients", alone, beside, clients-len(lived))
	if beside > 5*alone+25*time.Millisecond {
		t.Errorf("p99 is %v alone and %v beside slow clients", alone, beside)
	}
	longest := map[string]time.Duration{}
	for range clients {
		l := <-lived
		longest[l.kind] = max(longest[l.kind], l.Duration)
	}
	for kind, took := range longest {
		t.Logf("%s: gone after %v", kind, took.Round(10*time.Millisecond))
		if took > 11*time.Second {
			t.Errorf("%s: still there after %v", kind, took)
		}
	}
}
