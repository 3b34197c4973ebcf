//go:build kafka

package kafkatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/goleak"

	"coinbit/internal/kafkatest"
)

func TestMain(m *testing.M) {
	// One goroutine of sarama's metrics library never ends.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

func start(t *testing.T, o kafkatest.Options) *kafkatest.Cluster {
	t.Helper()
	began := time.Now()
	o.Dir = t.TempDir()
	c, err := kafkatest.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	t.Logf("%d broker(s) up in %v at %s", len(c.Addrs()), time.Since(began).Round(time.Millisecond), c.Bootstrap())
	return c
}

func config() *sarama.Config {
	conf := sarama.NewConfig()
	conf.Version = sarama.V2_3_0_0
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Return.Successes = true
	conf.Metadata.AllowAutoTopicCreation = false
	return conf
}

func createTopic(t *testing.T, c *kafkatest.Cluster, name string, replicas int16) {
	t.Helper()
	admin, err := sarama.NewClusterAdmin(c.Addrs(), config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	if err := admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: replicas}, false); err != nil {
		t.Fatal(err)
	}
}

func produce(t *testing.T, c *kafkatest.Cluster, topic, value string) {
	t.Helper()
	p, err := sarama.NewSyncProducer(c.Addrs(), config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	eventually(t, func() error {
		_, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
		return err
	})
}

// eventually repeats try until it answers nil. After a kill, the cluster names
// the dead leader until another is elected.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func wantFirst(t *testing.T, c *kafkatest.Cluster, topic, value string) {
	t.Helper()
	consumer, err := sarama.NewConsumer(c.Addrs(), config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	var pc sarama.PartitionConsumer
	eventually(t, func() error {
		pc, err = consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
		return err
	})
	defer func() { _ = pc.Close() }()
	select {
	case m := <-pc.Messages():
		if string(m.Value) != value {
			t.Errorf("first message is %q, want %q", m.Value, value)
		}
	case <-time.After(60 * time.Second):
		t.Errorf("no message on %s in 60 s", topic)
	}
}

func TestOneBrokerKeepsItsDataOverKill(t *testing.T) {
	c := start(t, kafkatest.Options{})
	addr := c.Bootstrap()
	createTopic(t, c, "kept", 1)
	produce(t, c, "kept", "before the kill")
	wantFirst(t, c, "kept", "before the kill")

	c.Kill(0)
	select {
	case <-c.Exited(0):
	default:
		t.Error("the broker runs after Kill")
	}
	if err := c.Restart(0); err != nil {
		t.Fatal(err)
	}
	if c.Bootstrap() != addr {
		t.Errorf("restarted at %s, was at %s", c.Bootstrap(), addr)
	}
	wantFirst(t, c, "kept", "before the kill")
	produce(t, c, "kept", "after it")
}

func TestThreeBrokers(t *testing.T) {
	c := start(t, kafkatest.Options{Brokers: 3})
	createTopic(t, c, "copied", 3)
	produce(t, c, "copied", "on three brokers")
	c.Kill(1)
	wantFirst(t, c, "copied", "on three brokers")
	produce(t, c, "copied", "on the two that are left")
	if err := c.Restart(1); err != nil {
		t.Fatal(err)
	}
}

func TestReplaceIsAnotherClusterAtTheSameAddress(t *testing.T) {
	c := start(t, kafkatest.Options{})
	addr := c.Bootstrap()
	createTopic(t, c, "kept", 1)
	produce(t, c, "kept", "in the first")
	dir, err := c.Replace()
	if err != nil {
		t.Fatal(err)
	}
	if c.Bootstrap() != addr {
		t.Errorf("replaced at %s, was at %s", c.Bootstrap(), addr)
	}
	createTopic(t, c, "kept", 1) // it is not there
	produce(t, c, "kept", "in the second")
	wantFirst(t, c, "kept", "in the second")

	earlier, err := kafkatest.Start(context.Background(), kafkatest.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(earlier.Stop)
	wantFirst(t, earlier, "kept", "in the first")
}
