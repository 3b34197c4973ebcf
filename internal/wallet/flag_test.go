package wallet_test

import (
	"math/rand/v2"
	"testing"

	"coinbit/internal/wallet"
)

func crossing(offset, tip int64) wallet.FlagEvent {
	return wallet.FlagEvent{Offset: offset, Crossing: &wallet.Evidence{Offset: tip}}
}

func removal(offset int64, id uint64, upto int64) wallet.FlagEvent {
	return wallet.FlagEvent{Offset: offset, Remove: true, ID: id, At: 1_000 + offset, RemovedUpto: upto}
}

func raise(offset int64, id uint64) wallet.FlagEvent {
	return wallet.FlagEvent{Offset: offset, Raise: true, ID: id, At: 1_000 + offset}
}

func TestFlag(t *testing.T) {
	type event struct {
		e      wallet.FlagEvent
		want   wallet.Verdict
		raised bool
	}
	const applied, redelivered, repeated = wallet.Applied, wallet.Redelivered, wallet.Repeated
	for name, events := range map[string][]event{
		"a crossing of the deposit at offset 0": {{crossing(0, 0), applied, true}},
		"a crossing stays":                      {{crossing(0, 5), applied, true}, {crossing(1, 9), applied, true}},
		"the same crossing twice":               {{crossing(0, 5), applied, true}, {crossing(1, 5), repeated, true}},
		"an older crossing":                     {{crossing(0, 5), applied, true}, {crossing(1, 4), repeated, true}},
		"redelivered":                           {{crossing(0, 5), applied, true}, {crossing(0, 9), redelivered, true}},
		"removed, raised by the next crossing": {
			{crossing(0, 5), applied, true}, {removal(1, 1, 6), applied, false}, {crossing(2, 5), repeated, false},
			{crossing(3, 6), applied, true}},
		"removed before its crossing comes": {
			{removal(0, 1, 6), applied, false}, {crossing(1, 5), applied, false}, {crossing(2, 6), applied, true}},
		"a removal that saw less than the crossing's deposit": {
			{crossing(0, 5), applied, true}, {removal(1, 1, 5), applied, true}},
		"an older removal takes nothing back": {
			{crossing(0, 5), applied, true}, {removal(1, 1, 9), applied, false}, {removal(2, 2, 3), applied, false}},
		"by hand": {
			{raise(0, 1), applied, true}, {removal(1, 2, 0), applied, false}, {raise(2, 1), repeated, false},
			{raise(3, 3), applied, true}, {removal(4, 2, 0), repeated, true}},
		"by hand and by a crossing": {
			{raise(0, 1), applied, true}, {crossing(1, 8), applied, true}, {removal(2, 2, 3), applied, true},
			{removal(3, 3, 9), applied, false}},
		"no id is no repeat": {{raise(0, 0), applied, true}, {removal(1, 0, 0), applied, false}, {raise(2, 0), applied, true}},
	} {
		var f wallet.Flag
		for i, e := range events {
			if got := f.Apply(e.e); got != e.want || f.Raised() != e.raised || f.NextOffset != i64(i, e.e.Offset, got) {
				t.Errorf("%s, event %d: %v, raised %v, %+v", name, i, got, f.Raised(), f)
			}
		}
	}
}

// i64 is the next offset after event i: redelivered ones leave it.
func i64(i int, offset int64, v wallet.Verdict) int64 {
	if v == wallet.Redelivered {
		return int64(i)
	}
	return offset + 1
}

func TestFlagKeepsItsStory(t *testing.T) {
	var f wallet.Flag
	if f.Raised() {
		t.Error("a fresh flag is raised")
	}
	e := crossing(0, 5)
	e.Crossing.Total = money(7)
	for _, event := range []wallet.FlagEvent{e, crossing(1, 4), raise(2, 1), removal(3, 2, 9), removal(4, 2, 99), removal(5, 3, 2)} {
		f.Apply(event)
	}
	e.Crossing.Total = money(8) // the sender's; the row's is its own
	if f.Evidence.Offset != 5 || f.Evidence.Total != money(7) || f.NextTip != 6 {
		t.Errorf("%+v", f.Evidence)
	}
	if f.Removals != 2 || f.LastRemovalAt != 1_005 || f.RaisedAt != 1_002 || f.RemovedUpto != 9 {
		t.Errorf("%+v", f)
	}
}

// A flag shows the crossing that raised it: later ones do not move it, and when that
// one is removed by who knew of no later one, the latest takes its place.
func TestFlagShowsWhatRaisedIt(t *testing.T) {
	var f wallet.Flag
	cross := func(offset, tip int64) wallet.FlagEvent {
		e := crossing(offset, tip)
		e.Crossing.TippedAt, e.Parts = 1_000*tip, []wallet.Cell{{First: tip, Last: tip, Count: 1, Offset: tip}}
		return e
	}
	for i, c := range []struct {
		e        wallet.FlagEvent
		evidence int64
		parts    bool
	}{
		{cross(0, 5), 5, true}, {cross(1, 9), 5, true}, {cross(2, 12), 5, true},
		{removal(3, 1, 7), 12, false}, {cross(4, 20), 12, false},
		{removal(5, 2, 21), 12, false}, {cross(6, 30), 30, true}, {removal(7, 3, 31), 30, true},
	} {
		f.Apply(c.e)
		if f.Evidence.Offset != c.evidence || (f.Parts != nil) != c.parts {
			t.Errorf("event %d: %+v", i, f)
		}
		if by, at := f.RaisedBy(); by == wallet.ByCrossing && at != 1_000*c.evidence {
			t.Errorf("event %d: raised at %d", i, at)
		}
		if err := f.Check(); err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
}

func TestFlagForgetsIDs(t *testing.T) {
	var f wallet.Flag
	for i := range int64(16) {
		f.Apply(raise(i, uint64(i+1)))
	}
	if got := f.Apply(raise(16, 1)); got != wallet.Repeated {
		t.Errorf("the 16th before: %v", got)
	}
	f.Apply(raise(17, 17))
	if got := f.Apply(raise(18, 1)); got != wallet.Applied || len(f.RecentEventIDs) != 16 {
		t.Errorf("the 17th before: %v of %d", got, len(f.RecentEventIDs))
	}
}

// The whole way: deposits cross, crossings come late and more than once, an
// operator removes in between. In the end the flag is what the log says: some
// crossing lies at or above every removal's watermark.
func TestFlagAgainstTheTwin(t *testing.T) {
	raisedAgain := 0
	seeded(t, flagHistories, func(r *rand.Rand) {
		const period = 1_000
		c, w := &wallet.Counter{}, &twin{period: period, threshold: 6 * billion}
		rl := rule(w.threshold, period)
		var f wallet.Flag
		var pending, sent []wallet.FlagEvent
		tip, upto, byHand, next, id := int64(-1), int64(0), false, int64(0), uint64(0)
		send := func(e wallet.FlagEvent) {
			e.Offset, next = next, next+1
			sent = append(sent, e)
			f.Apply(e)
			if r.IntN(4) == 0 { // a rewind
				for _, e := range sent[r.IntN(len(sent)):] {
					if got := f.Apply(e); got != wallet.Redelivered {
						t.Fatalf("%v", got)
					}
				}
			}
		}
		for i, a := range history(r, 60, period) {
			out := c.Apply(wallet.Deposit{Amount: money(a.amount), At: a.at, Origin: a.origin, Sequence: uint64(i + 1), Offset: int64(i)}, rl)
			if w.add(a.at, a.amount).crosses {
				tip = int64(i)
			}
			if out.Emit {
				evidence := *c.Tip
				for range 1 + r.IntN(2) {
					pending = append(pending, wallet.FlagEvent{Crossing: &evidence})
				}
			}
			for len(pending) > 0 && r.IntN(3) == 0 { // in any order
				k := r.IntN(len(pending))
				send(pending[k])
				pending = append(pending[:k], pending[k+1:]...)
			}
			if r.IntN(20) == 0 {
				id++
				e := wallet.FlagEvent{Remove: true, ID: id, RemovedUpto: int64(i + 1)}
				if r.IntN(4) == 0 {
					e = wallet.FlagEvent{Raise: true, ID: id}
				}
				byHand, upto = e.Raise, max(upto, e.RemovedUpto)
				for range 1 + r.IntN(2) {
					send(e)
				}
			}
		}
		for _, e := range pending {
			send(e)
		}
		if want := byHand || tip >= 0 && tip >= upto; f.Raised() != want {
			t.Fatalf("raised %v: tip %d, removed up to %d, by hand %v; %+v", f.Raised(), tip, upto, byHand, f)
		}
		if upto > 0 && tip >= upto {
			raisedAgain++
		}
	})
	if raisedAgain < flagHistories/10 {
		t.Fatalf("raised again in %d: the histories test little", raisedAgain)
	}
}
