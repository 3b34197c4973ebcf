package wallet_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"coinbit/internal/wallet"
)

// step is a deposit of so many units at so many ms, and whether it crosses.
type step struct {
	at      int64
	amount  string
	crosses bool
}

// The rule, case by case: more than 10,000 within two minutes. Every case is
// run at the time of the first release as well, where milliseconds are large.
func TestThreshold(t *testing.T) {
	const minute, second = 60_000, 1_000
	repeat := func(n int, from, every int64, amount string, last bool) (list []step) {
		for i := range n {
			list = append(list, step{from + int64(i)*every, amount, last && i == n-1})
		}
		return list
	}
	for name, steps := range map[string][]step{
		"1: two of 6,000 within two minutes": {{0, "6000", false}, {minute, "6000", true}},
		"2: 6,000 and two minutes later":     {{0, "6000", false}, {2 * minute, "6000", false}},
		"2: or more":                         {{0, "6000", false}, {2*minute + 1, "6000", false}},
		"a millisecond less":                 {{0, "6000", false}, {2*minute - 1, "6000", true}},
		"3: 10,000 is not more, nor with 6,000 after that window": append(
			repeat(5, 0, second, "2000", false), step{2*minute + 9*second, "6000", false}),
		"3: but 6,000 in it is": append(
			repeat(5, 0, second, "2000", false), step{5 * second, "6000", true}),
		"10,000 is not more, whatever was before": {
			{0, "5000", false}, {2 * minute, "4000", false}, {3 * minute, "6000", false}, {3*minute + 1, "0.01", true}},
		"4: six of 2,000 within two minutes": repeat(6, 0, 20*second, "2000", true),
		"one alone":                          {{0, "10000", false}, {10 * minute, "10000.000000001", true}},
		"at the threshold, then the least above it": {
			{0, "9999.9", false}, {1, "0.1", false}, {2, "0.000000001", true}},
		"cents: 0.1 + 0.2 is no more than 0.3": {
			{0, "9999.7", false}, {0, "0.1", false}, {0, "0.2", false}, {0, "0.000000001", true}},
		"a window anchored at the first, or at even minutes, would miss it": {
			{0, "1", false}, {119 * second, "6000", false}, {121 * second, "6000", true}},
		"none while it stays above, one when it crosses again": {
			{0, "6000", false}, {1, "6000", true}, {2, "6000", false}, {minute, "1", false},
			{3 * minute, "6000", false}, {3*minute + 1, "6000", true}},
		"while it stays above, one a period": {
			{0, "12000", true}, {minute, "12000", false}, {2*minute - 1, "12000", false}, {2 * minute, "12000", true},
			{3 * minute, "12000", false}, {4*minute - 1, "1", false}, {4 * minute, "1", true}, {5 * minute, "1", false}},
		"a period after the crossing, but no longer above": {
			{0, "12000", true}, {minute, "6000", false}, {2 * minute, "4000", false}, {2*minute + 1, "1", true}},
		"a late deposit tells nothing anew": {
			{0, "12000", true}, {2*minute - 1, "12000", false}, {-9 * second, "1", false}},
		"above before at another place does not count": {
			{0, "12000", true}, {2 * minute, "6000", false}, {3 * minute, "6000", true}},
		"out of order: the late one joins two": {
			{10 * second, "6000", false}, {0, "6000", true}},
		"out of order: the late one is exactly a period before": {
			{0, "1", false}, {2*minute + 5*second, "6000", false}, {5 * second, "6000", false}},
		"out of order: in the window that ends later": {
			{0, "1", false}, {2*minute + 4_999, "6000", false}, {2*minute - 4*second, "6000", true}},
		"same millisecond": {{5, "5000", false}, {5, "5000", false}, {5, "1", true}},
	} {
		for _, base := range []int64{1, 1_800_000_000_000, -500} {
			c, r := &wallet.Counter{}, rule(10_000*billion, 2*minute)
			for i, s := range steps {
				amount, err := wallet.ParseAmount(s.amount)
				if err != nil {
					t.Fatal(err)
				}
				out := c.Apply(wallet.Deposit{Amount: amount, At: base + s.at, Offset: int64(i)}, r)
				if out != (wallet.Outcome{Verdict: wallet.Applied, Emit: s.crosses}) {
					t.Errorf("%s, step %d: %+v", name, i, out)
				}
			}
		}
	}
}

func TestEvidence(t *testing.T) {
	c, r := &wallet.Counter{}, rule(10_000*billion, 120_000)
	for i, at := range []int64{1_000, 61_000, 121_000, 121_001} {
		out := c.Apply(wallet.Deposit{Amount: money(5_000 * billion), At: at, Partition: 4, Offset: int64(10 * i)}, r)
		if out.Emit != (i == 3) {
			t.Fatalf("deposit %d: %+v", i, out)
		}
	}
	want := wallet.Evidence{Partition: 4, Offset: 30, TippedAt: 121_001, WindowStart: 1_001, WindowEnd: 121_001,
		Total: money(15_000 * billion), Deposits: 3, Rule: r}
	if *c.Tip != want {
		t.Errorf("%+v, want %+v", *c.Tip, want)
	}
}

// Of several windows above the threshold the evidence is the largest, of equal
// ones the earliest.
func TestEvidenceIsTheLargestWindow(t *testing.T) {
	for name, c := range map[string]struct {
		others []step
		end    int64
	}{
		"a later one is larger":    {[]step{{100, "1", false}, {1_050, "2", false}}, 1_050},
		"equal: the earliest":      {[]step{{100, "2", false}, {1_100, "2", false}}, 1_000},
		"all of it in one window ": {[]step{{900, "2", false}, {1_100, "2", false}}, 1_100},
	} {
		row, r := &wallet.Counter{}, rule(10*billion, 1_000)
		for i, s := range append(c.others, step{1_000, "9", true}) {
			amount, _ := wallet.ParseAmount(s.amount)
			if out := row.Apply(wallet.Deposit{Amount: amount, At: s.at, Offset: int64(i)}, r); out.Emit != s.crosses {
				t.Errorf("%s, step %d: %+v", name, i, out)
			}
		}
		if row.Tip == nil || row.Tip.WindowEnd != c.end {
			t.Errorf("%s: %+v", name, row.Tip)
		}
	}
}

// A crossing that was stored but not sent is sent again when its deposit comes again,
// and by nothing else.
func TestLostCrossingIsSentAgain(t *testing.T) {
	c, r := &wallet.Counter{}, rule(10*billion, 1_000)
	d := func(offset int64) wallet.Deposit {
		return wallet.Deposit{Amount: money(6 * billion), At: offset, Offset: offset}
	}
	if out := (&wallet.Counter{Account: wallet.Account{NextOffset: 1}}).Apply(d(0), r); out.Emit {
		t.Errorf("no crossing: %+v", out)
	}
	for i := range int64(4) {
		c.Apply(d(i), r)
	}
	for i, emit := range []bool{false, true, false, false} {
		out := c.Apply(d(int64(i)), r)
		if out != (wallet.Outcome{Verdict: wallet.Redelivered, Emit: emit}) || c.Tip.Offset != 1 {
			t.Errorf("offset %d: %+v", i, out)
		}
	}
}

func TestRuleChange(t *testing.T) {
	c := &wallet.Counter{}
	apply := func(offset int64, r wallet.Rule) wallet.Outcome {
		return c.Apply(wallet.Deposit{Amount: money(6 * billion), At: 400 * offset, Offset: offset}, r)
	}
	old, lower := rule(20*billion, 1_000), rule(10*billion, 1_000)
	if out := apply(0, old); out.RuleChanged {
		t.Errorf("a fresh row: %+v", out)
	}
	if out := apply(1, old); out.RuleChanged || out.Emit {
		t.Errorf("the same rule: %+v", out)
	}
	if out := apply(1, lower); out.RuleChanged || c.Window.Rule != old {
		t.Errorf("a redelivered deposit: %+v, %+v", out, c.Window.Rule)
	}
	// Three are 18. Two were above the lower threshold already, which was none then.
	if out := apply(2, lower); !out.RuleChanged || !out.Emit || len(c.Window.Cells) != 3 || c.Tip.Rule != lower {
		t.Errorf("a lower threshold: %+v", out)
	}
	if out := apply(3, rule(17*billion, 1_600)); !out.RuleChanged || out.Emit {
		t.Errorf("a longer period, and it was above before under both: %+v", out)
	}
	if out := apply(3+5, rule(5*billion, 1_600)); !out.RuleChanged || !out.Emit || c.Tip.Rule != rule(5*billion, 1_600) {
		t.Errorf("crossed under the new rule: %+v", out)
	}
	for offset, want := range map[int64]wallet.Rule{0: old, 1: old, 2: lower, 3: rule(17*billion, 1_600), 7: rule(17*billion, 1_600), 8: rule(5*billion, 1_600), 99: rule(5*billion, 1_600)} {
		if got, known := c.Window.RuleAt(offset); got != want || !known {
			t.Errorf("rule at %d: %v (%t), want %v", offset, got, known, want)
		}
	}
	for i := range int64(2) { // four are remembered
		apply(9+i, rule(i+1, 1_600))
		if _, known := c.Window.RuleAt(99); known != (i == 0) || len(c.Window.Past) != 4 {
			t.Errorf("%d changes, %d remembered: known %t", c.Window.RuleChanges, len(c.Window.Past), known)
		}
	}
}

// A higher threshold does not silence a wallet that the lower one had told of: before
// counts only where it was above under both rules.
func TestRaisedThreshold(t *testing.T) {
	c, offset := &wallet.Counter{}, int64(0)
	apply := func(units, threshold int64) bool {
		offset++
		return c.Apply(wallet.Deposit{Amount: money(units * billion), At: 1_800_000_000_000 + 1_000*offset, Offset: offset}, rule(threshold*billion, 120_000)).Emit
	}
	for i, s := range []struct {
		units, threshold int64
		crosses          bool
	}{{12_000, 10_000, true}, {4_000, 15_000, true}, {10_000, 15_000, false}, {1, 10_000, false}, {1, 20_000, false}, {1, 30_000, false}, {10_000, 30_000, true}} {
		if got := apply(s.units, s.threshold); got != s.crosses {
			t.Errorf("deposit %d: crosses %t", i, got)
		}
	}
}

// A row joined under a long period stays good under the shortest: cells may
// then be longer than anything the new rule reaches.
func TestRuleChangeOfAFullRow(t *testing.T) {
	c, at := &wallet.Counter{}, int64(1_800_000_000_000)
	for i := range int64(1_500) {
		r := rule(1_000_000*billion, 86_400_000)
		if i >= 1_000 {
			r.PeriodMs = 1
		}
		at += pick[int64](rand.New(rand.NewPCG(1, uint64(i))), 100, 60_000, 3*late)
		c.Apply(wallet.Deposit{Amount: money(billion), At: at - i%2*late, Offset: i}, r)
		check(t, c)
	}
}

// A message may say any time, and a setting any period.
func TestExtremeTimes(t *testing.T) {
	for _, at := range []int64{math.MinInt64, -1, 0, math.MaxInt64} {
		for _, period := range []int64{math.MinInt64, 0, 1, 120_000, math.MaxInt64} {
			c, r := &wallet.Counter{}, wallet.Rule{Threshold: money(10 * billion), PeriodMs: period}
			c.Apply(wallet.Deposit{Amount: money(6 * billion), At: at}, r)
			if out := c.Apply(wallet.Deposit{Amount: money(6 * billion), At: at, Offset: 1}, r); !out.Emit {
				t.Errorf("at %d, period %d: two at once are not seen", at, period)
			}
		}
	}
	c, r := &wallet.Counter{}, rule(10*billion, 120_000)
	for i, at := range []int64{math.MinInt64, math.MaxInt64, 0, math.MinInt64 / 2, math.MaxInt64 / 2} {
		if out := c.Apply(wallet.Deposit{Amount: money(3 * billion), At: at, Offset: int64(i)}, r); i < 3 && out.Emit {
			t.Errorf("ages apart: %+v", c.Tip)
		}
	}
}

// A crossing by a clock that is ahead does not silence the others: each tells once a period
// by its own, however the clocks take turns.
func TestEachClockTellsOncePerPeriod(t *testing.T) {
	const period, hour = 5_000, 3_600_000
	c, told := &wallet.Counter{}, map[uint64]int{}
	for i := range int64(600) { // one in two seconds, of four APIs in turn; the fourth ends early
		origin := uint64(i % 4)
		if i > 100 {
			origin = uint64(i % 3)
		}
		d := wallet.Deposit{Amount: money(50_000 * billion), At: 1_800_000_000_000 + 2_000*i + hour*int64(origin), Offset: i, Origin: origin + 1, Sequence: uint64(i + 1)}
		if c.Apply(d, rule(10_000*billion, period)).Emit {
			told[origin]++
		}
	}
	for origin := range uint64(3) { // a deposit in six seconds: each is a period after the last
		if n := told[origin]; n < 190 || n > 200 {
			t.Errorf("clock %d h ahead tells %d times of 20 minutes", origin, n)
		}
	}
	if err := c.Check(); err != nil || len(c.Window.Told) > 15 {
		t.Errorf("%v: %v", err, c.Window.Told)
	}
}

// An origin that is heard of again after a long quiet time has a window again.
func TestQuietOriginComesBack(t *testing.T) {
	const period, start = 120_000, 1_800_000_000_000
	c, offset := &wallet.Counter{}, int64(0)
	apply := func(origin uint64, at, units int64) bool {
		offset++
		return c.Apply(wallet.Deposit{Amount: money(units * billion), At: start + at, Offset: offset, Origin: origin, Sequence: uint64(offset)}, rule(10_000*billion, period)).Emit
	}
	apply(1, 0, 1)
	apply(2, -3_600_000, 1) // an hour slow
	apply(1, 3_000, 1)
	for i := range int64(96) {
		apply(1, 13_000+10_000*i, 1)
	}
	apply(2, 960_000-3_600_000, 6_000)
	if !apply(2, 960_500-3_600_000, 6_000) {
		t.Errorf("two of 6,000 in half a second are not seen: %+v", c.Account.Origins)
	}
}
