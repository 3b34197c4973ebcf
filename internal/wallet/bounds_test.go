package wallet_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"coinbit/internal/wallet"
)

// worst draws deposits that take as many bytes as a deposit can.
func worst(i, at, offset int64) wallet.Deposit {
	return wallet.Deposit{
		Amount: wallet.Amount{Units: 999_999_999_999, Nanos: 999_999_000 + uint32(i%999)},
		At:     at, Origin: 1<<63 + uint64(i%20), Sequence: 1<<62 + uint64(i), Key: wallet.HashKey(fmt.Sprint(i)), HasKey: true,
		Partition: math.MaxInt32, Offset: offset,
	}
}

// No row is larger than 8 KiB, whatever it holds: all keys, all origins, evidence,
// and more deposits in a period than cells.
func TestRowSize(t *testing.T) {
	for _, period := range []int64{1, 1_000, 120_000, 86_400_000, 366 * 86_400_000} {
		for _, skew := range []int64{0, 60_000, 3_600_000} {
			r := rand.New(rand.NewPCG(1, uint64(period+skew)))
			c, rl := &wallet.Counter{}, wallet.Rule{Threshold: wallet.Amount{Units: 900_000_000_000, Nanos: 999_999_999}, PeriodMs: period}
			at, offset, most := int64(1_800_000_000_000), int64(math.MaxInt64/8), 0
			for i := range int64(1_200) {
				at += r.Int64N(2*period/400 + 1)
				// Far apart on the partition, and out of order in the window.
				offset += 1 + r.Int64N(1<<49)
				d := worst(i, at-r.Int64N(late), offset)
				if i%3 == 0 {
					d.At += skew
				}
				if out := c.Apply(d, rl); out.Verdict != wallet.Applied {
					t.Fatalf("%+v", out)
				}
				most = max(most, rowSize(c))
			}
			if most > 8192 || c.Tip == nil || len(c.Account.RecentKeys) != 100 {
				t.Errorf("period %d, skew %d: %d bytes, %d cells", period, skew, most, len(c.Window.Cells))
			}
		}
	}
}

// A plain full row is far below that: nothing is joined for its size.
func TestPlainRowIsExact(t *testing.T) {
	c, rl := &wallet.Counter{}, rule(math.MaxInt64, 120_000)
	for i := range int64(256) {
		d := worst(i, 1_800_000_000_000+i*468, 1_000_000_000+i*10_000)
		d.Amount, d.Origin, d.Sequence = money(123_450_000_000), 1<<63, uint64(i+1)
		c.Apply(d, rl)
	}
	if n := len(c.Window.Cells); n != 256 {
		t.Errorf("%d cells of 256 deposits, %d bytes", n, rowSize(c))
	}
}

// 256 deposits of a year, each just below a billion and with a key, from several
// APIs, on a partition with a million others in between (a day; more in a longer one): nothing is joined for its size.
func TestLargeRowsAreExact(t *testing.T) {
	for _, days := range []int64{1, 30, 366} {
		period, c := days*86_400_000, &wallet.Counter{}
		rl := wallet.Rule{Threshold: wallet.Amount{Units: 1 << 62}, PeriodMs: period}
		for i := range int64(600) {
			d := worst(i, 1_800_000_000_000+i*period/255, 1_000_000_000_000+i*days*1_000_003)
			d.Origin, d.Amount.Units = 1<<63+uint64(i%6), 999_999_999
			c.Apply(d, rl)
			for _, cell := range c.Window.Cells {
				if cell.Count > 1 {
					t.Fatalf("period of %d days: deposit %d shares a cell, the row has %d bytes", days, i, rowSize(c))
				}
			}
		}
	}
}

// rowSize encodes the row's numbers as tables.proto does, apart from the code
// under test: varints, eight bytes an origin, twelve a key, and a tag and length for
// each field and column.
func rowSize(c *wallet.Counter) int {
	var b []byte
	num := func(v uint64) { b = binary.AppendUvarint(b, v) }
	field := func(v uint64) {
		if v != 0 {
			b = append(b, 0)
			num(v)
		}
	}
	column := func(n int, at func(i int) uint64, usual uint64) {
		start, all := len(b), true
		for i := range n {
			num(at(i))
			all = all && at(i) == usual
		}
		if all {
			b = b[:start]
			return
		}
		b = append(b, 0)
		num(uint64(len(b) - start))
	}
	zig := func(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }
	ruleFields := func(r wallet.Rule) {
		b = append(b, 0, 0)
		field(r.Threshold.Units)
		field(uint64(r.Threshold.Nanos))
		field(uint64(r.PeriodMs))
	}
	a := &c.Account
	for _, v := range []uint64{uint64(a.NextOffset), a.Balance.Units, uint64(a.Balance.Nanos), a.Deposits, uint64(a.FirstAt), uint64(a.LastAt)} {
		field(v)
	}
	for i := range a.Origins {
		o := &a.Origins[i]
		b = append(b, make([]byte, 2+9)...)
		field(o.Sequence)
		field(zig(o.LatestAt - a.LastAt))
		field(uint64(o.Idle))
	}
	b = append(b, make([]byte, 3+6+12*len(a.RecentKeys))...)
	column(len(a.RecentKeys), func(i int) uint64 { return a.RecentKeys[i].Amount.Units }, math.MaxUint64)
	column(len(a.RecentKeys), func(i int) uint64 { return uint64(a.RecentKeys[i].Amount.Nanos) }, 0)
	column(len(a.RecentKeys), func(i int) uint64 {
		return zig(a.RecentKeys[i].Offset - a.RecentKeys[max(0, i-1)].Offset*int64(min(i, 1)))
	}, math.MaxUint64)
	cells := c.Window.Cells
	ruleFields(c.Window.Rule)
	column(len(cells), func(i int) uint64 { return uint64(cells[i].First - cells[max(0, i-1)].First*int64(min(i, 1))) }, math.MaxUint64)
	column(len(cells), func(i int) uint64 { return uint64(cells[i].Last - cells[i].First) }, 0)
	column(len(cells), func(i int) uint64 { return cells[i].Sum.Units }, math.MaxUint64)
	column(len(cells), func(i int) uint64 { return uint64(cells[i].Sum.Nanos) }, 0)
	column(len(cells), func(i int) uint64 { return uint64(cells[i].Count) }, 1)
	column(len(cells), func(i int) uint64 { return zig(cells[i].Offset - cells[max(0, i-1)].Offset*int64(min(i, 1))) }, math.MaxUint64)
	field(uint64(c.Window.RuleChanges))
	column(len(c.Window.Told), func(i int) uint64 { return zig(c.Window.Told[i]) }, math.MaxUint64)
	for _, past := range c.Window.Past {
		b = append(b, 0, 0)
		ruleFields(past.Rule)
		field(uint64(past.Upto))
	}
	if e := c.Tip; e != nil {
		for _, v := range []uint64{uint64(e.Partition), uint64(e.Offset), uint64(e.WindowStart), uint64(e.WindowEnd), e.Total.Units, uint64(e.Total.Nanos), uint64(e.Deposits), uint64(e.TippedAt)} {
			field(v)
		}
		ruleFields(e.Rule)
	}
	return len(b) + 3*3 // account, window and tip
}

// FuzzCounterApply feeds anything: 12 bytes a deposit. Nothing panics, the row passes
// its own Check, and the sums agree with the naive ones.
func FuzzCounterApply(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x06"), int64(1_000), int64(1))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\x7f\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x06"), int64(math.MaxInt64), int64(0))
	f.Add(make([]byte, 12*400), int64(0), int64(-1))
	f.Fuzz(func(t *testing.T, data []byte, period, start int64) {
		c, offset := &wallet.Counter{}, int64(0)
		rl := wallet.Rule{Threshold: money(100 * billion), PeriodMs: period}
		var sum uint64
		for ; len(data) >= 12 && offset < 2_000; data = data[12:] {
			d := wallet.Deposit{At: max(min(start+int64(binary.LittleEndian.Uint64(data)), 1<<53), -1<<53), Offset: offset}
			if d.Origin = uint64(data[8] & 7); d.Origin != 0 {
				d.Sequence = uint64(data[8]>>3) + 1
			}
			d.Amount = money(int64(data[9])*billion + int64(data[10]) + 1)
			offset += int64(data[11]) // 0: redelivered
			wasNext, wasCells := c.Account.NextOffset, len(c.Window.Cells)
			out := c.Apply(d, rl)
			if out.Verdict == wallet.Applied {
				sum += d.Amount.Units*billion + uint64(d.Amount.Nanos)
			} else if len(c.Window.Cells) != wasCells || c.Account.NextOffset < wasNext {
				t.Fatalf("%+v changed the row", out)
			}
			check(t, c)
		}
		if c.Account.Balance != money(int64(sum)) {
			t.Fatalf("balance %v, want %d", c.Account.Balance, sum)
		}
	})
}

func check(t *testing.T, c *wallet.Counter) {
	t.Helper()
	if n := rowSize(c); n > 8192 || len(c.Window.Cells) > 288 {
		t.Fatalf("%d bytes, %d cells", n, len(c.Window.Cells))
	}
	if err := c.Check(); err != nil {
		t.Fatalf("%v: %+v", err, c)
	}
	for i, cell := range c.Window.Cells {
		if cell.First > cell.Last || cell.Count == 0 || cell.Count == 1 && cell.First != cell.Last ||
			i > 0 && c.Window.Cells[i-1].Last > cell.First ||
			i > 0 && c.Window.Cells[i-1].First == cell.Last && c.Window.Cells[i-1].Offset > cell.Offset {
			t.Fatalf("cell %d: %+v", i, c.Window.Cells)
		}
	}
}

// Deposits of one millisecond stay apart, in the order in which they came.
func TestSameMillisecond(t *testing.T) {
	c := &wallet.Counter{}
	for i := range int64(4) {
		c.Apply(wallet.Deposit{Amount: money(1), At: 7 - i%2, Offset: i}, rule(billion, 1_000))
	}
	var offsets []int64
	for _, cell := range c.Window.Cells {
		offsets = append(offsets, cell.Offset)
	}
	if fmt.Sprint(offsets) != "[1 3 0 2]" {
		t.Error(offsets)
	}
}

// A deposit may fall into a cell far longer than the rule now reaches.
func TestCellLongerThanReach(t *testing.T) {
	const end = 1_800_000_000_000
	c := &wallet.Counter{Account: wallet.Account{Balance: money(5), Deposits: 5, FirstAt: 1, LastAt: end, NextOffset: 1}, Window: wallet.Window{
		Rule:  rule(billion, 1),
		Cells: []wallet.Cell{{First: 1, Last: end, Sum: money(5), Count: 5}},
	}}
	if out := c.Apply(wallet.Deposit{Amount: money(1), At: end, Offset: 1}, rule(billion, 1)); out.Verdict != wallet.Applied {
		t.Error(out)
	}
	check(t, c)
}

// BenchmarkApply folds a deposit into a row that holds so many others in the
// period. A thousand are more than it holds one by one.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int64{1, 10, 256, 1_000} {
		b.Run(fmt.Sprintf("deposits=%d", n), func(b *testing.B) {
			const period = 120_000
			c, rl := &wallet.Counter{}, rule(math.MaxInt64, period)
			at, offset := int64(1_800_000_000_000), int64(0)
			next := func() {
				at, offset = at+period/n, offset+1
				c.Apply(wallet.Deposit{Amount: money(1_250_000_000), At: at, Origin: 1, Sequence: uint64(offset), Offset: offset}, rl)
			}
			for range 3 * n {
				next()
			}
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
		})
	}
}
