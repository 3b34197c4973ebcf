package stream_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

var rule = wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000}

// Rows are the same whether their codec keeps values or not: through rows that come
// from disk, folds that were given up half-way, and repeats.
func TestKeepChangesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, memory := range []int64{0, 1, 100_000, 1 << 30} {
		plain, kept := new(stream.CounterEncoder), stream.Keep(new(stream.CounterEncoder), memory)
		table, twin := map[string][]byte{}, map[string][]byte{}
		fold := func(codec interface {
			Encode(value any) ([]byte, error)
			Decode(data []byte) (any, error)
		}, row []byte, d wallet.Deposit, store bool) []byte {
			var v any
			if row != nil {
				v, _ = codec.Decode(row)
			}
			c, err := stream.LoadCounter(v)
			if err != nil {
				t.Fatal(err)
			}
			c.Apply(d, rule)
			if !store {
				return row
			}
			if row, err = codec.Encode(c); err != nil {
				t.Fatal(err)
			}
			return row
		}
		for i := range 20_000 {
			key := fmt.Sprint(r.IntN(200))
			if r.IntN(10) == 0 {
				table[key] = bytes.Clone(table[key]) // read from disk
			}
			d := wallet.Deposit{Amount: wallet.Amount{Units: 100}, At: int64(i) * 100, ID: uint64(i), Offset: int64(i - i%3*r.IntN(2))}
			store := r.IntN(10) > 0
			table[key], twin[key] = fold(kept, table[key], d, store), fold(plain, twin[key], d, store)
			if !bytes.Equal(table[key], twin[key]) {
				t.Fatalf("memory %d, deposit %d: %x, without keeping %x", memory, i, table[key], twin[key])
			}
		}
	}
}

// A value is given back once, and only for its own bytes.
func TestKeepGivesBackOnce(t *testing.T) {
	codec := stream.Keep(new(stream.BalanceEncoder), 1<<20)
	a := &wallet.Account{NextOffset: 7}
	data, err := codec.Encode(a)
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := codec.Decode(bytes.Clone(data)); v == any(a) {
		t.Error("given back for a copy of its bytes")
	}
	if v, _ := codec.Decode(data); v != any(a) {
		t.Error("not given back for its bytes")
	}
	v, _ := codec.Decode(data)
	if v == any(a) || v.(*wallet.Account).NextOffset != 7 {
		t.Errorf("the second time: %v", v)
	}
}

// What is kept is bounded.
func TestKeepForgets(t *testing.T) {
	const rows, memory = 10_000, 1 << 20
	codec := stream.Keep(new(stream.BalanceEncoder), memory)
	var all [rows][]byte
	var values [rows]*wallet.Account
	for i := range all {
		values[i] = &wallet.Account{NextOffset: int64(i)}
		all[i], _ = codec.Encode(values[i])
	}
	n := 0
	for i := range all {
		if v, _ := codec.Decode(all[i]); v == any(values[i]) {
			n++
		}
	}
	if most := memory / 512; n == 0 || n > most+most/10 {
		t.Errorf("%d of %d rows are kept, want at most about %d", n, rows, most)
	}
}
