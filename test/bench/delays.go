package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"time"

	"coinbit/internal/stream"
	"coinbit/test/bench/figure"
	"coinbit/test/bench/lab"
)

// delays is how long a deposit takes, and how long after its answer its effects
// show, one deposit after another.
var delays = lab.Row{
	Name:  "delays",
	About: "deposit answered → balance visible, → flag visible",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		topics := append(tables(), string(stream.DepositStream), string(stream.FlagWalletStream))
		if err := l.Reset(ctx, groups(), topics...); err != nil {
			return err
		}
		names := append([]string{"api"}, groups()...)
		var running []*lab.Service
		for _, name := range names {
			if err := os.RemoveAll(l.StateDir(name)); err != nil {
				return err
			}
			s, err := l.Start(name, name)
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
		c := &client{http: &http.Client{Timeout: 15 * time.Second}, base: "http://" + running[0].Addr}
		n := l.Size(100, 1000)
		if _, err := c.visible(ctx, n, "1", func(s state) bool { return s.Balance != "0" }); err != nil { // warm up
			return err
		}
		var figures []figure.Figure
		for _, m := range []struct {
			what, amount string
			seen         func(state) bool
			p50, p99     [2]float64 // must, try for
		}{
			{"balance visible", "1", func(s state) bool { return s.Balance != "0" }, [2]float64{4, 2}, [2]float64{25, 10}},
			{"flag visible", "10001", func(s state) bool { return s.Above }, [2]float64{8, 4}, [2]float64{40, 15}},
		} {
			p50 := figure.Figure{What: "deposit answered → " + m.what + ", p50", Unit: "ms", Lower: true, Must: m.p50[0], Try: m.p50[1]}
			p99 := figure.Figure{What: "deposit answered → " + m.what + ", p99", Unit: "ms", Lower: true, Must: m.p99[0], Try: m.p99[1]}
			for range l.Rounds {
				took, err := c.visible(ctx, n, m.amount, m.seen)
				if err != nil {
					return err
				}
				p50.Subject = append(p50.Subject, quantile(took, 0.50))
				p99.Subject = append(p99.Subject, quantile(took, 0.99))
			}
			figures = append(figures, p50, p99)
		}
		r.Add(figures...)
		for _, s := range running {
			if err := l.Stop(s); err != nil {
				return err
			}
		}
		return nil
	},
}

// quantile in milliseconds, of times that are sorted.
func quantile(took []time.Duration, q float64) float64 {
	i := int(math.Ceil(q*float64(len(took)))) - 1
	return float64(took[i].Nanoseconds()) / 1e6
}

type client struct {
	http *http.Client
	base string
	used int
}

type state struct {
	Balance json.Number `json:"balance"`
	Above   bool        `json:"above_threshold"`
}

// visible deposits into n new wallets, one after another, and returns, sorted,
// how long after the answer each shows.
func (c *client) visible(ctx context.Context, n int, amount string, seen func(state) bool) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	for i := range took {
		c.used++
		wallet := lab.WalletID(c.used)
		body := fmt.Sprintf(`{"wallet_id":%q,"amount":%s}`, wallet, amount)
		if err := c.do(ctx, http.MethodPost, "/api/deposit", body, nil); err != nil {
			return nil, err
		}
		for answered := time.Now(); ; {
			var s state
			if err := c.do(ctx, http.MethodGet, "/api/check/"+wallet, "", &s); err != nil {
				return nil, err
			}
			took[i] = time.Since(answered)
			if seen(s) {
				break
			}
			if took[i] > 30*time.Second {
				return nil, fmt.Errorf("%s does not show after %v", wallet, took[i])
			}
		}
	}
	slices.Sort(took)
	return took, nil
}

func (c *client) do(ctx context.Context, method, path, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
