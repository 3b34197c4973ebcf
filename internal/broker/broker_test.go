package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// One for the process, started by sarama's metrics.
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

const partitions = 3

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func start(t testing.TB, dir, addr string) *Broker {
	t.Helper()
	b, err := Start(context.Background(), dir, addr)
	must(t, err)
	return b
}

func config() *sarama.Config {
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Metadata.AllowAutoTopicCreation = false
	cfg.Producer.Return.Successes = true
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Idempotent = true
	cfg.Net.MaxOpenRequests = 1
	return cfg
}

// seen is what a client sees of a broker.
type seen struct {
	clusterID string
	topics    map[string]string // name → topic id
	records   map[string]string // topic/partition/offset → key=value
	committed int64             // of the group "g" on t/0
	retention string            // of t
}

func create(t testing.TB, b *Broker, topic string) {
	t.Helper()
	admin, err := sarama.NewClusterAdmin([]string{b.Addr()}, config())
	must(t, err)
	defer func() { must(t, admin.Close()) }()
	forever := "-1"
	must(t, admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"retention.ms": &forever}}, false))
}

// fill sends n records and commits an offset.
func fill(t testing.TB, b *Broker, topic string, n int, commit int64) {
	t.Helper()
	cfg := config()
	cfg.Producer.Partitioner = sarama.NewManualPartitioner
	p, err := sarama.NewSyncProducer([]string{b.Addr()}, cfg)
	must(t, err)
	defer func() { must(t, p.Close()) }()
	for i := range n {
		_, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: int32(i % partitions),
			Key: sarama.StringEncoder(fmt.Sprint("k", i)), Value: sarama.StringEncoder(fmt.Sprint("v", i))})
		must(t, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	g, err := sarama.NewConsumerGroup([]string{b.Addr()}, "g", config())
	must(t, err)
	defer func() { must(t, g.Close()) }()
	h := &committer{topic: topic, offset: commit, done: cancel}
	must(t, g.Consume(ctx, []string{topic}, h))
	if !h.committed {
		t.Fatal("no session of the group")
	}
}

// committer is a group member that commits one offset and leaves.
type committer struct {
	topic     string
	offset    int64
	done      func()
	committed bool
}

func (c *committer) Setup(s sarama.ConsumerGroupSession) error {
	s.MarkOffset(c.topic, 0, c.offset, "")
	s.Commit()
	c.committed = true
	c.done()
	return nil
}
func (c *committer) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (c *committer) ConsumeClaim(sarama.ConsumerGroupSession, sarama.ConsumerGroupClaim) error {
	return nil
}

func look(t testing.TB, b *Broker, topic string) seen {
	t.Helper()
	client, err := sarama.NewClient([]string{b.Addr()}, config())
	must(t, err)
	admin, err := sarama.NewClusterAdminFromClient(client)
	must(t, err)
	defer func() { must(t, admin.Close()) }() // the client too
	controller, err := client.Controller()
	must(t, err)
	meta, err := controller.GetMetadata(sarama.NewMetadataRequest(config().Version, nil))
	must(t, err)
	s := seen{clusterID: *meta.ClusterID, topics: make(map[string]string), records: make(map[string]string)}
	for _, m := range meta.Topics {
		if m.Name == topic { // not the broker's own
			s.topics[m.Name] = fmt.Sprintf("%s, %d partitions", m.Uuid.String(), len(m.Partitions))
		}
	}
	reader, err := sarama.NewConsumerFromClient(client)
	must(t, err)
	defer func() { must(t, reader.Close()) }()
	for partition := range int32(partitions) {
		high, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
		must(t, err)
		if high == 0 {
			continue
		}
		pc, err := reader.ConsumePartition(topic, partition, sarama.OffsetOldest)
		must(t, err)
		for next := int64(0); next < high; {
			select {
			case m := <-pc.Messages():
				s.records[fmt.Sprintf("%s/%d/%d", topic, partition, m.Offset)] = fmt.Sprintf("%s=%s", m.Key, m.Value)
				next = m.Offset + 1
			case <-time.After(30 * time.Second):
				t.Fatalf("%s/%d ends at %d, not %d", topic, partition, next, high)
			}
		}
		must(t, pc.Close())
	}
	offsets, err := admin.ListConsumerGroupOffsets("g", map[string][]int32{topic: {0}})
	if !errors.Is(err, sarama.ErrGroupIDNotFound) {
		must(t, err)
		s.committed = offsets.GetBlock(topic, 0).Offset
	}
	described, err := admin.DescribeConfigs([]*sarama.ConfigResource{
		{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}},
	}, sarama.DescribeConfigsOptions{})
	must(t, err)
	for _, r := range described {
		for _, e := range r.Configs {
			s.retention += e.Value
		}
	}
	return s
}

func same(t *testing.T, what string, got, want seen) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Fatalf("%s: it holds\n%.600s\nwant\n%.600s", what, g, w)
	}
}

// Everything is there after Close, and in a copy of the directory as it was
// while the broker ran, which is what kill -9 leaves.
func TestDataSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	b := start(t, dir, "127.0.0.1:0")
	addr := b.Addr()
	create(t, b, "t")
	fill(t, b, "t", 100, 7)
	want := look(t, b, "t")
	if want.clusterID == "" || len(want.topics) != 1 || len(want.records) != 100 || want.committed != 7 || want.retention != "-1" {
		t.Fatalf("%+v", want)
	}

	killed := filepath.Join(t.TempDir(), "killed")
	must(t, os.CopyFS(killed, os.DirFS(dir)))
	b.Close()

	c := start(t, killed, "127.0.0.1:0")
	same(t, "after kill -9", look(t, c, "t"), want)
	c.Close()

	b = start(t, dir, addr)
	same(t, "after Close", look(t, b, "t"), want)
	fill(t, b, "t", 3, 9) // and it goes on where it was
	grown := look(t, b, "t")
	if len(grown.records) != 103 || grown.records["t/0/34"] != "k0=v0" || grown.committed != 9 {
		t.Fatalf("%+v", grown)
	}
	b.Close()
	b = start(t, dir, addr)
	defer b.Close()
	same(t, "after another Close", look(t, b, "t"), grown)
}

func TestEachLogHasItsOwnClusterID(t *testing.T) {
	a, b := start(t, t.TempDir(), "127.0.0.1:0"), start(t, t.TempDir(), "127.0.0.1:0")
	defer a.Close()
	defer b.Close()
	for _, x := range []*Broker{a, b} {
		create(t, x, "t")
	}
	if x, y := look(t, a, "t").clusterID, look(t, b, "t").clusterID; x == y || len(x) != 22 {
		t.Fatalf("cluster ids %q and %q", x, y)
	}
}

// kfake forgets a topic that came by itself when it is killed, so none does.
func TestNoTopicComesByItself(t *testing.T) {
	b := start(t, t.TempDir(), "127.0.0.1:0")
	defer b.Close()
	cfg := config()
	cfg.Metadata.AllowAutoTopicCreation = true
	cfg.Metadata.Retry.Max = 0
	cfg.Producer.Retry.Max = 1
	p, err := sarama.NewSyncProducer([]string{b.Addr()}, cfg)
	must(t, err)
	defer func() { must(t, p.Close()) }()
	if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: "nobody_made_it"}); !errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		t.Fatalf("got %v", err)
	}
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = ln.Close() }()
	dir := filepath.Join(t.TempDir(), "data")
	for _, addr := range []string{ln.Addr().String(), "127.0.0.1:99999", "192.0.2.1:9092"} {
		_, err := Start(context.Background(), dir, addr)
		if !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), addr) {
			t.Errorf("got %v, want ErrTaken with %s", err, addr)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("the directory was made for nothing")
	}
}

// What keeps a broker from its data names DATA_DIR, and the port and the
// directory are free again afterwards.
func TestDataDirErrors(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir, "127.0.0.1:0")
	addr := free(t)
	_, err := Start(context.Background(), dir, addr)
	if err == nil || errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "DATA_DIR") ||
		!strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("a directory in use: %v", err)
	}
	first.Close()
	start(t, dir, addr).Close()

	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Start(context.Background(), file, addr); err == nil || !strings.Contains(err.Error(), "DATA_DIR") {
		t.Fatalf("a file: %v", err)
	}
	blocked := t.TempDir()
	must(t, os.WriteFile(filepath.Join(blocked, "log"), nil, 0o600))
	if _, err := Start(context.Background(), blocked, addr); err == nil || !strings.Contains(err.Error(), "DATA_DIR") {
		t.Fatalf("a log that is a file: %v", err)
	}
	must(t, os.Remove(filepath.Join(blocked, "log")))
	start(t, blocked, addr).Close()
}

func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, ln.Close()) }()
	return ln.Addr().String()
}
