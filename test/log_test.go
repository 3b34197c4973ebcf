package test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
)

// thresholdNanos is the default THRESHOLD_AMOUNT.
const thresholdNanos = 10_000 * nano

// kafkaLog reads topics directly, as the judge of what was stored.
type kafkaLog struct {
	t      *testing.T
	client sarama.Client
}

func newLog(t *testing.T, brokers ...string) *kafkaLog {
	t.Helper()
	conf := sarama.NewConfig()
	conf.Version = sarama.V2_3_0_0
	conf.Metadata.AllowAutoTopicCreation = false
	c, err := sarama.NewClient(brokers, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &kafkaLog{t, c}
}

// ends is the next offset of every partition of topic.
func (l *kafkaLog) ends(topic string) map[int32]int64 {
	l.t.Helper()
	partitions, err := l.client.Partitions(topic)
	if err != nil {
		l.t.Fatalf("%s: %v", topic, err)
	}
	ends := map[int32]int64{}
	for _, p := range partitions {
		if ends[p], err = l.client.GetOffset(topic, p, sarama.OffsetNewest); err != nil {
			l.t.Fatalf("%s/%d: %v", topic, p, err)
		}
	}
	return ends
}

// read returns what lies in topic between from and its present end.
func (l *kafkaLog) read(topic string, from map[int32]int64) []*sarama.ConsumerMessage {
	l.t.Helper()
	consumer, err := sarama.NewConsumerFromClient(l.client)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	var all []*sarama.ConsumerMessage
	for p, end := range l.ends(topic) {
		if from[p] >= end {
			continue
		}
		all = append(all, l.readPartition(consumer, topic, p, from[p], end)...)
	}
	return all
}

func (l *kafkaLog) readPartition(consumer sarama.Consumer, topic string, p int32, from, end int64) []*sarama.ConsumerMessage {
	l.t.Helper()
	pc, err := consumer.ConsumePartition(topic, p, from)
	if err != nil {
		l.t.Fatalf("%s/%d: %v", topic, p, err)
	}
	defer func() { _ = pc.Close() }()
	limit := time.After(30 * time.Second)
	var all []*sarama.ConsumerMessage
	for {
		select {
		case m := <-pc.Messages():
			all = append(all, m)
			if m.Offset >= end-1 {
				return all
			}
		case <-limit:
			l.t.Fatalf("%s/%d: offset %d was not delivered in 30 s", topic, p, end-1)
		}
	}
}

// stored is one deposit of the log.
type stored struct {
	wallet   string
	position string
	nanos    int64
	at       int64 // milliseconds
	key      string
	// Who took it, and as which of its partition.
	origin, sequence uint64
}

// deposits are the deposits stored since from, in the order of each partition.
func (l *kafkaLog) deposits(from map[int32]int64) []stored {
	l.t.Helper()
	var all []stored
	for _, m := range l.read("deposit", from) {
		var d pb.Deposit
		if err := proto.Unmarshal(m.Value, &d); err != nil || d.WalletId != string(m.Key) {
			l.t.Fatalf("deposit %d:%d is not one of the API's: key %q, %v", m.Partition, m.Offset, m.Key, err)
		}
		all = append(all, stored{
			wallet: d.WalletId, position: fmt.Sprintf("%d:%d", m.Partition, m.Offset),
			nanos: d.Units*nano + int64(d.Nanos), at: d.AcceptedAtMs, key: d.IdempotencyKey,
			origin: d.Origin, sequence: d.Sequence,
		})
	}
	return all
}

// judge is the deliberately simple twin: what every wallet must show for a log,
// given the period of the rule. Each deposit counts once, though it or its key may
// stand in the log again.
func judge(log []stored, period time.Duration) map[string]state {
	counted := map[string][]stored{}
	seen := map[string]bool{}
	for _, d := range log {
		id, key := fmt.Sprintf("%s %x:%d", d.wallet, d.origin, d.sequence), fmt.Sprintf("%s key %s", d.wallet, d.key)
		if d.origin != 0 && seen[id] || d.key != "" && seen[key] {
			continue
		}
		seen[id], seen[key] = true, true
		counted[d.wallet] = append(counted[d.wallet], d)
	}
	states := map[string]state{}
	for wallet, ds := range counted {
		slices.SortStableFunc(ds, func(a, b stored) int { return cmp.Compare(a.at, b.at) })
		var s state
		for i, last := range ds {
			s.nanos += last.nanos
			var window int64 // everything in (last.at − period, last.at]
			for _, d := range ds[:i+1] {
				if d.at > last.at-period.Milliseconds() {
					window += d.nanos
				}
			}
			s.above = s.above || window > thresholdNanos
		}
		states[wallet] = s
	}
	return states
}
