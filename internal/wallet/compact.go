package wallet

import (
	"math/bits"
	"slices"
)

const (
	// maxCells is how many cells a row keeps; up to as many deposits the window
	// is exact. It is also the number of aligned cells of a period.
	maxCells = 256
	// maxBytes bounds the encoded cells, so that with 100 keys and 64 ids at
	// their longest a row stays below 8 KiB.
	maxBytes = 4_500
)

// compact keeps the window within its bounds after a deposit at t: first by
// what exactness within one period can spare, then by letting deposits share
// aligned cells, as coarse as it takes.
func (w *Window) compact(t int64) {
	if w.fits(maxCells) {
		return
	}
	if w.OtherAnchor != 0 {
		w.OtherAnchor, w.OtherIdle = 0, 0
		w.prune()
	}
	for !w.fits(maxCells) && w.Cells[0].Last <= t-w.Rule.PeriodMs { // only a late deposit would miss it
		w.Cells = slices.Delete(w.Cells, 0, 1)
	}
	if w.fits(maxCells) {
		return
	}
	w.merge(maxCells)
	// A window that is not aligned itself touches one cell more.
	for parts := int64(maxCells / 2); parts > 0 && !w.fits(maxCells+1); parts /= 2 {
		w.merge(parts)
	}
}

// merge joins the cells that lie in the same aligned part of the period, of
// which there are parts.
func (w *Window) merge(parts int64) {
	kept := w.Cells[:0]
	for _, c := range w.Cells {
		if n := len(kept); n > 0 && part(kept[n-1].First, w.Rule.PeriodMs, parts) == part(c.Last, w.Rule.PeriodMs, parts) {
			kept[n-1].join(c)
			continue
		}
		kept = append(kept, c)
	}
	w.Cells = kept
}

// part is floor(t · parts ÷ period); t is below 2^48, so nothing overflows.
func part(t, period, parts int64) int64 { return t * parts / period }

func (w *Window) fits(cells int) bool {
	return len(w.Cells) <= cells && (len(w.Cells) < maxCells/2 || w.size() <= maxBytes)
}

// size bounds the bytes of the encoded cells from above: six packed columns, see
// proto/tables.proto.
func (w *Window) size() int {
	n, first, offset := 0, int64(0), int64(0)
	for i := range w.Cells {
		c := &w.Cells[i]
		delta := c.Offset - offset
		n += varint(uint64(c.First-first)) + varint(uint64(c.Last-c.First)) + varint(c.Sum.Units) + //nolint:gosec // ordered
			varint(uint64(c.Sum.Nanos)) + varint(uint64(c.Count)) + varint(uint64(delta<<1^delta>>63)) //nolint:gosec // zig-zag
		first, offset = c.First, c.Offset
	}
	return n + 6*4
}

func varint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
