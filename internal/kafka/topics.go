package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// ErrLayout says that topics do not fit each other; no retry mends that.
var ErrLayout = errors.New("topics are not co-partitioned")

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
	if partitions, err = countFor(client, meta, topics, partitions); err != nil {
		return Cluster{}, err
	}
	wait := false
	for _, t := range topics {
		if m := topicIn(meta, t.Name); m != nil {
			wait = wait || leaderless(m) != nil
			continue
		}
		if err := c.create(admin, t, partitions, replication, len(meta.Brokers)); err != nil {
			return Cluster{}, err
		}
		wait = true
	}
	if wait {
		if meta, err = c.awaitTopics(client, topics); err != nil {
			return Cluster{}, err
		}
	}
	cluster, err := describe(meta, topics)
	if err == nil {
		err = extrasEmpty(client, cluster)
	}
	if err == nil {
		err = c.readSettings(admin, topics, &cluster)
	}
	if err == nil {
		c.warnOfReplicas(cluster, replication, len(meta.Brokers))
	}
	return cluster, err
}

func (c *Client) create(admin sarama.ClusterAdmin, t stream.Topic, partitions int32, replication int16, brokers int) error {
	detail := c.detail(t, partitions, replication, brokers)
	err := admin.CreateTopic(t.Name, detail, false)
	switch {
	case err == nil:
		c.log.Info("topic created", "topic", t.Name, "partitions", partitions, "replication_factor", detail.ReplicationFactor)
		return nil
	case errors.Is(err, sarama.ErrTopicAlreadyExists): // another service was faster
		return nil
	case Denied(err):
		return &denial{fmt.Sprintf("topic %s does not exist, and %s lacks Create on it: an admin creates all topics with -service=topics",
			t.Name, c.who())}
	}
	return fmt.Errorf("create topic %s (PARTITIONS=%d, REPLICATION_FACTOR=%d): %w",
		t.Name, partitions, detail.ReplicationFactor, err)
}

// countFor is how many partitions a topic that is missing gets: as many as the tables
// that are there, else as PARTITIONS says. It is an error if the logs that are there do
// not go with that, or if a log is gone while a table that is folded from it is there.
func countFor(client sarama.Client, meta *sarama.MetadataResponse, topics []stream.Topic, partitions int32) (int32, error) {
	for _, t := range topics {
		if m := topicIn(meta, t.Name); m != nil && t.Folded() {
			return int32(len(m.Partitions)), logGone(client, meta, topics) //nolint:gosec // far below
		}
	}
	for _, t := range topics {
		m := topicIn(meta, t.Name)
		if m == nil || !t.Copartitioned || len(m.Partitions) == int(partitions) {
			continue
		}
		unused := error(nil)
		if len(m.Partitions) > int(partitions) {
			unused = unusedEmpty(client, t.Name, partitions, int32(len(m.Partitions))) //nolint:gosec // far below
		}
		if len(m.Partitions) < int(partitions) || errors.Is(unused, ErrLayout) {
			return 0, fmt.Errorf("%w: %s has %d partitions, PARTITIONS is %d: start with PARTITIONS=%[3]d",
				ErrLayout, t.Name, len(m.Partitions), partitions)
		}
		if unused != nil {
			return 0, unused
		}
	}
	return partitions, nil
}

// logGone is an error if a log is not there while a table that is folded from it holds
// something. A table that is empty was made first, by who reads it alone.
func logGone(client sarama.Client, meta *sarama.MetadataResponse, topics []stream.Topic) error {
	for _, t := range topics {
		if topicIn(meta, t.Name) != nil {
			continue
		}
		for _, table := range folded(t) {
			m := topicIn(meta, table)
			if m == nil {
				continue
			}
			for _, p := range m.Partitions {
				end, err := client.GetOffset(table, p.ID, sarama.OffsetNewest)
				if err != nil {
					return fmt.Errorf("%s/%d: %w", table, p.ID, err)
				}
				if end > 0 {
					return fmt.Errorf("topic %s is gone, but %s, which is folded from it, is there: restore %[1]s; nothing makes it anew. "+
						"To begin a new ledger, delete every topic of the suite and the offsets of its groups", t.Name, table)
				}
			}
		}
	}
	return nil
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
			if topicIn(meta, t.Name) == nil {
				return Cluster{}, fmt.Errorf("topic %s is not there: BROKER names another cluster, or no service has run on it yet", t.Name)
			}
		}
		cluster, err := describe(meta, topics)
		if err == nil {
			err = extrasEmpty(client, cluster)
		}
		return cluster, err
	})
}

// detail is the creation request of t: the replication factor is the smaller of
// 3 and the number of brokers unless it was given. With more than one replica a record
// must be on two before it counts: with two replicas deposits then stop while a broker
// is away, which is better than a 200 for what is on one disk alone.
func (c *Client) detail(t stream.Topic, partitions int32, replication int16, brokers int) *sarama.TopicDetail {
	if replication == 0 {
		replication = int16(min(3, brokers)) //nolint:gosec // at most 3
	}
	entries := make(map[string]*string, len(t.Config)+1)
	for k, v := range t.Config {
		entries[k] = &v
	}
	if replication > 1 {
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
		if err == nil {
			if err = ledAll(meta, topics); err == nil {
				return meta, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, err
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

// topicIn is the metadata of a topic that is there, else nil.
func topicIn(meta *sarama.MetadataResponse, name string) *sarama.TopicMetadata {
	for _, t := range meta.Topics {
		if t.Name == name && len(t.Partitions) > 0 {
			return t
		}
	}
	return nil
}

// leaderless is a partition that has no leader, nil if there is none.
func leaderless(t *sarama.TopicMetadata) *sarama.PartitionMetadata {
	for _, p := range t.Partitions {
		if p.Leader < 0 {
			return p
		}
	}
	return nil
}

// ledAll is nil when every topic is there and each of its partitions has a leader.
func ledAll(meta *sarama.MetadataResponse, topics []stream.Topic) error {
	for _, t := range topics {
		m := topicIn(meta, t.Name)
		if m == nil {
			return fmt.Errorf("%w: topic %s is not there yet", ErrUnreachable, t.Name)
		}
		if p := leaderless(m); p != nil {
			return fmt.Errorf("%w: partition %d of %s has no leader: start one of the brokers that hold it, %v",
				ErrUnreachable, p.ID, t.Name, p.Replicas)
		}
	}
	return nil
}

// describe checks that all co-partitioned topics agree. A log may have more partitions
// than the tables: some that were added later, which are not in use.
func describe(meta *sarama.MetadataResponse, topics []stream.Topic) (Cluster, error) {
	if err := ledAll(meta, topics); err != nil {
		return Cluster{}, err
	}
	cluster := Cluster{ID: clusterID(meta), TopicIDs: make(map[string]string, len(topics)), Layouts: make(map[string]Layout, len(topics))}
	var least string
	for _, t := range topics {
		m := topicIn(meta, t.Name)
		cluster.TopicIDs[t.Name] = m.Uuid.String()
		cluster.Layouts[t.Name] = Layout{len(m.Partitions), len(m.Partitions[0].Replicas), t.Copartitioned}
		if n := int32(len(m.Partitions)); t.Copartitioned && (least == "" || n < cluster.Partitions) { //nolint:gosec // far below
			least, cluster.Partitions = t.Name, n
		}
	}
	for _, t := range topics {
		n := cluster.Layouts[t.Name].Partitions
		if !t.Copartitioned || n == int(cluster.Partitions) || !t.Folded() {
			continue
		}
		return Cluster{}, fmt.Errorf("%w: %s has %d partitions, %s has %d; the tables can be made anew: %s, with PARTITIONS set to "+
			"the count that the deposits were made with", ErrLayout, least, cluster.Partitions, t.Name, n, stream.FoldAnew)
	}
	return cluster, nil
}

// extrasEmpty is unusedEmpty for all topics of a cluster.
func extrasEmpty(client sarama.Client, cluster Cluster) error {
	for topic, l := range cluster.Layouts {
		if !l.Copartitioned {
			continue
		}
		if err := unusedEmpty(client, topic, cluster.Partitions, int32(l.Partitions)); err != nil { //nolint:gosec // far below
			return err
		}
	}
	return nil
}

// unusedEmpty is an error when a partition that is not in use, of those from n on, holds
// a record: nobody would read it.
func unusedEmpty(client sarama.Client, topic string, n, partitions int32) error {
	for p := n; p < partitions; p++ {
		oldest, err := client.GetOffset(topic, p, sarama.OffsetOldest)
		if err != nil {
			return fmt.Errorf("%s/%d: %w", topic, p, err)
		}
		newest, err := client.GetOffset(topic, p, sarama.OffsetNewest)
		if err != nil {
			return fmt.Errorf("%s/%d: %w", topic, p, err)
		}
		if oldest != newest {
			return fmt.Errorf("%w: %s has %d partitions, of which %d are in use, and %[2]s/%[5]d holds %[6]d records that nobody would read: "+
				"read them with kcat, take them away with kafka-delete-records.sh, and deposit them anew through the API "+
				"(keep the topic: it is the record)",
				ErrLayout, topic, partitions, n, p, newest-oldest)
		}
	}
	return nil
}
