package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// ErrLayout says that topics do not fit each other; no retry mends that.
var ErrLayout = errors.New("topics are not co-partitioned")

// Cluster is what a service must know of the cluster before it starts.
type Cluster struct {
	// ID is the cluster's own id.
	ID string
	// TopicIDs tell a topic from a later one of the same name.
	TopicIDs map[string]string
	// Layouts are the topics' own.
	Layouts map[string]Layout
	// Partitions is the partition count of every co-partitioned topic.
	Partitions int32
}

// Layout is how a topic is spread.
type Layout struct{ Partitions, Replicas int }

// Ensure creates the topics that are missing, and checks the others and that
// Kafka grants rights. When nothing is missing it needs no right to create.
// Errors that wrap ErrUnreachable are worth a retry; others say what is wrong
// and what to do.
func (c *Client) Ensure(ctx context.Context, topics []stream.Topic, partitions int32, replication int16, rights ...stream.Right) (Cluster, error) {
	return await(ctx, func() (Cluster, error) { return c.ensure(topics, partitions, replication, rights) })
}

func (c *Client) ensure(topics []stream.Topic, partitions int32, replication int16, rights []stream.Right) (Cluster, error) {
	client, admin, err := c.admin(c.base("coinbit-admin"))
	if err != nil {
		return Cluster{}, err
	}
	defer func() { _ = admin.Close() }()

	meta, err := c.allowed(client, topics, rights)
	if err != nil {
		return Cluster{}, err
	}
	var created []string
	for _, t := range topics {
		if found(meta, t.Name) != nil {
			continue
		}
		detail := c.detail(t, partitions, replication, len(meta.Brokers))
		err := admin.CreateTopic(t.Name, detail, false)
		switch {
		case err == nil:
			created = append(created, t.Name)
			c.log.Info("topic created", "topic", t.Name, "partitions", partitions, "replication_factor", detail.ReplicationFactor)
		case errors.Is(err, sarama.ErrTopicAlreadyExists): // another service was faster
			created = append(created, t.Name)
		case Denied(err):
			return Cluster{}, &denial{fmt.Sprintf("topic %s does not exist, and %s lacks Create on it: an admin creates all topics with -service=topics",
				t.Name, c.who())}
		default:
			return Cluster{}, fmt.Errorf("create topic %s (PARTITIONS=%d, REPLICATION_FACTOR=%d): %w",
				t.Name, partitions, detail.ReplicationFactor, err)
		}
	}
	if len(created) > 0 {
		if meta, err = c.awaitTopics(client, topics); err != nil {
			return Cluster{}, err
		}
	}
	return describe(meta, topics)
}

// Inspect is Ensure for those that only read: a topic that is missing is an error.
func (c *Client) Inspect(ctx context.Context, topics []stream.Topic, rights ...stream.Right) (Cluster, error) {
	return await(ctx, func() (Cluster, error) {
		client, err := sarama.NewClient(c.settings.Brokers, c.base("coinbit-admin"))
		if err != nil {
			return Cluster{}, c.unreachable(err)
		}
		defer func() { _ = client.Close() }()
		meta, err := c.allowed(client, topics, rights)
		if err != nil {
			return Cluster{}, err
		}
		for _, t := range topics {
			if found(meta, t.Name) == nil {
				return Cluster{}, fmt.Errorf("topic %s is not there: BROKER names another cluster, or no service has run on it yet", t.Name)
			}
		}
		return describe(meta, topics)
	})
}

// detail is the creation request of t: the replication factor is the smaller of
// 3 and the number of brokers unless it was given.
func (c *Client) detail(t stream.Topic, partitions int32, replication int16, brokers int) *sarama.TopicDetail {
	if replication == 0 {
		replication = int16(min(3, brokers)) //nolint:gosec // at most 3
	}
	entries := make(map[string]*string, len(t.Config)+1)
	for k, v := range t.Config {
		entries[k] = &v
	}
	if replication == 3 {
		two := strconv.Itoa(2)
		entries["min.insync.replicas"] = &two
	}
	return &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: replication, ConfigEntries: entries}
}

// awaitTopics waits until every topic has a leader for each partition.
func (c *Client) awaitTopics(client sarama.Client, topics []stream.Topic) (*sarama.MetadataResponse, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		meta, err := c.metadata(client, topics)
		if err == nil && !slices.ContainsFunc(topics, func(t stream.Topic) bool { return found(meta, t.Name) == nil }) {
			return meta, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: created topics have no leader after 10s", ErrUnreachable)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// allowed is metadata, or an error when Kafka says that it does not grant rights.
func (c *Client) allowed(client sarama.Client, topics []stream.Topic, rights []stream.Right) (*sarama.MetadataResponse, error) {
	meta, err := c.metadata(client, topics)
	if err != nil {
		return nil, err
	}
	if lack := lacking(meta, topics, rights); len(lack) > 0 {
		return nil, c.denied(lack...)
	}
	return meta, nil
}

// metadata asks for topics and for what this client may do with them.
func (c *Client) metadata(client sarama.Client, topics []stream.Topic) (*sarama.MetadataResponse, error) {
	controller, err := client.Controller()
	if err != nil {
		return nil, c.unreachable(err)
	}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	req := sarama.NewMetadataRequest(client.Config().Version, names)
	req.IncludeTopicAuthorizedOperations = true
	meta, err := controller.GetMetadata(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return meta, nil
}

// found is the metadata of a topic that is there with all its leaders, else nil.
func found(meta *sarama.MetadataResponse, name string) *sarama.TopicMetadata {
	for _, t := range meta.Topics {
		if t.Name != name || !errors.Is(t.Err, sarama.ErrNoError) || len(t.Partitions) == 0 {
			continue
		}
		for _, p := range t.Partitions {
			if p.Leader < 0 {
				return nil
			}
		}
		return t
	}
	return nil
}

// describe checks that all co-partitioned topics agree.
func describe(meta *sarama.MetadataResponse, topics []stream.Topic) (Cluster, error) {
	cluster := Cluster{TopicIDs: make(map[string]string, len(topics)), Layouts: make(map[string]Layout, len(topics))}
	if meta.ClusterID != nil {
		cluster.ID = *meta.ClusterID
	}
	var first string
	for _, t := range topics {
		m := found(meta, t.Name)
		if m == nil {
			return Cluster{}, fmt.Errorf("%w: topic %s has no leader", ErrUnreachable, t.Name)
		}
		cluster.TopicIDs[t.Name] = m.Uuid.String()
		cluster.Layouts[t.Name] = Layout{len(m.Partitions), len(m.Partitions[0].Replicas)}
		if !t.Copartitioned {
			continue
		}
		n := int32(len(m.Partitions)) //nolint:gosec // far below
		if first == "" {
			first, cluster.Partitions = t.Name, n
		}
		if n != cluster.Partitions {
			return Cluster{}, fmt.Errorf("%w: %s has %d partitions, %s has %d; "+
				"delete the one that is wrong and start with PARTITIONS set to the other's count",
				ErrLayout, first, cluster.Partitions, t.Name, n)
		}
	}
	return cluster, nil
}
