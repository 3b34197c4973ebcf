package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"coinbit/internal/broker"
	"coinbit/internal/stream"
)

// swap is a broker that can be replaced by another cluster on the same address.
type swap struct {
	t *testing.T
	b *broker.Broker
}

func newSwap(t *testing.T) *swap {
	t.Helper()
	b, err := broker.Start(context.Background(), t.TempDir(), "127.0.0.1:0")
	must(t, err)
	s := &swap{t, b}
	t.Cleanup(func() { s.b.Close() })
	return s
}

// replace starts another cluster, with topics of its own.
func (s *swap) replace(partitions int32) {
	s.t.Helper()
	addr := s.b.Addr()
	s.b.Close()
	b, err := broker.Start(context.Background(), s.t.TempDir(), addr)
	must(s.t, err)
	s.b = b
	_, err = newClient(s.t, addr).Ensure(within(s.t), stream.Topics(), partitions, 0)
	must(s.t, err)
}

func (s *swap) records(topic string) int64 {
	s.t.Helper()
	ends, err := newClient(s.t, s.b.Addr()).HighWaters(within(s.t), topic)
	must(s.t, err)
	sum := int64(0)
	for _, end := range ends {
		sum += end
	}
	return sum
}

func in(t *testing.T, c *Client, partitions int32) *Client {
	t.Helper()
	cluster, err := c.Ensure(within(t), stream.Topics(), partitions, 0)
	must(t, err)
	return c.In(cluster)
}

// Nothing that a client of one cluster does reaches another on the same address: not
// what a writer repeats, not a claim, not an emit, not a reader.
func TestNothingReachesAnotherCluster(t *testing.T) {
	s := newSwap(t)
	c := in(t, newClient(t, s.b.Addr()), 4)
	log, err := c.LogWriter(within(t), "x", "deposit", 4)
	must(t, err)
	defer func() { _ = log.Close() }()
	_, err = awaitPromise(within(t), log.Emit("deposit", "w", []byte("before")))
	must(t, err)
	table, err := c.TableWriter(TableOptions{Group: stream.BalanceGroup, Partitions: 4,
		OnRow: func(int32, string, []byte, int64) error { return nil }})
	must(t, err)
	defer func() { _ = table.Close() }()
	_, err = table.Claim(within(t), 0)
	must(t, err)
	producer, err := c.Producer(within(t), "x", "flag_wallet")
	must(t, err)
	_, err = awaitPromise(within(t), producer.Emit("flag_wallet", "w", []byte("before")))
	must(t, err)

	s.replace(3)
	for _, key := range []string{"w", "a", "b", "c", "d"} {
		if _, err := awaitPromise(within(t), log.Emit("deposit", key, []byte("after"))); !errors.Is(err, ErrMoved) {
			t.Errorf("a deposit: %v", err)
		}
	}
	if _, err := table.Claim(within(t), 1); !errors.Is(err, ErrMoved) {
		t.Errorf("a claim: %v", err)
	}
	if _, err := awaitPromise(within(t), producer.Emit("flag_wallet", "w", []byte("after"))); !errors.Is(err, ErrMoved) {
		t.Errorf("an emit: %v", err)
	}
	if _, err := c.Send(within(t), "flag_wallet", "w", []byte("after")); err == nil {
		t.Error("an event was sent")
	}
	if _, err := c.HighWaters(within(t), "deposit"); err == nil {
		t.Error("the other cluster's end was read")
	}
	if err := c.Still(within(t)); !errors.Is(err, ErrMoved) || !strings.Contains(err.Error(), "BROKER leads to cluster") {
		t.Errorf("got %v", err)
	}
	if err := c.Follow(within(t), func(error) {}); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v", err)
	}
	_ = producer.Close()
	for _, topic := range []string{"deposit", "flag_wallet", "balance-table"} {
		if n := s.records(topic); n != 0 {
			t.Errorf("%d records on the other cluster's %s", n, topic)
		}
	}
}

// A topic is made anew under a live connection: no answer says that a record is there
// which is where nobody looks.
func TestTopicMadeAnewUnderTheWriter(t *testing.T) {
	s := newSwap(t)
	whichever := newClient(t, s.b.Addr())
	admin := topicAdmin(t, whichever)
	for _, partitions := range []int32{4, 3} {
		c := in(t, whichever, 4)
		log, err := c.LogWriter(within(t), "x", "deposit", 4)
		must(t, err)
		_, err = awaitPromise(within(t), log.Emit("deposit", "w", []byte("before")))
		must(t, err)
		must(t, admin.DeleteTopic("deposit"))
		must(t, admin.CreateTopic("deposit", &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false))
		for i := range 20 {
			// The broker may see first that the sequence goes on which began in the old topic.
			_, err := awaitPromise(within(t), log.Emit("deposit", fmt.Sprint("k", i), []byte("after")))
			if !errors.Is(err, ErrMoved) && !errors.Is(err, sarama.ErrOutOfOrderSequenceNumber) {
				t.Fatalf("%d partitions: got %v", partitions, err)
			}
		}
		if n := s.records("deposit"); n > 4 { // the first of each partition may have gone before the answer
			t.Errorf("%d records were sent to the new topic", n)
		}
		must(t, log.Close())
		if err := c.Still(within(t)); !errors.Is(err, ErrMoved) || !strings.Contains(err.Error(), "topic deposit was made anew") {
			t.Errorf("got %v", err)
		}
	}
}

// The probe keeps its connection and asks for its topics alone.
func TestFollowKeepsItsConnection(t *testing.T) {
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1))
	must(t, err)
	t.Cleanup(kafka.Close)
	c := in(t, newClient(t, kafka.ListenAddrs()...), 2)
	var opened, asked atomic.Int64
	kafka.ControlKey(int16(kmsg.ApiVersions), func(kmsg.Request) (kmsg.Response, error, bool) {
		kafka.KeepControl()
		opened.Add(1)
		return nil, nil, false
	})
	kafka.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		kafka.KeepControl()
		if m := r.(*kmsg.MetadataRequest); len(m.Topics) != len(stream.Topics()) { //nolint:forcetypeassert // by its key
			t.Errorf("it asked for %d topics", len(m.Topics))
		}
		asked.Add(1)
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(within(t))
	answers := 0
	must(t, c.Follow(ctx, func(err error) {
		if err != nil {
			t.Error(err)
		}
		if answers++; answers == 3 {
			cancel()
		}
	}))
	if opened.Load() != 1 || asked.Load() != 4 { // once by the guard
		t.Errorf("%d connections, asked %d times", opened.Load(), asked.Load())
	}
}

// A partition without a leader is named.
func TestLeaderAway(t *testing.T) {
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1))
	must(t, err)
	t.Cleanup(kafka.Close)
	c := newClient(t, kafka.ListenAddrs()...)
	_, err = c.Ensure(within(t), stream.Topics(), 2, 0)
	must(t, err)
	deposit := metadata(t, c, "deposit")
	for _, p := range deposit.Topics[0].Partitions {
		if p.ID == 1 {
			p.Leader = -1
		}
	}
	topics := stream.Topics()[:1]
	for _, err := range []error{ledAll(deposit, topics), second(describe(deposit, topics))} {
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "partition 1 of deposit has no leader") {
			t.Errorf("got %v", err)
		}
	}
	if topicIn(deposit, "deposit") == nil {
		t.Error("it counts as not there")
	}
}

func second(_ Cluster, err error) error { return err }

func metadata(t *testing.T, c *Client, topic string) *sarama.MetadataResponse {
	t.Helper()
	b := sarama.NewBroker(c.Brokers()[0])
	must(t, b.Open(c.base("coinbit-test")))
	defer func() { must(t, b.Close()) }()
	meta, err := b.GetMetadata(sarama.NewMetadataRequest(c.base("").Version, []string{topic}))
	must(t, err)
	return meta
}
