// Package httpbench has the benchmark's loads over HTTP, and the ceiling that
// the API is held against: a server that only answers. Both serve the same
// paths, so the same function measures either, with the same requests.
package httpbench

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"coinbit/internal/loadgen"
)

// Figures are what a load measured.
type Figures struct {
	Requests  int64   // all that were answered, those of the warm-up too
	PerSecond float64 // answers/s, all of them 200
	P50, P99  time.Duration
}

// wallets of the loads: more than a cache line's luck, fewer than a cold store.
const wallets = 10_000

// Deposit posts deposits to the API or the ceiling at addr, host:port, the next
// of a connection after its last is answered.
func Deposit(ctx context.Context, addr string, connections int, duration time.Duration) (Figures, error) {
	return closed(ctx, addr, connections, duration, loadgen.Mix{})
}

// DepositKeyed is Deposit, each with an Idempotency-Key of its own: its answer
// waits until the balance has applied it.
func DepositKeyed(ctx context.Context, addr string, connections int, duration time.Duration) (Figures, error) {
	return closed(ctx, addr, connections, duration, loadgen.Mix{Keys: 1})
}

// Check gets wallets, of which Deposit has made deposits.
func Check(ctx context.Context, addr string, connections int, duration time.Duration) (Figures, error) {
	return closed(ctx, addr, connections, duration, loadgen.Mix{Checks: 1})
}

// warmUp goes before each load and is not measured.
const warmUp = 300 * time.Millisecond

func closed(ctx context.Context, addr string, connections int, duration time.Duration, m loadgen.Mix) (Figures, error) {
	var report loadgen.Report
	requests := int64(0)
	for _, d := range []time.Duration{warmUp, duration} {
		m.Host, m.Wallets, m.Amount = addr, wallets, "0.01..100"
		m.Seed = uint64(time.Now().UnixNano()) // keys that were not used before
		o, err := m.Options()
		if err != nil {
			return Figures{}, err
		}
		o.Addr, o.Connections, o.Duration = addr, connections, d
		if report, err = loadgen.Run(ctx, o); err != nil {
			return Figures{}, err
		}
		requests += report.Requests
	}
	f, err := figures(report)
	f.Requests = requests
	return f, err
}

// DepositAtRate posts deposits at a steady rate, per second, however slow the
// answers; times count from when each deposit was due.
func DepositAtRate(ctx context.Context, addr string, connections int, rate float64, duration time.Duration) (Figures, error) {
	o, err := loadgen.Mix{Host: addr, Wallets: wallets, Amount: "0.01..100", Seed: uint64(time.Now().UnixNano())}.Options()
	if err != nil {
		return Figures{}, err
	}
	o.Addr, o.Connections, o.Rate, o.Duration = addr, connections, rate, duration
	report, err := loadgen.Run(ctx, o)
	if err != nil {
		return Figures{}, err
	}
	return figures(report)
}

func figures(r loadgen.Report) (Figures, error) {
	if r.Requests == 0 || r.Status[http.StatusOK] != r.Requests {
		return Figures{}, fmt.Errorf("not all answers are 200: %v, %v", r.Status, r.Failed)
	}
	f := Figures{Requests: r.Requests, PerSecond: r.PerSecond}
	for _, l := range r.Kinds { // one of them
		if l.Count > 0 {
			f.P50, f.P99 = time.Duration(l.P50)*time.Microsecond, time.Duration(l.P99)*time.Microsecond
		}
	}
	return f, nil
}
