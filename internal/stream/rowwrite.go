package stream

import (
	"google.golang.org/protobuf/encoding/protowire"

	"coinbit/internal/wallet"
)

// How rows are written: fields in ascending order, none that is 0, as
// proto.Marshal does.

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendMessage writes a message, whose length is known only afterwards.
func appendMessage[T any](b []byte, field protowire.Number, v T, write func([]byte, T) []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	start := len(b)
	return prefixed(write(b, v), start)
}

// prefixed puts the length of what stands from start on before it.
func prefixed(b []byte, start int) []byte {
	size := len(b) - start
	head := protowire.SizeVarint(uint64(size)) //nolint:gosec // a length
	b = append(b, "          "[:head]...)
	copy(b[start+head:], b[start:start+size])
	protowire.AppendVarint(b[start:start], uint64(size)) //nolint:gosec // a length
	return b
}

// column is room for the values of one column; longer ones than a row has are
// taken care of.
type column [maxColumn]uint64

const maxColumn = 320

// of returns n places, in c if they fit.
func (c *column) of(n int) []uint64 {
	if n > len(c) {
		return make([]uint64, n)
	}
	return c[:n]
}

func appendColumn(b []byte, field protowire.Number, values []uint64) []byte {
	if len(values) == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	start := len(b)
	for _, v := range values {
		if v < 0x80 {
			b = append(b, byte(v))
		} else {
			b = protowire.AppendVarint(b, v)
		}
	}
	return prefixed(b, start)
}

// appendUnusual is appendColumn for one that is left out when all are usual.
func appendUnusual(b []byte, field protowire.Number, values []uint64, usual uint64) []byte {
	for _, v := range values {
		if v != usual {
			return appendColumn(b, field, values)
		}
	}
	return b
}

//nolint:gosec // numbers are encoded as protobuf has them
func appendAccount(b []byte, a *wallet.Account) []byte {
	b = appendNumber(b, 1, uint64(a.NextOffset))
	b = appendNumber(b, 2, a.Balance.Units)
	b = appendNumber(b, 3, uint64(a.Balance.Nanos))
	b = appendNumber(b, 4, a.Deposits)
	b = appendNumber(b, 5, uint64(a.FirstAt))
	b = appendNumber(b, 6, uint64(a.LastAt))
	if len(a.RecentKeys) > 0 {
		b = appendMessage(b, 8, a.RecentKeys, appendKeys)
	}
	var room column
	values := room.of(len(a.RecentIDs))
	var last uint64
	for i, id := range a.RecentIDs {
		values[i] = protowire.EncodeZigZag(int64(id - last))
		last = id
	}
	return appendColumn(b, 9, values)
}

func appendKeys(b []byte, uses []wallet.KeyUse) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(uses)*len(wallet.KeyHash{})))
	for i := range uses {
		b = append(b, uses[i].Hash[:]...)
	}
	var room column
	values := room.of(len(uses))
	for i := range uses {
		values[i] = uses[i].Amount.Units
	}
	b = appendColumn(b, 2, values)
	for i := range uses {
		values[i] = uint64(uses[i].Amount.Nanos)
	}
	b = appendUnusual(b, 3, values, 0)
	var offset int64
	for i := range uses {
		values[i] = protowire.EncodeZigZag(uses[i].Offset - offset)
		offset = uses[i].Offset
	}
	return appendColumn(b, 4, values)
}

func appendRule(b []byte, r *wallet.Rule) []byte {
	b = appendNumber(b, 1, r.Threshold.Units)
	b = appendNumber(b, 2, uint64(r.Threshold.Nanos))
	return appendNumber(b, 3, uint64(r.PeriodMs)) //nolint:gosec // as encoded
}

//nolint:gosec // numbers are encoded as protobuf has them
func appendWindow(b []byte, w *wallet.Window) []byte {
	cells := w.Cells
	b = appendMessage(b, 1, &w.Rule, appendRule)
	var room column
	values := room.of(len(cells))
	var first, offset int64
	for i := range cells {
		values[i] = uint64(cells[i].First - first)
		first = cells[i].First
	}
	b = appendColumn(b, 2, values)
	for i := range cells {
		values[i] = uint64(cells[i].Last - cells[i].First)
	}
	b = appendUnusual(b, 3, values, 0)
	for i := range cells {
		values[i] = cells[i].Sum.Units
	}
	b = appendColumn(b, 4, values)
	for i := range cells {
		values[i] = uint64(cells[i].Sum.Nanos)
	}
	b = appendUnusual(b, 5, values, 0)
	for i := range cells {
		values[i] = uint64(cells[i].Count)
	}
	b = appendUnusual(b, 6, values, 1)
	for i := range cells {
		values[i] = protowire.EncodeZigZag(cells[i].Offset - offset)
		offset = cells[i].Offset
	}
	b = appendColumn(b, 7, values)
	b = appendNumber(b, 8, uint64(w.Anchor))
	b = appendNumber(b, 9, uint64(w.OtherAnchor))
	b = appendNumber(b, 10, uint64(w.OtherIdle))
	for i := range w.Past {
		b = appendMessage(b, 11, &w.Past[i], func(b []byte, p *wallet.PastRule) []byte {
			return appendNumber(appendMessage(b, 1, &p.Rule, appendRule), 2, uint64(p.Upto))
		})
	}
	return appendNumber(b, 12, uint64(w.RuleChanges))
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
	return appendMessage(b, 8, &e.Rule, appendRule)
}
