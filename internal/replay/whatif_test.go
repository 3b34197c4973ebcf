package replay_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"coinbit/internal/replay"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

var inForce = wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 60_000}

func rules(r *rand.Rand) []wallet.Rule {
	list := []wallet.Rule{inForce}
	for range 3 {
		list = append(list, wallet.Rule{Threshold: wallet.Amount{Units: 1 + r.Uint64N(30_000)}, PeriodMs: 1 + r.Int64N(200_000)})
	}
	return list
}

func wallets(flags []replay.Flag) map[string]bool {
	names := make(map[string]bool)
	for _, f := range flags {
		names[f.Wallet] = true
	}
	return names
}

// minus is the wallets of a that b lacks.
func minus(a, b map[string]bool) map[string]bool {
	names := maps.Clone(a)
	maps.DeleteFunc(names, func(name string, _ bool) bool { return b[name] })
	return names
}

// Whom each rule flags is what a twin finds that keeps every deposit and looks at every
// window, over the whole log and over parts of it.
func TestWhatIfIsWhatATwinFinds(t *testing.T) {
	anew, gone := 0, 0
	for seed := range uint64(200) {
		w, r := random(t, seed), rand.New(rand.NewPCG(seed, 2))
		q := replay.WhatIf{Partitions: partitions, Rules: rules(r)}
		if seed%2 == 1 {
			q.From = start + r.Int64N(200_000)
			q.To = q.From + 1 + r.Int64N(200_000)
		}
		a, err := q.Ask(context.Background(), w)
		w.must(err)
		list := slices.DeleteFunc(w.counted(), func(d naive) bool { return q.To > 0 && (d.at < q.From || d.at >= q.To) })
		if int(a.Deposits) != len(list) {
			t.Fatalf("seed %d: %d deposits judged, want %d", seed, a.Deposits, len(list))
		}
		before := flagged(list, inForce)
		for i, v := range a.Rules {
			want := flagged(list, q.Rules[i])
			if v.Rule != q.Rules[i] || len(v.Flags) != len(want) || !maps.Equal(wallets(v.Flags), want) {
				t.Fatalf("seed %d, rule %+v flags %v, want %v", seed, v.Rule, v.Flags, want)
			}
			if !maps.Equal(wallets(v.New), minus(want, before)) || !maps.Equal(wallets(v.Gone), minus(before, want)) {
				t.Fatalf("seed %d, rule %+v: new %v, gone %v", seed, v.Rule, v.New, v.Gone)
			}
			anew, gone = anew+len(v.New), gone+len(v.Gone)
			if !slices.IsSortedFunc(v.Flags, func(a, b replay.Flag) int { return int(a.At - b.At) }) {
				t.Fatalf("seed %d: flags are not by time", seed)
			}
		}
	}
	if anew == 0 || gone == 0 {
		t.Errorf("%d new and %d gone in all: nothing was compared", anew, gone)
	}
}

// Under the rule in force the first crossings are those that the threshold group tells
// of, with the same evidence.
func TestWhatIfIsWhatThresholdDoes(t *testing.T) {
	for seed := range uint64(100) {
		w := random(t, seed)
		want := make(map[string]wallet.Evidence)
		for p := range int32(partitions) {
			counters := make(map[string]*wallet.Counter)
			for _, m := range w.topics["deposit"][p] {
				var v any
				if m.Value != nil {
					v, _ = new(stream.DepositEncoder).Decode(m.Value)
				}
				d, err := stream.CheckDeposit(stream.Record{Key: string(m.Key), Partition: p, Offset: m.Offset, Partitions: partitions}, v)
				if err != nil {
					continue
				}
				if counters[string(m.Key)] == nil {
					counters[string(m.Key)] = new(wallet.Counter)
				}
				c := counters[string(m.Key)]
				_, told := want[string(m.Key)]
				if c.Apply(d, inForce).Emit && !told {
					want[string(m.Key)] = *c.Tip
				}
			}
		}
		a, err := replay.WhatIf{Partitions: partitions, Rules: []wallet.Rule{inForce}}.Ask(context.Background(), w)
		w.must(err)
		got := make(map[string]wallet.Evidence)
		for _, f := range a.Rules[0].Flags {
			got[f.Wallet] = f.Evidence
		}
		if !maps.Equal(got, want) {
			t.Fatalf("seed %d: %v, want %v", seed, got, want)
		}
	}
}

// Progress is told all records at the end, and a failing source is an error.
func TestWhatIfTellsHowFarItIs(t *testing.T) {
	w := random(t, 1)
	var read, all int64
	q := replay.WhatIf{Partitions: partitions, Rules: []wallet.Rule{inForce}, Progress: func(r, of int64) { read, all = max(read, r), of }}
	a, err := q.Ask(context.Background(), w)
	w.must(err)
	if all != a.Records || read > all || read == 0 {
		t.Errorf("told %d of %d, read %d", read, all, a.Records)
	}
	if _, err := q.Ask(context.Background(), broken{w}); err == nil {
		t.Error("no error")
	}
}
