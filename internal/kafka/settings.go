package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// ErrLosing says that Kafka would delete what must stay; no retry mends that.
var ErrLosing = errors.New("kafka would delete what must stay")

// Fault is a setting of a topic that loses money.
type Fault struct {
	Topic, Setting, Got string
	// Want mends it.
	Want string
	// Why says what happens otherwise.
	Why string
	// Deletes: Kafka deletes rows or records by it.
	Deletes bool
}

func (f Fault) String() string {
	return fmt.Sprintf("topic %s: %s is %s, want %s: %s", f.Topic, f.Setting, f.Got, f.Want, f.Why)
}

// Command is what an admin runs to mend it, with Kafka's own tool.
func (f Fault) Command(brokers []string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s=%s",
		strings.Join(brokers, ","), f.Topic, f.Setting, f.Want)
}

// smallestMax is what message.max.bytes must let through: a batch and what surrounds it.
const smallestMax = 1 << 20

// faults are those of a topic, given its settings as they are in force. A setting that
// Kafka does not tell is not judged.
func faults(t stream.Topic, replicas int, settings map[string]string) []Fault {
	var list []Fault
	add := func(setting, want, why string, deletes bool) {
		list = append(list, Fault{t.Name, setting, settings[setting], want, why, deletes})
	}
	number := func(setting string) (int64, bool) {
		n, err := strconv.ParseInt(settings[setting], 10, 64)
		return n, err == nil
	}
	policy, told := settings["cleanup.policy"]
	deletes := false
	if told {
		deletes = strings.Contains(policy, "delete")
		compacts := strings.Contains(policy, "compact")
		switch want := t.Config["cleanup.policy"]; {
		case want == "compact" && !compacts:
			add("cleanup.policy", want, "old rows are never taken away, or are deleted by age", false)
		case want == "delete" && compacts:
			add("cleanup.policy", want, "of a wallet's records only the last would stay", true)
		}
	}
	for _, setting := range []string{"retention.ms", "retention.bytes"} {
		if n, ok := number(setting); ok && deletes && n >= 0 {
			add(setting, "-1", "what is older is deleted, and it is the only record", true)
		}
	}
	if n, ok := number("min.insync.replicas"); ok && replicas > 1 && n < 2 {
		add("min.insync.replicas", "2", "what was acknowledged may be on one disk alone", false)
	}
	want := int64(smallestMax)
	if n, err := strconv.ParseInt(t.Config["max.message.bytes"], 10, 64); err == nil {
		want = n
	}
	if n, ok := number("max.message.bytes"); ok && n < want-want/50 { // Kafka's own default is a little below 1 MiB, or above
		add("max.message.bytes", strconv.FormatInt(want, 10), "larger batches are refused", false)
	}
	if want, ok := t.Config["message.timestamp.type"]; ok && settings["message.timestamp.type"] != "" && settings["message.timestamp.type"] != want {
		add("message.timestamp.type", want, "records of a machine with a wrong clock are refused", false)
	}
	if settings["unclean.leader.election.enable"] == "true" {
		add("unclean.leader.election.enable", "false", "a replica that lags may become the leader, and what it lacks is lost", false)
	}
	return list
}

// readSettings puts into cluster what is wrong with the settings of topics.
func (c *Client) readSettings(admin sarama.ClusterAdmin, topics []stream.Topic, cluster *Cluster) error {
	resources := make([]*sarama.ConfigResource, len(topics))
	for i, t := range topics {
		resources[i] = &sarama.ConfigResource{Type: sarama.TopicResource, Name: t.Name}
	}
	results, err := admin.DescribeConfigs(resources, sarama.DescribeConfigsOptions{})
	if err != nil {
		return c.unreachable(err)
	}
	settings := make(map[string]map[string]string)
	for _, r := range results {
		if !errors.Is(r.ErrorCode, sarama.ErrNoError) {
			continue
		}
		settings[r.Name] = make(map[string]string, len(r.Configs))
		for _, e := range r.Configs {
			settings[r.Name][e.Name] = e.Value
		}
	}
	for _, t := range topics {
		if settings[t.Name] == nil {
			cluster.Unchecked = append(cluster.Unchecked, t.Name)
			continue
		}
		cluster.Faults = append(cluster.Faults, faults(t, cluster.Layouts[t.Name].Replicas, settings[t.Name])...)
	}
	return nil
}

// Judge fails if Kafka would delete by the settings of a cluster's topics what must
// stay, and warns of the rest.
func (c *Client) Judge(cluster Cluster) error {
	if len(cluster.Unchecked) > 0 {
		c.once(slog.LevelInfo, "settings of "+strings.Join(cluster.Unchecked, ", ")+" are not checked: that takes DescribeConfigs on them; -service=topics checks them")
	}
	for _, f := range cluster.Faults {
		if f.Deletes {
			return fmt.Errorf("%w: %s; -service=topics names all such settings and the commands that mend them", ErrLosing, f)
		}
		c.once(slog.LevelWarn, "a setting loses money: "+f.String(), "mend", f.Command(c.settings.Brokers))
	}
	return nil
}

// Unchecked is the error where settings had to be read and could not be.
func (c *Client) Unchecked(topics []string) error {
	rights := make([]stream.Right, len(topics))
	for i, t := range topics {
		rights[i] = stream.Right{Operation: stream.DescribeConfigs, Resource: stream.TopicResource, Name: t}
	}
	return c.denied(rights...)
}

// once says something, but not twice the same.
func (c *Client) once(level slog.Level, text string, args ...any) {
	if _, said := c.said.LoadOrStore(text, nil); !said {
		c.log.Log(context.Background(), level, text, args...)
	}
}

// warnOfReplicas says when topics have fewer replicas than they would be made with now:
// they may have been made while a broker was away.
func (c *Client) warnOfReplicas(cluster Cluster, replication int16, brokers int) {
	want := min(3, brokers)
	if replication != 0 {
		want = int(replication)
	}
	for topic, l := range cluster.Layouts {
		if l.Replicas < min(want, brokers) {
			c.once(slog.LevelWarn, fmt.Sprintf("topic %s has %d replicas, and there are %d brokers: kafka-reassign-partitions.sh raises that", topic, l.Replicas, brokers))
		}
	}
}
