package stream

import (
	"google.golang.org/protobuf/encoding/protowire"

	"coinbit/internal/wallet"
)

// How rows are written: fields in ascending order, none that is 0, as
// proto.Marshal does.

// tag begins a field. No row has one above 15, so it takes one byte.
func tag(b []byte, field protowire.Number, t protowire.Type) []byte {
	return append(b, byte(protowire.EncodeTag(field, t))) //nolint:gosec // below 0x80
}

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return appendValue(tag(b, field, protowire.VarintType), v)
}

// appendMessage writes a message, whose length is known only afterwards.
func appendMessage[T any](b []byte, field protowire.Number, v T, write func([]byte, T) []byte) []byte {
	b, start := begin(b, field, 0)
	b, _ = start.end(write(b, v))
	return b
}

// opened is a field that has a length, which stands before it in so much room.
type opened struct{ at, room int }

// begin opens a field of about so many bytes.
func begin(b []byte, field protowire.Number, size int) ([]byte, opened) {
	b = append(tag(b, field, protowire.BytesType), 0)
	if size < 0x80 {
		return b, opened{len(b), 1}
	}
	b = append(b, 0)
	return b, opened{len(b), 2}
}

// end puts the field's length before it. by is how far that moved it.
func (o opened) end(b []byte) (_ []byte, by int) {
	size := len(b) - o.at
	head := protowire.SizeVarint(uint64(size)) //nolint:gosec // a length
	if by = head - o.room; by != 0 {
		b = append(b, 0, 0, 0)
		copy(b[o.at+by:], b[o.at:o.at+size])
		b = b[:o.at+by+size]
	}
	protowire.AppendVarint(b[:o.at-o.room], uint64(size)) //nolint:gosec // a length
	return b, by
}

func appendValue(b []byte, v uint64) []byte {
	if v < 0x80 {
		return append(b, byte(v))
	}
	return protowire.AppendVarint(b, v)
}

//nolint:gosec // numbers are encoded as protobuf has them
func appendAccount(b []byte, a *wallet.Account) []byte {
	b, start := begin(b, 1, 0)
	b = appendNumber(b, 1, uint64(a.NextOffset))
	b = appendNumber(b, 2, a.Balance.Units)
	b = appendNumber(b, 3, uint64(a.Balance.Nanos))
	b = appendNumber(b, 4, a.Deposits)
	b = appendNumber(b, 5, uint64(a.FirstAt))
	b = appendNumber(b, 6, uint64(a.LastAt))
	if len(a.RecentKeys) > 0 {
		b = appendMessage(b, 8, a.RecentKeys, appendKeys)
	}
	for i := range a.Origins {
		b = appendOrigin(b, &a.Origins[i], a.LastAt)
	}
	b = appendNumber(b, 11, uint64(a.Pacemaker))
	b = appendNumber(b, 12, uint64(a.Missed))
	b, _ = start.end(b)
	return b
}

//nolint:gosec // numbers are encoded as protobuf has them
func appendOrigin(b []byte, o *wallet.Origin, lastAt int64) []byte {
	b, start := begin(b, originField, 0)
	if o.ID != 0 {
		b = protowire.AppendFixed64(tag(b, 1, protowire.Fixed64Type), o.ID)
	}
	b = appendNumber(b, 2, o.Sequence)
	b = appendNumber(b, 3, protowire.EncodeZigZag(o.LatestAt-lastAt))
	b = appendNumber(b, 4, uint64(o.Idle))
	b, _ = start.end(b)
	return b
}

func appendKeys(b []byte, uses []wallet.KeyUse) []byte {
	b = tag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(uses)*len(wallet.KeyHash{})))
	for i := range uses {
		b = append(b, uses[i].Hash[:]...)
	}
	b, start := begin(b, 2, 0)
	fractions := false
	for i := range uses {
		b = appendValue(b, uses[i].Amount.Units)
		fractions = fractions || uses[i].Amount.Nanos != 0
	}
	b, _ = start.end(b)
	if fractions {
		b, start = begin(b, 3, 0)
		for i := range uses {
			b = appendValue(b, uint64(uses[i].Amount.Nanos))
		}
		b, _ = start.end(b)
	}
	b, start = begin(b, 4, 0)
	var offset int64
	for i := range uses {
		b = appendValue(b, protowire.EncodeZigZag(uses[i].Offset-offset))
		offset = uses[i].Offset
	}
	b, _ = start.end(b)
	return b
}

func appendRule(b []byte, r *wallet.Rule) []byte {
	b = appendNumber(b, 1, r.Threshold.Units)
	b = appendNumber(b, 2, uint64(r.Threshold.Nanos))
	return appendNumber(b, 3, uint64(r.PeriodMs)) //nolint:gosec // as encoded
}

//nolint:gosec // numbers are encoded as protobuf has them
func appendWindow(b []byte, c *wallet.Window, w *written) []byte {
	b, start := begin(b, 2, len(w.data)/2)
	b = appendMessage(b, 1, &c.Rule, appendRule)
	list := w.list(&w.cells, len(c.Cells), c.CellSlide())
	if len(c.Cells) > 0 {
		b = appendCells(b, c.Cells, &list)
	}
	for i := range c.Past {
		b = appendMessage(b, 11, &c.Past[i], func(b []byte, p *wallet.PastRule) []byte {
			return appendNumber(appendMessage(b, 1, &p.Rule, appendRule), 2, uint64(p.Upto))
		})
	}
	b = appendNumber(b, 12, uint64(c.RuleChanges))
	if len(c.Told) > 0 {
		b = appendMessage(b, 15, c.Told, func(b []byte, told []int64) []byte {
			for _, t := range told {
				b = appendValue(b, protowire.EncodeZigZag(t))
			}
			return b
		})
	}
	b, by := start.end(b)
	w.cells.moved(by)
	return b
}

// appendCells writes the columns of a window.
//
//nolint:gosec // numbers are encoded as protobuf has them
func appendCells(b []byte, cells []wallet.Cell, list *slide) []byte {
	b = list.column(b, 2, always, func(i int) uint64 {
		if i == 0 {
			return uint64(cells[0].First)
		}
		return uint64(cells[i].First - cells[i-1].First)
	})
	b = list.column(b, 3, 0, func(i int) uint64 { return uint64(cells[i].Last - cells[i].First) })
	b = list.column(b, 4, always, func(i int) uint64 { return cells[i].Sum.Units })
	b = list.column(b, 5, 0, func(i int) uint64 { return uint64(cells[i].Sum.Nanos) })
	b = list.column(b, 6, 1, func(i int) uint64 { return uint64(cells[i].Count) })
	return list.column(b, 7, always, func(i int) uint64 {
		if i == 0 {
			return protowire.EncodeZigZag(cells[0].Offset)
		}
		return protowire.EncodeZigZag(cells[i].Offset - cells[i-1].Offset)
	})
}

//nolint:gosec // numbers are encoded as protobuf has them
func appendEvidence(b []byte, e *wallet.Evidence) []byte {
	b = appendNumber(b, 1, uint64(int64(e.Partition)))
	b = appendNumber(b, 2, uint64(e.Offset))
	b = appendNumber(b, 3, uint64(e.WindowStart))
	b = appendNumber(b, 4, uint64(e.WindowEnd))
	b = appendNumber(b, 5, e.Total.Units)
	b = appendNumber(b, 6, uint64(e.Total.Nanos))
	b = appendNumber(b, 7, uint64(e.Deposits))
	b = appendMessage(b, 8, &e.Rule, appendRule)
	return appendNumber(b, 9, uint64(e.TippedAt))
}
