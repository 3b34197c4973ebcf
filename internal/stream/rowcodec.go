package stream

import (
	"fmt"
	"sync"

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
