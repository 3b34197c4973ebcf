package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/broker"
	"coinbit/internal/stream"
)

func TestEnsure(t *testing.T) {
	var book logBook
	c, err := NewClient(Settings{Brokers: []string{startBroker(t)}}, book.logger())
	must(t, err)
	first, err := c.Ensure(within(t), stream.Topics(), 5, 0)
	must(t, err)
	if first.ID == "" || first.Partitions != 5 || len(first.TopicIDs) != len(stream.Topics()) {
		t.Fatalf("%+v", first)
	}
	ids := make(map[string]bool)
	for name, id := range first.TopicIDs {
		if ids[id] || id == "" || strings.Trim(id, "A") == "" {
			t.Errorf("topic %s has the id %q", name, id)
		}
		ids[id] = true
	}
	if n := book.count("topic created"); n != len(stream.Topics()) {
		t.Errorf("%d topics said to be created", n)
	}

	// PARTITIONS is for creation: what is there stays.
	second, err := c.Ensure(within(t), stream.Topics(), 9, 3)
	must(t, err)
	if !reflect.DeepEqual(first, second) {
		t.Errorf("the second call found %+v, the first %+v", second, first)
	}
	if n := book.count("topic created"); n != len(stream.Topics()) {
		t.Errorf("the second call created something")
	}

	admin, err := sarama.NewClusterAdmin(c.Brokers(), c.base("coinbit-test"))
	must(t, err)
	defer func() { _ = admin.Close() }()
	for _, topic := range stream.Topics() {
		results, err := admin.DescribeConfigs([]*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic.Name}}, sarama.DescribeConfigsOptions{})
		must(t, err)
		have := make(map[string]string)
		for _, e := range results[0].Configs {
			have[e.Name] = e.Value
		}
		for k, v := range topic.Config {
			if have[k] != v {
				t.Errorf("%s: %s is %q, want %q", topic.Name, k, have[k], v)
			}
		}
	}
}

// Every service calls it when it starts, all at once.
func TestEnsureAllAtOnce(t *testing.T) {
	addr := startBroker(t)
	clusters := make([]Cluster, 4)
	var wg sync.WaitGroup
	for i := range clusters {
		wg.Go(func() {
			var err error
			if clusters[i], err = newClient(t, addr).Ensure(within(t), stream.Topics(), 2, 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, c := range clusters {
		if !reflect.DeepEqual(c, clusters[0]) {
			t.Errorf("%+v and %+v", c, clusters[0])
		}
	}
}

// deposit was there before, with another count than PARTITIONS.
func TestEnsureMismatch(t *testing.T) {
	c := newClient(t, startBroker(t))
	_, err := c.Ensure(within(t), stream.Topics()[:1], 4, 0)
	must(t, err)
	_, err = c.Ensure(within(t), stream.Topics(), 8, 0)
	if !errors.Is(err, ErrLayout) || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "deposit has 4 partitions, PARTITIONS is 8: start with PARTITIONS=4") {
		t.Fatalf("got %v, want ErrLayout", err)
	}
	if ends, err := c.HighWaters(within(t), "flag_wallet"); err == nil {
		t.Errorf("a topic was made that does not fit: %v", ends)
	}
	// A topic that need not fit may differ.
	cluster, err := c.Ensure(within(t), []stream.Topic{stream.Topics()[0], {Name: "free"}}, 4, 0)
	must(t, err)
	if cluster.Partitions != 4 {
		t.Errorf("%+v", cluster)
	}
}

func topicAdmin(t *testing.T, c *Client) sarama.ClusterAdmin {
	t.Helper()
	admin, err := sarama.NewClusterAdmin(c.Brokers(), c.base("coinbit-test"))
	must(t, err)
	t.Cleanup(func() { _ = admin.Close() })
	return admin
}

// Partitions that somebody added to the logs are not in use while they are empty. What
// is in one is named, and nobody is told to delete a log.
func TestPartitionsAdded(t *testing.T) {
	c := newClient(t, startBroker(t))
	_, err := c.Ensure(within(t), stream.Topics(), 4, 0)
	must(t, err)
	admin := topicAdmin(t, c)
	must(t, admin.CreatePartitions("deposit", 6, nil, false))
	must(t, admin.CreatePartitions("flag_wallet", 9, nil, false))
	cluster, err := c.Ensure(within(t), stream.Topics(), 4, 0)
	must(t, err)
	if cluster.Partitions != 4 || cluster.Layouts["deposit"].Partitions != 6 {
		t.Fatalf("%+v", cluster)
	}
	in := c.In(cluster)
	ends, err := in.HighWaters(within(t), "deposit")
	must(t, err)
	if len(ends) != 4 {
		t.Errorf("%v", ends)
	}
	for i := range 50 { // all records go where they went before
		key := fmt.Sprint("k", i)
		if _, err := in.Send(within(t), "flag_wallet", key, []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.HighWaters(within(t), "flag_wallet")
	must(t, err)
	for p, end := range all {
		if p >= 4 && end > 0 {
			t.Errorf("flag_wallet/%d has %d records", p, end)
		}
	}
	// The tables gone, PARTITIONS says how many were in use.
	for _, g := range stream.Groups() {
		must(t, admin.DeleteTopic(string(g.Table())))
	}
	if cluster, err = c.Ensure(within(t), stream.Topics(), 4, 0); err != nil || cluster.Partitions != 4 {
		t.Fatalf("%+v, %v", cluster, err)
	}

	cfg := c.base("coinbit-test")
	cfg.Producer.Partitioner, cfg.Producer.Return.Successes = sarama.NewManualPartitioner, true
	p, err := sarama.NewSyncProducer(c.Brokers(), cfg)
	must(t, err)
	_, _, err = p.SendMessage(&sarama.ProducerMessage{Topic: "deposit", Partition: 5, Key: sarama.StringEncoder("a"), Value: sarama.StringEncoder("b")})
	must(t, errors.Join(err, p.Close()))
	for _, look := range []func() error{
		func() error { _, err := c.Ensure(within(t), stream.Topics(), 4, 0); return err },
		func() error { _, err := c.Inspect(within(t), stream.Topics()); return err },
	} {
		err := look()
		if !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), "deposit/5 holds 1 records") || !strings.Contains(err.Error(), "keep the topic") {
			t.Errorf("got %v", err)
		}
	}
	// Without tables that would be the wrong PARTITIONS.
	for _, g := range stream.Groups() {
		must(t, admin.DeleteTopic(string(g.Table())))
	}
	if _, err := c.Ensure(within(t), stream.Topics(), 4, 0); !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), "start with PARTITIONS=6") {
		t.Errorf("got %v", err)
	}
}

// A log that is gone while its table holds something is not made anew. A table that
// is empty was made before its log, as by an API's view on a new cluster.
func TestLogGone(t *testing.T) {
	c := newClient(t, startBroker(t))
	table := stream.TopicsIn(stream.RightsOf("api", string(stream.BalanceGroup.Table())))
	_, err := c.Ensure(within(t), table, 2, 0)
	must(t, err)
	cluster, err := c.Ensure(within(t), stream.Topics(), 2, 0)
	if err != nil {
		t.Fatalf("after its table, deposit is not made: %v", err)
	}
	_, err = c.In(cluster).Send(within(t), string(stream.BalanceGroup.Table()), "a", []byte("row"))
	must(t, err)
	must(t, topicAdmin(t, c).DeleteTopic("deposit"))
	_, err = c.Ensure(within(t), stream.Topics(), 2, 0)
	if err == nil || !strings.Contains(err.Error(), "topic deposit is gone, but balance-table") || !strings.Contains(err.Error(), "restore deposit") {
		t.Fatalf("got %v", err)
	}
	if _, err := c.HighWaters(within(t), "deposit"); err == nil {
		t.Error("it was made anew")
	}
}

func TestEnsureImpossible(t *testing.T) {
	c := newClient(t, startBroker(t))
	_, err := c.Ensure(within(t), stream.Topics(), 2, 3) // one broker
	if err == nil || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "REPLICATION_FACTOR=3") {
		t.Fatalf("got %v, want an error about REPLICATION_FACTOR", err)
	}
}

func TestEnsureUnreachable(t *testing.T) {
	c := newClient(t, nobody(t))
	started := time.Now()
	if _, err := c.Ensure(within(t), stream.Topics(), 2, 0); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v, want ErrUnreachable", err)
	}
	if d := time.Since(started); d > 8*time.Second {
		t.Fatalf("took %s", d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Ensure(ctx, stream.Topics(), 2, 0); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want Canceled", err)
	}
}

func TestDetail(t *testing.T) {
	c := newClient(t, "127.0.0.1:1")
	for _, tt := range []struct {
		replication int16
		brokers     int
		want        int16
		insync      string
	}{
		{0, 1, 1, ""}, {0, 2, 2, "2"}, {0, 3, 3, "2"}, {0, 9, 3, "2"}, {1, 9, 1, ""}, {3, 1, 3, "2"}, {5, 9, 5, "2"},
	} {
		topic := stream.Topic{Name: "t", Config: map[string]string{"a": "1", "b": "2"}}
		d := c.detail(topic, 7, tt.replication, tt.brokers)
		if d.ReplicationFactor != tt.want || d.NumPartitions != 7 {
			t.Errorf("%+v: %+v", tt, d)
		}
		if *d.ConfigEntries["a"] != "1" || *d.ConfigEntries["b"] != "2" {
			t.Errorf("%+v: configuration %v", tt, d.ConfigEntries)
		}
		insync := ""
		if v := d.ConfigEntries["min.insync.replicas"]; v != nil {
			insync = *v
		}
		if insync != tt.insync {
			t.Errorf("%+v: min.insync.replicas is %q", tt, insync)
		}
		if len(topic.Config) != 2 {
			t.Error("the map of topics was changed")
		}
	}
}

// Each change of state is said once, and known.
func TestMonitor(t *testing.T) {
	dir := t.TempDir()
	b, err := broker.Start(context.Background(), dir, "127.0.0.1:0")
	must(t, err)
	addr := b.Addr()
	var book logBook
	var m Monitor
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx, newClient(t, addr), book.logger()) }()
	defer func() { cancel(); <-done }()
	if m.Away() {
		t.Fatal("away before it was asked")
	}
	for round := 1; round <= 2; round++ {
		b.Close()
		eventually(t, "the outage", m.Away)
		b, err = broker.Start(context.Background(), dir, addr)
		must(t, err)
		eventually(t, "the end of the outage", func() bool { return !m.Away() })
		eventually(t, "the line about it", func() bool { return book.count("kafka is back") == round })
		if n := book.count("kafka is away"); n != round {
			t.Fatalf("%d lines say it is away, want %d", n, round)
		}
	}
	b.Close()
}

// It ends with its context, and says nothing about the probe that was cut off.
func TestMonitorEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var m Monitor
	must(t, m.Run(ctx, newClient(t, nobody(t)), slog.New(slog.DiscardHandler)))
	if m.Away() {
		t.Fatal("a probe that was cut off counts")
	}
}
