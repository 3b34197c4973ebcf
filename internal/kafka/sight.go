package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"
)

// Sight is what Kafka itself tells of a group and of the topic that it reads.
type Sight struct {
	// State is Kafka's word: Stable, PreparingRebalance, CompletingRebalance, Empty
	// or Dead.
	State string
	// Members is how many processes are in the group, Owned how many of the topic's
	// partitions they have.
	Members, Owned int
	// Ends are the high watermarks of the topic's partitions, Committed the offsets
	// from which the group goes on; 0, or none, where it has committed none.
	Ends, Committed map[int32]int64
	// Err says why the rest is not known; Denied tells whether a right is missing.
	Err error
}

// Sights looks at groups, each named with its topic, over one connection. The ends
// are the latest that it asks for. It fails as a whole only when no broker answers.
func (c *Client) Sights(ctx context.Context, topics map[string]string) (map[string]Sight, error) {
	return await(ctx, func() (map[string]Sight, error) {
		client, admin, err := c.admin(c.probeConfig())
		if err != nil {
			return nil, err
		}
		defer func() { _ = admin.Close() }()
		sights := make(map[string]Sight, len(topics))
		newest := make(map[string]map[int32]int64)
		for group, topic := range topics {
			partitions, err := client.Partitions(topic)
			partitions = c.inUse(topic, partitions)
			s := Sight{Err: err}
			if err == nil {
				newest[topic] = make(map[int32]int64, len(partitions))
				for _, p := range partitions {
					newest[topic][p] = sarama.OffsetNewest
				}
				s.Err = s.ofGroup(admin, group, topic, partitions)
			}
			sights[group] = s
		}
		if len(newest) == 0 {
			return sights, nil
		}
		ends, err := admin.ListOffsets(newest, nil)
		for group, s := range sights {
			if s.Err == nil {
				s.Err = err
			}
			if s.Err == nil {
				s.Err = s.ofTopic(ends[topics[group]])
			}
			if s.Err != nil {
				s = Sight{Err: fmt.Errorf("group %s on %s: %w", group, topics[group], s.Err)}
			}
			sights[group] = s
		}
		return sights, nil
	})
}

func (s *Sight) ofTopic(ends map[int32]*sarama.OffsetResult) error {
	s.Ends = make(map[int32]int64, len(ends))
	for p, end := range ends {
		if end.Err != nil && !errors.Is(end.Err, sarama.ErrNoError) {
			return fmt.Errorf("end of partition %d: %w", p, end.Err)
		}
		s.Ends[p] = end.Offset
	}
	return nil
}

func (s *Sight) ofGroup(admin sarama.ClusterAdmin, group, topic string, partitions []int32) error {
	s.Committed = make(map[int32]int64, len(partitions))
	offsets, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: partitions})
	if errors.Is(err, sarama.ErrGroupIDNotFound) { // some brokers say so, others that it is dead
		s.State = "Dead"
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range partitions {
		b := offsets.GetBlock(topic, p)
		if b == nil {
			return fmt.Errorf("no offset of partition %d", p)
		}
		if !errors.Is(b.Err, sarama.ErrNoError) {
			return fmt.Errorf("offset of partition %d: %w", p, b.Err)
		}
		s.Committed[p] = max(0, b.Offset)
	}
	described, err := admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return err
	}
	for _, g := range described {
		switch {
		case errors.Is(g.Err, sarama.ErrGroupIDNotFound):
			s.State = "Dead"
			return nil
		case !errors.Is(g.Err, sarama.ErrNoError):
			return g.Err
		}
		s.State, s.Members = g.State, len(g.Members)
		for _, m := range g.Members {
			if has, err := m.GetMemberAssignment(); err == nil && has != nil { // none while the group makes up its mind
				s.Owned += len(has.Topics[topic])
			}
		}
	}
	return nil
}
