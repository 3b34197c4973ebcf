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

// beginColumn begins a packed column, which prefixed ends.
func beginColumn(b []byte, field protowire.Number) (_ []byte, start int) {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return b, len(b)
}

func appendValue(b []byte, v uint64) []byte {
	if v < 0x80 {
		return append(b, byte(v))
	}
	return protowire.AppendVarint(b, v)
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
	if len(a.RecentIDs) == 0 {
		return b
	}
	b, start := beginColumn(b, 9)
	var last uint64
	for _, id := range a.RecentIDs {
		b = appendValue(b, protowire.EncodeZigZag(int64(id-last)))
		last = id
	}
	return prefixed(b, start)
}

func appendKeys(b []byte, uses []wallet.KeyUse) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(uses)*len(wallet.KeyHash{})))
	for i := range uses {
		b = append(b, uses[i].Hash[:]...)
	}
	b, start := beginColumn(b, 2)
	fractions := false
	for i := range uses {
		b = appendValue(b, uses[i].Amount.Units)
		fractions = fractions || uses[i].Amount.Nanos != 0
	}
	b = prefixed(b, start)
	if fractions {
		b, start = beginColumn(b, 3)
		for i := range uses {
			b = appendValue(b, uint64(uses[i].Amount.Nanos))
		}
		b = prefixed(b, start)
	}
	b, start = beginColumn(b, 4)
	var offset int64
	for i := range uses {
		b = appendValue(b, protowire.EncodeZigZag(uses[i].Offset-offset))
		offset = uses[i].Offset
	}
	return prefixed(b, start)
}

func appendRule(b []byte, r *wallet.Rule) []byte {
	b = appendNumber(b, 1, r.Threshold.Units)
	b = appendNumber(b, 2, uint64(r.Threshold.Nanos))
	return appendNumber(b, 3, uint64(r.PeriodMs)) //nolint:gosec // as encoded
}

//nolint:gosec // numbers are encoded as protobuf has them
func appendWindow(b []byte, w *wallet.Window) []byte {
	b = appendMessage(b, 1, &w.Rule, appendRule)
	if len(w.Cells) > 0 {
		b = appendCells(b, w.Cells)
	}
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

// appendCells writes the columns of a window.
//
//nolint:gosec // numbers are encoded as protobuf has them
func appendCells(b []byte, cells []wallet.Cell) []byte {
	var spans, fractions, several bool // columns that are left out when all are usual
	b, start := beginColumn(b, 2)
	var first int64
	for i := range cells {
		c := &cells[i]
		b = appendValue(b, uint64(c.First-first))
		first = c.First
		spans = spans || c.Last != c.First
		fractions = fractions || c.Sum.Nanos != 0
		several = several || c.Count != 1
	}
	b = prefixed(b, start)
	if spans {
		b, start = beginColumn(b, 3)
		for i := range cells {
			b = appendValue(b, uint64(cells[i].Last-cells[i].First))
		}
		b = prefixed(b, start)
	}
	b, start = beginColumn(b, 4)
	for i := range cells {
		b = appendValue(b, cells[i].Sum.Units)
	}
	b = prefixed(b, start)
	if fractions {
		b, start = beginColumn(b, 5)
		for i := range cells {
			b = appendValue(b, uint64(cells[i].Sum.Nanos))
		}
		b = prefixed(b, start)
	}
	if several {
		b, start = beginColumn(b, 6)
		for i := range cells {
			b = appendValue(b, uint64(cells[i].Count))
		}
		b = prefixed(b, start)
	}
	b, start = beginColumn(b, 7)
	var offset int64
	for i := range cells {
		b = appendValue(b, protowire.EncodeZigZag(cells[i].Offset-offset))
		offset = cells[i].Offset
	}
	return prefixed(b, start)
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
