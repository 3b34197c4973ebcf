package wallet_test

import (
	"math/rand/v2"
	"testing"

	"coinbit/internal/wallet"
)

func TestStanding(t *testing.T) {
	const (
		period = int64(120_000)
		start  = int64(1_800_000_000_000)
	)
	type deposit struct{ after, amount int64 } // ms after start, units
	for name, c := range map[string]struct {
		deposits      []deposit
		at            int64 // after start
		sum, headroom int64 // units
		parts         int
		end, expires  int64 // after start; expires 0: none
	}{
		"nothing yet":                   {nil, 0, 0, 10_000, 0, 0, 0},
		"one":                           {[]deposit{{0, 6_000}}, 0, 6_000, 4_000, 1, 0, period},
		"a moment before it leaves":     {[]deposit{{0, 6_000}}, period - 1, 6_000, 4_000, 1, period - 1, period},
		"it has left":                   {[]deposit{{0, 6_000}}, period, 0, 10_000, 0, period, 0},
		"the older one has left":        {[]deposit{{0, 6_000}, {1_000, 3_000}}, period, 3_000, 7_000, 1, period, period + 1_000},
		"full":                          {[]deposit{{0, 6_000}, {1_000, 4_000}}, 2_000, 10_000, 0, 2, 2_000, period},
		"above":                         {[]deposit{{0, 6_000}, {1_000, 6_000}}, 2_000, 12_000, 0, 2, 2_000, period},
		"long ago":                      {[]deposit{{0, 6_000}}, 1 << 50, 0, 10_000, 0, 1 << 50, 0},
		"a clock that is ahead":         {[]deposit{{0, 2_000}, {5_000, 3_000}}, 1_000, 5_000, 5_000, 2, 5_000, period},
		"farther ahead than the period": {[]deposit{{0, 2_000}, {period + 1_000, 3_000}}, 500, 2_000, 8_000, 1, 500, period},
	} {
		t.Run(name, func(t *testing.T) {
			counter := &wallet.Counter{Window: wallet.Window{Rule: rule(10_000*billion, period)}}
			for i, d := range c.deposits {
				counter.Apply(wallet.Deposit{Amount: wallet.Amount{Units: uint64(d.amount)}, At: start + d.after, Offset: int64(i)},
					rule(10_000*billion, period))
			}
			got := counter.Window.Standing(start + c.at)
			if c.expires != 0 {
				c.expires += start
			}
			if got.Sum != money(c.sum*billion) || got.Headroom != money(c.headroom*billion) || len(got.Parts) != c.parts ||
				int(got.Deposits) != c.parts || got.End != start+c.end || got.Start != got.End-period || got.Expires != c.expires {
				t.Fatalf("%+v", got)
			}
		})
	}
}

// The standing is the twin's, and what it says of a deposit at that time comes
// true: the headroom does not cross, a billionth more does.
func TestStandingAsTheTwin(t *testing.T) {
	var below, crossed int
	seeded(t, 2_000, func(r *rand.Rand) {
		period := pick[int64](r, 1, 255, 10_000, 120_000, 86_400_000)
		w := &twin{period: period, threshold: r.Int64N(12 * billion)}
		list := history(r, 1+r.IntN(60), period)
		c, rl := &wallet.Counter{}, rule(w.threshold, period)
		var now int64
		for i, a := range list {
			c.Apply(wallet.Deposit{Amount: money(a.amount), At: a.at, Offset: int64(i)}, rl)
			w.add(a.at, a.amount)
			now = max(now, a.at)
		}
		now += pick[int64](r, 0, -late, 1, period-1, period, r.Int64N(2*period))
		s := c.Window.Standing(now)

		probe := &twin{period: period, threshold: w.threshold, at: w.at, amount: w.amount}
		f := probe.add(now, 0)
		var sum wallet.Amount
		var deposits uint32
		expires := int64(0)
		for _, p := range s.Parts {
			sum, _ = sum.Add(p.Sum)
			deposits += p.Count
			if p.Last <= s.Start || p.First > s.End {
				t.Fatalf("%+v lies outside of %+v", p, s)
			}
		}
		for i, at := range w.at {
			if at > f.end-period && at <= f.end && (expires == 0 || w.at[i]+period < expires) {
				expires = w.at[i] + period
			}
		}
		if s.Sum != money(f.before) || s.End != f.end || int64(s.Deposits) != f.count-1 || s.Expires != expires ||
			sum != s.Sum || deposits != s.Deposits || s.Headroom != money(max(0, w.threshold-f.before)) {
			t.Fatalf("%+v\nthe twin has %+v, expires %d, threshold %d, now %d, deposits %v %v", s, f, expires, w.threshold, now, w.at, w.amount)
		}

		if s.Headroom != (wallet.Amount{}) {
			below++
			if o := clone(c).Apply(wallet.Deposit{Amount: s.Headroom, At: now, Offset: int64(len(list))}, rl); o.Emit {
				t.Fatalf("the headroom crosses: %+v", s)
			}
		}
		if f.before <= w.threshold {
			crossed++
			more, _ := s.Headroom.Add(wallet.Amount{Nanos: 1})
			if o := clone(c).Apply(wallet.Deposit{Amount: more, At: now, Offset: int64(len(list))}, rl); !o.Emit {
				t.Fatalf("more than the headroom does not cross: %+v", s)
			}
		}
	})
	if below < 200 || crossed < 200 {
		t.Fatalf("only %d with headroom, %d crossings: the histories test little", below, crossed)
	}
}

func TestRaisedBy(t *testing.T) {
	const end = int64(1_800_000_000_000)
	crossing := func(offset, deposit, at int64) wallet.FlagEvent {
		return wallet.FlagEvent{Offset: offset, Crossing: &wallet.Evidence{Offset: deposit, TippedAt: at, WindowEnd: end}}
	}
	var f wallet.Flag
	for i, step := range []struct {
		event wallet.FlagEvent
		by    wallet.RaisedBy
		at    int64
	}{
		{wallet.FlagEvent{Offset: 0, Raise: true, At: end + 1}, wallet.ByOperator, end + 1},
		{crossing(1, 10, end-3), wallet.ByCrossing, end - 3},
		{wallet.FlagEvent{Offset: 2, Raise: true, At: end + 2}, wallet.ByCrossing, end - 3},
		{wallet.FlagEvent{Offset: 3, Remove: true, RemovedUpto: 5}, wallet.ByCrossing, end - 3}, // of before the crossing
		{wallet.FlagEvent{Offset: 4, Remove: true, RemovedUpto: 11}, wallet.NotRaised, 0},
		{crossing(5, 10, end-3), wallet.NotRaised, 0}, // again
		{crossing(6, 12, end-5), wallet.ByCrossing, end - 5},
		{crossing(7, 13, end-4), wallet.ByCrossing, end - 5}, // a later one moves nothing
	} {
		f.Apply(step.event)
		if by, at := f.RaisedBy(); by != step.by || at != step.at || f.Raised() != (by != wallet.NotRaised) {
			t.Fatalf("step %d: %d at %d, raised %v", i, by, at, f.Raised())
		}
	}
}
