package stream_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lovoo/goka"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// history is deposits of some wallets as a log may have them: far apart, close, late,
// with two clocks, more than a row holds one by one, repeated, with and without ids and
// keys, and under rules that change.
type history struct {
	*rand.Rand
	at, offset int64
	gap        int64
	period     int64
}

func newHistory(seed uint64) *history {
	return &history{Rand: rand.New(rand.NewPCG(seed, 2)), at: 1_767_225_600_000, period: 120_000}
}

func (h *history) next() (wallet.Deposit, wallet.Rule) {
	if h.IntN(1500) == 0 {
		h.gap = 1 << h.IntN(20)
		h.period = 120_000 >> h.IntN(4)
	}
	h.at += h.Int64N(h.gap + 1)
	h.offset += 1 + h.Int64N(1<<h.IntN(20))
	d := wallet.Deposit{Amount: wallet.Amount{Units: 1 + h.Uint64N(1<<h.IntN(40)), Nanos: h.Uint32N(3) / 2 * h.Uint32N(1e9)}, At: h.at, Offset: h.offset}
	switch h.IntN(8) {
	case 0:
		d.At -= h.Int64N(10_000)
	case 1:
		d.At += h.Int64N(2) * 3_600_000
	case 2:
		d.Offset -= h.Int64N(20) // perhaps delivered again
	}
	if h.IntN(5) > 0 {
		d.Origin, d.Sequence = 1+h.Uint64N(20), h.Uint64()>>(h.IntN(2)*50)+1
	}
	if h.IntN(10) == 0 {
		d.HasKey, d.Key = true, wallet.HashKey(fmt.Sprint(h.IntN(300)))
	}
	return d, wallet.Rule{Threshold: wallet.Amount{Units: 1 << 30}, PeriodMs: h.period}
}

// A row is the same, to the byte, whether its codec keeps it and writes what is new, or
// reads and writes all of it each time: through rows that come from disk, folds that
// were given up half-way, and repeats.
func TestKeepChangesNothing(t *testing.T) {
	t.Run("threshold", func(t *testing.T) {
		var joined, crossed int
		keep := func(memory int64) goka.Codec { return stream.Keep(stream.CounterEncoder{}, memory, 4) }
		keepChangesNothing(t, stream.CounterEncoder{}, keep, func(c *wallet.Counter, d wallet.Deposit, r wallet.Rule) {
			c.Apply(d, r)
			for _, cell := range c.Window.Cells {
				if cell.Count > 1 {
					joined++
				}
			}
			if c.Tip != nil {
				crossed++
			}
		})
		if joined == 0 || crossed == 0 {
			t.Errorf("%d joined, %d crossed: the histories test little", joined, crossed)
		}
	})
	t.Run("balance", func(t *testing.T) {
		keep := func(memory int64) goka.Codec { return stream.Keep(stream.BalanceEncoder{}, memory, 4) }
		keepChangesNothing(t, stream.BalanceEncoder{}, keep, func(a *wallet.Account, d wallet.Deposit, _ wallet.Rule) { a.Apply(d) })
	})
}

func keepChangesNothing[T any](t *testing.T, plain goka.Codec, keep func(memory int64) goka.Codec, apply func(*T, wallet.Deposit, wallet.Rule)) {
	for i, memory := range []int64{0, 100_000, 1 << 30} {
		kept, h := keep(memory), newHistory(uint64(i))
		table, twin := map[string][]byte{}, map[string][]byte{}
		for i := range 6_000 {
			key := fmt.Sprint(h.IntN(1 + h.IntN(6)))
			if h.IntN(10) == 0 && table[key] != nil {
				table[key] = bytes.Clone(table[key]) // read from disk
			}
			var v any
			if data := table[key]; data != nil {
				v, _ = kept.Decode(data)
			}
			row, err := stream.KeptRow[T](v, 3)
			if err != nil {
				t.Fatal(err)
			}
			same := new(T)
			if data := twin[key]; data != nil {
				v, _ := plain.Decode(data)
				same = v.(*T)
			}
			d, rule := h.next()
			apply(&row.Row, d, rule)
			if h.IntN(10) == 0 {
				continue // given up
			}
			apply(same, d, rule)
			if table[key], err = kept.Encode(row); err != nil {
				t.Fatal(err)
			}
			if twin[key], err = plain.Encode(same); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(table[key], twin[key]) {
				t.Fatalf("memory %d, deposit %d:\n%x, without keeping\n%x", memory, i, table[key], twin[key])
			}
		}
	}
}

// A value is given back once, and only for its own bytes.
func TestKeepGivesBackOnce(t *testing.T) {
	codec := stream.Keep(stream.BalanceEncoder{}, 1<<20, 4)
	a := &stream.Kept[wallet.Account]{Row: wallet.Account{NextOffset: 7}}
	data, err := codec.Encode(a)
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := codec.Decode(bytes.Clone(data)); v == any(a) {
		t.Error("given back for a copy of its bytes")
	}
	if v, _ := codec.Decode(data[:len(data)-1]); v == any(a) {
		t.Error("given back for some of its bytes")
	}
	if v, _ := codec.Decode(data); v != any(a) {
		t.Error("not given back for its bytes")
	}
	v, _ := codec.Decode(data)
	if v == any(a) || v.(*stream.Kept[wallet.Account]).Row.NextOffset != 7 {
		t.Errorf("the second time: %v", v)
	}
}

// Bytes with another ticket than theirs are read as any others.
func TestKeepDoubtsTickets(t *testing.T) {
	codec, r := stream.Keep(stream.BalanceEncoder{}, 1<<20, 4), rand.New(rand.NewPCG(1, 1))
	for i := range 1000 {
		a := &stream.Kept[wallet.Account]{Row: wallet.Account{NextOffset: int64(i + 1)}}
		data, _ := codec.Encode(a)
		other := slices.Grow(bytes.Clone(data), 8)
		for range 20 {
			binary.LittleEndian.PutUint64(other[len(data):len(data)+8], r.Uint64()>>r.IntN(64))
			v, _ := codec.Decode(other)
			if got := v.(*stream.Kept[wallet.Account]); got == a || got.Row.NextOffset != int64(i+1) {
				t.Fatalf("%d: got %+v", i, got)
			}
		}
	}
}

// What is kept is bounded.
func TestKeepForgets(t *testing.T) {
	const rows, memory = 10_000, 1 << 20
	codec := stream.Keep(stream.BalanceEncoder{}, memory, 4)
	var all [rows][]byte
	var values [rows]*stream.Kept[wallet.Account]
	for i := range all {
		values[i] = &stream.Kept[wallet.Account]{Row: wallet.Account{NextOffset: int64(i)}}
		all[i], _ = codec.Encode(values[i])
	}
	n := 0
	for i := range all {
		if v, _ := codec.Decode(all[i]); v == any(values[i]) {
			n++
		}
	}
	if most := memory / 512; n == 0 || n > most {
		t.Errorf("%d of %d rows are kept, want at most about %d", n, rows, most)
	}
}
