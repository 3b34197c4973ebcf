package stream_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

func TestCheckDeposit(t *testing.T) {
	const n = 8
	home := stream.Partition("w", n)
	good := func(change func(*pb.Deposit)) *pb.Deposit {
		d := &pb.Deposit{WalletId: "w", Units: 5, Nanos: 1, AcceptedAtMs: 9, Origin: 7, Sequence: 8}
		change(d)
		return d
	}
	same := func(*pb.Deposit) {}
	for _, c := range []struct {
		key       string
		partition int32
		value     any
		reason    string
	}{
		{"w", home, good(same), ""},
		{"w", home, good(func(d *pb.Deposit) { d.IdempotencyKey = "k" }), ""},
		{"w", home, nil, "no value"},
		{"w", home, &stream.Malformed{Reason: "empty value"}, "empty value"},
		{"", home, good(same), "no key"},
		{"__offset", home, good(func(d *pb.Deposit) { d.WalletId = "__offset" }), "key is no wallet_id"},
		{strings.Repeat("a", 4000), home, good(same), "key is no wallet_id"},
		{"x", stream.Partition("x", n), good(same), "key and wallet_id differ"},
		{"w", (home + 1) % n, good(same), "wrong partition"},
		{"w", home, good(func(d *pb.Deposit) { d.Units, d.Nanos = 0, 0 }), "impossible amount"},
		{"w", home, good(func(d *pb.Deposit) { d.Units = -5 }), "impossible amount"},
		{"w", home, good(func(d *pb.Deposit) { d.Nanos = 1e9 }), "impossible amount"},
		{"w", home, good(func(d *pb.Deposit) { d.Units = 1e12 }), "impossible amount"},
		{"w", home, good(func(d *pb.Deposit) { d.AcceptedAtMs = 0 }), "impossible time"},
		{"w", home, good(func(d *pb.Deposit) { d.AcceptedAtMs = 1 << 50 }), "impossible time"},
		{"w", home, good(func(d *pb.Deposit) { d.IdempotencyKey = "a b" }), "Idempotency-Key"},
		{"w", home, good(func(d *pb.Deposit) { d.Origin = 0 }), "impossible origin"},
		{"w", home, good(func(d *pb.Deposit) { d.Sequence = 0 }), "impossible origin"},
		{"w", home, good(func(d *pb.Deposit) { d.ProtoReflect().SetUnknown([]byte("\x29\x01\x02\x03\x04\x05\x06\x07\x08")) }), "a build before the first release"},
		{"w", home, good(func(d *pb.Deposit) { d.ProtoReflect().SetUnknown([]byte("\x4a\x01x")) }), ""},
		{"w", home, &pb.FlagEvent{}, "malformed"},
	} {
		d, err := stream.CheckDeposit(stream.Record{Key: c.key, Partition: c.partition, Offset: 3, Partitions: n}, c.value)
		if got := fmt.Sprint(err); (err == nil) != (c.reason == "") || !strings.Contains(got, c.reason) && c.reason != "" {
			t.Errorf("%.20s %v: %s, want %q", c.key, c.value, got, c.reason)
		}
		if err == nil && (d.Amount.String() != "5.000000001" || d.At != 9 || d.Origin != 7 || d.Sequence != 8 || d.Offset != 3 || d.Partition != home) {
			t.Errorf("%+v", d)
		}
	}
}

func TestCheckFlagEvent(t *testing.T) {
	const n = 8
	home := stream.Partition("w", n)
	cross := func(partition int32) *pb.FlagEvent {
		return &pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{Evidence: &pb.Evidence{Partition: partition, Offset: 4}}}}
	}
	with := func(deposits, times int) *pb.FlagEvent {
		e := cross(home)
		e.GetCrossing().Parts = &pb.Parts{FirstMsDelta: make([]int64, times), Units: make([]uint64, deposits), OffsetDelta: make([]int64, deposits)}
		return e
	}
	for _, c := range []struct {
		value  any
		reason string
	}{
		{cross(home), ""},
		{with(wallet.MaxParts, wallet.MaxParts), ""},
		{with(wallet.MaxParts+1, wallet.MaxParts+1), "at most"},
		{with(2, 1), "differ in length"},
		{&pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Raise{Raise: &pb.OperatorRaise{}}}, ""},
		{&pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Removal{Removal: &pb.OperatorRemoval{RemovedUpto: 5}}}, ""},
		{cross(home + 1), "impossible deposit"},
		{&pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Crossing{}}, "without evidence"},
		{&pb.FlagEvent{WalletId: "w", Event: &pb.FlagEvent_Removal{Removal: &pb.OperatorRemoval{RemovedUpto: -1}}}, "negative"},
		{&pb.FlagEvent{WalletId: "w"}, "unknown kind"},
		{&pb.FlagEvent{WalletId: "x"}, "differ"},
		{nil, "no value"},
	} {
		e, err := stream.CheckFlagEvent(stream.Record{Key: "w", Partition: home, Offset: 3, Partitions: n}, c.value)
		if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%v: %v, want %q", c.value, err, c.reason)
		}
		if err == nil && (e.Offset != 3 || (e.Crossing != nil) == (e.Raise || e.Remove)) {
			t.Errorf("%+v", e)
		}
	}
}

// TestPartition: every key goes where sarama's producer with our hash puts it,
// and that is where Goka's own puts it.
func TestPartition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	ours := sarama.NewCustomHashPartitioner(stream.NewHasher)("t")
	gokas := sarama.NewHashPartitioner("t")
	for i := range 20_000 {
		key := fmt.Sprintf("%x", r.Uint64()>>(i%60))
		n := []int32{1, 3, 6, 8, 12}[i%5]
		m := &sarama.ProducerMessage{Key: sarama.StringEncoder(key)}
		a, _ := ours.Partition(m, n)
		b, _ := gokas.Partition(m, n)
		if got := stream.Partition(key, n); got != a || got != b {
			t.Fatalf("%s of %d: %d, the producer says %d, Goka's %d", key, n, got, a, b)
		}
	}
}

func TestMap(t *testing.T) {
	names := make(map[string]bool)
	for _, topic := range stream.Topics() {
		if names[topic.Name] || topic.Name == "" || len(topic.Writers) == 0 {
			t.Errorf("topic %+v", topic)
		}
		names[topic.Name] = true
		if topic.Copartitioned && len(topic.Readers) == 0 {
			t.Errorf("nobody reads %s", topic.Name)
		}
	}
	for _, want := range []string{"deposit", "flag_wallet", "balance-table", "flagger-table", "threshold-table", "deposit_dead_letter", "flag_wallet_dead_letter"} {
		if !names[want] {
			t.Errorf("%s is not on the map", want)
		}
	}
	for _, garbage := range []string{"", "\xff", "\x0a", "\x0a\x05a", "\x12\x00"} {
		if stream.AccountVersion([]byte(garbage)) != -1 || stream.FlagVersion([]byte(garbage)) != -1 {
			t.Errorf("%q has a version", garbage)
		}
	}
}
