package wallet

import (
	"cmp"
	"slices"
)

// Two API instances whose clocks differ send two streams of deposits, each in
// order up to lateness. Pruning by the largest time seen would let the faster
// clock empty the slower one's windows; so a window follows up to two streams
// and keeps what a next deposit of either can need. It cannot know the streams:
// it only sees times go forward and back by more than lateness, which a quiet
// hour of one stream does too. Where in doubt it keeps more.
const (
	// What is kept before every window. With lateness L, a faster clock shows
	// itself by a step forward of more than L unless it is off by 3 L or less;
	// unseen, it leaves the slower one's deposits up to 4 L behind.
	slack = 4 * lateness
	// maxIdle is how many deposits may pass a stream by before it is forgotten.
	maxIdle = 64
)

// reach is how far a stream may step forward and yet share a window with where
// it was, in milliseconds, lateness included.
func (w *Window) reach() int64 { return w.period() + slack }

// follow notes that a deposit came at time t.
func (w *Window) follow(t int64) {
	if t == 0 {
		t = 1 // 0 is no anchor; a millisecond is far within lateness
	}
	switch hi, lo := w.anchors(); {
	case w.Anchor == 0:
		w.Anchor = t
	case w.OtherAnchor == 0 && t >= hi-lateness && t <= hi+lateness:
		w.Anchor = max(hi, t)
	case w.OtherAnchor == 0 || t > hi+w.reach() || t < lo-lateness:
		// A second stream, or a third: in place of the one not in hand.
		w.Anchor, w.OtherAnchor, w.OtherIdle = t, w.Anchor, 0
	case t >= hi-lateness:
		w.advance(hi, t)
	default:
		w.advance(lo, t)
	}
}

// advance moves one of the two streams on to t. A stream that was passed by
// maxIdle times is forgotten.
func (w *Window) advance(anchor, t int64) {
	if anchor != w.Anchor {
		w.Anchor, w.OtherAnchor, w.OtherIdle = max(anchor, t), w.Anchor, 0
		return
	}
	w.Anchor = max(anchor, t)
	if w.OtherIdle++; w.OtherIdle >= maxIdle {
		w.OtherAnchor, w.OtherIdle = w.trailing(), 0
	}
}

// trailing finds, among the last maxIdle arrivals, a stream that steps forward
// of the one in hand may have hidden: the earliest time that was stepped from
// or gone back to by more than lateness, within reach; 0 for none.
func (w *Window) trailing() int64 {
	recent := make([]Cell, 0, maxCells+1)
	for _, c := range w.Cells {
		if c.First <= w.Anchor && c.Last >= w.Anchor-w.reach() {
			recent = append(recent, c)
		}
	}
	slices.SortFunc(recent, func(a, b Cell) int { return cmp.Compare(a.Offset, b.Offset) })
	recent = recent[max(0, len(recent)-maxIdle):]

	lowest := w.Anchor
	hi := recent[0].Last // the deposit in hand is among them
	for _, c := range recent[1:] {
		switch t := c.First; {
		case t > hi+lateness:
			lowest = min(lowest, hi)
		case t < hi-lateness:
			lowest = min(lowest, t)
		}
		hi = max(hi, c.Last)
	}
	if lowest == w.Anchor {
		return 0
	}
	return lowest
}

// anchors returns the later and the earlier stream's; both are Anchor when one
// stream is followed.
func (w *Window) anchors() (hi, lo int64) {
	if w.OtherAnchor == 0 {
		return w.Anchor, w.Anchor
	}
	return max(w.Anchor, w.OtherAnchor), min(w.Anchor, w.OtherAnchor)
}

// prune drops the cells that neither stream's next deposit can need: before it,
// a period and some slack; after it, where another clock may have been ahead.
func (w *Window) prune() {
	reach := w.reach()
	hi, lo := w.anchors()
	// Too far apart to share windows, each stream may hide another within its reach,
	// for a stream that was at rest is a stream all the same.
	apart := hi-lo > reach
	needed := func(c *Cell) bool {
		if apart {
			return c.Last > hi-2*reach && c.First <= hi+reach || c.Last > lo-2*reach && c.First <= lo+reach
		}
		return c.Last > lo-reach && c.First <= hi+reach
	}
	first := 0
	for ; !needed(&w.Cells[first]); first++ { // the deposit in hand is needed
		w.gone(w.Cells[first].Sum)
	}
	w.Cells = w.Cells[first:]
	w.cells.drop(first)
	if !apart && w.Cells[len(w.Cells)-1].First <= hi+reach {
		return // in order, so all between are needed too
	}
	kept := w.Cells[:0]
	for i := range w.Cells {
		if c := w.Cells[i]; needed(&c) {
			kept = append(kept, c)
		} else {
			w.cells.change(len(kept))
			w.gone(c.Sum)
		}
	}
	w.Cells = kept
}
