package flagger

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/stream/streamtest"
	"coinbit/internal/wallet"
)

func crossing(offset int64) *pb.FlagEvent {
	return &pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{Evidence: &pb.Evidence{Offset: offset}}}}
}

func raise(id uint64) *pb.FlagEvent {
	return &pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Raise{Raise: &pb.OperatorRaise{EventId: id, AtMs: 5}}}
}

func removal(id uint64, upto int64) *pb.FlagEvent {
	return &pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Removal{Removal: &pb.OperatorRemoval{EventId: id, AtMs: 6, RemovedUpto: upto}}}
}

func step(t *testing.T, b *streamtest.Book, offset int64, row any, e *pb.FlagEvent) *pb.Flag {
	t.Helper()
	m := &streamtest.Message{From: stream.FlagWalletStream, ID: "w", Position: offset, Row: row}
	if err := m.Run(processor{b.Env()}.event, e); err != nil {
		t.Fatal(err)
	}
	if len(m.Set) != 1 || len(m.Emitted)+len(b.Aside) != 0 {
		t.Fatalf("set %v, emitted %v, set aside %v", m.Set, m.Emitted, b.Aside)
	}
	return m.Set[0].(*pb.Flag)
}

func TestGraph(t *testing.T) {
	g := Graph((&streamtest.Book{}).Env())
	if g.Group() != "flagger" || g.GroupTable().Topic() != "flagger-table" ||
		len(g.InputStreams()) != 1 || g.InputStreams()[0].Topic() != "flag_wallet" || len(g.OutputStreams()) != 0 {
		t.Fatalf("%s", g.Group())
	}
}

// A history, each event of which is then delivered once more: the last row does
// not change and is set all the same.
func TestEventsAndTheirRedelivery(t *testing.T) {
	var b streamtest.Book
	history := []struct {
		event   *pb.FlagEvent
		verdict wallet.Verdict
		raised  bool
	}{
		{crossing(4), wallet.Applied, true},
		{crossing(4), wallet.Repeated, true}, // threshold emitted it again
		{removal(1, 5), wallet.Applied, false},
		{crossing(4), wallet.Repeated, false}, // a late one stays removed
		{raise(2), wallet.Applied, true},
		{removal(3, 5), wallet.Applied, false},
		{removal(3, 5), wallet.Repeated, false},
		{crossing(9), wallet.Applied, true},
	}
	var row any
	for i, h := range history {
		flag := step(t, &b, int64(i), row, h.event)
		row = flag
		f, err := stream.LoadFlag(flag)
		if err != nil {
			t.Fatal(err)
		}
		if f.Raised() != h.raised || b.Counted[i] != h.verdict || f.NextOffset != int64(i+1) {
			t.Fatalf("event %d: raised %t, %s, next %d", i, f.Raised(), b.Counted[i], f.NextOffset)
		}
	}
	for i, h := range history {
		if again := step(t, &b, int64(i), row, h.event); !proto.Equal(again, row.(*pb.Flag)) {
			t.Errorf("redelivery of event %d changed the row to %v", i, again)
		}
		if v := b.Counted[len(history)+i]; v != wallet.Redelivered {
			t.Errorf("redelivery of event %d was counted as %s", i, v)
		}
	}
}

func TestSetAside(t *testing.T) {
	for _, c := range []struct {
		key    string
		value  any
		reason string
	}{
		{"w", nil, "no value"},
		{"w", &stream.Malformed{Reason: "not a FlagEvent message"}, "malformed: not a FlagEvent message"},
		{"", raise(1), "no key"},
		{"x", raise(1), "differ"},
		{"w", &pb.FlagEvent{WalletId: "w"}, "unknown kind"},
		{"w", crossing(-1), "impossible deposit"},
		{"w", removal(1, -1), "negative"},
		{"w", &pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Crossing{}}, "without evidence"},
	} {
		var b streamtest.Book
		m := &streamtest.Message{From: stream.FlagWalletStream, ID: c.key, Row: &stream.Malformed{}}
		if err := m.Run(processor{b.Env()}.event, c.value); err != nil {
			t.Fatal(err)
		}
		if len(b.Aside) != 1 || !strings.Contains(b.Aside[0], c.reason) || len(m.Set)+len(b.Counted) != 0 {
			t.Errorf("%q %v: set aside for %v, want %q; rows %v", c.key, c.value, b.Aside, c.reason, m.Set)
		}
	}
}

func TestFailures(t *testing.T) {
	for _, bad := range []any{&stream.Malformed{Reason: "x"}, &pb.Balance{}} {
		var b streamtest.Book
		m := &streamtest.Message{From: stream.FlagWalletStream, ID: "w", Row: bad}
		streamtest.WantFailure(t, m, &b, m.Run(processor{b.Env()}.event, raise(1)), stream.ErrRow)
	}
	b := streamtest.Book{High: 5}
	m := &streamtest.Message{From: stream.FlagWalletStream, ID: "w", Row: &pb.Flag{NextOffset: 6}}
	streamtest.WantFailure(t, m, &b, m.Run(processor{b.Env()}.event, raise(1)), nil)

	m = &streamtest.Message{Ctx: streamtest.Over(), From: stream.FlagWalletStream, ID: "w"}
	if err := m.Run(processor{b.Env()}.event, raise(1)); err != nil {
		t.Fatal(err)
	}
	if len(m.Set) != 0 || len(m.Deferred) != 1 || !errors.Is(m.Deferred[0], stream.ErrSessionOver) {
		t.Fatalf("after the session's end: %+v", m)
	}
}

// The deposits of the window stay in the row for as long as its evidence does.
func TestPartsStayWithTheEvidence(t *testing.T) {
	var b streamtest.Book
	first, second := crossing(4), crossing(9)
	first.GetCrossing().Parts = &pb.Parts{FirstMsDelta: []int64{1, 2}, Units: []uint64{3, 4}, OffsetDelta: []int64{3, 1}}
	row := step(t, &b, 0, nil, first)
	again := crossing(4) // told again, when less of it was left
	for i, e := range []*pb.FlagEvent{again, raise(1), removal(2, 5)} {
		if row = step(t, &b, int64(i+1), row, e); !proto.Equal(row.GetParts(), first.GetCrossing().GetParts()) {
			t.Fatalf("event %d leaves %v", i, row.GetParts())
		}
	}
	if row = step(t, &b, 4, row, second); row.GetParts() != nil || row.GetEvidence().GetOffset() != 9 {
		t.Fatalf("the next crossing leaves %v", row)
	}
}
