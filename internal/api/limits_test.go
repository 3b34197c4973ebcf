package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"coinbit/internal/api"
	"coinbit/internal/pb"
)

// until waits for ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestRequestBounds(t *testing.T) {
	h := newWorld().handler(t)
	long := func(n int) *http.Request { return get("w?" + strings.Repeat("x", n-len("/api/check/w?"))) }
	many := func(n int) *http.Request {
		r := get("w")
		for i := range n {
			r.Header.Set(fmt.Sprintf("X-%d", i), "v")
		}
		return r
	}
	for _, r := range []*http.Request{long(2048), many(100)} {
		if res, body := do(h, r); res.StatusCode != 200 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
	res, body := do(h, long(2049))
	wantProblem(t, res, body, 414, "path-too-long", "path and query must be at most 2048 bytes")
	res, body = do(h, many(101))
	wantProblem(t, res, body, 431, "too-many-headers", "there must be at most 100 headers")
}

// What is no clean HTTP/1.1 gets no handler to see it, so that nothing before
// this server and this server can differ about where a request ends.
func TestServerHostileHTTP(t *testing.T) {
	w := newWorld()
	addr := serve(t, w.handler(t), unchanged)
	const chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
	deposit := func(headers string) string { return "POST /api/deposit HTTP/1.1\r\nHost: x\r\n" + headers }
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"two lengths that differ":         {deposit("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "), 400},
		"a signed length":                 {deposit("Content-Length: +2\r\n\r\n{}"), 400},
		"a negative length":               {deposit("Content-Length: -2\r\n\r\n{}"), 400},
		"a length of two values":          {deposit("Content-Length: 2, 2\r\n\r\n{}"), 400},
		"a length beyond 64 bits":         {deposit("Content-Length: 99999999999999999999\r\n\r\n{}"), 400},
		"an unknown encoding":             {deposit("Transfer-Encoding: xchunked\r\n\r\n{}"), 501},
		"chunked twice":                   {deposit("Transfer-Encoding: chunked\r\n" + chunked), 501},
		"chunked, hidden by a tab":        {deposit("Transfer-Encoding:\x0bchunked\r\n\r\n{}"), 400},
		"a space before the colon":        {deposit("Content-Length : 2\r\n\r\n{}"), 400},
		"a header without a colon":        {deposit("nonsense\r\n\r\n"), 400},
		"a null in a header":              {deposit("X: a\x00b\r\n\r\n"), 400},
		"a bare CR in a header":           {deposit("X: a\rContent-Length: 2\r\n\r\n{}"), 400},
		"no host":                         {"GET /api/check/w HTTP/1.1\r\n\r\n", 400},
		"two hosts":                       {"GET /api/check/w HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		"a host of nonsense":              {"GET /api/check/w HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		"a broken escape":                 {"GET /api/check/%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a control byte in the path":      {"GET /api/check/\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"another protocol":                {"GET /api/check/w HTTP/9.9\r\nHost: x\r\n\r\n", 505},
		"HTTP/2 with prior knowledge":     {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404},
		"an upgrade to h2c is ignored":    {"GET /api/check/w HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 200},
		"an unmet expectation":            {deposit("Expect: the-unexpected\r\nContent-Length: 2\r\n\r\n{}"), 417},
		"options of everything":           {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404},
		"a proxy's request":               {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 404},
		"a method of nonsense":            {"BREW /api/deposit HTTP/1.1\r\nHost: x\r\n\r\n", 405},
		"a method of no token":            {"P{ST} /api/deposit HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"headers of 16 KiB and more":      {deposit("X: " + strings.Repeat("x", 21<<10) + "\r\n\r\n"), 431},
		"a path of 16 KiB and more":       {"GET /" + strings.Repeat("x", 21<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		"a path of more than 2 KiB":       {"GET /" + strings.Repeat("x", 3<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 414},
		"a header given 2,000 times":      {"GET /api/check/w HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 2000) + "\r\n", 200},
		"length and chunks: chunks count": {deposit("Content-Length: 5\r\n" + strings.Replace(chunked, "{}", "[]", 1)), 400},
		"a chunk's size of nonsense":      {deposit("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"), 400},
		"a chunk's size beyond 64 bits":   {deposit("Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n{}"), 400},
		"an endless chunk extension":      {deposit("Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 64<<10) + "\r\n{}\r\n0\r\n\r\n"), 400},
		"HTTP/0.9":                        {"GET /api/check/w\r\n\r\n", 400},
		"TLS":                             {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		"nothing but line ends":           {"\r\n\r\n\r\n", 400},
		"a good request":                  {"GET /api/check/w HTTP/1.0\r\n\r\n", 200},
	} {
		res, body := exchange(t, addr, c.text, false)
		if res == nil || res.StatusCode != c.status {
			t.Errorf("%s: %v %s, want %d", name, res, body, c.status)
			continue
		}
		if strings.Contains(body, ".go") || strings.Contains(body, "goroutine") {
			t.Errorf("%s: the answer tells of the inside: %s", name, body)
		}
	}
	if n := w.appended(); n != 0 {
		t.Errorf("%d deposits were appended", n)
	}
}

// blocked is a log that never answers: Kafka is there and does nothing.
type blocked struct{ entered chan struct{} }

func (b blocked) Append(ctx context.Context, over <-chan struct{}, _ *pb.Deposit) (api.Position, error) {
	b.entered <- struct{}{}
	select {
	case <-ctx.Done():
	case <-over:
	}
	return api.Position{}, api.ErrUnknown
}

func (b blocked) Send(*pb.Deposit, func(api.Position, error)) error {
	b.entered <- struct{}{}
	return nil
}

// A deposit that the log does not answer is unknown after nine seconds from its
// headers' arrival, keyed or not, however many came shortly before it.
func TestDepositBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := blocked{make(chan struct{}, 200)}
		h := newWorld().handler(t, func(o *api.Options) { o.Log = log })
		var waiting sync.WaitGroup
		for i := range 200 {
			waiting.Go(func() {
				time.Sleep(time.Duration(i) * 7 * time.Millisecond)
				var headers []string
				if i%3 == 0 {
					headers = []string{"Idempotency-Key: k"}
				}
				start := time.Now()
				res, body := do(h, post(one, headers...))
				if took := time.Since(start); took < 8900*time.Millisecond || took > 9*time.Second {
					t.Errorf("request %d took %v", i, took)
				}
				if res.StatusCode != http.StatusGatewayTimeout {
					t.Errorf("request %d: %d %s", i, res.StatusCode, body)
				}
			})
		}
		waiting.Wait()
	})
}

// While the log answers nothing, so many requests wait and the others are told
// so at once; when it is over all are served again.
func TestInFlight(t *testing.T) {
	log := blocked{make(chan struct{}, api.MaxInFlight)}
	h := newWorld().handler(t, func(o *api.Options) { o.Log = log })
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	var waiting sync.WaitGroup
	for range api.MaxInFlight {
		waiting.Go(func() { h.ServeHTTP(httptest.NewRecorder(), post(one).WithContext(ctx)) })
	}
	for range api.MaxInFlight {
		<-log.entered
	}
	res, body := do(h, post(one))
	wantProblem(t, res, body, 503, "overloaded", "too many requests at once; the deposit was not sent and does not count")
	res, body = do(h, get("w"))
	wantProblem(t, res, body, 503, "overloaded", "too many requests at once; try again")
	leave()
	waiting.Wait()
	if res, body := do(h, get("w")); res.StatusCode != 200 {
		t.Errorf("afterwards: %d %s", res.StatusCode, body)
	}
}

// The heap stays small while thousands of clients post what they can to an API
// whose log answers nothing.
func TestMemoryWhileBlocked(t *testing.T) {
	const (
		clients = 3000
		bound   = 160 << 20 // measured: about 60 MB with the race detector
	)
	log := blocked{make(chan struct{}, clients)}
	addr := serve(t, newWorld().handler(t, func(o *api.Options) { o.Log = log }), unchanged)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before := heap()
	text := raw(64<<10, one+strings.Repeat(" ", 64<<10-len(one)))
	conns := make([]net.Conn, 0, clients)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range clients {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		send := text // whole, or all but the last byte
		if i%2 == 0 {
			send = text[:len(text)-1]
		}
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(conn, send)
	}
	used := heap() - before
	t.Logf("%d clients with bodies of 64 KiB: %d MB, %d deposits wait for the log", clients, used>>20, len(log.entered))
	if used > bound {
		t.Errorf("%d MB", used>>20)
	}
}

// enter sends a request until one is at work. While the answer before it is still being
// sent, no connection can give way, and the server says that it is overloaded.
func enter(t *testing.T, log blocked, send func() net.Conn) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		conn := send()
		refused := make(chan struct{})
		go func() { // ends with the connection
			_, _ = conn.Read(make([]byte, 1))
			close(refused)
		}()
		select {
		case <-log.entered:
			return
		case <-refused:
		}
	}
	t.Fatal("no request was let in")
}

// When there are too many connections, the longest quiet one goes, and a client
// that asks gets its answer.
func TestTooManyConnections(t *testing.T) {
	log := blocked{make(chan struct{}, 10)}
	registry := prometheus.NewRegistry()
	server, err := api.NewServer(newWorld().handler(t, func(o *api.Options) { o.Log = log }), api.MaxConns, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server.SetMaxConns(4)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }()
	defer func() { _ = server.Close(); <-done }()

	dial := func(text string) net.Conn {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	shed := func(want string) {
		t.Helper()
		until(t, want, func() bool {
			return testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP coinbit_http_connections Open HTTP connections.
# TYPE coinbit_http_connections gauge
`+want), "coinbit_http_connections") == nil
		})
	}
	slow := []net.Conn{dial("G"), dial(""), dial("POST /api/deposit HTTP/1.1\r\n"), dial("G")}
	shed("coinbit_http_connections 4\n")
	for range 3 { // who sends a request pushes out who does not
		conn := dial("GET /api/check/w HTTP/1.1\r\nHost: x\r\n\r\n")
		b := make([]byte, 12)
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "HTTP/1.1 200" {
			t.Fatalf("%q %v", b, err)
		}
	}
	for i, conn := range slow[:3] {
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout) {
			t.Errorf("slow client %d is still there: %v", i, err)
		}
	}
	for range 4 { // all places taken by requests under way
		enter(t, log, func() net.Conn { return dial(raw(len(one), one)) })
	}
	res, body := exchange(t, ln.Addr().String(), "", false)
	if res == nil || res.Header.Get("Retry-After") != "1" || res.StatusCode != 503 || !strings.Contains(body, `"overloaded"`) &&
		!strings.Contains(body, "problem:overloaded") {
		t.Errorf("%v %s", res, body)
	}
	err = testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP coinbit_http_connections_shed_total HTTP connections closed because there were too many: the one that waited longest for its client (quiet), or a new one.
# TYPE coinbit_http_connections_shed_total counter
coinbit_http_connections_shed_total{reason="new"} 1
coinbit_http_connections_shed_total{reason="quiet"} 7
`), "coinbit_http_connections_shed_total")
	if err != nil {
		t.Error(err)
	}
}

var errTimeout = context.DeadlineExceeded
