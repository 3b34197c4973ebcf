package api_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"coinbit/internal/api"
	"coinbit/internal/pb"
)

// beside is what another part of the program mounts.
func beside(r *mux.Router) {
	get := func(path string, h http.HandlerFunc) { r.Handle(path, h).Methods("GET", "HEAD") }
	get("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	get("/silent", func(http.ResponseWriter, *http.Request) {})
	get("/panics", func(http.ResponseWriter, *http.Request) { panic("secret-stack") })
	get("/late", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half an ans")
		_ = http.NewResponseController(w).Flush()
		panic("secret-stack")
	})
	get("/aborts", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

func build(t testing.TB, change func(*api.Options)) http.Handler {
	t.Helper()
	o := newWorld().options()
	change(&o)
	a, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a.Handler(beside)
}

func TestRoutes(t *testing.T) {
	const notFound = "there is nothing at this path"
	h := build(t, func(*api.Options) {})
	tests := []struct {
		method, path string
		status       int
		allow        string
	}{
		{"POST", "/api/deposit", 400, ""},
		{"GET", "/api/check/w", 200, ""},
		{"HEAD", "/api/check/w", 200, ""},
		{"GET", "/api/wallets/w", 200, ""},
		{"HEAD", "/api/wallets/w", 200, ""},
		{"GET", "/api/wallets", 404, ""},
		{"GET", "/api/wallets/a/b", 404, ""},
		{"POST", "/api/wallets/w", 405, "GET, HEAD"},
		{"GET", "/api/flags", 200, ""},
		{"HEAD", "/api/flags", 200, ""},
		{"GET", "/api/flags/", 404, ""},
		{"GET", "/openapi.json", 200, ""},
		{"HEAD", "/openapi.json", 200, ""},
		{"POST", "/openapi.json", 405, "GET, HEAD"},
		{"GET", "/docs", 200, ""},
		{"HEAD", "/docs", 200, ""},
		{"GET", "/docs/", 404, ""},
		{"POST", "/api/flags", 405, "GET, HEAD"},
		{"GET", "/healthz", 200, ""},
		{"HEAD", "/healthz", 200, ""},
		{"GET", "/", 404, ""},
		{"GET", "/api", 404, ""},
		{"GET", "/api/", 404, ""},
		{"GET", "/api/check", 404, ""},
		{"GET", "/api/check/a/b", 404, ""},
		{"POST", "/api/deposit/", 404, ""},
		{"POST", "//api/deposit", 404, ""},
		{"POST", "/api//deposit", 404, ""},
		{"POST", "/api%2Fdeposit", 404, ""},
		{"POST", "/api/./deposit", 404, ""},
		{"POST", "/API/deposit", 404, ""},
		{"GET", "/healthz/", 404, ""},
		{"GET", "/api/deposit", 405, "POST"},
		{"HEAD", "/api/deposit", 405, "POST"},
		{"PUT", "/api/deposit", 405, "POST"},
		{"OPTIONS", "/api/deposit", 405, "POST"},
		{"TRACE", "/api/deposit", 405, "POST"},
		{"CONNECT", "/api/deposit", 405, "POST"},
		{"post", "/api/deposit", 405, "POST"},
		{"POST", "/api/check/w", 405, "GET, HEAD"},
		{"DELETE", "/api/check/w", 405, "GET, HEAD"},
		{"POST", "/healthz", 405, "GET, HEAD"},
		{"BREW", "/healthz", 405, "GET, HEAD"},
	}
	for _, tt := range tests {
		res, body := do(h, request(tt.method, tt.path, ""))
		if res.StatusCode != tt.status {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.path, res.StatusCode, body, tt.status)
		}
		wantHeader(t, res, "Allow", tt.allow)
		switch tt.status {
		case 404:
			wantProblem(t, res, body, 404, "not-found", notFound)
		case 405:
			wantProblem(t, res, body, 405, "method-not-allowed", "this path takes "+tt.allow)
		}
	}
}

// A processor's port is as careful as the API's and has none of it.
func TestAdmin(t *testing.T) {
	registry := prometheus.NewRegistry()
	h, err := api.Admin(registry, nil, beside)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Admin(registry, nil, beside); err == nil {
		t.Error("two share their metrics")
	}
	res, body := doElsewhere(h, request("GET", "/healthz", ""))
	if res.StatusCode != 200 || body != "ok\n" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	wantSafe(t, res)
	for _, c := range []struct {
		method, path string
		status       int
		code, detail string
	}{
		{"POST", "/api/deposit", 404, "not-found", "there is nothing at this path"},
		{"GET", "/debug/pprof/", 404, "not-found", "there is nothing at this path"},
		{"POST", "/healthz", 405, "method-not-allowed", "this path takes GET, HEAD"},
		{"GET", "/panics", 500, "internal", "the server made a mistake"},
		{"GET", "/" + strings.Repeat("x", 2048), 414, "path-too-long", "path and query must be at most 2048 bytes"},
	} {
		res, body := doElsewhere(h, request(c.method, c.path, ""))
		wantProblem(t, res, body, c.status, c.code, c.detail)
	}
	if n := testutil.CollectAndCount(registry, "coinbit_http_requests_total"); n != 5+5 { // five answers, and routes that never gave a 500
		t.Errorf("%d series", n)
	}
}

func TestPanic(t *testing.T) {
	var log bytes.Buffer
	h := build(t, func(o *api.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	res, body := do(h, request("GET", "/panics", ""))
	wantProblem(t, res, body, 500, "internal", "the server made a mistake")
	if strings.Contains(body, "secret-stack") {
		t.Errorf("the client learns of it: %s", body)
	}
	for _, want := range []string{"level=ERROR", "route=/panics", "secret-stack", "router_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %s: %s", want, &log)
		}
	}

	// Over a connection, half an answer is seen to be half.
	server := httptest.NewServer(h)
	for _, path := range []string{"/late", "/aborts"} {
		res, err := server.Client().Get(server.URL + path)
		if err == nil {
			_, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the answer looks whole", path)
		}
	}
	server.Close() // waits for the handlers
	if strings.Contains(log.String(), "route=/aborts") {
		t.Error("http.ErrAbortHandler is no mistake")
	}
}

// A panic in the log's or the tables' code is contained as well.
func TestPanicBehind(t *testing.T) {
	h := build(t, func(o *api.Options) { o.Log = panicking{} })
	res, body := do(h, post(one))
	wantProblem(t, res, body, 500, "internal", "the server made a mistake")
}

type panicking struct{}

func (panicking) Append(context.Context, <-chan struct{}, *pb.Deposit) (api.Position, error) {
	panic("behind")
}
func (panicking) Send(*pb.Deposit, func(api.Position, error)) error { panic("behind") }

// Nothing is logged above debug for a request, and what is hidden from clients
// is found in the log at debug.
func TestRequestLog(t *testing.T) {
	var log bytes.Buffer
	level := new(slog.LevelVar)
	w := newWorld()
	w.appendErr = io.ErrClosedPipe
	h := w.handler(t, func(o *api.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: level}))
	})
	for _, r := range []*http.Request{post(one), post("{"), get("w"), get("!")} {
		do(h, r)
	}
	if log.Len() != 0 {
		t.Errorf("logged: %s", &log)
	}
	level.Set(slog.LevelDebug)
	do(h, post(one))
	if !strings.Contains(log.String(), "io: read/write on closed pipe") {
		t.Errorf("the cause is nowhere: %s", &log)
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld()
	registry := prometheus.NewRegistry()
	o := w.options()
	o.Registry = registry
	a, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.New(o); err == nil {
		t.Error("two APIs share their metrics")
	}
	h := a.Handler(beside)
	for _, r := range []*http.Request{
		post(one), post(one, key), post(one, key), post(two, key), post("{"), get("w"), get("x"), get("!"),
		request("GET", "/healthz", ""), request("GET", "/silent", ""), request("GET", "/panics", ""),
		request("GET", "/made-up", ""), request("BREW", "/healthz", ""),
	} {
		do(h, r)
	}
	w.appendErr = api.ErrRefused
	do(h, post(one))
	w.appendErr = api.ErrUnknown
	do(h, post(one))
	const want = `
# HELP coinbit_deposits_total Deposits asked for, by what became of them.
# TYPE coinbit_deposits_total counter
coinbit_deposits_total{result="accepted"} 2
coinbit_deposits_total{result="conflict"} 1
coinbit_deposits_total{result="invalid"} 1
coinbit_deposits_total{result="refused"} 1
coinbit_deposits_total{result="replayed"} 1
coinbit_deposits_total{result="unknown"} 1
# HELP coinbit_http_requests_total HTTP requests answered.
# TYPE coinbit_http_requests_total counter
coinbit_http_requests_total{code="200",route="/api/check/{wallet_id}"} 2
coinbit_http_requests_total{code="400",route="/api/check/{wallet_id}"} 1
coinbit_http_requests_total{code="200",route="/api/deposit"} 3
coinbit_http_requests_total{code="400",route="/api/deposit"} 1
coinbit_http_requests_total{code="422",route="/api/deposit"} 1
coinbit_http_requests_total{code="503",route="/api/deposit"} 1
coinbit_http_requests_total{code="504",route="/api/deposit"} 1
coinbit_http_requests_total{code="200",route="/healthz"} 1
coinbit_http_requests_total{code="200",route="/silent"} 1
coinbit_http_requests_total{code="500",route="/panics"} 1
coinbit_http_requests_total{code="404",route="other"} 1
coinbit_http_requests_total{code="405",route="other"} 1
coinbit_http_requests_total{code="500",route="/aborts"} 0
coinbit_http_requests_total{code="500",route="/api/check/{wallet_id}"} 0
coinbit_http_requests_total{code="500",route="/api/deposit"} 0
coinbit_http_requests_total{code="500",route="/api/deposits"} 0
coinbit_http_requests_total{code="500",route="/api/flags"} 0
coinbit_http_requests_total{code="500",route="/api/wallets/{wallet_id}"} 0
coinbit_http_requests_total{code="500",route="/docs"} 0
coinbit_http_requests_total{code="500",route="/healthz"} 0
coinbit_http_requests_total{code="500",route="/late"} 0
coinbit_http_requests_total{code="500",route="/openapi.json"} 0
coinbit_http_requests_total{code="500",route="/silent"} 0
coinbit_http_requests_total{code="500",route="other"} 0
`
	err = testutil.GatherAndCompare(registry, strings.NewReader(want), "coinbit_deposits_total", "coinbit_http_requests_total")
	if err != nil {
		t.Error(err)
	}
	// A series for each route, made when it is mounted.
	if n := testutil.CollectAndCount(registry, "coinbit_http_request_seconds"); n != 13 {
		t.Errorf("%d histograms", n)
	}
}

// Codes are a promise to clients: this list only grows.
func TestCodes(t *testing.T) {
	want := map[string]int{
		"invalid-body|Body not understood": 400, "invalid-wallet-id|Invalid wallet_id": 400,
		"invalid-amount|Invalid amount": 400, "invalid-idempotency-key|Invalid Idempotency-Key": 400,
		"invalid-position|Invalid X-Deposit-Position": 400, "invalid-query|Query not understood": 400,
		"invalid-cursor|Invalid cursor": 400, "invalid-limit|Invalid limit": 400, "unauthorized|API key needed": 401, "cross-origin|Cross-origin request": 403,
		"not-found|No such path": 404, "method-not-allowed|Method not allowed": 405,
		"request-timeout|Body came too slowly": 408, "body-too-large|Body too large": 413,
		"path-too-long|Path too long": 414, "too-many-headers|Too many headers": 431, "overloaded|Too busy": 503,
		"idempotency-key-reused|Idempotency-Key reused": 422, "balance-overflow|Balance too large": 422, "rate-limited|Too many requests": 429,
		"internal|Internal error": 500, "stopping|Stopping": 503, "not-ready|Not ready yet": 503, "deposit-refused|Deposit refused": 503,
		"position-not-applied|Position not applied yet": 503, "outcome-unknown|Outcome unknown": 504,
	}
	got := api.Kinds()
	for k, status := range want {
		if got[k] != status {
			t.Errorf("%s: %d, want %d", k, got[k], status)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d codes, want %d", len(got), len(want))
	}
}
