package replay_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

const (
	partitions = 4
	start      = 1_700_000_000_000
)

// world is a cluster in memory.
type world struct {
	t      testing.TB
	topics map[string]map[int32][]*sarama.ConsumerMessage
}

func newWorld(t testing.TB) *world {
	return &world{t, make(map[string]map[int32][]*sarama.ConsumerMessage)}
}

func (w *world) HighWaters(_ context.Context, topic string) (map[int32]int64, error) {
	ends := make(map[int32]int64)
	for p := range int32(partitions) {
		ends[p] = int64(len(w.topics[topic][p]))
	}
	return ends, nil
}

func (w *world) HighWater(_ context.Context, topic string, partition int32) (int64, error) {
	return int64(len(w.topics[topic][partition])), nil
}

func (w *world) Scan(_ context.Context, topic string, partition int32, below int64, each func(*sarama.ConsumerMessage) error) error {
	for _, m := range w.topics[topic][partition][:below] {
		if err := each(m); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) append(topic string, partition int32, key, value []byte, headers ...*sarama.RecordHeader) int64 {
	if w.topics[topic] == nil {
		w.topics[topic] = make(map[int32][]*sarama.ConsumerMessage)
	}
	log := w.topics[topic][partition]
	w.topics[topic][partition] = append(log, &sarama.ConsumerMessage{Topic: topic, Partition: partition, Offset: int64(len(log)),
		Key: key, Value: value, Headers: headers, Timestamp: time.UnixMilli(start)})
	return int64(len(log))
}

func (w *world) deposit(d *pb.Deposit) int64 {
	return w.append("deposit", stream.Partition(d.WalletId, partitions), []byte(d.WalletId), w.encode(d))
}

func (w *world) flagEvent(e *pb.FlagEvent) {
	w.append("flag_wallet", stream.Partition(e.WalletId, partitions), []byte(e.WalletId), w.encode(e))
}

func (w *world) encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	w.must(err)
	return b
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// random is a log of deposits, repeats, keys, conflicts and garbage. Times are at most
// 10 s out of order, and no wallet has more deposits than a row remembers ids and keys.
func random(t testing.TB, seed uint64) *world {
	w, r := newWorld(t), rand.New(rand.NewPCG(seed, 1))
	var last *pb.Deposit
	for i := range 200 {
		d := &pb.Deposit{WalletId: fmt.Sprint("w", r.IntN(6)), Units: r.Int64N(5000), Nanos: 1 + r.Int32N(999_999_998),
			AcceptedAtMs: start + int64(i)*2000 - r.Int64N(10_000), Origin: 9, Sequence: uint64(i + 1)}
		switch r.IntN(10) {
		case 0:
			if last != nil {
				d = last
			}
		case 1, 2:
			d.IdempotencyKey = fmt.Sprint("k", r.IntN(10))
			if r.IntN(2) == 0 {
				d.Units, d.Nanos = 5, 0
			}
		case 3:
			w.append("deposit", r.Int32N(partitions), nil, []byte{0xff})
		case 4:
			w.append("deposit", r.Int32N(partitions), []byte("w1"), nil)
		case 5:
			d.Units = math.MaxInt64 // impossible
		}
		last = d
		w.deposit(d)
	}
	return w
}

// naive is one deposit that counts.
type naive struct {
	wallet string
	at     int64
	nanos  int64 // the amount, in billionths
}

// counted is what counts in the log, found without the core: the first of each id, and
// of each key of a wallet.
func (w *world) counted() (list []naive) {
	for p := range int32(partitions) {
		seen := make(map[string]bool)
		for _, m := range w.topics["deposit"][p] {
			d := new(pb.Deposit)
			if len(m.Value) == 0 || proto.Unmarshal(m.Value, d) != nil || d.WalletId != string(m.Key) || d.Units > 1_000_000_000_000 ||
				stream.Partition(d.WalletId, partitions) != p {
				continue
			}
			id, key := fmt.Sprint(d.WalletId, "/id/", d.Origin, d.Sequence), fmt.Sprint(d.WalletId, "/key/", d.IdempotencyKey)
			if seen[id] || d.IdempotencyKey != "" && seen[key] {
				continue
			}
			seen[id], seen[key] = true, true
			list = append(list, naive{d.WalletId, d.AcceptedAtMs, d.Units*1_000_000_000 + int64(d.Nanos)})
		}
	}
	return list
}

// flagged are the wallets of which any window of list is above a rule.
func flagged(list []naive, r wallet.Rule) map[string]bool {
	flags := make(map[string]bool)
	for _, end := range list {
		var sum int64
		for _, d := range list {
			if d.wallet == end.wallet && d.at <= end.at && d.at > end.at-r.PeriodMs {
				sum += d.nanos
			}
		}
		if sum > int64(r.Threshold.Units)*1_000_000_000+int64(r.Threshold.Nanos) {
			flags[end.wallet] = true
		}
	}
	return flags
}
