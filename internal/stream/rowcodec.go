package stream

import (
	"fmt"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// The two tables that every deposit touches have codecs by hand: they read and
// write the same bytes as proto.Marshal with proto/tables.proto, without the
// messages in between, which cost more than the fold itself. Whatever is not
// written just as here (another order, unknown fields) goes through the messages;
// tests hold both ways against each other. Deposits are read in the same way.

// DepositEncoder is the codec of DepositStream: *pb.Deposit.
type DepositEncoder struct {
	protoCodec[pb.Deposit, *pb.Deposit]
}

// BalanceEncoder is the codec of the balance table: *wallet.Account.
type BalanceEncoder struct{}

// CounterEncoder is the codec of the threshold table: *wallet.Counter.
type CounterEncoder struct{}

var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 8192); return &b }}

// encoded is what write appends, in bytes of its own.
func encoded(write func(b []byte) []byte) []byte {
	p := scratch.Get().(*[]byte) //nolint:forcetypeassert // nothing else is in it
	*p = write((*p)[:0])
	out := append(make([]byte, 0, len(*p)), *p...)
	scratch.Put(p)
	return out
}

// Encode returns the row of a *wallet.Account.
func (BalanceEncoder) Encode(value any) ([]byte, error) {
	a, ok := value.(*wallet.Account)
	if !ok || a == nil {
		return nil, fmt.Errorf("encode: want %T, got %T", a, value)
	}
	return encoded(func(b []byte) []byte { return appendMessage(b, 1, a, appendAccount) }), nil
}

// Encode returns the row of a *wallet.Counter.
func (CounterEncoder) Encode(value any) ([]byte, error) {
	c, ok := value.(*wallet.Counter)
	if !ok || c == nil {
		return nil, fmt.Errorf("encode: want %T, got %T", c, value)
	}
	return encoded(func(b []byte) []byte {
		b = appendMessage(b, 1, &c.Account, appendAccount)
		b = appendMessage(b, 2, &c.Window, appendWindow)
		if c.Tip != nil {
			b = appendMessage(b, 3, c.Tip, appendEvidence)
		}
		return b
	}), nil
}

// Decode returns a *pb.Deposit, or *Malformed for bytes that are none. Its error
// is always nil.
func (e DepositEncoder) Decode(data []byte) (any, error) {
	d := new(pb.Deposit)
	if len(data) > 0 && readDeposit(reader{rest: data}, d) {
		return d, nil
	}
	return e.protoCodec.Decode(data)
}

// Decode returns a *wallet.Account, or *Malformed for bytes that are no row. Its
// error is always nil.
func (BalanceEncoder) Decode(data []byte) (any, error) {
	a := new(wallet.Account)
	if len(data) > 0 && readBalance(reader{rest: data}, a) {
		return a, nil
	}
	return throughMessage(data, new(pb.Balance), AccountOf)
}

// Decode returns a *wallet.Counter, or *Malformed for bytes that are no row. Its
// error is always nil.
func (CounterEncoder) Decode(data []byte) (any, error) {
	c := new(wallet.Counter)
	if len(data) > 0 && readCounter(reader{rest: data}, c) {
		return c, nil
	}
	return throughMessage(data, new(pb.Counter), CounterOf)
}

func throughMessage[M proto.Message, T any](data []byte, m M, load func(M) (T, error)) (any, error) {
	if bad := unmarshal(data, m); bad != nil {
		return bad, nil
	}
	row, err := load(m)
	if err != nil {
		return &Malformed{Reason: err.Error()}, nil //nolint:nilerr // total by design
	}
	return &row, nil
}

// --- writing: fields in ascending order, none that is 0, as proto.Marshal does

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

// --- reading

// reader goes through the fields of a message that is in the writer's form. It is
// bad, and the messages must be asked, when it is not: numbers that do not ascend
// (but for repeated messages), or a field of another type or number.
type reader struct {
	rest   []byte
	number protowire.Number
	typ    protowire.Type
	varint uint64
	bytes  []byte
	bad    bool
}

func (r *reader) next() bool {
	if r.bad || len(r.rest) == 0 {
		return false
	}
	number, typ, n := protowire.ConsumeTag(r.rest)
	if n < 0 || number < r.number || number == r.number && number != pastField {
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

// pastField is the one field that may come several times.
const pastField = 11

func (r *reader) number64() uint64 {
	r.bad = r.bad || r.typ != protowire.VarintType
	return r.varint
}

func (r *reader) fixed64() uint64 {
	r.bad = r.bad || r.typ != protowire.Fixed64Type
	return r.varint
}

func (r *reader) text() string {
	r.bad = r.bad || r.typ != protowire.BytesType || !utf8.Valid(r.bytes)
	return string(r.bytes)
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
func readDeposit(r reader, d *pb.Deposit) (ok bool) {
	for r.next() {
		switch r.number {
		case 1:
			d.WalletId = r.text()
		case 2:
			d.Units = int64(r.number64())
		case 3:
			d.Nanos = int32(r.number64())
		case 4:
			d.AcceptedAtMs = int64(r.number64())
		case 5:
			d.Id = r.fixed64()
		case 6:
			d.IdempotencyKey = r.text()
		default:
			r.bad = true
		}
	}
	return !r.bad
}

//nolint:gosec // numbers are as protobuf has them
func readAccount(r reader, a *wallet.Account) (ok bool) {
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
		case 9:
			n := r.length()
			a.RecentIDs = make([]uint64, n, n+1) // room for the deposit in hand
			r.column(a.RecentIDs)
			var last uint64
			for i, v := range a.RecentIDs {
				last += uint64(protowire.DecodeZigZag(v))
				a.RecentIDs[i] = last
			}
		case 8:
			r.bad = !readKeys(r.message(), a) || r.bad
		default:
			r.bad = true
		}
	}
	return !r.bad
}

//nolint:gosec // numbers are as protobuf has them
func readKeys(r reader, a *wallet.Account) (ok bool) {
	var room column
	columns := 0
	for r.next() {
		uses := a.RecentKeys
		values := room.of(len(uses))
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
	var room column
	columns := 0
	for r.next() {
		if r.number == 2 {
			n := r.length()
			w.Cells = make([]wallet.Cell, n, n+1) // room for the deposit in hand
		}
		cells := w.Cells
		values := room.of(len(cells))
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
		case 8:
			w.Anchor = int64(r.number64())
		case 9:
			w.OtherAnchor = int64(r.number64())
		case 10:
			w.OtherIdle = uint32(r.number64())
		case pastField:
			var p wallet.PastRule
			r.bad = !readPast(r.message(), &p) || r.bad
			w.Past = append(w.Past, p)
		case 12:
			w.RuleChanges = uint32(r.number64())
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
