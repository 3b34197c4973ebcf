package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"coinbit/internal/stream"
	"coinbit/test/bench/figure"
	"coinbit/test/bench/lab"
)

// manyWallets is one deposit each of a million wallets.
func manyWallets(l *lab.Lab) lab.Load {
	n := l.Size(20_000, 1_000_000)
	return lab.Load{Records: n, Wallets: n}
}

// settle has groups fold the load, unless its table holds that already.
func settle(ctx context.Context, l *lab.Lab, load lab.Load, gs ...stream.Group) error {
	if err := l.Fill(ctx, string(stream.DepositStream), load, groups(), append(tables(), string(stream.FlagWalletStream))...); err != nil {
		return err
	}
	for _, g := range gs {
		if l.Holds(string(g.Table()), load) {
			continue
		}
		l.Say("%s folds %d deposits", g, load.Records)
		if _, err := drain(ctx, l, g, string(stream.DepositStream), load.Records); err != nil {
			return err
		}
		l.Note(string(g.Table()), load)
	}
	return nil
}

// recovery is how fast a processor gets its rows back from the changelog, beside
// a raw consumer of the same changelog, and how soon it is ready when it has them.
var recovery = lab.Row{
	Name:  "recovery",
	About: "a lost state directory, beside raw consume; start with an intact one",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		const g = stream.BalanceGroup
		load := manyWallets(l)
		if err := settle(ctx, l, load, g); err != nil {
			return err
		}
		rate := figure.Figure{What: "recovery of a lost state directory", Unit: "rows/s", Must: 0.25, Try: 0.6,
			Note: fmt.Sprintf("balance, %d wallets", load.Wallets)}
		lost := figure.Figure{What: "start without state, to ready", Unit: "s", Lower: true, Note: rate.Note}
		intact := figure.Figure{What: "start with state intact, to ready", Unit: "s", Lower: true, Must: 3, Try: 0.5, Note: rate.Note}
		err := l.Alternate(func() error {
			if err := os.RemoveAll(l.StateDir(string(g))); err != nil {
				return err
			}
			without, err := comeBack(ctx, l, g)
			if err != nil {
				return err
			}
			with, err := comeBack(ctx, l, g)
			if err != nil {
				return err
			}
			lost.Subject = append(lost.Subject, without.Seconds())
			intact.Subject = append(intact.Subject, with.Seconds())
			if more := (without - with).Seconds(); more > 0 { // a small table makes no difference
				rate.Subject = append(rate.Subject, float64(load.Wallets)/more)
			}
			return nil
		}, func() error {
			c, err := l.Run(ctx, lab.Work{Do: lab.Consume, From: string(g.Table())})
			rate.Ceiling = append(rate.Ceiling, c.PerSecond())
			return err
		})
		r.Add(rate, lost, intact)
		return err
	},
}

// comeBack starts a group, waits until it is ready and stops it. The time without
// state less the time with it is what recovery takes.
func comeBack(ctx context.Context, l *lab.Lab, g stream.Group) (time.Duration, error) {
	s, err := l.Start(string(g), string(g))
	if err != nil {
		return 0, err
	}
	ready, err := s.Ready(ctx, 10*time.Minute)
	if err != nil {
		return 0, err
	}
	l.Say("ready after %v", ready.Round(time.Millisecond))
	return ready, l.Stop(s)
}

// memory is what the API takes to hold a million wallets in its views.
var memory = lab.Row{
	Name:  "memory",
	About: "the API's resident memory with a million wallets, and its time to ready",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		load := manyWallets(l)
		if err := settle(ctx, l, load, stream.BalanceGroup, stream.ThresholdGroup); err != nil {
			return err
		}
		note := fmt.Sprintf("%d wallets in balance and threshold", load.Wallets)
		var figures []figure.Figure
		for _, start := range []string{"without state", "with state intact"} {
			figures = append(figures,
				figure.Figure{What: "API resident memory, started " + start, Unit: "MB", Lower: true, Must: 400, Try: 150, Note: note},
				figure.Figure{What: "API resident memory at its highest, started " + start, Unit: "MB", Lower: true, Note: note},
				figure.Figure{What: "API start " + start + ", to ready", Unit: "s", Lower: true, Note: note})
		}
		for range l.Rounds {
			if err := os.RemoveAll(l.StateDir("api")); err != nil {
				return err
			}
			for i := 0; i < len(figures); i += 3 {
				now, peak, ready, err := startAPI(ctx, l)
				if err != nil {
					return err
				}
				for j, v := range []float64{now, peak, ready} {
					figures[i+j].Subject = append(figures[i+j].Subject, v)
				}
			}
		}
		r.Add(figures...)
		return nil
	},
}

// startAPI starts the API until it is ready: megabytes once it is at rest and at most,
// seconds to ready.
func startAPI(ctx context.Context, l *lab.Lab) (now, peak, seconds float64, err error) {
	s, err := l.Start("api", "api")
	if err != nil {
		return 0, 0, 0, err
	}
	took, err := s.Ready(ctx, 10*time.Minute)
	if err != nil {
		return 0, 0, 0, err
	}
	for was := 0.0; was == 0 || now < 0.99*was; { // it gives back what recovery took
		was = now
		select {
		case <-ctx.Done():
			return 0, 0, 0, ctx.Err()
		case <-time.After(time.Second):
		}
		if now, peak, err = s.Memory(); err != nil {
			return 0, 0, 0, err
		}
	}
	l.Say("ready after %v, then at rest with %.0f MB, at most %.0f MB", took.Round(time.Millisecond), now/1e6, peak/1e6)
	return now / 1e6, peak / 1e6, took.Seconds(), l.Stop(s)
}
