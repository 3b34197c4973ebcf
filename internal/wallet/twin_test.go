package wallet_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"coinbit/internal/wallet"
)

// The naive twin keeps every deposit and looks at every window. It counts money
// as integers of billionths, which is enough for the amounts of the tests.
type twin struct {
	period, threshold int64 // ms, billionths
	at, amount        []int64
	tipped            []int64 // event times of crossings, of each clock the latest
}

type found struct {
	before, after, end, count int64
	crosses                   bool
}

// add judges a deposit and remembers it.
func (w *twin) add(at, amount int64) found {
	f := found{after: -1}
	ends := []int64{at}
	for _, end := range w.at {
		if end > at && end-at < w.period { // else it does not hold the deposit
			ends = append(ends, end)
		}
	}
	slices.Sort(ends)
	for _, end := range slices.Compact(ends) {
		var sum, count int64
		for i, t := range w.at {
			if t <= end && end-t < w.period {
				sum, count = sum+w.amount[i], count+1
			}
		}
		f.before = max(f.before, sum)
		if sum+amount > f.after {
			f.after, f.end, f.count = sum+amount, end, count+1
		}
	}
	w.at, w.amount = append(w.at, at), append(w.amount, amount)
	f.crosses = f.after > w.threshold && (f.before <= w.threshold || !w.told(at))
	if f.crosses {
		w.tell(at)
	}
	return f
}

// told tells whether a crossing tells of a deposit: theirs share a window, or it is late.
func (w *twin) told(at int64) bool {
	return slices.ContainsFunc(w.tipped, func(t int64) bool { return at-t < w.period && t-at < w.period+late })
}

// tell puts a crossing in the place of the latest one that is not after it.
func (w *twin) tell(at int64) {
	slices.Sort(w.tipped)
	i, found := slices.BinarySearch(w.tipped, at)
	if found {
		i++
	}
	if i > 0 {
		w.tipped[i-1] = at
	} else {
		w.tipped = append(w.tipped, at)
	}
}

// everAbove looks at every window of the whole history at once.
func (w *twin) everAbove() bool {
	for _, end := range w.at {
		var sum int64
		for i, t := range w.at {
			if t <= end && end-t < w.period {
				sum += w.amount[i]
			}
		}
		if sum > w.threshold {
			return true
		}
	}
	return false
}

const billion = 1_000_000_000

func money(nanos int64) wallet.Amount {
	return wallet.Amount{Units: uint64(nanos / billion), Nanos: uint32(nanos % billion)}
}

func rule(threshold, period int64) wallet.Rule {
	return wallet.Rule{Threshold: money(threshold), PeriodMs: period}
}

// clone is what a restart leaves of a row: nothing shared, no spare capacity, and nothing
// that is not written down.
func clone(c *wallet.Counter) *wallet.Counter {
	a, w := &c.Account, &c.Window
	n := wallet.Counter{
		Account: wallet.Account{
			NextOffset: a.NextOffset, Balance: a.Balance, Deposits: a.Deposits, FirstAt: a.FirstAt, LastAt: a.LastAt,
			Origins: slices.Clip(slices.Clone(a.Origins)), Pacemaker: a.Pacemaker, Missed: a.Missed, RecentKeys: slices.Clip(slices.Clone(a.RecentKeys)),
		},
		Window: wallet.Window{
			Rule: w.Rule, Cells: slices.Clip(slices.Clone(w.Cells)), Past: slices.Clip(slices.Clone(w.Past)), RuleChanges: w.RuleChanges, Told: slices.Clip(slices.Clone(w.Told)),
		},
	}
	if c.Tip != nil {
		tip := *c.Tip
		n.Tip = &tip
	}
	return &n
}

// mustEqual compares one decision, evidence included, with the twin's.
func mustEqual(t *testing.T, c *wallet.Counter, out wallet.Outcome, w *twin, f found, d wallet.Deposit) {
	t.Helper()
	if out.Verdict != wallet.Applied || out.Emit != f.crosses {
		t.Fatalf("deposit %+v: got %+v, the twin has %+v, threshold %d period %d\nat %v\nwindow %+v",
			d, out, f, w.threshold, w.period, w.at, c.Window)
	}
	if !out.Emit {
		return
	}
	want := wallet.Evidence{
		Partition: d.Partition, Offset: d.Offset, TippedAt: d.At, WindowStart: f.end - w.period, WindowEnd: f.end,
		Total: money(f.after), Deposits: uint32(f.count), Rule: rule(w.threshold, w.period),
	}
	if *c.Tip != want {
		t.Fatalf("evidence %+v, want %+v", *c.Tip, want)
	}
}

func seeded(t *testing.T, n int, f func(r *rand.Rand)) {
	t.Helper()
	for i := range n {
		f(rand.New(rand.NewPCG(uint64(i), 7)))
		if t.Failed() {
			t.Fatalf("history %d", i)
		}
	}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// arrival is a deposit as it comes in: sent at its origin's time, received later.
type arrival struct {
	origin               uint64
	at, received, amount int64
}

func byReceived(a, b arrival) int { return int(a.received - b.received) }
