package api_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/api"
	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// gone is the context of a client that has left.
func gone() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx, cancel
}

// instant is a log and tables that cost nothing.
type instant struct{ next atomic.Int64 }

func (i *instant) Append(context.Context, *pb.Deposit) (api.Position, error) {
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
func (i *instant) Counter(string) (wallet.Counter, error) {
	return wallet.Counter{Account: wallet.Account{NextOffset: i.next.Load()}}, nil
}
func (i *instant) Flag(string) (wallet.Flag, error) { return wallet.Flag{}, nil }
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

// BenchmarkServer is a deposit over TCP, by clients that keep their connection.
func BenchmarkServer(b *testing.B) {
	log := new(instant)
	addr := serve(b, newWorld().handler(b, func(o *api.Options) { o.Log, o.Tables = log, log }), unchanged)
	text := raw(len(one), one)
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		answer := make([]byte, 4096)
		for p.Next() {
			if _, err := io.WriteString(conn, text); err != nil {
				b.Error(err)
			}
			if n, err := conn.Read(answer); err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200")) {
				b.Errorf("%v %s", err, answer[:n])
			}
		}
	})
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
