package stream

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// The two tables that every deposit touches have codecs by hand: they read and
// write the same bytes as proto.Marshal with proto/tables.proto, without the
// messages in between, which cost more than the fold itself. Whatever is not
// written just as here (another order, unknown fields) goes through the messages;
// tests hold both ways against each other.

// BalanceEncoder is the codec of the balance table: *wallet.Account.
type BalanceEncoder struct{}

// CounterEncoder is the codec of the threshold table: *wallet.Counter.
type CounterEncoder struct{}

// Encode returns the row of a *wallet.Account.
func (e BalanceEncoder) Encode(value any) ([]byte, error) {
	a, ok := value.(*wallet.Account)
	if !ok || a == nil {
		return nil, fmt.Errorf("encode: want %T, got %T", a, value)
	}
	return e.write(a, new(written)), nil
}

// Encode returns the row of a *wallet.Counter.
func (e CounterEncoder) Encode(value any) ([]byte, error) {
	c, ok := value.(*wallet.Counter)
	if !ok || c == nil {
		return nil, fmt.Errorf("encode: want %T, got %T", c, value)
	}
	return e.write(c, new(written)), nil
}

// write returns the row of a, which was written before as w says, and has w say how it
// is now.
func (BalanceEncoder) write(a *wallet.Account, w *written) []byte {
	return appendAccount(w.room(), a)
}

// write is as BalanceEncoder's.
func (CounterEncoder) write(c *wallet.Counter, w *written) []byte {
	b := appendWindow(appendAccount(w.room(), &c.Account), &c.Window, w)
	if c.Tip != nil {
		b = appendMessage(b, 3, c.Tip, appendEvidence)
	}
	return b
}

func (BalanceEncoder) kept(*wallet.Account) {}

func (CounterEncoder) kept(c *wallet.Counter) { c.Written() }

// Decode returns a *wallet.Account, or *Malformed for bytes that are no row. Its
// error is always nil.
func (e BalanceEncoder) Decode(data []byte) (any, error) {
	a := new(wallet.Account)
	if bad := e.read(data, a); bad != nil {
		return bad, nil
	}
	return a, nil
}

// Decode returns a *wallet.Counter, or *Malformed for bytes that are no row. Its
// error is always nil.
func (e CounterEncoder) Decode(data []byte) (any, error) {
	c := new(wallet.Counter)
	if bad := e.read(data, c); bad != nil {
		return bad, nil
	}
	return c, nil
}

// read reads a row into a new a.
func (BalanceEncoder) read(data []byte, a *wallet.Account) *Malformed {
	if len(data) > 0 && readBalance(reader{rest: data}, a) {
		return malformed(a.Check())
	}
	*a = wallet.Account{}
	return throughMessage(data, new(pb.Balance), a, AccountOf)
}

func (CounterEncoder) read(data []byte, c *wallet.Counter) *Malformed {
	if len(data) > 0 && readCounter(reader{rest: data}, c) {
		return malformed(c.Check())
	}
	*c = wallet.Counter{}
	return throughMessage(data, new(pb.Counter), c, CounterOf)
}

func throughMessage[M proto.Message, T any](data []byte, m M, to *T, load func(M) (T, error)) *Malformed {
	if bad := unmarshal(data, m); bad != nil {
		return bad
	}
	row, err := load(m)
	*to = row
	return malformed(err)
}

// malformed is why a row is none, nil for none.
func malformed(err error) *Malformed {
	if err == nil {
		return nil
	}
	return &Malformed{Reason: err.Error()}
}
