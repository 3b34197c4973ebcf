package threshold

import (
	"errors"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/stream/streamtest"
	"coinbit/internal/wallet"
)

const start = 1_700_000_000_000

// deposit is the value of a record.
func deposit(units int64, at int64, id uint64) []byte {
	return streamtest.Value(&pb.Deposit{WalletId: "w", Units: units, AcceptedAtMs: start + at, Origin: 7, Sequence: id})
}

// step gives the callback a message and returns the row and the crossing, if any.
func step(t *testing.T, b *streamtest.Book, offset int64, row any, d []byte) (*stream.Kept[wallet.Counter], *pb.Evidence) {
	t.Helper()
	m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: offset, Row: row}
	if err := m.Run(processor{b.Env()}.deposit, d); err != nil {
		t.Fatal(err)
	}
	if len(m.Set) != 1 || len(m.Emitted) > 1 {
		t.Fatalf("set %v, emitted %v", m.Set, m.Emitted)
	}
	var e *pb.Evidence
	if len(m.Emitted) == 1 {
		event := m.Emitted[0].(*pb.FlagEvent)
		if e = event.GetCrossing().GetEvidence(); event.WalletId != "w" || e == nil {
			t.Fatalf("emitted %v", event)
		}
	}
	return m.Set[0].(*stream.Kept[wallet.Counter]), e
}

func TestGraph(t *testing.T) {
	g := Graph((&streamtest.Book{}).Env())
	if g.Group() != "threshold" || g.GroupTable().Topic() != "threshold-table" ||
		len(g.InputStreams()) != 1 || g.InputStreams()[0].Topic() != "deposit" ||
		len(g.OutputStreams()) != 1 || g.OutputStreams()[0].Topic() != "flag_wallet" {
		t.Fatalf("%s", g.Group())
	}
}

// A crossing is emitted once when it happens, and again when its deposit, or
// one before it, comes again: the first may be what was lost.
func TestCrossingIsEmittedAndEmittedAgain(t *testing.T) {
	var b streamtest.Book
	first, e := step(t, &b, 3, nil, deposit(6000, 0, 1))
	if e != nil {
		t.Fatalf("crossed at 6000: %v", e)
	}
	second, e := step(t, &b, 8, first, deposit(6000, 1000, 2))
	if e == nil || e.Offset != 8 || e.TotalUnits != 12_000 || e.Deposits != 2 {
		t.Fatalf("evidence %v", e)
	}
	third, again := step(t, &b, 9, second, deposit(1, 2000, 3))
	if again != nil {
		t.Fatalf("emitted while it stays above: %v", again)
	}
	for _, c := range []struct {
		offset int64
		d      []byte
		emits  bool
	}{
		{9, deposit(1, 2000, 3), false}, {8, deposit(6000, 1000, 2), true}, {3, deposit(6000, 0, 1), false},
	} {
		row, again := step(t, &b, c.offset, third, c.d)
		if !reflect.DeepEqual(row, third) {
			t.Errorf("redelivery of %d changed the row to %v", c.offset, row)
		}
		if (again != nil) != c.emits || again != nil && !proto.Equal(again, e) {
			t.Errorf("redelivery of %d emits %v", c.offset, again)
		}
	}
	want := []wallet.Verdict{wallet.Applied, wallet.Applied, wallet.Applied, wallet.Redelivered, wallet.Redelivered, wallet.Redelivered}
	for i, v := range b.Counted {
		if v != want[i] {
			t.Errorf("message %d was counted as %s", i, v)
		}
	}
}

// balance sets aside; this group passes over by the same check.
func TestPassesOverWhatBalanceSetsAside(t *testing.T) {
	for _, c := range []struct {
		key   string
		value any
	}{
		{"w", nil}, {"w", []byte{0xff}}, {"", deposit(5, 0, 1)}, {"x", deposit(5, 0, 1)}, {"w", deposit(0, 0, 1)},
		{"w", streamtest.Value(&pb.Deposit{WalletId: "w", Units: 5})},
	} {
		var b streamtest.Book
		m := &streamtest.Message{From: stream.DepositStream, ID: c.key, Row: &stream.Malformed{}}
		if err := m.Run(processor{b.Env()}.deposit, c.value); err != nil {
			t.Fatal(err)
		}
		if len(m.Set)+len(m.Emitted)+len(b.Aside)+len(b.Counted)+len(m.Deferred) != 0 {
			t.Errorf("%q %v: %+v %+v", c.key, c.value, m, b)
		}
	}
}

// A rule that changed under a row is said, with the one before.
func TestRuleChangeIsSaid(t *testing.T) {
	var b streamtest.Book
	row, _ := step(t, &b, 0, nil, deposit(5, 0, 1))
	row, _ = step(t, &b, 1, row, deposit(5, 0, 2))
	if len(b.Rules) != 0 {
		t.Fatalf("said %v", b.Rules)
	}
	was := streamtest.Rule()
	b.Rule = was
	b.Rule.PeriodMs *= 2
	row, _ = step(t, &b, 2, row, deposit(5, 0, 3))
	step(t, &b, 3, row, deposit(5, 0, 4))
	if len(b.Rules) != 1 || b.Rules[0] != was {
		t.Fatalf("said %v, want once %v", b.Rules, was)
	}
}

func TestFailures(t *testing.T) {
	for _, bad := range []any{&stream.Malformed{Reason: "x"}, &pb.Flag{}, &pb.Counter{Window: &pb.Window{Units: []uint64{1}}}} {
		var b streamtest.Book
		m := &streamtest.Message{From: stream.DepositStream, ID: "w", Row: bad}
		streamtest.WantFailure(t, m, &b, m.Run(processor{b.Env()}.deposit, deposit(5, 0, 1)), stream.ErrRow)
	}
	b := streamtest.Book{High: 5}
	m := &streamtest.Message{From: stream.DepositStream, ID: "w", Row: &stream.Kept[wallet.Counter]{Row: wallet.Counter{Account: wallet.Account{NextOffset: 6}}}}
	streamtest.WantFailure(t, m, &b, m.Run(processor{b.Env()}.deposit, deposit(5, 0, 1)), nil)

	m = &streamtest.Message{Ctx: streamtest.Over(), From: stream.DepositStream, ID: "w"}
	if err := m.Run(processor{b.Env()}.deposit, deposit(20_000, 0, 1)); err != nil {
		t.Fatal(err)
	}
	if len(m.Set)+len(m.Emitted) != 0 || len(m.Deferred) != 1 || !errors.Is(m.Deferred[0], stream.ErrSessionOver) {
		t.Fatalf("after the session's end: %+v", m)
	}
}

// A crossing tells what was in its window.
func TestCrossingCarriesItsDeposits(t *testing.T) {
	var b streamtest.Book
	row, _ := step(t, &b, 3, nil, deposit(6000, 0, 1))
	m := &streamtest.Message{From: stream.DepositStream, ID: "w", Position: 8, Row: row}
	if err := m.Run(processor{b.Env()}.deposit, deposit(5000, 1000, 2)); err != nil {
		t.Fatal(err)
	}
	parts := m.Emitted[0].(*pb.FlagEvent).GetCrossing().GetParts()
	want := &pb.Parts{FirstMsDelta: []int64{start, 1000}, Units: []uint64{6000, 5000}, OffsetDelta: []int64{3, 5}}
	if !proto.Equal(parts, want) {
		t.Fatalf("%v, want %v", parts, want)
	}
}
