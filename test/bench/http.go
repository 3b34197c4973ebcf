package main

import (
	"context"
	"fmt"
	"time"

	"coinbit/internal/kafkatest/child"
	"coinbit/internal/stream"
	"coinbit/test/bench/figure"
	"coinbit/test/bench/httpbench"
	"coinbit/test/bench/lab"
)

// connections of the HTTP rows, with targets for the deposits.
var connections = []struct {
	n         int
	must, try float64
}{{1, 0, 0}, {8, 0, 0}, {64, 0.50, 0.75}, {256, 0.65, 0.85}, {512, 0, 0}}

// post is deposits over HTTP, beside a static handler: the API alone on Kafka.
var post = lab.Row{
	Name:  "post",
	About: "POST /api/deposit at 1 to 512 connections, beside a static handler; the processors rest",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		return httpRow(ctx, l, r, "POST", nil, httpbench.Deposit)
	},
}

// postWhole is post with all processors at work on the same machine.
var postWhole = lab.Row{
	Name:  "post-whole",
	About: "the same while the three processors apply the deposits on the same cores",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		return httpRow(ctx, l, r, "POST, processors at work", groups(), httpbench.Deposit)
	},
}

// check is reads over HTTP, of wallets that have deposits.
var check = lab.Row{
	Name:  "check",
	About: "GET /api/check at 1 to 512 connections, beside a static handler",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		return httpRow(ctx, l, r, "GET", groups(), httpbench.Check)
	},
}

type load func(ctx context.Context, addr string, connections int, duration time.Duration) (httpbench.Figures, error)

func httpRow(ctx context.Context, l *lab.Lab, r *figure.Report, what string, beside []string, measure load) error {
	topics := append(tables(), string(stream.DepositStream), string(stream.FlagWalletStream))
	if err := l.Reset(ctx, groups(), topics...); err != nil {
		return err
	}
	var running []*lab.Service
	for _, name := range append([]string{"api"}, beside...) {
		s, err := l.Start(name, "http-"+name)
		if err != nil {
			return err
		}
		running = append(running, s)
	}
	for _, s := range running {
		if _, err := s.Ready(ctx, time.Minute); err != nil {
			return err
		}
	}
	port, err := child.FreePort()
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	ceiling, err := l.Self("static handler", "serve", addr)
	if err != nil {
		return err
	}
	ceiling.Addr = addr
	api := running[0]
	if len(beside) > 0 { // something to read
		if _, err := httpbench.Deposit(ctx, api.Addr, 8, time.Second); err != nil {
			return err
		}
	}
	// Kafka compiles what it runs often: for the first half minute of deposits that
	// takes more of the machine than the deposits do.
	if _, err := measure(ctx, api.Addr, 64, time.Duration(l.Size(300, 30_000))*time.Millisecond); err != nil {
		return err
	}
	took := time.Duration(l.Size(300, 3000)) * time.Millisecond
	for _, c := range connections {
		if c.n > 64 && !l.Full {
			continue
		}
		at := fmt.Sprintf("%s at %d connections", what, c.n)
		rate := figure.Figure{What: at, Unit: "/s", Must: c.must, Try: c.try}
		if what == "GET" && c.n == 64 {
			rate.Must, rate.Try = 0.80, 0.95
		}
		p50 := figure.Figure{What: at + ", p50", Unit: "ms", Lower: true}
		p99 := figure.Figure{What: at + ", p99", Unit: "ms", Lower: true}
		process := figure.Figure{What: at + ", CPU of the process", Unit: "µs a request", Lower: true}
		broker := figure.Figure{What: at + ", CPU of the broker", Unit: "µs a request", Lower: true}
		run := func(s *lab.Service, rate, p50, p99, process, broker *[]float64) func() error {
			return func() error {
				var f httpbench.Figures
				ours, kafkas, err := l.Used(s, func() (err error) {
					f, err = measure(ctx, s.Addr, c.n, took)
					return err
				})
				if err != nil {
					return err
				}
				each := func(of time.Duration) float64 { return float64(of.Microseconds()) / float64(f.Requests) }
				*process = append(*process, each(ours))
				*broker = append(*broker, each(kafkas))
				*rate = append(*rate, f.PerSecond)
				*p50 = append(*p50, float64(f.P50.Microseconds())/1000)
				*p99 = append(*p99, float64(f.P99.Microseconds())/1000)
				return nil
			}
		}
		err := l.Alternate(
			run(api, &rate.Subject, &p50.Subject, &p99.Subject, &process.Subject, &broker.Subject),
			run(ceiling, &rate.Ceiling, &p50.Ceiling, &p99.Ceiling, &process.Ceiling, new([]float64)))
		if err != nil {
			return err
		}
		if c.n == 1 && what == "POST" { // these targets are times, not ratios
			p50.Ceiling, p50.Must, p50.Try = nil, 0.6, 0.3
			p99.Ceiling, p99.Must, p99.Try = nil, 5, 2
		}
		r.Add(rate, p50, p99, process, broker)
	}
	for _, s := range append(running, ceiling) {
		if err := l.Stop(s); err != nil {
			return err
		}
	}
	return nil
}
