package api_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"coinbit/internal/api"
	"coinbit/internal/hostile"
)

// Whatever a client lets the server wait for, those who ask for something beside a crowd
// of such clients are answered.
func TestServesBesideACrowd(t *testing.T) {
	const places, clients, perSecond, asked = 64, 80, 100, 40
	for _, kind := range hostile.Kinds("k") {
		t.Run(kind.Name, func(t *testing.T) {
			addr := serve(t, newWorld().handler(t, keys("k")), func(s *api.Server) { s.SetMaxConns(places) })
			crowd := hostile.Start(addr, kind, clients, perSecond)
			defer crowd.Stop()
			if err := crowd.Await(clients, 30*time.Second); err != nil {
				t.Fatal(err)
			}
			answered := 0
			for range asked {
				res, _ := exchange(t, addr, strings.Replace(raw(len(one), one), "\r\n\r\n", "\r\nAuthorization: Bearer k\r\n\r\n", 1), false)
				if res != nil && res.StatusCode == http.StatusOK {
					answered++
				}
			}
			t.Logf("%d of %d answered", answered, asked)
			if answered < asked*95/100 {
				t.Errorf("%d of %d answered", answered, asked)
			}
		})
	}
}

// No answer waits for a body that nobody wants, and the connection does not go on when
// that is not there.
func TestAnswersDoNotWaitForBodies(t *testing.T) {
	addr := serve(t, newWorld().handler(t, keys("k")), func(s *api.Server) { s.ReadTimeout = time.Minute })
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"no key":               {raw(100, ""), 401},
		"no key, and half":     {raw(100, strings.Repeat("x", 50)), 401},
		"no key, chunked":      {"POST /api/deposits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 401},
		"no key, asks first":   {"POST /api/deposit HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n", 401},
		"no such path":         {"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 404},
		"another method":       {"PUT /openapi.json HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 405},
		"a read with a length": {"GET /openapi.json HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 200},
		"too large":            {"GET /openapi.json HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", 200},
	} {
		began := time.Now()
		res, _ := exchange(t, addr, c.text, false)
		if res == nil || res.StatusCode != c.status || !res.Close {
			t.Errorf("%s: %+v, want %d and the connection's end", name, res, c.status)
		}
		if took := time.Since(began); took > 5*time.Second { // 20 ms, on a machine of our own
			t.Errorf("%s: the answer took %v", name, took)
		}
	}
	// A body that is there is passed over, and the connection goes on.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	for range 3 {
		if _, err := io.WriteString(conn, raw(len(one), one)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != 401 || res.Close {
			t.Fatalf("%+v %v", res, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
}

// Two who differ about where a request ends differ about the next one: there is none.
func TestChunkedIsTheLast(t *testing.T) {
	addr := serve(t, newWorld().handler(t), unchanged)
	const chunks = "\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
	for _, headers := range []string{"Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(conn, "POST /api/deposit HTTP/1.1\r\nHost: x\r\n"+headers+chunks+"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		all, _ := io.ReadAll(conn)
		_ = conn.Close()
		if n := strings.Count(string(all), "HTTP/1.1 "); n != 1 || !strings.Contains(string(all), "\r\nConnection: close\r\n") {
			t.Errorf("%s: %d answers: %s", headers, n, all)
		}
	}
}

// deaf takes nothing of an answer until over is closed.
type deaf struct {
	*httptest.ResponseRecorder
	over chan struct{}
}

func (d deaf) Write(p []byte) (int, error) { <-d.over; return d.ResponseRecorder.Write(p) }

// Who does not take an answer holds none of the places that others need.
func TestDeafClientsHoldNoPlace(t *testing.T) {
	for _, path := range []string{"/api/check/w", "/api/flags"} {
		synctest.Test(t, func(t *testing.T) {
			h := newWorld().handler(t)
			over := make(chan struct{})
			var clients sync.WaitGroup
			for range api.MaxInFlight {
				clients.Go(func() { h.ServeHTTP(deaf{httptest.NewRecorder(), over}, request("GET", path, "")) })
			}
			synctest.Wait()
			for _, r := range []*http.Request{post(one), get("w")} {
				if res, body := do(h, r); res.StatusCode != 200 {
					t.Errorf("beside deaf readers of %s: %d %s", path, res.StatusCode, body)
				}
			}
			close(over)
			clients.Wait()
		})
	}
}
