package stream

import (
	"bytes"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"coinbit/internal/wallet"
)

// A deposit adds a value to each list of a row, and old ones leave at the front. All
// others stand in the row as it was written last, and are copied from there: to encode
// a row again costs about as much as what is new in it.

// written is a row as it was last encoded, and where the cells of its window stand in it.
type written struct {
	data  []byte
	cells placed
}

// room is for the row, which is rarely much longer than it was, and its ticket.
func (w *written) room() []byte {
	return make([]byte, 0, max(len(w.data), minRow)+rowGrowth+ticketSize)
}

const (
	minRow    = 64
	rowGrowth = 32
)

// note keeps a row just written.
func (w *written) note(data []byte) {
	w.data = data
	if len(data) > maxSpan {
		w.data = nil
	}
}

// placed is where the columns of a list of n values stand in a row, by their field numbers.
type placed struct {
	n     int
	spans [10]span
}

// span is [from, to) in a row's bytes; 0, 0 is no column.
type span struct{ from, to uint16 }

// maxSpan bounds the rows in which spans can be noted.
const maxSpan = math.MaxUint16

// slide writes the columns of one list. Without data, the row as it was written, it
// writes all of it; with it, it copies what has not changed since.
type slide struct {
	data []byte
	at   *placed // in data, and then in the new row
	was  int     // values in data
	wallet.Slide
}

// list begins a slide over a list of n values.
func (w *written) list(at *placed, n int, list wallet.Slide) slide {
	s := slide{data: w.data, at: at, was: at.n}
	if w.data != nil && list.Same > 0 {
		s.Slide = list
	}
	at.n = n
	return s
}

// always is for columns that are there whatever their values are.
const always = 0xff

// column writes a packed column: value is that at a place, as protobuf has it. That of
// the first place may be another than if others came before. A column of nothing but
// usual, which is below 0x80, is left out.
func (s *slide) column(b []byte, field protowire.Number, usual byte, value func(i int) uint64) []byte {
	dropped, same, n := s.Dropped, s.Same, s.at.n
	at := &s.at.spans[field]
	var kept []byte
	if same > 0 && at.to > 0 {
		kept = cut(skip(s.data[at.from:at.to], dropped), s.was-dropped-same)
	}
	*at = span{}
	if usual != always {
		unusual := bytes.Count(kept, []byte{usual}) < len(kept)
		for i := same; i < n && !unusual; i++ {
			unusual = value(i) != uint64(usual)
		}
		if !unusual {
			return b
		}
	}
	if len(kept) == 0 { // nothing is as it was, or it was left out
		dropped, same = 0, 0
	}
	b, start := begin(b, field, len(kept))
	if dropped > 0 {
		b = appendValue(b, value(0))
		kept = skip(kept, 1)
	}
	b = append(b, kept...)
	for i := same; i < n; i++ {
		b = appendValue(b, value(i))
	}
	b, by := start.end(b)
	if len(b) <= maxSpan {
		*at = span{uint16(start.at + by), uint16(len(b))} //nolint:gosec // bounded
	}
	return b
}

// moved is told that the columns were moved by so many bytes.
func (p *placed) moved(by int) {
	for i := range p.spans {
		if at := &p.spans[i]; at.to > 0 {
			at.from, at.to = uint16(int(at.from)+by), uint16(int(at.to)+by) //nolint:gosec // a row too long is not kept
		}
	}
}

// skip is a packed column without its first n values.
func skip(column []byte, n int) []byte {
	i := 0
	for ; n > 0 && i < len(column); i++ {
		if column[i] < 0x80 {
			n--
		}
	}
	return column[i:]
}

// cut is a packed column without its last n values.
func cut(column []byte, n int) []byte {
	end := len(column)
	for n > 0 && end > 0 {
		for end--; end > 0 && column[end-1] >= 0x80; {
			end--
		}
		n--
	}
	return column[:end]
}
