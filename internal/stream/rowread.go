package stream

import (
	"google.golang.org/protobuf/encoding/protowire"

	"coinbit/internal/wallet"
)

// How rows and deposits are read.

// room for the values of one column; longer ones than a row has are taken care of.
type room [320]uint64

// of returns n places, in r if they fit.
func (r *room) of(n int) []uint64 {
	if n > len(r) {
		return make([]uint64, n)
	}
	return r[:n]
}

// reader goes through the fields of a message that is in the writer's form. It is
// bad, and the messages must be asked, when it is not: numbers that do not ascend
// (but for the repeated one), or a field of another type or number.
type reader struct {
	rest     []byte
	repeated protowire.Number // may come several times; 0: none
	number   protowire.Number
	typ      protowire.Type
	varint   uint64
	bytes    []byte
	bad      bool
}

func (r *reader) next() bool {
	if r.bad || len(r.rest) == 0 {
		return false
	}
	number, typ, n := protowire.ConsumeTag(r.rest)
	if n < 0 || number < r.number || number == r.number && number != r.repeated {
		r.bad = true
		return false
	}
	r.number, r.typ, r.rest = number, typ, r.rest[n:]
	switch typ { //nolint:exhaustive // rows have no others
	case protowire.VarintType:
		r.varint, n = protowire.ConsumeVarint(r.rest)
	case protowire.Fixed64Type:
		r.varint, n = protowire.ConsumeFixed64(r.rest)
	case protowire.BytesType:
		r.bytes, n = protowire.ConsumeBytes(r.rest)
	default:
		n = -1
	}
	if n < 0 {
		r.bad = true
		return false
	}
	r.rest = r.rest[n:]
	return true
}

// The fields that may come several times: the origins of an account, and the past rules
// of a window.
const (
	originField = 10
	pastField   = 11
)

func (r *reader) number64() uint64 {
	r.bad = r.bad || r.typ != protowire.VarintType
	return r.varint
}

func (r *reader) fixed64() uint64 {
	r.bad = r.bad || r.typ != protowire.Fixed64Type
	return r.varint
}

// message is the value of a message field.
func (r *reader) message() reader {
	r.bad = r.bad || r.typ != protowire.BytesType
	return reader{rest: r.bytes}
}

// column reads a packed column into values, of which it must have just as many.
func (r *reader) column(values []uint64) {
	rest := r.bytes
	for i := range values {
		if len(rest) > 0 && rest[0] < 0x80 {
			values[i], rest = uint64(rest[0]), rest[1:]
			continue
		}
		v, size := protowire.ConsumeVarint(rest)
		if size < 0 {
			r.bad = true
			return
		}
		values[i], rest = v, rest[size:]
	}
	r.bad = r.bad || len(rest) > 0 || len(values) == 0 || r.typ != protowire.BytesType
}

// length is how many values a packed column has.
func (r *reader) length() (n int) {
	for _, c := range r.bytes {
		if c < 0x80 {
			n++
		}
	}
	return n
}

//nolint:gosec // numbers are as protobuf has them
func readAccount(r reader, a *wallet.Account) (ok bool) {
	r.repeated = originField
	for r.next() {
		switch r.number {
		case 1:
			a.NextOffset = int64(r.number64())
		case 2:
			a.Balance.Units = r.number64()
		case 3:
			a.Balance.Nanos = uint32(r.number64())
		case 4:
			a.Deposits = r.number64()
		case 5:
			a.FirstAt = int64(r.number64())
		case 6:
			a.LastAt = int64(r.number64())
		case 8:
			r.bad = !readKeys(r.message(), a) || r.bad
		case originField:
			o := wallet.Origin{LatestAt: a.LastAt}
			r.bad = !readOrigin(r.message(), &o) || r.bad
			a.Origins = append(a.Origins, o)
		case 11:
			a.Pacemaker = uint32(r.number64())
		case 12:
			a.Missed = uint32(r.number64())
		default:
			r.bad = true
		}
	}
	return !r.bad
}

//nolint:gosec // numbers are as protobuf has them
func readOrigin(r reader, o *wallet.Origin) (ok bool) {
	for r.next() {
		switch r.number {
		case 1:
			o.ID = r.fixed64()
		case 2:
			o.Sequence = r.number64()
		case 3:
			o.LatestAt += protowire.DecodeZigZag(r.number64())
		case 4:
			o.Idle = int64(r.number64())
		default:
			r.bad = true
		}
	}
	return !r.bad
}

//nolint:gosec // numbers are as protobuf has them
func readKeys(r reader, a *wallet.Account) (ok bool) {
	var places room
	columns := 0
	for r.next() {
		uses := a.RecentKeys
		values := places.of(len(uses))
		if r.number != 1 {
			r.column(values)
		}
		switch r.number {
		case 1:
			const size = len(wallet.KeyHash{})
			n := len(r.bytes) / size
			r.bad = r.bad || r.typ != protowire.BytesType || n == 0 || len(r.bytes) != n*size
			a.RecentKeys = make([]wallet.KeyUse, n, n+1)
			for i := range a.RecentKeys {
				copy(a.RecentKeys[i].Hash[:], r.bytes[i*size:])
			}
			columns++
		case 2:
			for i, v := range values {
				uses[i].Amount.Units = v
			}
			columns++
		case 3:
			for i, v := range values {
				uses[i].Amount.Nanos = uint32(v)
			}
		case 4:
			var offset int64
			for i, v := range values {
				offset += protowire.DecodeZigZag(v)
				uses[i].Offset = offset
			}
			columns++
		default:
			r.bad = true
		}
	}
	return !r.bad && columns == 3
}

func readRule(r reader, to *wallet.Rule) (ok bool) {
	for r.next() {
		switch r.number {
		case 1:
			to.Threshold.Units = r.number64()
		case 2:
			to.Threshold.Nanos = uint32(r.number64()) //nolint:gosec // as protobuf
		case 3:
			to.PeriodMs = int64(r.number64()) //nolint:gosec // as protobuf
		default:
			r.bad = true
		}
	}
	return !r.bad
}

//nolint:gosec // numbers are as protobuf has them
func readWindow(r reader, w *wallet.Window) (ok bool) {
	var places room
	columns := 0
	r.repeated = pastField
	for r.next() {
		if r.number == 2 {
			n := r.length()
			w.Cells = make([]wallet.Cell, n, n+1) // room for the deposit in hand
		}
		cells := w.Cells
		values := places.of(len(cells))
		if r.number >= 2 && r.number <= 7 {
			r.column(values)
		}
		switch r.number {
		case 1:
			r.bad = !readRule(r.message(), &w.Rule) || r.bad
		case 2:
			var first int64
			for i, v := range values {
				first += int64(v)
				cells[i].First, cells[i].Last, cells[i].Count = first, first, 1
			}
			columns++
		case 3:
			for i, v := range values {
				cells[i].Last += int64(v)
			}
		case 4:
			for i, v := range values {
				cells[i].Sum.Units = v
			}
			columns++
		case 5:
			for i, v := range values {
				cells[i].Sum.Nanos = uint32(v)
			}
		case 6:
			for i, v := range values {
				cells[i].Count = uint32(v)
			}
		case 7:
			var offset int64
			for i, v := range values {
				offset += protowire.DecodeZigZag(v)
				cells[i].Offset = offset
			}
			columns++
		case pastField:
			var p wallet.PastRule
			r.bad = !readPast(r.message(), &p) || r.bad
			w.Past = append(w.Past, p)
		case 12:
			w.RuleChanges = uint32(r.number64())
		case 15:
			values := make([]uint64, r.length())
			r.column(values)
			for _, v := range values {
				w.Told = append(w.Told, protowire.DecodeZigZag(v))
			}
		default:
			r.bad = true
		}
	}
	return !r.bad && (columns == 3 || columns == 0)
}

func readPast(r reader, p *wallet.PastRule) (ok bool) {
	for r.next() {
		switch r.number {
		case 1:
			r.bad = !readRule(r.message(), &p.Rule) || r.bad
		case 2:
			p.Upto = int64(r.number64()) //nolint:gosec // as protobuf
		default:
			r.bad = true
		}
	}
	return !r.bad
}

//nolint:gosec // numbers are as protobuf has them
func readEvidence(r reader, e *wallet.Evidence) (ok bool) {
	for r.next() {
		switch r.number {
		case 1:
			e.Partition = int32(r.number64())
		case 2:
			e.Offset = int64(r.number64())
		case 3:
			e.WindowStart = int64(r.number64())
		case 4:
			e.WindowEnd = int64(r.number64())
		case 5:
			e.Total.Units = r.number64()
		case 6:
			e.Total.Nanos = uint32(r.number64())
		case 7:
			e.Deposits = uint32(r.number64())
		case 8:
			r.bad = !readRule(r.message(), &e.Rule) || r.bad
		case 9:
			e.TippedAt = int64(r.number64())
		default:
			r.bad = true
		}
	}
	return !r.bad
}

func readBalance(r reader, a *wallet.Account) (ok bool) {
	for r.next() {
		r.bad = r.number != 1 || !readAccount(r.message(), a) || r.bad
	}
	return !r.bad
}

func readCounter(r reader, c *wallet.Counter) (ok bool) {
	for r.next() {
		switch r.number {
		case 1:
			r.bad = !readAccount(r.message(), &c.Account) || r.bad
		case 2:
			r.bad = !readWindow(r.message(), &c.Window) || r.bad
		case 3:
			c.Tip = new(wallet.Evidence)
			r.bad = !readEvidence(r.message(), c.Tip) || r.bad
		default:
			r.bad = true
		}
	}
	return !r.bad
}
