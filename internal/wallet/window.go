package wallet

import "slices"

// Cell is one deposit of the window, or several that share an aligned part of
// the period.
type Cell struct {
	First, Last int64 // event times, Unix milliseconds
	Sum         Amount
	Count       uint32
	Offset      int64 // of the last deposit to join
}

// Window is what a row keeps to judge the next deposit: the wallet's recent
// deposits, ordered by event time. See docs/decisions on the window.
type Window struct {
	Rule  Rule
	Cells []Cell
	// Anchor is the latest event time of the stream of deposits in hand.
	// OtherAnchor is that of another stream whose clock is off; it is forgotten
	// after OtherIdle reaches maxIdle. 0 is none.
	Anchor, OtherAnchor int64
	OtherIdle           uint32
}

const (
	// lateness is how late a deposit may come and be judged as if in order.
	lateness = 10_000
	// maxIdle is how many deposits in a row may pass a stream by before it ends.
	maxIdle = 64
)

// crossing decides whether d takes a window above the threshold: some window
// that holds d's time is above it with d, and none was before. A window is
// (end − period, end], so every one that holds t ends in [t, t + period).
//
// A cell of several deposits lies in a window wholly or in part. The sum with d
// counts partial cells, the sum before it does not: whatever the cells hide
// errs towards raising.
func (w *Window) crossing(d Deposit) (Evidence, bool) {
	upper, end, n := w.highest(d.At, touches)
	with := upper.plus(d.Amount)
	if with.Cmp(w.Rule.Threshold) <= 0 {
		return Evidence{}, false
	}
	before, _, _ := w.highest(d.At, inside)
	if before.Cmp(w.Rule.Threshold) > 0 {
		return Evidence{}, false
	}
	return Evidence{
		Partition: d.Partition, Offset: d.Offset, WindowStart: end - w.Rule.PeriodMs, WindowEnd: end,
		Total: with, Deposits: n + 1, Rule: w.Rule,
	}, true
}

// bound tells from when to when the right end of a window includes a cell: the
// window (end − period, end] includes it for from ≤ end < to.
type bound func(c *Cell, period int64) (from, to int64)

// touches includes a cell when any part of it lies in the window.
func touches(c *Cell, period int64) (from, to int64) { return c.First, c.Last + period }

// inside includes a cell when all of it lies in the window.
func inside(c *Cell, period int64) (from, to int64) { return c.Last, c.First + period }

// highest is the largest sum of a window that holds time t, where it ends
// (the earliest, if several are equal) and how many deposits it has.
//
// Cells are disjoint and ordered, so both bounds only grow along them: as the
// end moves right, cells enter at one index and leave at another.
func (w *Window) highest(t int64, b bound) (most Amount, end int64, deposits uint32) {
	var sum Amount
	var count uint32
	period, leave := w.Rule.PeriodMs, 0
	// Each cell that enters after t moves the end to where it enters; the cells
	// that have left by then go first.
	settle := func(at int64) {
		for ; leave < len(w.Cells); leave++ {
			from, to := b(&w.Cells[leave], period)
			if to > at || from > at {
				return
			}
			if from < to { // an empty interval never entered
				sum = sum.minus(w.Cells[leave].Sum)
				count -= w.Cells[leave].Count
			}
		}
	}
	i := 0
	for ; i < len(w.Cells); i++ { // the window that ends at t itself
		from, to := b(&w.Cells[i], period)
		if from > t {
			break
		}
		if from < to {
			sum = sum.plus(w.Cells[i].Sum)
			count += w.Cells[i].Count
		}
	}
	settle(t)
	most, end, deposits = sum, t, count
	for ; i < len(w.Cells); i++ {
		from, to := b(&w.Cells[i], period)
		if from >= t+period {
			break
		}
		if from < to {
			sum = sum.plus(w.Cells[i].Sum)
			count += w.Cells[i].Count
		}
		settle(from)
		if sum.Cmp(most) > 0 {
			most, end, deposits = sum, from, count
		}
	}
	return most, end, deposits
}

// insert adds d and forgets what no later deposit needs.
func (w *Window) insert(d Deposit) {
	i, _ := slices.BinarySearchFunc(w.Cells, d.At, func(c Cell, t int64) int {
		if c.Last < t || c.Last == t && c.First == t { // equal times stay in order of arrival
			return -1
		}
		return 1
	})
	if i < len(w.Cells) && w.Cells[i].First <= d.At {
		w.Cells[i].join(Cell{First: d.At, Last: d.At, Sum: d.Amount, Count: 1, Offset: d.Offset})
	} else {
		w.Cells = slices.Insert(w.Cells, i, Cell{First: d.At, Last: d.At, Sum: d.Amount, Count: 1, Offset: d.Offset})
	}
	w.anchor(d.At)
	w.prune()
	w.compact(d.At)
}

func (c *Cell) join(x Cell) {
	c.First, c.Last = min(c.First, x.First), max(c.Last, x.Last)
	c.Sum = c.Sum.plus(x.Sum)
	c.Count += x.Count
	c.Offset = max(c.Offset, x.Offset)
}

// anchor notes that a deposit came at t. Two streams are followed, so that a
// clock that is off does not make the other clock's window forget: t belongs to
// the latest stream it is not ahead of by more than lateness nor behind by more.
// Otherwise it starts a stream, in place of the one not in hand.
func (w *Window) anchor(t int64) {
	switch {
	case near(w.Anchor, t):
		w.Anchor = max(w.Anchor, t)
		if w.OtherAnchor != 0 {
			if w.OtherIdle++; w.OtherIdle >= maxIdle {
				w.OtherAnchor, w.OtherIdle = 0, 0
			}
		}
	case near(w.OtherAnchor, t):
		w.Anchor, w.OtherAnchor, w.OtherIdle = max(w.OtherAnchor, t), w.Anchor, 0
	default:
		w.Anchor, w.OtherAnchor, w.OtherIdle = t, w.Anchor, 0
	}
}

func near(anchor, t int64) bool { return anchor != 0 && t-anchor <= lateness && anchor-t <= lateness }

// prune drops the cells that neither stream's windows reach: lateness included
// on the one side, and on the other what a clock ahead of it has sent.
func (w *Window) prune() {
	w.Cells = slices.DeleteFunc(w.Cells, func(c Cell) bool {
		return !w.reaches(w.Anchor, c) && !w.reaches(w.OtherAnchor, c)
	})
}

func (w *Window) reaches(anchor int64, c Cell) bool {
	return anchor != 0 && c.Last > anchor-w.Rule.PeriodMs-lateness && c.First < anchor+w.Rule.PeriodMs
}
