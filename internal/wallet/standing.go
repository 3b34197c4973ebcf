package wallet

// Standing is how a window stands at a time: the fullest window that holds it, by
// which a deposit of that time would be judged.
type Standing struct {
	// The window is (Start, End], in Unix milliseconds. End is the time asked for,
	// unless deposits of a clock that was ahead make a later one fuller.
	Start, End int64
	Sum        Amount
	Deposits   uint32
	// Headroom is the most that may be deposited at that time without raising Sum
	// above the threshold; 0 when nothing may, or when Sum is above it already.
	Headroom Amount
	// Expires is when the oldest part has left every window, in Unix milliseconds; 0
	// when there is no part.
	Expires int64
	// Parts are what is in the window, oldest first. A cell of several deposits may
	// lie in it in part, and counts in full.
	Parts []Cell
}

// Standing is how w stands at a time, in Unix milliseconds, under the row's rule.
func (w *Window) Standing(at int64) Standing {
	at = boundedTime(at)
	sum, end, deposits := w.highest(at, touches)
	s := Standing{Start: end - w.period(), End: end, Sum: sum, Deposits: deposits}
	if sum.Cmp(w.Rule.Threshold) < 0 {
		s.Headroom = w.Rule.Threshold.minus(sum)
	}
	for i := range w.Cells {
		if from, to := touches.of(&w.Cells[i], w.period()); from <= end && end < to {
			s.Parts = append(s.Parts, w.Cells[i])
		}
	}
	if len(s.Parts) > 0 {
		_, s.Expires = touches.of(&s.Parts[0], w.period())
	}
	return s
}
