package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/lovoo/goka"
)

// errUnknownOffset says that a record is in the log, but a repeat of its
// request was what the broker acknowledged, and that answer carries no offset.
var errUnknownOffset = errors.New("record is stored at an offset that the broker did not tell")

// Producer is a goka.Producer for what a processor emits to one topic: flag events or
// dead letters.
type Producer struct {
	*writer
	partitions int32
}

// Producer connects and gets a producer id. Its owner must call Close.
func (c *Client) Producer(ctx context.Context, clientID, topic string) (*Producer, error) {
	w, err := c.newWriter(clientID, topic, maxLogQueue)
	if err != nil {
		return nil, err
	}
	all, err := w.client.Partitions(topic)
	all = c.inUse(topic, all)
	if err == nil {
		err = w.openAll(ctx, int32(len(all)), nil) //nolint:gosec // far below
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("producer of %s: %w", topic, err), w.close())
	}
	return &Producer{w, int32(len(all))}, nil //nolint:gosec // far below
}

// ProcessorProducerBuilder returns Goka's hook for a processor: rows go to its
// table through rows, everything else through out. Goka closes both.
func (c *Client) ProcessorProducerBuilder(rows *TableWriter, out *Producer) goka.ProducerBuilder {
	return func([]string, string, func() hash.Hash32) (goka.Producer, error) {
		return processorProducer{out, rows}, nil
	}
}

type processorProducer struct {
	*Producer
	rows *TableWriter
}

func (p processorProducer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	if topic == p.rows.topic {
		return p.rows.Emit(key, value)
	}
	return p.Producer.EmitWithHeaders(topic, key, value, headers)
}

func (p processorProducer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

func (p processorProducer) Close() error { return errors.Join(p.rows.Close(), p.Producer.Close()) }

// Emit sends a record; a nil value is a tombstone.
func (p *Producer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.emit(topic, record{key: key, value: value}, p.partitions)
}

// EmitWithHeaders is Emit: what processors emit has no headers.
func (p *Producer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	if len(headers) > 0 {
		_, finish := goka.NewPromiseWithFinisher()
		return finish(nil, errHeaders)
	}
	return p.Emit(topic, key, value)
}

// closeTimeout bounds Close while Kafka is away.
const closeTimeout = 5 * time.Second

// Close waits for the answers to what was emitted, at most closeTimeout.
func (p *Producer) Close() error { return p.close() }
