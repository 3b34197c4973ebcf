package wallet

import "math/bits"

// The sizes below bound the bytes of the encoded row from above, column by
// column as in proto/tables.proto: the core does not know the encoding, but
// must know when a row becomes too large.

const (
	// columnHead is a packed column's tag and length, or a message's.
	columnHead  = 4
	maxRule     = 3*11 + columnHead
	maxPastRule = maxRule + 11 + columnHead
	// maxFixed bounds what does not grow: the account's eight numbers, the window's rule
	// and count of rules, and the evidence, each field at its longest.
	maxFixed = 8*11 + maxRule + 11 + columnHead + (columnHead + 8*11 + maxRule) + 2*columnHead
	// maxOrigin bounds an origin: its id, and three numbers.
	maxOrigin = columnHead + 9 + 3*11
)

// sizeWithoutCells bounds all of the row but the window's cells, in bytes.
func (c *Counter) sizeWithoutCells() int {
	n := maxFixed + 6*columnHead + maxPastRule*len(c.Window.Past) + 11*len(c.Window.Told)
	for i := range c.Account.Origins {
		o := &c.Account.Origins[i]
		n += columnHead + 9 + 3 + varint(o.Sequence) + zigzag(o.LatestAt-c.Account.LastAt) + varint(uint64(o.Idle)) //nolint:gosec // as encoded
	}
	var offset int64
	for i := range c.Account.RecentKeys {
		use := &c.Account.RecentKeys[i]
		n += len(use.Hash) + varint(use.Amount.Units) + varint(uint64(use.Amount.Nanos)) + zigzag(use.Offset-offset)
		offset = use.Offset
	}
	return n
}

// roughSize bounds all of the row: at no time below sizeWithoutCells and cellsSize
// together, and cheaper. No number of a column takes more bytes than all of them or-ed.
//
//nolint:gosec // bits only
func (c *Counter) roughSize() int {
	const maxKey, first2 = len(KeyHash{}) + 10 + 5 + 10, 2 * 10
	first, offset := c.Window.Cells[0].First, c.Window.Cells[0].Offset
	var firsts, offsets, spans, units uint64
	var nanos, counts uint32
	for i := range c.Window.Cells {
		x := &c.Window.Cells[i]
		d := x.Offset - offset
		firsts |= uint64(x.First - first)
		offsets |= uint64(d)<<1 ^ uint64(d>>63)
		spans |= uint64(x.Last - x.First)
		units |= x.Sum.Units
		nanos |= x.Sum.Nanos
		counts |= x.Count
		first, offset = x.First, x.Offset
	}
	cell := varint(firsts) + varint(offsets) + varint(spans) + varint(units) + varint(uint64(nanos)) + varint(uint64(counts))
	return maxFixed + 12*columnHead + first2 + maxPastRule*len(c.Window.Past) + 11*len(c.Window.Told) + maxOrigin*len(c.Account.Origins) + maxKey*len(c.Account.RecentKeys) + cell*len(c.Window.Cells)
}

// cellsSize bounds the window's six columns, in bytes. A column of which every
// value is the usual one is left out.
func (w *Window) cellsSize() int {
	var first, offset int64
	var spans, nanos, counts bool
	n, spanSize, nanoSize, countSize := 6*columnHead, 0, 0, 0
	for i := range w.Cells {
		c := &w.Cells[i]
		n += varint(uint64(c.First-first)) + varint(c.Sum.Units) + zigzag(c.Offset-offset) //nolint:gosec // as encoded
		spanSize += varint(uint64(c.Last - c.First))                                       //nolint:gosec // ordered
		nanoSize += varint(uint64(c.Sum.Nanos))
		countSize += varint(uint64(c.Count))
		spans, nanos, counts = spans || c.Last != c.First, nanos || c.Sum.Nanos != 0, counts || c.Count != 1
		first, offset = c.First, c.Offset
	}
	if spans {
		n += spanSize
	}
	if nanos {
		n += nanoSize
	}
	if counts {
		n += countSize
	}
	return n
}

func varint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func zigzag(v int64) int { return varint(uint64(v)<<1 ^ uint64(v>>63)) } //nolint:gosec // as encoded
