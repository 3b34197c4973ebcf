package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// front stands before every handler: it counts and times, says how browsers are
// to treat an answer, and keeps panics in. No label of its metrics has a value
// that a client could choose.
type front struct {
	logger   *slog.Logger
	requests *prometheus.CounterVec   // route, code
	seconds  *prometheus.HistogramVec // route
}

// newFront registers its metrics with reg, or nowhere when it is nil.
func newFront(reg prometheus.Registerer, logger *slog.Logger) (*front, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	f := &front{
		logger: logger,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_http_requests_total", Help: "HTTP requests answered.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "coinbit_http_request_seconds", Help: "Time to answer an HTTP request.",
			Buckets: prometheus.ExponentialBuckets(.0005, 2, 15), // 0.5 ms to 8 s
		}, []string{"route"}),
	}
	return f, register(reg, f.requests, f.seconds)
}

func register(reg prometheus.Registerer, all ...prometheus.Collector) error {
	var errs []error
	for _, c := range all {
		if reg != nil {
			errs = append(errs, reg.Register(c))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("api: register metrics: %w", err)
	}
	return nil
}

// What became of a deposit, as a label.
const (
	resultAccepted = "accepted"
	resultReplayed = "replayed"
	resultConflict = "conflict"
	resultInvalid  = "invalid"
	resultRefused  = "refused"
	resultUnknown  = "unknown"
)

// newDeposits registers the counters of what becomes of deposits, each at 0.
func newDeposits(reg prometheus.Registerer) (map[string]prometheus.Counter, error) {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "coinbit_deposits_total", Help: "Deposits asked for, by what became of them.",
	}, []string{"result"})
	each := make(map[string]prometheus.Counter)
	for _, r := range []string{resultAccepted, resultReplayed, resultConflict, resultInvalid, resultRefused, resultUnknown} {
		each[r] = c.WithLabelValues(r)
	}
	return each, register(reg, c)
}

// result is the label of a deposit's outcome.
func result(got receipt, f *failure) string {
	switch {
	case f == nil && got.replayed:
		return resultReplayed
	case f == nil:
		return resultAccepted
	}
	switch kinds[f.code].status {
	case http.StatusUnprocessableEntity:
		return resultConflict
	case http.StatusServiceUnavailable:
		return resultRefused
	case http.StatusGatewayTimeout:
		return resultUnknown
	default:
		return resultInvalid
	}
}

// headers are those of every answer; a handler of pages replaces what it must.
// An answer is nobody else's: not a cache's, not a frame's, not another site's,
// and nothing in it is to be run, whatever it looks like.
var headers = http.Header{
	"Cache-Control":                {"no-store"},
	"Content-Security-Policy":      {"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"},
	"Cross-Origin-Resource-Policy": {"same-origin"},
	"Referrer-Policy":              {"no-referrer"},
	"X-Content-Type-Options":       {"nosniff"},
}

// observe counts and times the requests of a route and keeps a panic from the
// client and from the rest of the program.
func (f *front) observe(route string, next http.Handler) http.Handler {
	seconds := f.seconds.WithLabelValues(route)
	f.requests.WithLabelValues(route, "500") // there, at 0, before it first happens
	answered := sync.OnceValue(func() prometheus.Counter { return f.requests.WithLabelValues(route, "200") })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
				f.logger.ErrorContext(r.Context(), "panic in an HTTP handler",
					"route", route, "panic", p, "stack", string(debug.Stack()))
				if rec.status == 0 {
					fail(codeInternal, "the server made a mistake").write(rec)
					p = nil
				}
			}
			if rec.status == 0 {
				rec.status = http.StatusOK // as net/http answers for a silent handler
			}
			seconds.Observe(time.Since(start).Seconds())
			if rec.status == http.StatusOK {
				answered().Inc() // nearly always: no look-up
			} else {
				f.requests.WithLabelValues(route, strconv.Itoa(rec.status)).Inc()
			}
			if p != nil { // part of the answer is out: cut it off rather than have it taken for whole
				panic(http.ErrAbortHandler)
			}
		}()
		h := w.Header()
		for name, value := range headers {
			h[name] = value
		}
		next.ServeHTTP(rec, r)
	})
}

// answer writes the failure, if there is one.
func (f *front) answer(w http.ResponseWriter, r *http.Request, bad *failure) {
	if bad == nil {
		return
	}
	if bad.cause != nil {
		f.logger.DebugContext(r.Context(), "request failed", "code", string(bad.code), "cause", bad.cause)
	}
	bad.write(w)
}

// plain runs h for everyone.
func (f *front) plain(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.answer(w, r, h(w, r)) })
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int // 0 until it is sent
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
