package wallet

import (
	"slices"
	"sort"
)

// lateness is how late, in milliseconds, a deposit may come and be judged as if
// in order.
const lateness = 10_000

// Cell is one deposit of the window, or several that lie in one aligned part of
// the period.
type Cell struct {
	First, Last int64 // event times, Unix milliseconds
	Sum         Amount
	Count       uint32
	Offset      int64 // of the last deposit to join
}

// Window is what a row keeps to judge the next deposit: the wallet's recent
// deposits. Cells are ordered by time and do not overlap.
type Window struct {
	Rule  Rule
	Cells []Cell
	// Told are the times of crossings besides Counter.Tip's, each the latest of a clock
	// that differs from the others by more than a period; see tells.
	Told []int64
	// Past are the latest rules before Rule, oldest first; RuleChanges counts
	// all that there were.
	Past        []PastRule
	RuleChanges uint32

	cells Slide
	// sum is that of all cells, if sumKnown.
	sum      Amount
	sumKnown bool
}

// CellSlide is that of Cells.
func (w *Window) CellSlide() Slide { return w.cells }

// PastRule was in force for the wallet's deposits below offset Upto.
type PastRule struct {
	Rule Rule
	Upto int64
}

// maxPast is how many earlier rules a row remembers.
const maxPast = 4

// Times and periods are held within these bounds, some 285,000 years, so that
// no sum of a few of them overflows whatever a message or a setting says.
const maxTime = 1 << 53

func boundedTime(ms int64) int64 { return min(max(ms, -maxTime), maxTime) }

// period is the rule's in milliseconds, and at least 1.
func (w *Window) period() int64 { return min(max(w.Rule.PeriodMs, 1), maxTime) }

// adopt puts a rule in force from an offset on and tells whether another one was
// before. The cells stay: they are deposits, whatever the rule.
func (w *Window) adopt(rule Rule, from int64) bool {
	if w.Rule == rule {
		return false
	}
	changed := w.Rule != Rule{}
	if changed {
		w.RuleChanges++
		w.Past = slices.Concat(w.Past[max(0, len(w.Past)+1-maxPast):], []PastRule{{w.Rule, from}})
	}
	w.Rule = rule
	return changed
}

// RuleAt is the rule that judged the wallet's deposit at an offset. It is not
// known if the row has forgotten a rule: then what it holds depends on more than
// it tells.
func (w *Window) RuleAt(offset int64) (rule Rule, known bool) {
	rule, known = w.Rule, int(w.RuleChanges) == len(w.Past)
	for _, past := range slices.Backward(w.Past) {
		if offset < past.Upto {
			rule = past.Rule
		}
	}
	return rule, known
}

// crossing decides whether d takes a window above the threshold: some window that
// holds d's time is above it with d; and either none was before, or no crossing tells of
// it: the deposit that tipped the last one has left every window that holds d. So a wallet
// that stays above crosses once a period. A window is (end − period, end], so every
// one that holds t ends in [t, t + period).
//
// Where the rule has changed (was is the one before), a window counts as above before d
// only if it was so under both rules: under the old one, else it was not told of; under
// the new one, else it is not above now.
//
// A cell of several deposits may lie in a window in part. The sum with d counts
// such a cell, the sum before it does not: what cells hide errs towards raising.
func (w *Window) crossing(d Deposit, was Rule, last *Evidence) (Evidence, bool) {
	if w.all().plus(d.Amount).Cmp(w.Rule.Threshold) <= 0 {
		return Evidence{}, false // as most wallets, it is far below
	}
	t := boundedTime(d.At)
	most, end, deposits := w.highest(t, touches)
	with := most.plus(d.Amount)
	if with.Cmp(w.Rule.Threshold) <= 0 {
		return Evidence{}, false
	}
	if w.told(t, last) && w.above(t, w.Rule) && (w.Rule == was || w.above(t, was)) {
		return Evidence{}, false
	}
	return Evidence{
		Partition: d.Partition, Offset: d.Offset, TippedAt: t, WindowStart: end - w.period(), WindowEnd: end,
		Total: with, Deposits: deposits + 1, Rule: w.Rule,
	}, true
}

// maxTold bounds the clocks whose latest crossing is known, besides that of the tip: no row
// knows more.
const maxTold = maxOrigins - 1

// told tells whether a crossing tells of a deposit at time t: it shares a window with the
// one that tipped it, or is late behind that. By a clock that is further off, time goes by
// of its own: a crossing an hour ahead must not silence a wallet for an hour.
func (w *Window) told(t int64, tip *Evidence) bool {
	tells := func(tipped int64) bool { return -w.period()-lateness < t-tipped && t-tipped < w.period() }
	return tip != nil && (tells(tip.TippedAt) || slices.ContainsFunc(w.Told, tells))
}

// tell notes a crossing at time t, after one at another: of all that are known it takes the
// place of the latest that is not after it, its own clock's.
func (w *Window) tell(t int64, before *Evidence) {
	if before == nil {
		return
	}
	own := -1
	known := append(w.Told, before.TippedAt)
	for i, tipped := range known {
		if tipped <= t && (own < 0 || tipped >= known[own]) {
			own = i
		}
	}
	if own >= 0 {
		known = slices.Delete(known, own, own+1)
	}
	w.Told = known[max(0, len(known)-maxTold):]
}

// above tells whether a window that holds time t is above the threshold of a rule,
// without what cells may hide.
func (w *Window) above(t int64, r Rule) bool {
	under := Window{Rule: r, Cells: w.Cells}
	most, _, _ := under.highest(t, inside)
	return most.Cmp(r.Threshold) > 0
}

// bound tells which windows count a cell: touches one of which any part lies in the
// window, inside one that lies in it as a whole.
type bound bool

const (
	touches bound = false
	inside  bound = true
)

// of is the range [from, to) of the ends of those windows.
func (b bound) of(c *Cell, period int64) (from, to int64) {
	if b == inside {
		return c.Last, c.First + period
	}
	return c.First, c.Last + period
}

// highest finds, among the windows that hold time t, the largest sum, where it
// ends (the earliest, if several are equal) and how many deposits it has.
//
// A window's sum is largest where a cell has just entered it or at t, so only
// those ends are tried. As the end moves right, cells enter at one index and
// leave at another. The sums cannot overflow: together the cells are at most
// the balance.
func (w *Window) highest(t int64, b bound) (most Amount, end int64, deposits uint32) {
	var sum Amount
	var count uint32
	period := w.period()
	leave := sort.Search(len(w.Cells), func(i int) bool {
		_, to := b.of(&w.Cells[i], period)
		return to > t
	})
	enter, last := leave, t+period-1
	for e := t; ; {
		for ; enter < len(w.Cells); enter++ {
			if from, _ := b.of(&w.Cells[enter], period); from > e {
				break
			}
			sum = sum.plus(w.Cells[enter].Sum)
			count += w.Cells[enter].Count
		}
		for ; leave < enter; leave++ {
			if _, to := b.of(&w.Cells[leave], period); to > e {
				break
			}
			sum = sum.minus(w.Cells[leave].Sum)
			count -= w.Cells[leave].Count
		}
		if e == t || sum.Cmp(most) > 0 {
			most, end, deposits = sum, e, count
		}
		if enter == len(w.Cells) {
			return most, end, deposits
		}
		if e, _ = b.of(&w.Cells[enter], period); e > last {
			return most, end, deposits
		}
	}
}

// Highest is the largest sum of any window that holds time t, in Unix milliseconds,
// as far as the row still holds what was in it.
func (w *Window) Highest(t int64) Amount {
	most, _, _ := w.highest(boundedTime(t), touches)
	return most
}

// all is the sum of all cells, or the largest amount where none can hold it.
func (w *Window) all() Amount {
	if w.sumKnown {
		return w.sum
	}
	w.sum, w.sumKnown = Amount{}, true
	for i := range w.Cells {
		w.came(w.Cells[i].Sum)
	}
	if !w.sumKnown {
		return maxAmount
	}
	return w.sum
}

// came and gone keep the sum of all cells.
func (w *Window) came(a Amount) {
	if w.sumKnown {
		w.sum, w.sumKnown = w.sum.Add(a)
	}
}

func (w *Window) gone(a Amount) {
	if w.sumKnown {
		w.sum = w.sum.minus(a)
	}
}

// insert adds d.
func (w *Window) insert(d Deposit) {
	t := boundedTime(d.At)
	// After the deposits of the same millisecond, so that cells of one
	// millisecond are in the order in which they came.
	i := len(w.Cells)
	if i > 0 && w.Cells[i-1].First > t {
		i = sort.Search(i, func(i int) bool { return w.Cells[i].First > t })
	}
	w.came(d.Amount)
	c := Cell{First: t, Last: t, Sum: d.Amount, Count: 1, Offset: d.Offset}
	if i > 0 && w.Cells[i-1].Last >= t && w.Cells[i-1].Count > 1 {
		i--
		w.Cells[i].join(c)
	} else {
		w.Cells = push(w.Cells, c)
		copy(w.Cells[i+1:], w.Cells[i:])
		w.Cells[i] = c
	}
	w.cells.change(i)
}

// prune drops the cells that share no window with a deposit of time needed or later.
// What is later stays, whichever origin made it: the slowest clock will come to it.
func (w *Window) prune(needed int64) {
	n := 0
	for n < len(w.Cells)-1 && w.Cells[n].Last <= needed-w.period() {
		w.gone(w.Cells[n].Sum)
		n++
	}
	w.Cells = w.Cells[n:]
	w.cells.drop(n)
}

func (c *Cell) join(x Cell) {
	c.First, c.Last = min(c.First, x.First), max(c.Last, x.Last)
	c.Sum = c.Sum.plus(x.Sum)
	c.Count += x.Count
	c.Offset = max(c.Offset, x.Offset)
}
