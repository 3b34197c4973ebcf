package kafka

import (
	"errors"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"coinbit/internal/stream"
)

func topicNamed(t *testing.T, name string) stream.Topic {
	t.Helper()
	for _, topic := range stream.Topics() {
		if topic.Name == name {
			return topic
		}
	}
	t.Fatalf("no topic %s", name)
	return stream.Topic{}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		topic    string
		replicas int
		settings string
		want     string // setting=want, with ! where it deletes
	}{
		{"deposit", 3, "cleanup.policy=delete retention.ms=-1 retention.bytes=-1 min.insync.replicas=2 max.message.bytes=1048588 unclean.leader.election.enable=false", ""},
		{"deposit", 3, "", ""}, // nothing is told
		{"deposit", 1, "min.insync.replicas=1", ""},
		{"deposit", 1, "cleanup.policy=delete retention.ms=604800000 retention.bytes=-1", "retention.ms=-1!"},
		{"deposit", 1, "cleanup.policy=delete retention.ms=-1 retention.bytes=0", "retention.bytes=-1!"},
		{"flag_wallet", 1, "cleanup.policy=compact retention.ms=604800000", "cleanup.policy=delete!"},
		{"flag_wallet", 1, "cleanup.policy=compact,delete retention.ms=1", "cleanup.policy=delete! retention.ms=-1!"},
		{"balance-table", 1, "cleanup.policy=compact retention.ms=604800000", ""},
		{"balance-table", 1, "cleanup.policy=delete retention.ms=604800000", "cleanup.policy=compact retention.ms=-1!"},
		{"balance-table", 1, "cleanup.policy=compact,delete retention.ms=604800000 retention.bytes=-1", "retention.ms=-1!"},
		{"deposit", 2, "min.insync.replicas=1", "min.insync.replicas=2"},
		{"deposit", 1, "max.message.bytes=8192", "max.message.bytes=1048576"},
		{"deposit", 1, "unclean.leader.election.enable=true", "unclean.leader.election.enable=false"},
	} {
		settings := make(map[string]string)
		for _, s := range strings.Fields(c.settings) {
			k, v, _ := strings.Cut(s, "=")
			settings[k] = v
		}
		var got []string
		for _, f := range faults(topicNamed(t, c.topic), c.replicas, settings) {
			text := f.Setting + "=" + f.Want
			if f.Deletes {
				text += "!"
			}
			got = append(got, text)
			if !strings.Contains(f.Command([]string{"k:1"}), "--entity-name "+c.topic+" --add-config "+f.Setting+"="+f.Want) ||
				!strings.Contains(f.String(), settings[f.Setting]) {
				t.Errorf("%s: %s", f, f.Command([]string{"k:1"}))
			}
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s %s: got %q, want %q", c.topic, c.settings, g, c.want)
		}
	}
	dead := topicNamed(t, "deposit_dead_letter")
	if f := faults(dead, 1, map[string]string{"max.message.bytes": "1048588"}); len(f) != 1 || f[0].Want != dead.Config["max.message.bytes"] {
		t.Errorf("%v", f)
	}
	// What the suite makes has none.
	for _, topic := range stream.Topics() {
		if f := faults(topic, 1, topic.Config); len(f) != 0 {
			t.Errorf("%s: %v", topic.Name, f)
		}
	}
}

// Topics that were there before, with a broker's defaults.
func TestSettingsOfTopicsThatWereThere(t *testing.T) {
	var book logBook
	c, err := NewClient(Settings{Brokers: []string{startBroker(t)}}, book.logger())
	must(t, err)
	week, small := "604800000", "8192"
	admin := topicAdmin(t, c)
	must(t, admin.CreateTopic("deposit", &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"cleanup.policy": ptr("delete"), "retention.ms": &week, "max.message.bytes": &small}}, false))
	cluster, err := c.Ensure(within(t), stream.Topics(), 2, 0)
	must(t, err)
	if len(cluster.Faults) != 2 {
		t.Fatalf("%v", cluster.Faults)
	}
	if err := c.Judge(cluster); !errors.Is(err, ErrLosing) || !strings.Contains(err.Error(), "topic deposit: retention.ms is 604800000, want -1") ||
		!strings.Contains(err.Error(), "-service=topics") {
		t.Fatalf("got %v", err)
	}
	cluster.Faults = cluster.Faults[1:] // with that mended
	for range 2 {
		must(t, c.Judge(cluster))
	}
	if n := book.count("max.message.bytes is 8192"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

func ptr(s string) *string { return &s }

// Without the right to read settings nothing is judged, and that is said.
func TestSettingsNotChecked(t *testing.T) {
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1))
	must(t, err)
	t.Cleanup(kafka.Close)
	kafka.ControlKey(int16(kmsg.DescribeConfigs), func(r kmsg.Request) (kmsg.Response, error, bool) {
		kafka.KeepControl()
		res := r.ResponseKind().(*kmsg.DescribeConfigsResponse)               //nolint:forcetypeassert // its kind
		for _, resource := range r.(*kmsg.DescribeConfigsRequest).Resources { //nolint:forcetypeassert // by its key
			refused := kmsg.NewDescribeConfigsResponseResource()
			refused.ResourceType, refused.ResourceName = resource.ResourceType, resource.ResourceName
			refused.ErrorCode = int16(sarama.ErrTopicAuthorizationFailed)
			res.Resources = append(res.Resources, refused)
		}
		return res, nil, true
	})
	var book logBook
	c, err := NewClient(Settings{Brokers: kafka.ListenAddrs()}, book.logger())
	must(t, err)
	for range 2 {
		cluster, err := c.Ensure(within(t), stream.Topics(), 2, 0)
		must(t, err)
		must(t, c.Judge(cluster))
		if len(cluster.Unchecked) != len(stream.Topics()) || len(cluster.Faults) != 0 {
			t.Fatalf("%+v", cluster)
		}
	}
	if n := book.count("not checked"); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

// Made while a broker was away, topics have fewer replicas than they should.
func TestFewReplicas(t *testing.T) {
	kafka, err := kfake.NewCluster(kfake.NumBrokers(3))
	must(t, err)
	t.Cleanup(kafka.Close)
	var book logBook
	c, err := NewClient(Settings{Brokers: kafka.ListenAddrs()}, book.logger())
	must(t, err)
	_, err = c.Ensure(within(t), stream.Topics(), 2, 2)
	must(t, err)
	if n := book.count("replicas, and there are"); n != 0 { // as it was told to
		t.Errorf("%d lines", n)
	}
	_, err = c.Ensure(within(t), stream.Topics(), 2, 0)
	must(t, err)
	if n := book.count("has 2 replicas, and there are 3 brokers"); n != len(stream.Topics()) {
		t.Errorf("%d lines", n)
	}
}
