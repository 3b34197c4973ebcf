package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// ErrMoved says that a service is no longer with what it began with: BROKER leads to
// another cluster now, or a topic was made anew. Waiting mends nothing; the service
// begins anew with what is there.
var ErrMoved = errors.New("not the cluster that this service began with")

// Cluster is what a service must know of the cluster before it starts, and what must
// stay so while it works. Whether it still is so is decided here alone, see check.
type Cluster struct {
	// ID is the cluster's own id.
	ID string
	// TopicIDs tell a topic from a later one of the same name.
	TopicIDs map[string]string
	// Layouts are the topics' own.
	Layouts map[string]Layout
	// Partitions is how many partitions of every co-partitioned topic are in use.
	Partitions int32
	// Faults are the settings of topics that lose money without deleting by themselves.
	Faults []Fault
	// Unchecked are the topics whose settings this client may not read.
	Unchecked []string
}

// Layout is how a topic is spread.
type Layout struct {
	Partitions, Replicas int
	Copartitioned        bool
}

// Only is what c says of some topics.
func (c Cluster) Only(topics ...string) Cluster {
	other := func(topic string) bool { return !slices.Contains(topics, topic) }
	c.TopicIDs, c.Layouts = maps.Clone(c.TopicIDs), maps.Clone(c.Layouts)
	maps.DeleteFunc(c.TopicIDs, func(t, _ string) bool { return other(t) })
	maps.DeleteFunc(c.Layouts, func(t string, _ Layout) bool { return other(t) })
	return c
}

// check is an error that wraps ErrMoved if meta is not of this cluster and these
// topics. A topic that meta does not know is not judged: it may be on its way.
func (c Cluster) check(meta *sarama.MetadataResponse) error {
	if id := clusterID(meta); id != c.ID {
		return fmt.Errorf("%w: BROKER leads to cluster %s, it was %s", ErrMoved, id, c.ID)
	}
	for _, t := range meta.Topics {
		was, ours := c.TopicIDs[t.Name]
		switch {
		case !ours || len(t.Partitions) == 0:
		case t.Uuid.String() != was:
			return fmt.Errorf("%w: topic %s was made anew", ErrMoved, t.Name)
		case len(t.Partitions) < c.Layouts[t.Name].Partitions:
			return fmt.Errorf("%w: topic %s has %d partitions, it had %d", ErrMoved, t.Name, len(t.Partitions), c.Layouts[t.Name].Partitions)
		}
	}
	return nil
}

func clusterID(meta *sarama.MetadataResponse) string {
	if meta.ClusterID == nil {
		return ""
	}
	return *meta.ClusterID
}

// In is c for one cluster: nothing that it sends reaches another (see guard), and of
// the co-partitioned topics it sees the partitions that are in use.
func (c *Client) In(cluster Cluster) *Client {
	in := *c
	in.cluster = &cluster
	return &in
}

// inUse are those of a topic's partitions that are in use. Partitions that were added
// to a topic later are not: a wallet keeps its partition.
func (c *Client) inUse(topic string, partitions []int32) []int32 {
	if c.cluster == nil || !c.cluster.Layouts[topic].Copartitioned {
		return partitions
	}
	return slices.DeleteFunc(slices.Clone(partitions), func(p int32) bool { return p >= c.cluster.Partitions })
}

// followed are the topics that c looks after.
func (c *Client) followed() []string {
	if c.cluster == nil {
		return []string{}
	}
	return slices.Sorted(maps.Keys(c.cluster.TopicIDs))
}

// still judges what a broker tells of all the topics that c looks after.
func (c *Client) still(meta *sarama.MetadataResponse) error {
	if c.cluster == nil {
		return nil
	}
	if err := c.cluster.check(meta); err != nil {
		return err
	}
	for _, topic := range c.followed() {
		if err := absent(meta, topic); err != nil && !Denied(err) { // who is denied learns it where it matters
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
	return nil
}

// absent says that a topic is not there, or hidden; nil if it is there.
func absent(meta *sarama.MetadataResponse, topic string) error {
	for _, t := range meta.Topics {
		switch {
		case t.Name != topic:
		case errors.Is(t.Err, sarama.ErrTopicAuthorizationFailed):
			return t.Err
		case len(t.Partitions) > 0:
			return nil
		}
	}
	return fmt.Errorf("topic %s is not there: %w", topic, sarama.ErrUnknownTopicOrPartition)
}

// lookup asks for the metadata of the topics that its client looks after, over one
// connection that it keeps.
type lookup struct {
	*Client
	broker *sarama.Broker
}

// ask answers within about the probe's timeouts for each bootstrap server.
func (l *lookup) ask() error {
	failed, done := error(nil), false
	if l.broker != nil {
		failed, done = l.askBroker()
		if slow := net.Error(nil); done || errors.As(failed, &slow) && slow.Timeout() { // the next one asks over another
			return failed
		}
	}
	for _, addr := range l.settings.Brokers {
		l.broker = sarama.NewBroker(addr)
		if err := l.broker.Open(l.probeConfig()); err != nil {
			return err
		}
		if failed, done = l.askBroker(); done {
			return failed
		}
	}
	return l.unreachable(failed)
}

// askBroker asks over the connection that is there; it closes one that gave no answer.
func (l *lookup) askBroker() (err error, answered bool) { //nolint:revive // the error may be the answer
	meta, err := l.broker.GetMetadata(sarama.NewMetadataRequest(l.base("").Version, l.followed()))
	if err == nil {
		return l.still(meta), true
	}
	l.close()
	return err, errors.Is(err, ErrMoved)
}

func (l *lookup) close() {
	if l.broker != nil {
		_ = l.broker.Close()
		l.broker = nil
	}
}

// Still is nil when the cluster is what it was, and else says what changed, or why
// that is not known.
func (c *Client) Still(ctx context.Context) error {
	_, err := await(ctx, func() (struct{}, error) {
		l := &lookup{Client: c}
		defer l.close()
		return struct{}{}, l.ask()
	})
	return err
}

const followInterval = time.Second

// Follow asks again and again whether the cluster still is what it was, and tells each
// answer. It returns an error that wraps ErrMoved once it is not, and nil when ctx is
// done.
func (c *Client) Follow(ctx context.Context, tell func(error)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	answers := make(chan error)
	go func() { // it ends with ctx, or by the timeouts of what it asks
		l := &lookup{Client: c}
		defer l.close()
		tick := time.NewTicker(followInterval)
		defer tick.Stop()
		for {
			err := l.ask()
			select {
			case answers <- err:
			case <-ctx.Done():
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case err := <-answers:
			if errors.Is(err, ErrMoved) {
				return err
			}
			tell(err)
		case <-ctx.Done():
			return nil
		}
	}
}

// strategy shares out the partitions that are in use.
type strategy struct {
	sarama.BalanceStrategy
	client *Client
}

func (s strategy) Plan(members map[string]sarama.ConsumerGroupMemberMetadata, topics map[string][]int32) (sarama.BalanceStrategyPlan, error) {
	used := make(map[string][]int32, len(topics))
	for topic, partitions := range topics {
		used[topic] = s.client.inUse(topic, partitions)
	}
	return s.BalanceStrategy.Plan(members, used)
}

// folded are the tables that are folded from a log: those of its readers.
func folded(log stream.Topic) []string {
	var tables []string
	for _, r := range log.Readers {
		tables = append(tables, string(stream.Group(r).Table()))
	}
	return tables
}
