package wallet

import "math/bits"

const (
	// parts is into how many aligned cells a period is cut when deposits must
	// share them.
	parts = 256
	// maxCells bounds the cells of a row. Above parts, so that a full window of
	// deposits leaves room for those that only a late one needs, and for the cell
	// more that a window touches when it is not aligned.
	maxCells = parts + 32
	// maxRowSize bounds an encoded row of the threshold table, in bytes.
	maxRowSize = 8192
	// minBusy is a number of cells that is within every bound at once.
	minBusy = 64
)

// compact brings a row within its bounds. Neighbouring cells are joined, one
// pair at a time and no more than needed: nothing is dropped, so no window is
// ever judged by less than what was in it.
func (c *Counter) compact() {
	w := &c.Window
	if len(w.Cells) <= minBusy || len(w.Cells) <= maxCells && c.roughSize() <= maxRowSize {
		return
	}
	room := maxRowSize - c.sizeWithoutCells()
	for len(w.Cells) > maxCells || len(w.Cells) > 1 && w.cellsSize() > room {
		c.joinCheapest()
	}
}

// joinCheapest joins the pair of neighbours that costs least exactness; among
// equals the oldest.
func (c *Counter) joinCheapest() {
	w := &c.Window
	needs, inPeriod := make([]need, len(w.Cells)), 0
	for i := range w.Cells {
		if needs[i] = c.need(&w.Cells[i]); needs[i] == needAlways {
			inPeriod++
		}
	}
	best, lowest := 1, int(^uint(0)>>1)
	left := w.part(w.Cells[0].First)
	for i := 1; i < len(w.Cells); i++ {
		cell := &w.Cells[i]
		first := w.part(cell.First)
		last := first
		if cell.Last != cell.First {
			last = w.part(cell.Last)
		}
		need := max(needs[i], needs[i-1])
		if n := cost(need, bits.Len64(uint64(left^last)), inPeriod > parts); n < lowest { //nolint:gosec // bits only
			best, lowest = i, n
		}
		left = first
	}
	w.Cells[best-1].join(w.Cells[best])
	w.Cells = append(w.Cells[:best], w.Cells[best+1:]...)
	w.cells.change(best - 1)
}

// need says which deposits to come need a cell.
type need int

const (
	needSeldom need = iota // one from a clock that is far behind the others
	needLate               // one that comes late
	needAlways             // the next one of some origin
)

// need is the greatest need that any origin has of a cell.
func (c *Counter) need(cell *Cell) need {
	most, period := needSeldom, c.Window.period()
	for i := range c.Account.Origins {
		o := &c.Account.Origins[i]
		switch start := o.clock() - period; {
		case o.Idle > period+quietAfter, cell.First > o.clock(), cell.Last <= start-lateness:
		case cell.Last <= start:
			most = max(most, needLate)
		default:
			return needAlways
		}
	}
	return most
}

// cost ranks a pair to be joined. Joined, the two lie in one of the aligned
// cells that are 2^level parts wide. A period of up to 256 deposits is left
// exact for as long as anything else can give way; a fuller one shares its
// parts before late deposits are judged by anything coarser.
func cost(n need, level int, full bool) int {
	const step = 100 // more than there are levels
	switch {
	case n == needSeldom:
		return level
	case n == needLate && level == 0:
		return step
	case n == needAlways && level == 0 && full:
		return step + 1
	case n == needLate:
		return 2*step + level
	default:
		return 3*step + level
	}
}

// part is floor(t · parts ÷ period), without overflow. (Before 1970 it rounds
// up, which is as good: parts need an order and a width only.)
func (w *Window) part(t int64) int64 {
	period := w.period()
	return t/period*parts + t%period*parts/period
}
