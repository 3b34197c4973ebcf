package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hello = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// server is an HTTP server for a test, and its address.
func server(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func options(addr string) Options {
	return Options{Addr: addr, Request: Fixed([]byte(hello)), Kinds: []string{"hello"}, Connections: 4, Requests: 200}
}

func run(t *testing.T, o Options) Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The server sees each request once, as it was built, and the report adds up.
func TestRunSendsEachOnce(t *testing.T) {
	for _, rate := range []float64{0, 5000} {
		var mu sync.Mutex
		seen := map[string]int{}
		addr := server(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			seen[r.Method+r.URL.Path+string(b)]++
			if len(seen)%10 == 0 {
				w.WriteHeader(http.StatusTeapot)
			}
		})
		m := mix(func(m *Mix) { m.Checks = 0.5 })
		o, err := m.Options()
		if err != nil {
			t.Fatal(err)
		}
		o.Addr, o.Connections, o.Requests, o.Rate = addr, 8, 1000, rate
		want := map[string]int{}
		for i := range o.Requests {
			b, _ := o.Request(nil, i)
			r, _ := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
			body, _ := io.ReadAll(r.Body)
			want[r.Method+r.URL.Path+string(body)]++
		}
		r := run(t, o)
		if fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("rate %v: the server saw others", rate)
		}
		if r.Requests != 1000 || r.Status[200]+r.Status[418] != 1000 || r.Status[418] == 0 || len(r.Failed) != 0 || r.Unsent != 0 ||
			r.Kinds[0].Count != 500 || r.Kinds[1].Count != 500 || r.PerSecond <= 0 {
			t.Errorf("rate %v: %+v", rate, r)
		}
	}
}

// Servers end connections in many ways; each request is counted all the same.
func TestRunReconnects(t *testing.T) {
	var n atomic.Int64
	hijack := func(w http.ResponseWriter, text string) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
	addr := server(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) % 8 {
		case 0:
			w.Header().Set("Connection", "close")
		case 1:
			hijack(w, "")
		case 2:
			hijack(w, "HTTP/1.1 200 OK\r\n\r\nuntil the end")
		case 3:
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
		case 4:
			hijack(w, "nonsense\r\n")
		case 5:
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny")
		default:
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush() // chunks
		}
	})
	r := run(t, options(addr))
	if r.Status[200] != 100 || r.Failed["cut off"] != 50 || r.Failed["malformed"] != 50 || len(r.Failed) != 2 {
		t.Errorf("%+v", r)
	}
}

func TestRunTimesOut(t *testing.T) {
	release := make(chan struct{})
	var n atomic.Int64
	addr := server(t, func(http.ResponseWriter, *http.Request) {
		if n.Add(1) == 10 {
			<-release
		}
	})
	defer close(release)
	o := options(addr)
	o.Timeout = 100 * time.Millisecond
	if r := run(t, o); r.Status[200] != 199 || r.Failed["timed out"] != 1 || r.Kinds[0].Max < 99_000 {
		t.Errorf("%+v", r)
	}
}

// A server that is not there is told at once; one that goes away is waited for.
func TestRunWithoutServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	_, err = Run(context.Background(), options(addr))
	if !errors.Is(err, ErrConnect) || !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}

	if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { // it takes the first connections, then nothing listens any more
		defer close(served)
		for range 4 {
			if conn, err := ln.Accept(); err == nil {
				defer func() { _ = conn.Close() }()
			}
		}
		_ = ln.Close()
	}()
	o := options(ln.Addr().String())
	o.Requests = 12
	r := run(t, o)
	<-served
	if r.Failed["not connected"] == 0 || r.Failed["not connected"]+r.Failed["cut off"] != 12 {
		t.Errorf("%+v", r)
	}
}

// A server that pauses once makes all requests late that were due meanwhile, also
// those that no connection was free for.
func TestCoordinatedOmission(t *testing.T) {
	const pause = 300 * time.Millisecond
	var n atomic.Int64
	var paused atomic.Pointer[chan struct{}]
	addr := server(t, func(http.ResponseWriter, *http.Request) {
		if n.Add(1) == 100 {
			c := make(chan struct{})
			paused.Store(&c)
			<-time.After(pause)
			paused.Store(nil)
			close(c)
		}
		if c := paused.Load(); c != nil {
			<-*c
		}
	})
	o := options(addr)
	o.Rate, o.Requests = 1000, 1000
	r := run(t, o)
	if late := r.Kinds[0].above(10 * time.Millisecond); late < 200 || r.Queued.Max < pause.Microseconds()/2 {
		t.Errorf("%d of 1000 late, queued %+v; 300 were due", late, r.Queued)
	}
}

// above is how many times are above about d.
func (l Latency) above(d time.Duration) (n int64) {
	for _, b := range l.bands {
		if b.below/2 >= d {
			n += b.count
		}
	}
	return n
}

// What was due and could not be sent in time is in the report.
func TestUnsent(t *testing.T) {
	addr := server(t, func(http.ResponseWriter, *http.Request) { <-time.After(20 * time.Millisecond) })
	o := options(addr)
	o.Connections, o.Rate, o.Requests, o.Duration = 1, 1000, 0, 300*time.Millisecond // served at 50/s, in overtime too
	r := run(t, o)
	if r.Requests > 100 || r.Requests+r.Unsent != 300 || r.Kinds[0].Count != 300 || r.Kinds[0].P50 < 20_000 {
		t.Errorf("%+v", r)
	}
}

// A load ends early when it is told to, also with a server that does not answer.
func TestRunStops(t *testing.T) {
	for _, rate := range []float64{0, 100} {
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		var n atomic.Int64
		addr := server(t, func(http.ResponseWriter, *http.Request) {
			if n.Add(1) > 20 {
				cancel()
				<-release
			}
		})
		o := options(addr)
		o.Requests, o.Rate, o.Duration = 0, rate, time.Hour
		began := time.Now()
		r, err := Run(ctx, o)
		close(release)
		if took := time.Since(began); err != nil || took > stopGrace+2*time.Second || r.Status[200] < 20 || r.Failed["timed out"] == 0 {
			t.Errorf("rate %v: %+v, %v after %s", rate, r, err, took)
		}
	}
}

func TestRunBounds(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"connections": func(o *Options) { o.Connections = 0 },
		"rate":        func(o *Options) { o.Rate = -1 },
		"duration":    func(o *Options) { o.Requests = 0 },
	} {
		o := options("127.0.0.1:1")
		change(&o)
		_, err := Run(context.Background(), o)
		if got := (*OptionError)(nil); !errors.As(err, &got) || got.Option != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestProgress(t *testing.T) {
	addr := server(t, func(http.ResponseWriter, *http.Request) {})
	o := options(addr)
	o.Requests, o.Rate, o.Duration = 0, 200, 900*time.Millisecond
	told := 0
	o.Progress = func(done, of int64) {
		if told++; done < 1 || of < done || of > 250 {
			t.Errorf("%d of %d", done, of)
		}
	}
	run(t, o)
	if told < 2 {
		t.Errorf("told %d times", told)
	}
}

func TestReportPrints(t *testing.T) {
	addr := server(t, func(http.ResponseWriter, *http.Request) {})
	o := options(addr)
	o.Rate = 1000
	r := run(t, o)
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"200 requests in", "  200            200\n", "hello: p50 ", "####", "before it was sent"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	line, err := json.Marshal(r)
	if err != nil || !bytes.Contains(line, []byte(`"status":{"200":200}`)) || !bytes.Contains(line, []byte(`"p99_9_us":`)) {
		t.Errorf("%s, %v", line, err)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0µs", 999 * time.Microsecond: "999µs", 1536 * time.Microsecond: "1.54ms", 2 * time.Second: "2s", 90 * time.Second: "90s",
	} {
		if got := short(d); got != want {
			t.Errorf("%s: %s", d, got)
		}
	}
}

// parrot is a connection to a server that answers at once.
type parrot struct {
	net.Conn
	answer, rest []byte
}

func (p *parrot) Write(b []byte) (int, error) { p.rest = p.answer; return len(b), nil }
func (p *parrot) SetDeadline(time.Time) error { return nil }
func (p *parrot) Read(b []byte) (n int, err error) {
	n = copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// A request costs no memory.
func TestNoAllocations(t *testing.T) {
	m := mix(func(m *Mix) { m.Checks, m.Keys, m.Zipf = 0.3, 0.5, 1 })
	o, err := m.Options()
	if err != nil {
		t.Fatal(err)
	}
	l := &load{Options: o, tally: newTally(o.Kinds), start: time.Now()}
	l.Timeout = time.Second
	w := newWorker(l)
	var conn net.Conn = &parrot{answer: []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\n{}\r\n0\r\n\r\n")}
	w.conn.Store(&conn)
	w.answers.Reset(conn)
	w.used = time.Now()
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() {
		i, _, _ := w.next(ctx)
		request, kind := w.Request(w.request, i)
		status, err := w.exchange(ctx, request)
		l.tally.add(kind, status, err, time.Since(l.start), time.Millisecond, 0)
		if err != nil || status != 200 {
			t.Fatal(status, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkClosedLoop is a request over TCP to a server that costs next to nothing.
func BenchmarkClosedLoop(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buf := make([]byte, 4096)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
						return
					}
				}
			}()
		}
	}()
	o := options(ln.Addr().String())
	o.Connections, o.Requests = 64, uint64(b.N)
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := Run(context.Background(), o); err != nil {
		b.Fatal(err)
	}
}
