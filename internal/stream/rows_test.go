package stream_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lovoo/goka"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

func evidence() *pb.Evidence {
	return &pb.Evidence{Partition: 1, Offset: 2, WindowStartMs: 3, WindowEndMs: 4, TotalUnits: 5, TotalNanos: 6, Deposits: 7,
		Rule: &pb.Rule{ThresholdUnits: 8, ThresholdNanos: 9, PeriodMs: 10}, TippedAtMs: 11}
}

// TestGoldenBytes fixes every field number and type: a log written today must
// be read for good.
func TestGoldenBytes(t *testing.T) {
	account := &pb.Account{NextOffset: 1, BalanceUnits: 2, BalanceNanos: 3, Deposits: 4, FirstAtMs: 5, LastAtMs: 6,
		Origins: []*pb.Origin{{Id: 7, Sequence: 8, LatestDeltaMs: -9, IdleMs: 10}}, Pacemaker: 11, Missed: 12, RecentKeys: &pb.Keys{Hashes: []byte("0123456789ab"), Units: []uint64{8}, Nanos: []uint32{9}, OffsetDelta: []int64{-10}}}
	for name, c := range map[string]struct {
		message proto.Message
		golden  string
	}{
		"Deposit": {&pb.Deposit{WalletId: "w", Units: 1, Nanos: 2, AcceptedAtMs: 3, IdempotencyKey: "k", Origin: 4, Sequence: 5},
			"0a01771001180220" + "03" + "32016b" + "390400000000000000" + "4005"},
		"Evidence":        {evidence(), evidenceHex},
		"Crossing":        {&pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{Evidence: evidence()}}}, "0a0177" + "121a" + "0a18" + evidenceHex},
		"OperatorRaise":   {&pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Raise{Raise: &pb.OperatorRaise{EventId: 1, AtMs: 2}}}, "0a0177" + "1a0b" + "0901000000000000001002"},
		"OperatorRemoval": {&pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Removal{Removal: &pb.OperatorRemoval{EventId: 1, AtMs: 2, RemovedUpto: 3}}}, "0a0177" + "220d" + "09010000000000000010021803"},
		"Balance":         {&pb.Balance{Account: account}, "0a3a" + accountHex},
		"Counter": {&pb.Counter{Account: account, Tip: evidence(), Window: &pb.Window{
			Rule: &pb.Rule{ThresholdUnits: 8, ThresholdNanos: 9, PeriodMs: 10}, FirstMsDelta: []int64{1}, SpanMs: []int64{2}, Units: []uint64{3},
			Nanos: []uint32{4}, Deposits: []uint32{5}, OffsetDelta: []int64{-6},
			Past: []*pb.PastRule{{Rule: &pb.Rule{ThresholdUnits: 1}, UptoOffset: 2}}, RuleChanges: 3, ToldMs: []int64{-4}}},
			"0a3a" + accountHex + "1227" + "0a060808" + "1009180a" + "120101" + "1a0102" + "220103" + "2a0104" + "320105" + "3a010b" + "5a06" + "0a020801" + "1002" + "6003" + "7a0107" + "1a18" + evidenceHex},
		"Flag": {&pb.Flag{NextOffset: 1, NextTip: 2, RemovedUpto: 3, OpRaised: true, RecentEventIds: []uint64{4}, Evidence: evidence(), Removals: 5, LastRemovalMs: 6, RaisedAtMs: 7, Latest: evidence()},
			"0801100218032001" + "2a080400000000000000" + "3218" + evidenceHex + "380540064807" + "5a18" + evidenceHex},
	} {
		got, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.message)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != c.golden {
			t.Errorf("%s is\n%x, was\n%s", name, got, c.golden)
		}
		back := c.message.ProtoReflect().New().Interface()
		if b, _ := hex.DecodeString(c.golden); proto.Unmarshal(b, back) != nil || !proto.Equal(back, c.message) {
			t.Errorf("%s: what was written reads as %v", name, back)
		}
	}
}

const (
	evidenceHex = "08011002180320042805300638074206080810" + "09180a" + "480b"
	accountHex  = "080110021803200428053006" + "4217" + "0a0c303132333435363738396162" + "120108" + "1a0109" + "220113" + "520f" + "090700000000000000" + "1008" + "1811" + "200a" + "580b" + "600c"
)

// wrongType is what no codec takes.
type wrongType struct{}

func codecs() map[string]goka.Codec {
	return map[string]goka.Codec{
		"deposit": new(stream.DepositEncoder), "flag event": new(stream.FlagEventEncoder), "balance": new(stream.BalanceEncoder),
		"counter": new(stream.CounterEncoder), "flag": new(stream.FlagEncoder),
	}
}

// FuzzDecode: codecs are total, what they decode can be loaded or is refused,
// and what loads comes back the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	for _, m := range []proto.Message{
		&pb.Deposit{WalletId: "w", Units: 1, Nanos: 2, AcceptedAtMs: 3, IdempotencyKey: "k", Origin: 4, Sequence: 5}, &pb.Balance{Account: &pb.Account{NextOffset: 3}},
		&pb.Balance{Account: &pb.Account{RecentKeys: &pb.Keys{}}},
		&pb.Counter{Window: &pb.Window{FirstMsDelta: []int64{1}, Units: []uint64{1}, OffsetDelta: []int64{1}}}, &pb.Flag{Evidence: evidence()},
	} {
		b, _ := proto.Marshal(m)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, codec := range codecs() {
			v, err := codec.Decode(data)
			if err != nil || v == nil {
				t.Fatalf("%s: %v, %v", name, v, err)
			}
			if d, ok := v.(*pb.Deposit); ok {
				want := new(pb.Deposit)
				if err := proto.Unmarshal(data, want); err != nil || !proto.Equal(d, want) {
					t.Fatalf("%x is read as %v, it is %v, %v", data, d, want, err)
				}
			}
			r := stream.Record{Key: "w", Partition: 0, Partitions: 1}
			_, _ = stream.CheckDeposit(r, v)
			_, _ = stream.CheckFlagEvent(r, v)
			if c, err := stream.LoadCounter(v); err == nil {
				sameBothWays(t, codec, data, *c, new(pb.Counter), stream.CounterOf, stream.CounterRow)
			}
			if a, err := stream.LoadBalance(v); err == nil {
				sameBothWays(t, codec, data, *a, new(pb.Balance), stream.AccountOf, stream.BalanceRow)
			}
			if a, err := stream.LoadFlag(v); err == nil {
				again, err := stream.LoadFlag(stream.StoreFlag(a))
				if err != nil || !reflect.DeepEqual(a, again) {
					t.Fatalf("%+v comes back as %+v, %v", a, again, err)
				}
			}
			stream.AccountVersion(data)
			stream.FlagVersion(data)
		}
	})
}

// sameBothWays holds a row that a codec by hand read against what its message says,
// and what the codec writes against proto.Marshal.
func sameBothWays[M proto.Message, T any](t *testing.T, codec goka.Codec, data []byte, row T, m M, load func(M) (T, error), store func(T) M) {
	t.Helper()
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatalf("%x is read as %+v and is no message: %v", data, row, err)
	}
	if want, err := load(m); err != nil || !reflect.DeepEqual(row, want) {
		t.Fatalf("%x is read as %+v, its message is %+v, %v", data, row, want, err)
	}
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(store(row))
	if err != nil {
		t.Fatal(err)
	}
	got, err := codec.Encode(&row)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%+v is written as\n%x, %v, its message as\n%x", row, got, err, want)
	}
	if back, _ := codec.Decode(got); !reflect.DeepEqual(back, &row) {
		t.Fatalf("%+v comes back as %+v", row, back)
	}
}

// Random rows, of every shape that the fold makes, through both ways.
func TestRowCodecsAgreeWithTheMessages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var c wallet.Counter
	at, offset := int64(1_767_225_600_000), int64(0)
	for i := range 20_000 {
		if r.IntN(600) == 0 {
			c, offset = wallet.Counter{}, 0
		}
		at += r.Int64N(4000)
		offset += 1 + r.Int64N(1<<r.IntN(30))
		d := wallet.Deposit{Amount: wallet.Amount{Units: 1 + r.Uint64N(1<<r.IntN(40)), Nanos: r.Uint32N(2) * r.Uint32N(1e9)},
			At: at - r.Int64N(10_000), Origin: 1 + r.Uint64N(20), Sequence: uint64(offset) + 1, Offset: offset, HasKey: r.IntN(3) == 0}
		if d.HasKey {
			d.Key = wallet.HashKey(fmt.Sprint(i))
		}
		rule := wallet.Rule{Threshold: wallet.Amount{Units: 1 << (10 + r.IntN(40)/39), Nanos: r.Uint32N(2)}, PeriodMs: 120_000 >> (r.IntN(900) / 899)}
		if i%40 > 0 {
			rule = c.Window.Rule
		}
		c.Apply(d, rule)
		row, err := new(stream.CounterEncoder).Encode(&c)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := new(stream.CounterEncoder).Decode(row)
		got, err := stream.LoadCounter(v)
		if err != nil {
			t.Fatal(err)
		}
		sameBothWays(t, new(stream.CounterEncoder), row, *got, new(pb.Counter), stream.CounterOf, stream.CounterRow)
		row, _ = new(stream.BalanceEncoder).Encode(&c.Account)
		v, _ = new(stream.BalanceEncoder).Decode(row)
		account, _ := stream.LoadBalance(v)
		sameBothWays(t, new(stream.BalanceEncoder), row, *account, new(pb.Balance), stream.AccountOf, stream.BalanceRow)
	}
}

func BenchmarkCounterCodec(b *testing.B) {
	for _, n := range []int{1, 9, 94} {
		var c wallet.Counter
		for i := range n {
			c.Apply(wallet.Deposit{Amount: wallet.Amount{Units: 12, Nanos: 5}, At: 1_767_225_600_000 + int64(i)*1000, Origin: 1 << 60, Sequence: uint64(i) + 1, Offset: int64(i) * 7},
				wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000})
		}
		b.Run(fmt.Sprintf("by hand, %d deposits", n), func(b *testing.B) {
			for b.Loop() {
				row, _ := new(stream.CounterEncoder).Encode(&c)
				_, _ = new(stream.CounterEncoder).Decode(row)
			}
		})
		b.Run(fmt.Sprintf("message, %d deposits", n), func(b *testing.B) {
			for b.Loop() {
				row, _ := proto.Marshal(stream.CounterRow(c))
				m := new(pb.Counter)
				_ = proto.Unmarshal(row, m)
				_, _ = stream.CounterOf(m)
			}
		})
	}
}

func TestCodecs(t *testing.T) {
	for name, codec := range codecs() {
		if _, err := codec.Encode(wrongType{}); err == nil {
			t.Errorf("%s encodes a wrong type", name)
		}
		if _, err := codec.Encode(nil); err == nil {
			t.Errorf("%s encodes nil", name)
		}
		if v, err := codec.Decode([]byte{0xff, 0xff}); err != nil || reflect.TypeOf(v) != reflect.TypeOf(&stream.Malformed{}) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	for _, load := range []func(any) error{
		func(v any) error { _, err := stream.LoadBalance(v); return err },
		func(v any) error { _, err := stream.LoadCounter(v); return err },
		func(v any) error { _, err := stream.LoadFlag(v); return err },
	} {
		if err := load(&stream.Malformed{Reason: "x"}); !errors.Is(err, stream.ErrRow) {
			t.Errorf("a malformed row loads: %v", err)
		}
		if err := load(wrongType{}); !errors.Is(err, stream.ErrRow) {
			t.Errorf("a wrong row loads: %v", err)
		}
		if err := load(nil); err != nil {
			t.Errorf("no row: %v", err)
		}
	}
	bad := &pb.Counter{Window: &pb.Window{FirstMsDelta: []int64{1, 2}, Units: []uint64{1}, OffsetDelta: []int64{1, 2}}}
	if _, err := stream.CounterOf(bad); !errors.Is(err, stream.ErrRow) {
		t.Errorf("columns of different length load: %v", err)
	}
}

// restart is what a row goes through between two deposits.
func restart(t *testing.T, c wallet.Counter) (wallet.Counter, []byte) {
	t.Helper()
	b, err := new(stream.CounterEncoder).Encode(&c)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := new(stream.CounterEncoder).Decode(b)
	back, err := stream.LoadCounter(v)
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.AccountVersion(b); got != c.Account.NextOffset {
		t.Fatalf("version %d, want %d", got, c.Account.NextOffset)
	}
	return *back, b
}

// TestRowsBound drives rows to their limits through their real encoding: keys,
// ids, nine decimals, thousands of deposits in a period, short and long ones. A
// restart after each deposit changes no decision, and no row exceeds 8 KiB.
func TestRowsBound(t *testing.T) {
	for _, period := range []int64{1000, 4000, 120_000, 24 * 3600 * 1000, 366 * 24 * 3600 * 1000} {
		r := rand.New(rand.NewPCG(uint64(period), 1))
		rule := wallet.Rule{Threshold: wallet.Amount{Units: math.MaxInt64}, PeriodMs: period}
		var kept, restarted wallet.Counter
		at, offset, largest := int64(1_767_225_600_000), int64(0), 0
		for i := range 1500 {
			at += r.Int64N(period/300 + 2)
			offset += 1 + r.Int64N(1<<31)
			d := wallet.Deposit{
				Amount: wallet.Amount{Units: 1_000_000_000_000 - 1 - r.Uint64N(1000), Nanos: 999_999_999 - r.Uint32N(1000)},
				At:     at - r.Int64N(10_001), Origin: math.MaxUint64 - uint64(i%16), Sequence: 1<<62 + uint64(i), Offset: offset,
				Key: wallet.HashKey(strings.Repeat("k", 1+i%100) + string(rune('a'+i%26)) + string(rune(i))), HasKey: true,
			}
			a := kept.Apply(d, rule)
			b := restarted.Apply(d, rule)
			if a != b {
				t.Fatalf("period %d, deposit %d: %+v, after restarts %+v", period, i, a, b)
			}
			if i == 1400 { // evidence at its longest
				tip := wallet.Evidence{Partition: 1000, Offset: offset, WindowStart: at, WindowEnd: at, Total: d.Amount, Deposits: 1 << 30, Rule: rule}
				kept.Tip, restarted.Tip = &tip, &tip
			}
			var row []byte
			restarted, row = restart(t, restarted)
			largest = max(largest, len(row))
		}
		if largest > 8192 {
			t.Errorf("period %d: a row of %d bytes", period, largest)
		}
		t.Logf("period %d ms: the largest row has %d bytes, %d cells", period, largest, len(restarted.Window.Cells))
	}
}

// TestSmallRows: what an ordinary wallet costs.
func TestSmallRows(t *testing.T) {
	rule := wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000}
	var c wallet.Counter
	size := func(deposits int) int {
		for range deposits {
			d := wallet.Deposit{Amount: wallet.Amount{Units: 5}, At: c.Account.LastAt + 20_000, Origin: 7, Sequence: c.Account.Deposits + 1, Offset: c.Account.NextOffset}
			if c.Account.Deposits == 0 {
				d.At = 1_767_225_600_000
			}
			c.Apply(d, rule)
		}
		_, row := restart(t, c)
		return len(row)
	}
	if n := size(1); n > 100 {
		t.Errorf("one deposit: %d bytes", n)
	}
	hundred, many := size(99), size(20_000)
	if many > hundred+16 {
		t.Errorf("%d bytes after 100 deposits, %d after 20,100", hundred, many)
	}
}

// A row whose bytes are a message, but that no deposits can have made, is refused as a
// row: to go on from it would panic, or lose money.
func TestAbsurdRowsAreRefused(t *testing.T) {
	good := func() *pb.Counter {
		return &pb.Counter{
			Account: &pb.Account{NextOffset: 9, BalanceUnits: 10, Deposits: 2, FirstAtMs: 5, LastAtMs: 8, Origins: []*pb.Origin{{Id: 1, Sequence: 2}},
				RecentKeys: &pb.Keys{Hashes: make([]byte, 12), Units: []uint64{4}, OffsetDelta: []int64{3}}},
			Window: &pb.Window{Rule: &pb.Rule{ThresholdUnits: 1, PeriodMs: 1}, FirstMsDelta: []int64{5, 3}, Units: []uint64{4, 6}, OffsetDelta: []int64{3, 5}},
			Tip:    &pb.Evidence{Offset: 8, TotalUnits: 10, TippedAtMs: 8, Rule: &pb.Rule{}},
		}
	}
	for name, change := range map[string]func(*pb.Counter){
		"":                            func(*pb.Counter) {},
		"next offset of 2^63-1":       func(c *pb.Counter) { c.Account.NextOffset = math.MaxInt64 },
		"next offset below 0":         func(c *pb.Counter) { c.Account.NextOffset = -1 },
		"balance above the largest":   func(c *pb.Counter) { c.Account.BalanceUnits = math.MaxUint64 },
		"nanos of a unit":             func(c *pb.Counter) { c.Account.BalanceNanos = 1e9 },
		"a balance without deposits":  func(c *pb.Counter) { c.Account.Deposits = 0 },
		"times in the wrong order":    func(c *pb.Counter) { c.Account.FirstAtMs = 9 },
		"a time beyond all":           func(c *pb.Counter) { c.Account.LastAtMs = math.MaxInt64 },
		"a key of a later offset":     func(c *pb.Counter) { c.Account.RecentKeys.OffsetDelta[0] = 9 },
		"an origin twice":             func(c *pb.Counter) { c.Account.Origins = append(c.Account.Origins, c.Account.Origins[0]) },
		"seventeen origins":           func(c *pb.Counter) { c.Account.Origins = slices.Repeat([]*pb.Origin{{Sequence: 1}}, 17) },
		"an origin without a number":  func(c *pb.Counter) { c.Account.Origins[0].Sequence = 0 },
		"an origin idle for ever":     func(c *pb.Counter) { c.Account.Origins[0].IdleMs = math.MaxInt64 },
		"an origin idle below 0":      func(c *pb.Counter) { c.Account.Origins[0].IdleMs = -1 },
		"a pacemaker that is not":     func(c *pb.Counter) { c.Account.Pacemaker = 1 },
		"cells out of order":          func(c *pb.Counter) { c.Window.FirstMsDelta[1] = -1 },
		"cells that overlap":          func(c *pb.Counter) { c.Window.SpanMs, c.Window.Deposits = []int64{4, 0}, []uint32{2, 1} },
		"a cell of no deposit":        func(c *pb.Counter) { c.Window.Deposits = []uint32{0, 1} },
		"a long cell of one deposit":  func(c *pb.Counter) { c.Window.SpanMs = []int64{1, 0} },
		"a cell of a later offset":    func(c *pb.Counter) { c.Window.OffsetDelta[1] = 6 },
		"cells above the balance":     func(c *pb.Counter) { c.Window.Units[0] = 5 },
		"cells that overflow":         func(c *pb.Counter) { c.Window.Units[0] = math.MaxInt64 },
		"a cell at the end of time":   func(c *pb.Counter) { c.Window.FirstMsDelta[1] = math.MaxInt64 - 5 },
		"more rules than are counted": func(c *pb.Counter) { c.Window.Past = []*pb.PastRule{{}} },
		"a tip of a later offset":     func(c *pb.Counter) { c.Tip.Offset = 9 },
		"a tip below 0":               func(c *pb.Counter) { c.Tip.Offset = -1 },
		"a tip at the end of time":    func(c *pb.Counter) { c.Tip.TippedAtMs = math.MinInt64 },
	} {
		m := good()
		change(m)
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		v, err := new(stream.CounterEncoder).Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		_, byHand := stream.LoadCounter(v)
		_, byMessage := stream.CounterOf(m)
		for _, err := range []error{byHand, byMessage} {
			if (err == nil) != (name == "") || err != nil && !errors.Is(err, stream.ErrRow) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name, f := range map[string]*pb.Flag{
		"no evidence of the crossing": {NextOffset: 1, NextTip: 5},
		"offset of 2^63-1":            {NextOffset: math.MaxInt64},
		"a tip at 2^63-1":             {NextTip: math.MaxInt64, Evidence: evidence()},
		"a removal below 0":           {RemovedUpto: -1},
		"parts out of order":          {Parts: &pb.Parts{FirstMsDelta: []int64{5, -1}, Units: []uint64{1, 1}, OffsetDelta: []int64{1, 1}}},
	} {
		if _, err := stream.LoadFlag(f); !errors.Is(err, stream.ErrRow) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
