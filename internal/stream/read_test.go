package stream_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// What is read without a message in between is what CheckDeposit says of the decoded one.
func FuzzReadDeposit(f *testing.F) {
	const n = 4
	for _, d := range []*pb.Deposit{
		{WalletId: "w", Units: 5, Nanos: 1, AcceptedAtMs: 9, Origin: 7, Sequence: 8},
		{WalletId: "w", Units: 5, AcceptedAtMs: 9, Origin: 7},
		{WalletId: "w", Units: 5, AcceptedAtMs: 9, IdempotencyKey: "k"},
		{WalletId: "w", Units: 5, AcceptedAtMs: 9, IdempotencyKey: "k", KeyChecked: 8},
		{WalletId: "w", Units: 5, AcceptedAtMs: 9, KeyChecked: 8},
		{WalletId: "x", Units: 5, AcceptedAtMs: 9},
		{WalletId: "w", Units: 1e12, Nanos: 1, AcceptedAtMs: 9},
		{WalletId: "w", Nanos: -1, AcceptedAtMs: 9},
		{WalletId: "w", Units: -1, AcceptedAtMs: 1 << 50},
		{WalletId: "w"}, {},
	} {
		b, err := proto.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("w", true, b)
		f.Add("w", false, append(b, b...))
	}
	f.Add("", true, []byte{})
	f.Add(".x", true, []byte("\x0a\x02.x\x10\x01\x20\x01"))
	f.Fuzz(func(t *testing.T, key string, home bool, value []byte) {
		r := stream.Record{Key: key, Partition: stream.Partition(key, n), Offset: 3, Partitions: n}
		if !home {
			r.Partition = (r.Partition + 1) % n
		}
		v, _ := new(stream.DepositEncoder).Decode(value)
		want, wantErr := stream.CheckDeposit(r, v)
		got, err := stream.ReadDeposit(r, value)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) || err == nil && got != want {
			t.Fatalf("%+v %v, want %+v %v", got, err, want, wantErr)
		}
		if _, err := stream.ReadDeposit(r, nil); err == nil || err.Error() != "no value" {
			t.Fatalf("no value: %v", err)
		}
	})
}
