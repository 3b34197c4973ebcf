package wallet

// Two API instances whose clocks differ send two streams of deposits, each in
// order up to lateness. Pruning by the largest time seen would let the faster
// clock empty the slower one's windows; so a window follows up to two streams
// and keeps what a next deposit of either can need. It cannot know the streams:
// it only sees times go forward and back by more than lateness, which a quiet
// hour of one stream does too. Where in doubt it keeps more.
//
// How far the slower clock can be behind is bounded by steps forward: the faster
// one's first deposit after one of the slower's steps ahead by what the clocks
// differ, but for 2 lateness at most, and by the time in between. From there on
// both clocks go equally fast, so the slower one is never further behind than the
// largest step was.
const (
	// What is kept before every window where no step shows. With lateness L, a faster
	// clock shows itself by a step forward of more than L unless it is off by 3 L or
	// less; unseen, it leaves the slower one's deposits up to 4 L behind.
	slack = 4 * lateness
	// unsure is how far before where the other stream is thought to be it may go on:
	// the deposits it was last measured by, and its next, may each have been late.
	unsure = 2 * lateness
	// maxIdle is how many deposits may pass a stream by before it is forgotten.
	maxIdle = 64
)

// reach is how far a stream may step forward and yet share a window with where
// it was, in milliseconds, lateness included.
func (w *Window) reach() int64 { return w.period() + slack }

// follow notes that a deposit came at time t.
func (w *Window) follow(t int64) {
	t = anchorAt(t)
	switch hi, lo := w.anchors(); {
	case w.Anchor == 0:
		w.Anchor = t
	case t > hi+w.reach() || t < lo-unsure || w.Anchor == lo && t < lo-lateness:
		// A second stream, or a third: in place of the one not in hand.
		w.Anchor, w.OtherAnchor, w.OtherIdle = t, w.Anchor, 0
	case t >= hi-lateness:
		w.advance(hi, t)
	default:
		w.advance(lo, t)
	}
}

// anchorAt is a time as an anchor: 0, which is no deposit's, would be none.
func anchorAt(t int64) int64 {
	if t == 0 {
		return 1
	}
	return t
}

// advance moves one of the two streams, thought to be at anchor, on to t. A stream that
// was passed by maxIdle times is forgotten, and so are steps after as many to twice as
// many deposits.
func (w *Window) advance(anchor, t int64) {
	step := t - anchor
	switch {
	case anchor != w.Anchor:
		w.OtherAnchor, w.OtherIdle = w.Anchor, 0
		anchor = t // it may not have been as far as it was thought to be
	case w.OtherIdle+1 >= maxIdle:
		w.OtherAnchor, w.OtherIdle = 0, 0
		w.Step, w.StepBefore = 0, w.Step
	default:
		w.OtherIdle++
		if w.OtherAnchor != 0 && w.OtherAnchor < anchor && step > 0 {
			w.OtherAnchor = anchorAt(w.OtherAnchor + step) // time goes by for it too
		}
	}
	if step > lateness && step <= w.reach() {
		w.Step = max(w.Step, step)
	}
	w.Anchor = max(anchor, t)
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
// a period and how far behind a slower clock may be; after it, where another clock may
// have been ahead.
func (w *Window) prune() {
	reach := w.reach()
	before := reach - lateness + max(lateness, w.Step, w.StepBefore)
	hi, lo := w.anchors()
	needed := func(c *Cell) bool {
		return c.Last > lo-before && c.First <= lo+reach || c.Last > hi-before && c.First <= hi+reach
	}
	first := 0
	for ; !needed(&w.Cells[first]); first++ { // the deposit in hand is needed
		w.gone(w.Cells[first].Sum)
	}
	w.Cells = w.Cells[first:]
	w.cells.drop(first)
	if hi-lo <= reach && w.Cells[len(w.Cells)-1].First <= hi+reach {
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
