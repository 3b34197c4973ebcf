package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"coinbit/internal/stream"
)

// HighWater is the offset that the next record of a partition gets.
func (c *Client) HighWater(ctx context.Context, topic string, partition int32) (int64, error) {
	ends, err := c.watermarks(ctx, topic, sarama.OffsetNewest, func(sarama.Client) ([]int32, error) { return []int32{partition}, nil })
	return ends[partition], err
}

// holdsTimeout bounds the question to Kafka how much a partition holds.
const holdsTimeout = 10 * time.Second

// Holds tells whether a partition that is claimed has as many offsets as n. What the last
// fetch said may be of a leader that had just taken over and did not know yet how far its
// followers are, so where that is too little the leader is asked: it gives no offset
// before it knows.
func (c *Client) Holds(ctx context.Context, f *Inflight, topic string, partition int32, n int64) (bool, error) {
	if f.HighWater(topic, partition) >= n {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdsTimeout)
	defer cancel()
	end, err := c.HighWater(ctx, topic, partition)
	return end >= n, err
}

// HighWaters is the high watermark of each partition: the offset its next record gets.
func (c *Client) HighWaters(ctx context.Context, topic string) (map[int32]int64, error) {
	return c.watermarks(ctx, topic, sarama.OffsetNewest, c.partitionsInUse(topic))
}

// LowWaters is the low watermark of each partition: its first offset that is not purged.
func (c *Client) LowWaters(ctx context.Context, topic string) (map[int32]int64, error) {
	return c.watermarks(ctx, topic, sarama.OffsetOldest, c.partitionsInUse(topic))
}

func (c *Client) partitionsInUse(topic string) func(sarama.Client) ([]int32, error) {
	return func(client sarama.Client) ([]int32, error) {
		partitions, err := client.Partitions(topic)
		return c.inUse(topic, partitions), err
	}
}

// watermarks asks the leaders of partitions for one of sarama's two special offsets.
func (c *Client) watermarks(ctx context.Context, topic string, which int64, of func(sarama.Client) ([]int32, error)) (map[int32]int64, error) {
	marks, err := await(ctx, func() (map[int32]int64, error) {
		client, err := sarama.NewClient(c.settings.Brokers, c.base("coinbit-ops"))
		if err != nil {
			return nil, c.unreachable(err)
		}
		defer func() { _ = client.Close() }()
		partitions, err := of(client)
		if err != nil {
			return nil, err
		}
		marks := make(map[int32]int64, len(partitions))
		for _, p := range partitions {
			if marks[p], err = client.GetOffset(topic, p, which); err != nil {
				return nil, fmt.Errorf("partition %d: %w", p, err)
			}
		}
		return marks, nil
	})
	if err != nil {
		name := "high"
		if which == sarama.OffsetOldest {
			name = "low"
		}
		return nil, fmt.Errorf("%s watermark of %s: %w", name, topic, err)
	}
	return marks, nil
}

// Send appends one record and returns its offset once all in-sync replicas have
// it. When ctx is done first, it may still be appended.
func (c *Client) Send(ctx context.Context, topic, key string, value []byte) (int64, error) {
	producer, err := c.Producer(ctx, "coinbit-ops", topic)
	if err != nil {
		return 0, err
	}
	defer func() { _ = producer.Close() }()
	return awaitPromise(ctx, producer.Emit(topic, key, value))
}

func awaitPromise(ctx context.Context, p *goka.Promise) (int64, error) {
	type answer struct {
		offset int64
		err    error
	}
	done := make(chan answer, 1)
	p.ThenWithMessage(func(m *sarama.ProducerMessage, err error) {
		if err != nil {
			done <- answer{err: err}
			return
		}
		done <- answer{offset: m.Offset}
	})
	select {
	case a := <-done:
		return a.offset, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Read hands the records of a partition from an offset on to each, until it
// answers true or an error, or ctx is done.
func (c *Client) Read(ctx context.Context, topic string, partition int32, from int64, each func(key string, value []byte) (bool, error)) error {
	reader, err := c.Reader(c.settings.Brokers, "coinbit-ops")
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	records, err := reader.ConsumePartition(topic, partition, from)
	if err != nil {
		return fmt.Errorf("read %s/%d from %d: %w", topic, partition, from, err)
	}
	defer func() { _ = records.Close() }()
	for {
		select {
		case m := <-records.Messages():
			if done, err := each(string(m.Key), m.Value); done || err != nil {
				return err
			}
		case err := <-records.Errors():
			return fmt.Errorf("read %s/%d: %w", topic, partition, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// admin connects. To close the second closes the first too.
func (c *Client) admin(cfg *sarama.Config) (sarama.Client, sarama.ClusterAdmin, error) {
	client, err := sarama.NewClient(c.settings.Brokers, cfg)
	if err != nil {
		return nil, nil, c.unreachable(err)
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		_ = client.Close()
		return nil, nil, c.unreachable(err)
	}
	return client, admin, nil
}

// Committed is the offset that a group goes on from in each partition of a
// topic, 0 where it has committed none.
func (c *Client) Committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	offsets, err := await(ctx, func() (map[int32]int64, error) {
		client, admin, err := c.admin(c.base("coinbit-ops"))
		if err != nil {
			return nil, err
		}
		defer func() { _ = admin.Close() }()
		partitions, err := client.Partitions(topic)
		if err != nil {
			return nil, err
		}
		partitions = c.inUse(topic, partitions)
		res, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: partitions})
		if errors.Is(err, sarama.ErrGroupAuthorizationFailed) {
			return nil, c.denied(stream.Right{Operation: stream.Describe, Resource: stream.GroupResource, Name: group})
		}
		if err != nil {
			return nil, err
		}
		offsets := make(map[int32]int64, len(partitions))
		for _, p := range partitions {
			b := res.GetBlock(topic, p)
			if b == nil || !errors.Is(b.Err, sarama.ErrNoError) {
				return nil, fmt.Errorf("partition %d: %v", p, b)
			}
			offsets[p] = max(0, b.Offset)
		}
		return offsets, nil
	})
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s on %s: %w", group, topic, err)
	}
	return offsets, nil
}
