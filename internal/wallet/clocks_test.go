package wallet_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"coinbit/internal/wallet"
)

// api is one run of an API: an origin, and by how much its clock is off.
type api struct {
	origin uint64
	skew   int64
}

// clocks draws the deposits that several APIs take at the same time, each by a clock of
// its own, with pauses in between. Each API is heard of at the beginning, the slowest
// first, and no API is silent for longer than a period while another is not. Now and
// then one ends, and another begins on its machine.
func clocks(r *rand.Rand, n int, period int64, skews []int64, pause func() int64) []arrival {
	slices.Sort(skews)
	var apis []api
	for i, skew := range skews {
		apis = append(apis, api{uint64(i + 1), skew})
	}
	delay := pick[int64](r, 0, 1_000, late)
	heard := make([]int64, len(apis))
	now, origins := int64(1_800_000_000_000), uint64(len(apis))
	var list []arrival
	for i := range n {
		k := r.IntN(len(apis))
		if i < len(apis) {
			k = i
		} else {
			now += pause()
			for j := range heard {
				if now-heard[j] > period {
					k = j
				}
			}
			if r.IntN(40) == 0 {
				origins++
				apis[k].origin = origins
			}
		}
		heard[k] = now
		a := arrival{origin: apis[k].origin, at: now + apis[k].skew, received: now, amount: draw(r)}
		if i >= len(apis) {
			a.received += pick(r, 0, r.Int64N(delay+1), delay)
		}
		list = append(list, a)
	}
	slices.SortStableFunc(list, byReceived)
	return list
}

// fold applies a history and compares each decision with the twin's. It ends where the
// row is full and judges by cells.
func fold(t *testing.T, list []arrival, w *twin) (crossings int) {
	t.Helper()
	c, rl := &wallet.Counter{}, rule(w.threshold, w.period)
	sequences := make(map[uint64]uint64)
	for i, a := range list {
		sequences[a.origin]++
		d := wallet.Deposit{Amount: money(a.amount), At: a.at, Offset: int64(i), Origin: a.origin, Sequence: sequences[a.origin]}
		c = clone(c)
		out := c.Apply(d, rl)
		if slices.ContainsFunc(c.Window.Cells, func(c wallet.Cell) bool { return c.Count > 1 }) {
			return crossings
		}
		mustEqual(t, c, out, w, w.add(a.at, a.amount), d)
		if out.Emit {
			crossings++
		}
	}
	return crossings
}

// Clocks that are off, by however much and however many, take nothing from each other's
// windows, nor from their own.
func TestClocks(t *testing.T) {
	crossings := 0
	seeded(t, clockHistories, func(r *rand.Rand) {
		period := pick[int64](r, 1_000, 30_000, 120_000, 3_600_000)
		skews := []int64{0}
		for range r.IntN(6) {
			skews = append(skews, pick(r, r.Int64N(20_000), r.Int64N(120_000), 3_600_000, r.Int64N(5*period), period+r.Int64N(80_000)))
		}
		n := 20 + r.IntN(200)
		step := pick(r, period/int64(n), period/10, period/3, late+late/2)
		crossings += fold(t, clocks(r, n, period, skews, func() int64 { return r.Int64N(step + 1) }),
			&twin{period: period, threshold: billion + r.Int64N(14*billion)})
	})
	if crossings < clockHistories/2 {
		t.Fatalf("only %d crossings: the histories test little", crossings)
	}
}

// Long histories of wallets that deposit now and then: pauses are not clocks.
func TestPauses(t *testing.T) {
	crossings := 0
	seeded(t, clockHistories/10, func(r *rand.Rand) {
		period := pick[int64](r, 1_000, 30_000, 120_000, 3_600_000)
		skews := []int64{0}
		for range r.IntN(3) {
			skews = append(skews, pick(r, 0, r.Int64N(40_000), r.Int64N(200_000), r.Int64N(3*period)))
		}
		mean := pick[float64](r, 1_000, 5_000, 15_000, 30_000, 60_000, 300_000)
		crossings += fold(t, clocks(r, 400, period, skews, func() int64 { return int64(mean * r.ExpFloat64()) }),
			&twin{period: period, threshold: billion + r.Int64N(14*billion)})
	})
	if crossings < clockHistories/10 {
		t.Fatalf("only %d crossings: the histories test little", crossings)
	}
}

// One deposit whose time is a day off empties no window, whether it is of an origin of
// its own or of the one whose other deposits are right.
func TestOneStrayClock(t *testing.T) {
	for _, off := range []int64{-86_400_000, -60_000, 60_000, 86_400_000} {
		for _, origin := range []uint64{1, 2} {
			const period = 120_000
			c, rl := &wallet.Counter{}, rule(10_000*billion, period)
			at, offset := int64(1_800_000_000_000), int64(0)
			apply := func(origin uint64, at, units int64) wallet.Outcome {
				offset++
				return c.Apply(wallet.Deposit{Amount: money(units * billion), At: at, Offset: offset, Origin: origin, Sequence: uint64(offset)}, rl)
			}
			apply(1, at, 6_000)
			apply(origin, at+off, 1)
			if !apply(1, at+1_000, 6_000).Emit {
				t.Errorf("off by %d: two of 6,000 in a second are not seen", off)
			}
			for i := range int64(200) {
				apply(1, at+period+i*10_000, 1)
			}
			if n := len(c.Window.Cells); n > 20 {
				t.Errorf("off by %d: %d cells are held, for 12 in a period", off, n)
			}
		}
	}
}

// An importer that names no origin goes through old deposits faster than time; an
// origin's windows stay.
func TestImport(t *testing.T) {
	c, rl := &wallet.Counter{}, rule(10_000*billion, 120_000)
	const start = 1_800_000_000_000
	apply := func(offset int64, origin uint64, at, units int64) bool {
		d := wallet.Deposit{Amount: money(units * billion), At: at, Offset: offset, Origin: origin}
		if origin != 0 {
			d.Sequence = uint64(offset + 1)
		}
		return c.Apply(d, rl).Emit
	}
	apply(0, 1, start, 6_000)
	apply(1, 1, start+1_000, 1)
	for i := range int64(60) {
		apply(2+i, 0, start-10_000_000+100_000*i, 1)
	}
	if !apply(99, 1, start+100_000, 6_000) {
		t.Errorf("two of 6,000 are not seen: %+v", c.Window)
	}
}

// An API that ends with a clock far behind is waited for for a while only, and one that
// begins after a pause of hours is no slow clock for long.
func TestEndedOriginHoldsLittle(t *testing.T) {
	for _, skew := range []int64{0, -3_600_000, 8 * 3_600_000} {
		c, rl := &wallet.Counter{}, rule(10_000*billion, 120_000)
		at := int64(1_800_000_000_000)
		c.Apply(wallet.Deposit{Amount: money(1), At: at + skew, Offset: 0, Origin: 1, Sequence: 1}, rl)
		most := 0
		for i := range int64(1_000) {
			c.Apply(wallet.Deposit{Amount: money(1), At: at + 8*3_600_000 + i*10_000, Offset: 1 + i, Origin: 2, Sequence: uint64(1 + i)}, rl)
			if i > 150 { // its place as pacemaker taken, and 12 minutes in which it is waited for
				most = max(most, len(c.Window.Cells))
			}
		}
		if most > 15 {
			t.Errorf("skew %d: %d cells, for 12 in a period", skew, most)
		}
	}
}

// What is kept is what the clocks need: a period and the lateness before the slowest, and
// all that the others are ahead of it.
func TestKeepsNoMoreThanNeeded(t *testing.T) {
	for skew, most := range map[int64]int{0: 16, 60_000: 20, 600_000: 80} {
		c, r := &wallet.Counter{}, rule(10_000*billion, 120_000)
		for i := range int64(1_000) { // one in ten seconds, from each clock in turn
			at := 1_800_000_000_000 + i*10_000 + i%2*skew
			c.Apply(wallet.Deposit{Amount: money(1), At: at, Offset: i, Origin: 1 + uint64(i%2), Sequence: uint64(i + 1)}, r)
			if n := len(c.Window.Cells); n > most {
				t.Fatalf("clocks %d ms apart: %d cells after %d deposits", skew, n, i+1)
			}
		}
		t.Log(skew, len(c.Window.Cells))
	}
}

// A wallet that deposits now and then, through one API, keeps its period and little more.
func TestKeepsLittleOfQuietWallets(t *testing.T) {
	for mean, most := range map[float64]float64{1: 135, 5: 29, 15: 11, 30: 7, 60: 4, 300: 3} {
		r := rand.New(rand.NewPCG(1, uint64(mean)))
		c, rl := &wallet.Counter{}, rule(10_000*billion, 120_000)
		at, cells, n := int64(1_800_000_000_000), 0, int64(5_000)
		for i := range n {
			at += int64(1_000 * mean * r.ExpFloat64())
			c.Apply(wallet.Deposit{Amount: money(1), At: at, Offset: i, Origin: 1, Sequence: uint64(i + 1)}, rl)
			cells += len(c.Window.Cells)
		}
		got := float64(cells) / float64(n)
		t.Logf("one in %v s: %.1f in a period, %.1f kept", mean, 120/mean, got)
		if got > most {
			t.Errorf("one in %v s: %.1f are kept on average, want %.1f at most", mean, got, most)
		}
	}
}

// A deposit of the pacemaker that came late makes the time since seem longer by as much:
// what a slower clock's late deposit needs is still there.
func TestClockBehindALateOne(t *testing.T) {
	const start, second, slow = 1_800_000_000_000, 1_000, 100
	c, rl := &wallet.Counter{}, rule(10_000*billion, 60*second)
	for i, x := range []struct {
		origin  uint64
		at      int64 // s, by its clock; origin 2's is slow
		units   int64
		crosses bool
	}{
		{1, -900, 1, false}, {2, 35 - slow, 6_000, false}, {1, 50, 1, false}, {2, 100 - slow, 1, false},
		{1, 90, 1, false},                               // 10 s late
		{1, 101, 1, false}, {2, 91 - slow, 6_000, true}, // late, too
	} {
		d := wallet.Deposit{Amount: money(x.units * billion), At: start + x.at*second, Offset: int64(i), Origin: x.origin, Sequence: uint64(i + 1)}
		if out := c.Apply(d, rl); out.Emit != x.crosses {
			t.Errorf("deposit %d: %+v, %+v", i, out, c.Window)
		}
	}
}
