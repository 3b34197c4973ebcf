package wallet_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"

	"coinbit/internal/wallet"
)

// How many random histories a run tries.
const (
	exactHistories = 8_000
	clockHistories = 3_000
	denseHistories = 24
	flagHistories  = 2_000
)

const late = 10_000 // ms; the contract's

func TestEnoughHistories(t *testing.T) {
	if n := exactHistories + clockHistories + denseHistories + flagHistories; n < 10_000 {
		t.Fatalf("%d histories", n)
	}
}

// history draws deposits of one clock: bursts, gaps, and steps that hit a
// period's or the lateness' edge, each received up to 10 s late.
func history(r *rand.Rand, n int, period int64) []arrival {
	var list []arrival
	now := int64(1_800_000_000_000) + r.Int64N(1_000_000)
	delay := pick[int64](r, 0, 0, 5, late)
	for range n {
		switch r.IntN(10) {
		case 0:
			now += period + r.Int64N(3) - 1
		case 1:
			now += late + r.Int64N(3) - 1
		case 2:
			now += r.Int64N(3 * period)
		case 3, 4, 5:
			now += r.Int64N(period/8 + 1)
		case 6:
			now += period/2 + r.Int64N(2)
		default:
			now += r.Int64N(2)
		}
		list = append(list, arrival{origin: 7, at: now, received: now + r.Int64N(delay+1), amount: draw(r)})
	}
	slices.SortStableFunc(list, byReceived)
	return list
}

func draw(r *rand.Rand) int64 {
	return pick(r, 1, billion/10, billion/5, billion, 2*billion, r.Int64N(5*billion)+1)
}

// Every decision, and the evidence, is the twin's: whatever the order within
// 10 s, with repeats of every kind in between, and a restart at every point.
func TestDecidesAsTheTwin(t *testing.T) {
	var crossings atomic.Int64
	seeded(t, exactHistories, func(r *rand.Rand) {
		period := pick[int64](r, 1, 2, 255, 1_000, 10_000, 120_000, 86_400_000)
		w := &twin{period: period, threshold: r.Int64N(12 * billion)}
		list := history(r, 1+r.IntN(70), period)
		c, rl := &wallet.Counter{}, rule(w.threshold, period)
		var log []wallet.Deposit
		var sum int64
		offset := int64(0)
		for i, a := range list {
			d := wallet.Deposit{Amount: money(a.amount), At: a.at, Origin: a.origin, Sequence: uint64(i + 1), Partition: 3, Offset: offset}
			if r.IntN(3) == 0 {
				d.Key, d.HasKey = wallet.HashKey(string(rune('a'+i))), true
			}
			c = clone(c)
			out := c.Apply(d, rl)
			f := w.add(a.at, a.amount)
			mustEqual(t, c, out, w, f, d)
			if out.Emit {
				crossings.Add(1)
			}
			sum += a.amount
			log = append(log, d)
			offset += 1 + r.Int64N(3) // the partition's other wallets
			offset = disturb(t, r, c, log, offset, rl)
		}
		if c.Account.Balance != money(sum) || c.Account.Deposits != uint64(len(list)) {
			t.Fatalf("balance %v after %d deposits", c.Account.Balance, c.Account.Deposits)
		}
		if (c.Tip != nil) != w.everAbove() {
			t.Fatalf("flag %v, some window above: %v", c.Tip != nil, w.everAbove())
		}
	})
	if crossings.Load() < exactHistories/4 {
		t.Fatalf("only %d crossings: the histories test little", crossings.Load())
	}
}

// disturb sends what must change nothing but the offset, and returns the next.
func disturb(t *testing.T, r *rand.Rand, c *wallet.Counter, log []wallet.Deposit, offset int64, rl wallet.Rule) int64 {
	t.Helper()
	what := r.IntN(6)
	if what > 2 {
		return offset
	}
	before := clone(c)
	switch what {
	case 0: // a rewind: redelivered as it was, the lost crossing sent again
		for _, d := range log[r.IntN(len(log)):] {
			out := c.Apply(d, rl)
			if out.Verdict != wallet.Redelivered || out.Emit != (c.Tip != nil && c.Tip.Offset == d.Offset) {
				t.Fatalf("redelivered: %+v", out)
			}
		}
	case 1: // the same deposit twice in the log
		d := log[r.IntN(len(log))]
		d.Offset = offset
		if out := c.Apply(d, rl); out != (wallet.Outcome{Verdict: wallet.Repeated}) {
			t.Fatalf("repeated: %+v", out)
		}
		offset++
		before.Account.NextOffset = offset
	case 2: // a client's retry
		d := log[r.IntN(len(log))]
		want := wallet.KeyReplayed
		if !d.HasKey {
			break
		}
		d.Origin, d.Sequence, d.At, d.Offset = 8, uint64(offset)+1, log[len(log)-1].At, offset
		if r.IntN(2) == 0 {
			d.Amount.Units++
			want = wallet.KeyConflict
		}
		if out := c.Apply(d, rl); out != (wallet.Outcome{Verdict: want}) {
			t.Fatalf("%v: %+v", want, out)
		}
		offset++
		before.Account.NextOffset, before.Account.Origins = offset, slices.Clone(c.Account.Origins)
		before.Account.Pacemaker, before.Account.Missed = c.Account.Pacemaker, c.Account.Missed
	}
	if !reflect.DeepEqual(clone(before), clone(c)) {
		t.Fatalf("a repeat changed the row:\n%+v\n%+v", before, c)
	}
	return offset
}

// Beyond what a row can hold exactly it errs towards raising: each crossing of
// the twin's is one, and each of its own is one for a period two parts longer.
func TestDenseErrsTowardsRaising(t *testing.T) {
	var joined, crossings int
	seeded(t, denseHistories, func(r *rand.Rand) {
		const period = 120_000
		perPeriod := 300 + r.IntN(500)
		w := &twin{period: period, threshold: int64(perPeriod) * billion * int64(90+r.IntN(15)) / 100}
		wide := &twin{period: period + 2*((period+255)/256), threshold: w.threshold}
		c, rl := &wallet.Counter{}, rule(w.threshold, period)
		now, list := int64(1_800_000_000_000), []arrival(nil)
		delay := pick[int64](r, 0, 0, 100, late)
		for range 2 * perPeriod {
			now += r.Int64N(2*period/int64(perPeriod) + 1)
			list = append(list, arrival{at: now, received: now + r.Int64N(delay+1), amount: billion/2 + r.Int64N(1_000)*1_000_000})
		}
		slices.SortStableFunc(list, byReceived)
		for i, a := range list {
			out := c.Apply(wallet.Deposit{Amount: money(a.amount), At: a.at, Offset: int64(i)}, rl)
			if f := w.add(a.at, a.amount); f.crosses && !out.Emit {
				t.Fatalf("deposit %d of %d a period: missed %+v", i, perPeriod, f)
			}
			if f := wide.add(a.at, a.amount); out.Emit && f.after <= w.threshold {
				t.Fatalf("deposit %d of %d a period, late by up to %d: raised, with %+v in a longer one", i, perPeriod, delay, f)
			}
			if out.Emit {
				crossings++
			}
		}
		if slices.ContainsFunc(c.Window.Cells, func(c wallet.Cell) bool { return c.Count > 1 }) {
			joined++
		}
	})
	if joined < denseHistories/2 || crossings < denseHistories/4 {
		t.Fatalf("joined in %d, %d crossings: the histories test little", joined, crossings)
	}
}

// 256 deposits in each period are judged exactly: in the default period also
// those that come late, in one shorter than the lateness those in order.
func TestExactUpTo256(t *testing.T) {
	seeded(t, 8, func(r *rand.Rand) {
		period, delay, perPeriod, jitter := int64(120_000), int64(late), int64(256), int64(2)
		if r.IntN(2) == 0 {
			period, delay, perPeriod, jitter = 5_120, 0, 215, 48 // never more than 256
		}
		w := &twin{period: period, threshold: perPeriod*billion - r.Int64N(20*billion)}
		c, rl := &wallet.Counter{}, rule(w.threshold, period)
		now, list := int64(1_800_000_000_000), []arrival(nil)
		for range 600 {
			now += period/perPeriod + 1 + jitter/2 - 1 - r.Int64N(jitter)
			list = append(list, arrival{at: now, received: now + r.Int64N(delay+1), amount: billion - r.Int64N(100_000_000) + 50_000_000})
		}
		slices.SortStableFunc(list, byReceived)
		for i, a := range list {
			d := wallet.Deposit{Amount: money(a.amount), At: a.at, Offset: int64(i)}
			out := c.Apply(d, rl)
			mustEqual(t, c, out, w, w.add(a.at, a.amount), d)
		}
	})
}

// Under changing rules: above before means above under the rule that was in force then
// and under the one in force now.
func TestRuleChangesAsTheTwin(t *testing.T) {
	crossings, changed := 0, 0
	seeded(t, 2_000, func(r *rand.Rand) {
		period := pick[int64](r, 1_000, 10_000, 120_000)
		now := &twin{period: period, threshold: r.Int64N(12 * billion)}
		was := &twin{period: period, threshold: now.threshold}
		tips := &twin{}
		c := &wallet.Counter{}
		for i, a := range history(r, 1+r.IntN(70), period) {
			if r.IntN(8) == 0 {
				now.threshold = r.Int64N(12 * billion)
				if r.IntN(4) == 0 {
					now.period = max(1, now.period/2) // a longer one would see what the row has let go
				}
			}
			d := wallet.Deposit{Amount: money(a.amount), At: a.at, Origin: a.origin, Sequence: uint64(i + 1), Offset: int64(i)}
			c = clone(c)
			out := c.Apply(d, rule(now.threshold, now.period))
			tips.period = now.period
			f, before := now.add(a.at, a.amount), was.add(a.at, a.amount)
			want := f.after > now.threshold && (!tips.told(a.at) || f.before <= now.threshold || before.before <= was.threshold)
			if out.Emit != want {
				t.Fatalf("deposit %d: crosses %t, want %t", i, out.Emit, want)
			}
			if want {
				tips.tell(a.at)
				crossings++
				if was.threshold != now.threshold {
					changed++
				}
			}
			was.period, was.threshold = now.period, now.threshold
		}
	})
	if crossings < 2_000 || changed < 200 {
		t.Fatalf("only %d crossings, %d at a change: the histories test little", crossings, changed)
	}
}
