package api

import (
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has no label that a client could choose the value of.
type metrics struct {
	requests *prometheus.CounterVec   // route, code
	seconds  *prometheus.HistogramVec // route
	deposits *prometheus.CounterVec   // result
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

// newMetrics registers with reg, or nowhere when it is nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_http_requests_total", Help: "HTTP requests answered.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "coinbit_http_request_seconds", Help: "Time to answer an HTTP request.",
			Buckets: prometheus.ExponentialBuckets(.0005, 2, 15), // 0.5 ms to 8 s
		}, []string{"route"}),
		deposits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_deposits_total", Help: "POST /api/deposit requests by what became of them.",
		}, []string{"result"}),
	}
	for _, r := range []string{resultAccepted, resultReplayed, resultConflict, resultInvalid, resultRefused, resultUnknown} {
		m.deposits.WithLabelValues(r) // so that each is there, at 0, before it first happens
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.requests), reg.Register(m.seconds), reg.Register(m.deposits))
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

// observe counts and times the requests of a route and keeps a panic from the
// client and from the rest of the program.
func (a *API) observe(route string, next http.Handler) http.Handler {
	seconds := a.metrics.seconds.WithLabelValues(route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
				a.Logger.ErrorContext(r.Context(), "panic in an HTTP handler",
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
			a.metrics.requests.WithLabelValues(route, strconv.Itoa(rec.status)).Inc()
			if p != nil { // part of the answer is out: cut it off rather than have it taken for whole
				panic(http.ErrAbortHandler)
			}
		}()
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(rec, r)
	})
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
