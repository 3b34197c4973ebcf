package wallet_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"coinbit/internal/wallet"
)

// twoClocks draws the deposits of two API instances, one of them ahead by skew,
// with pauses in between. The slower one's come first, and both keep arriving:
// neither is passed by more than thirty times.
func twoClocks(r *rand.Rand, n int, skew int64, pause func() int64) []arrival {
	var list []arrival
	now := int64(1_800_000_000_000)
	share, run, fast := 1+r.IntN(9), 0, false
	delay := pick[int64](r, 0, 1_000, late)
	for i := range n {
		now += pause()
		if was := fast; true {
			if fast = r.IntN(10) < share; fast == was {
				if run++; run > 15 {
					fast, run = !fast, 0
				}
			} else {
				run = 0
			}
		}
		a := arrival{at: now, received: now + pick(r, 0, r.Int64N(delay+1), delay), amount: draw(r)}
		if i < 2 {
			fast, a.received = (i == 0) == (skew < 0), now
		}
		if fast {
			a.at += skew
		}
		list = append(list, a)
	}
	slices.SortStableFunc(list, byReceived)
	return list
}

// A clock that is off, by however much, takes nothing from the other one's
// windows, nor from its own.
func TestTwoClocks(t *testing.T) {
	crossings := 0
	seeded(t, clockHistories, func(r *rand.Rand) {
		period := pick[int64](r, 1_000, 30_000, 120_000, 3_600_000)
		skew := pick(r, 10_001+r.Int64N(60_000), 60_000, 3_600_000, r.Int64N(5*period)+10_001, period+r.Int64N(80_000))
		if r.IntN(4) == 0 {
			skew = -skew
		}
		n := 20 + r.IntN(100)
		step := pick(r, period/int64(n), period/10, period/3, late+late/2)
		// An hour later the slower clock reaches what the faster one said an hour
		// ago, and the row no longer holds that; so end before.
		if most := 2 * (period + late); step*int64(n) > most && max(skew, -skew) > period {
			n = int(most/max(step, 1)) + 1
		}
		w := &twin{period: period, threshold: billion + r.Int64N(14*billion)}
		c, rl := &wallet.Counter{}, rule(w.threshold, period)
		for i, a := range twoClocks(r, n, skew, func() int64 { return r.Int64N(step + 1) }) {
			d := wallet.Deposit{Amount: money(a.amount), At: a.at, Offset: int64(i)}
			c = clone(c)
			out := c.Apply(d, rl)
			f := w.add(a.at, a.amount)
			if out.Emit != w.crossed(f) {
				t.Logf("skew %d step %d", skew, step)
			}
			mustEqual(t, c, out, w, f, d)
			if out.Emit {
				crossings++
			}
		}
	})
	if crossings < clockHistories/2 {
		t.Fatalf("only %d crossings: the histories test little", crossings)
	}
}

// Long histories of wallets that deposit now and then, from clocks that differ by no
// more than the period: pauses and clocks look alike.
func TestPauses(t *testing.T) {
	crossings := 0
	seeded(t, clockHistories/10, func(r *rand.Rand) {
		period := pick[int64](r, 1_000, 30_000, 120_000, 3_600_000)
		skew := min(pick(r, 0, r.Int64N(40_000), r.Int64N(200_000), r.Int64N(3*period)), period)
		mean := pick[float64](r, 1_000, 5_000, 15_000, 30_000, 60_000, 300_000)
		w := &twin{period: period, threshold: billion + r.Int64N(14*billion)}
		c, rl := &wallet.Counter{}, rule(w.threshold, period)
		for i, a := range twoClocks(r, 400, skew, func() int64 { return int64(mean * r.ExpFloat64()) }) {
			d := wallet.Deposit{Amount: money(a.amount), At: a.at, Offset: int64(i)}
			c = clone(c)
			out := c.Apply(d, rl)
			if len(c.Window.Cells) > 256 {
				return // judged by cells from here on
			}
			mustEqual(t, c, out, w, w.add(a.at, a.amount), d)
			if out.Emit {
				crossings++
			}
		}
	})
	if crossings < clockHistories/10 {
		t.Fatalf("only %d crossings: the histories test little", crossings)
	}
}

// One deposit from a clock that is a day off neither empties a window nor stays
// for good.
func TestOneStrayClock(t *testing.T) {
	for _, off := range []int64{-86_400_000, -60_000, 60_000, 86_400_000} {
		const period = 120_000
		c, rl := &wallet.Counter{}, rule(10_000*billion, period)
		at, offset := int64(1_800_000_000_000), int64(0)
		apply := func(at, units int64) wallet.Outcome {
			offset++
			return c.Apply(wallet.Deposit{Amount: money(units * billion), At: at, Offset: offset}, rl)
		}
		apply(at, 6_000)
		apply(at+off, 1)
		if !apply(at+1_000, 6_000).Emit {
			t.Errorf("off by %d: two of 6,000 in a second are not seen", off)
		}
		for i := range int64(200) {
			apply(at+period+i*10_000, 1)
		}
		for _, cell := range c.Window.Cells {
			if cell.First == at+off {
				t.Errorf("off by %d: the stray deposit is still held", off)
			}
		}
		if n := len(c.Window.Cells); n > 60 {
			t.Errorf("off by %d: %d cells are held, for 12 in a period", off, n)
		}
	}
}

// lastCrosses applies deposits of 1, at times in tenths of a second, of which
// the first and the last are of 6,000 and share a window of the given seconds.
func lastCrosses(t *testing.T, seconds int64, tenths []int64) {
	t.Helper()
	c, r := &wallet.Counter{}, rule(10_000*billion, seconds*1_000)
	for i, at := range tenths {
		units, last := int64(1), i == len(tenths)-1
		if i == 0 || last {
			units = 6_000
		}
		d := wallet.Deposit{Amount: money(units * billion), At: 1_800_000_000_000 + 100*at, Offset: int64(i)}
		if out := c.Apply(d, r); out.Emit != last {
			t.Errorf("deposit %d of %d: %+v, %+v", i, len(tenths), out, c.Window)
		}
	}
}

// Half a minute ahead, one clock can hide within the lateness: no step of more
// than ten seconds shows it, and it leaves the other 40 s behind.
func TestClockHiddenByLateness(t *testing.T) {
	tenths := []int64{0, 100, 200, 300} // the slow one's; then the fast one's, late at first
	for at := int64(400); at <= 950; at += 90 {
		tenths = append(tenths, at)
	}
	lastCrosses(t, 60, append(tenths, 950, 550)) // the slow one's at 65 s, sent at 55
}

// The slower clock comes only when the faster one has been quiet for as long as
// they are apart, so it is never seen to be late; and just when it would be
// forgotten the faster one has stepped ahead.
func TestClockNeverSeenLate(t *testing.T) {
	tenths := []int64{-200, -100, 0, 600} // a minute ahead
	for i := range int64(62) {
		tenths = append(tenths, 510+5*i)
	}
	for i := range int64(3) {
		tenths = append(tenths, 1430+i)
	}
	lastCrosses(t, 120, append(tenths, 840))
}

// Where the slower clock is thought to be, a pause of the faster one hides that it is not
// so far. Its late deposits are not a third clock's, for which the faster one would go.
func TestLateWherePauseWas(t *testing.T) {
	c, r := &wallet.Counter{}, rule(10_000*billion, 60_000)
	for i, x := range []struct{ at, units int64 }{ // the faster clock is 120 s ahead
		{-120_000, 1}, {0, 1}, {100_001, 6_000}, {-19_999, 1}, {-29_999, 1}, {100_002, 6_000},
	} {
		d := wallet.Deposit{Amount: money(x.units * billion), At: 1_800_000_000_000 + x.at, Offset: int64(i)}
		if out := c.Apply(d, r); out.Emit != (i == 5) {
			t.Errorf("deposit %d: %+v, %+v", i, out, c.Window)
		}
	}
}

// The faster clock is known by the step to it for as many deposits as a stream is
// remembered, wherever steps are turned over.
func TestStepIsRemembered(t *testing.T) {
	const ahead = 650
	for before := range int64(2 * 64) {
		tenths := []int64{0, 90, 180, 270, 360}
		for i := range before {
			tenths = append(tenths, 400+i)
		}
		for i := range int64(63) {
			tenths = append(tenths, ahead+530+i)
		}
		lastCrosses(t, 60, append(tenths, 595))
	}
}

// One stream goes through old deposits faster than time; the other's windows stay.
func TestImport(t *testing.T) {
	const start = 100_000 // the other is at
	tenths := []int64{start, start + 10}
	for i := range int64(60) {
		tenths = append(tenths, 1_000+1_000*i)
	}
	lastCrosses(t, 120, append(tenths, start+1_000))
}

// What is kept grows with the deposits in a period and the clocks' number, not
// with how far the clocks are apart or how long they have been running.
func TestKeepsNoMoreThanNeeded(t *testing.T) {
	for skew, most := range map[int64]int{0: 17, 60_000: 50, 3_600_000: 100} {
		c, r := &wallet.Counter{}, rule(10_000*billion, 120_000)
		for i := range int64(1_000) { // one in ten seconds from each clock
			at := 1_800_000_000_000 + i/2*10_000
			if i%2 == 1 {
				at += skew
			}
			if skew == 0 {
				at = 1_800_000_000_000 + i*10_000
			}
			c.Apply(wallet.Deposit{Amount: money(1), At: at, Offset: i}, r)
			if n := len(c.Window.Cells); n > most {
				t.Fatalf("clocks %d ms apart: %d cells after %d deposits", skew, n, i+1)
			}
		}
		t.Log(skew, len(c.Window.Cells))
	}
}

// A wallet that deposits now and then looks as if two clocks served it. What is kept
// is bounded by its longest pause all the same.
func TestKeepsLittleOfQuietWallets(t *testing.T) {
	for mean, most := range map[float64]float64{1: 165, 5: 40, 15: 20, 30: 14, 60: 11, 300: 5} {
		r := rand.New(rand.NewPCG(1, uint64(mean)))
		c, rl := &wallet.Counter{}, rule(10_000*billion, 120_000)
		at, cells, n := int64(1_800_000_000_000), 0, int64(5_000)
		for i := range n {
			at += int64(1_000 * mean * r.ExpFloat64())
			c.Apply(wallet.Deposit{Amount: money(1), At: at, Offset: i}, rl)
			cells += len(c.Window.Cells)
		}
		got := float64(cells) / float64(n)
		t.Logf("one in %v s: %.1f in a period, %.1f kept", mean, 120/mean, got)
		if got > most {
			t.Errorf("one in %v s: %.1f are kept on average, want %.1f at most", mean, got, most)
		}
	}
}
