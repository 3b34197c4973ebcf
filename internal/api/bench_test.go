package api_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/api"
	"coinbit/internal/flagged"
	"coinbit/internal/loadgen"
	"coinbit/internal/pb"
	"coinbit/internal/wallet"
	"coinbit/test/bench/httpbench"
)

// gone is the context of a client that has left.
func gone() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx, cancel
}

// instant is a log and tables that cost nothing.
type instant struct{ next atomic.Int64 }

func (i *instant) Append(context.Context, <-chan struct{}, *pb.Deposit) (api.Position, error) {
	next := i.next.Add(1)
	return api.Position{Partition: partition, Offset: next}, nil
}
func (i *instant) Send(d *pb.Deposit, done func(api.Position, error)) error {
	done(api.Position{Partition: partition, Offset: i.next.Add(1)}, nil)
	return nil
}
func (i *instant) Ready() error { return nil }
func (i *instant) Balance(string) (wallet.Account, error) {
	return wallet.Account{NextOffset: i.next.Load(), Balance: wallet.Amount{Units: 3500, Nanos: 500_000_000}}, nil
}
func (i *instant) Forgotten(string, wallet.KeyHash) (wallet.KeyUse, bool) {
	return wallet.KeyUse{}, false
}
func (i *instant) Epoch() uint64 { return 0 }
func (i *instant) Counter(string) (wallet.Counter, error) {
	return wallet.Counter{Account: wallet.Account{NextOffset: i.next.Load()}}, nil
}
func (i *instant) Flag(string) (wallet.Flag, error) { return wallet.Flag{}, nil }
func (i *instant) Flagged(*flagged.Entry, int) ([]flagged.Entry, bool, error) {
	return nil, false, nil
}
func (i *instant) Watch(string) (<-chan struct{}, func()) {
	return make(chan struct{}, 1), func() {}
}

// sink is a ResponseWriter that keeps nothing.
type sink struct{ header http.Header }

func (s sink) Header() http.Header         { return s.header }
func (s sink) Write(b []byte) (int, error) { return len(b), nil }
func (s sink) WriteHeader(status int) {
	if status != http.StatusOK {
		panic(status)
	}
}

func benchmark(b *testing.B, r *http.Request, body string, change ...func(*api.Options)) {
	log := new(instant)
	w := newWorld()
	h := w.handler(b, append(change, func(o *api.Options) {
		o.Log, o.Tables, o.Registry = log, log, prometheus.NewRegistry()
	})...)
	benchmarkHandler(b, h, r, body)
}

func benchmarkHandler(b *testing.B, h http.Handler, r *http.Request, body string) {
	reader := strings.NewReader(body)
	r.Body = http.NoBody
	out := sink{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		if body != "" {
			reader.Reset(body)
			r.Body = readCloser{reader}
		}
		clear(out.header)
		h.ServeHTTP(out, r)
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// The ceiling of make bench: it reads, parses and answers, and keeps nothing.
func BenchmarkCeiling(b *testing.B) {
	body := `{"wallet_id": "` + upID + `", "amount": 3500}`
	b.Run("deposit", func(b *testing.B) { benchmarkHandler(b, httpbench.Ceiling(), post(body), body) })
	b.Run("check", func(b *testing.B) { benchmarkHandler(b, httpbench.Ceiling(), get(upID), "") })
}

func BenchmarkDeposit(b *testing.B) {
	body := `{"wallet_id": "` + upID + `", "amount": 3500}`
	b.Run("open", func(b *testing.B) { benchmark(b, post(body), body) })
	b.Run("keys and rate limit", func(b *testing.B) {
		benchmark(b, post(body, "Authorization: Bearer k"), body, keys("k", "l"), limit(1e6*1000))
	})
}

func BenchmarkCheck(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchmark(b, get(upID), "") })
}

// BenchmarkServer is a request over TCP, by clients that keep their connection:
// the API and the ceiling, which share the processors with the clients alike.
func BenchmarkServer(b *testing.B) {
	log := new(instant)
	h := newWorld().handler(b, func(o *api.Options) { o.Log, o.Tables = log, log })
	ceiling := httptest.NewServer(httpbench.Ceiling())
	defer ceiling.Close()
	addr := serve(b, h, unchanged)
	for name, text := range map[string]string{"deposit": raw(len(one), one), "check": "GET /api/check/w HTTP/1.1\r\nHost: x\r\n\r\n"} {
		b.Run(name+"/api", func(b *testing.B) { benchmarkServer(b, addr, text) })
		b.Run(name+"/ceiling", func(b *testing.B) { benchmarkServer(b, ceiling.Listener.Addr().String(), text) })
	}
}

func benchmarkServer(b *testing.B, addr, text string) {
	o := loadgen.Options{
		Addr: addr, Request: loadgen.Fixed([]byte(text)), Kinds: []string{"request"}, Connections: 64, Requests: uint64(b.N),
	}
	b.ReportAllocs()
	b.ResetTimer()
	r, err := loadgen.Run(context.Background(), o)
	if err != nil || r.Status[http.StatusOK] != r.Requests {
		b.Errorf("%+v, %v", r, err)
	}
}

// repeated is a line, n times, as a body.
type repeated struct {
	line string
	left int
	rest string
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.rest == "" {
			if r.left == 0 {
				return n, io.EOF
			}
			r.left--
			r.rest = r.line
		}
		m := copy(p[n:], r.rest)
		r.rest = r.rest[m:]
		n += m
	}
	return n, nil
}

func (*repeated) Close() error { return nil }

func (s sink) Flush() {}

// acknowledging is a log that answers from another goroutine, some at a time.
type acknowledging struct {
	instant
	done chan func(api.Position, error)
}

func (l *acknowledging) Send(_ *pb.Deposit, done func(api.Position, error)) error {
	l.done <- done
	return nil
}

func (l *acknowledging) run() {
	for done := range l.done {
		done(api.Position{Partition: partition, Offset: l.next.Add(1)}, nil)
	}
}

// BenchmarkStream is a line of POST /api/deposits.
func BenchmarkStream(b *testing.B) {
	log := &acknowledging{done: make(chan func(api.Position, error), 4096)}
	go log.run()
	defer close(log.done)
	for name, log := range map[string]api.Log{"at once": new(instant), "later": log} {
		b.Run(name, func(b *testing.B) {
			h := newWorld().handler(b, func(o *api.Options) { o.Log = log })
			r := request(http.MethodPost, "/api/deposits", "")
			r.Body = &repeated{line: `{"wallet_id":"` + upID + `","amount":12.5}` + "\n", left: b.N}
			out := sink{http.Header{}}
			b.ReportAllocs()
			b.ResetTimer()
			h.ServeHTTP(out, r)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
