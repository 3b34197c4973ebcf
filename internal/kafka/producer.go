package kafka

import (
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
)

// ErrUnknownOffset says that a record is in the log, but a repeat of its
// request was what the broker acknowledged, and that answer carries no offset.
var ErrUnknownOffset = errors.New("record is stored at an offset that the broker did not tell")

// noOffset marks a message that the broker has not given an offset.
const noOffset = -1

// Producer is a goka.Producer on an idempotent sarama producer. It differs from
// Goka's own in two ways: it fails a record whose offset is unknown, and it can
// send raw records.
type Producer struct {
	async   sarama.AsyncProducer
	drained sync.WaitGroup
}

// ProducerBuilder returns Goka's hook. built, if not nil, is given each producer.
func (c *Client) ProducerBuilder(built func(*Producer)) goka.ProducerBuilder {
	return func(brokers []string, clientID string, hasher func() hash.Hash32) (goka.Producer, error) {
		cfg := c.producerConfig(clientID, hasher)
		async, err := sarama.NewAsyncProducer(brokers, cfg)
		if errors.Is(err, sarama.ErrClusterAuthorizationFailed) {
			return nil, c.deniedProducerID()
		}
		if err != nil {
			return nil, fmt.Errorf("start producer: %w", c.unreachable(err))
		}
		p := &Producer{async: async}
		p.drained.Add(2)
		go p.successes()
		go p.errors()
		if built != nil {
			built(p)
		}
		return p, nil
	}
}

// ProcessorProducerBuilder returns Goka's hook for a processor: rows go to its
// table through rows, which Goka then closes, everything else through a Producer.
func (c *Client) ProcessorProducerBuilder(rows *TableWriter, built func(*Producer)) goka.ProducerBuilder {
	build := c.ProducerBuilder(built)
	return func(brokers []string, clientID string, hasher func() hash.Hash32) (goka.Producer, error) {
		p, err := build(brokers, clientID, hasher)
		if err != nil {
			return nil, err
		}
		return processorProducer{p, rows}, nil
	}
}

type processorProducer struct {
	goka.Producer
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

// Emit sends a record without headers.
func (p *Producer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

// EmitWithHeaders sends a record; a nil value is a tombstone.
func (p *Producer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	m := &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(key), Headers: headers.ToSarama()}
	if value != nil {
		m.Value = sarama.ByteEncoder(value)
	}
	return p.send(m)
}

// send hands m to sarama. It blocks while sarama's buffer is full.
func (p *Producer) send(m *sarama.ProducerMessage) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	m.Metadata, m.Offset = finish, noOffset
	p.async.Input() <- m
	return promise
}

func (p *Producer) successes() {
	defer p.drained.Done()
	for m := range p.async.Successes() {
		err := error(nil)
		if m.Offset == noOffset {
			err = fmt.Errorf("%s/%d: %w", m.Topic, m.Partition, ErrUnknownOffset)
		}
		m.Metadata.(goka.PromiseFinisher)(m, err) //nolint:forcetypeassert // send set it
	}
}

func (p *Producer) errors() {
	defer p.drained.Done()
	for e := range p.async.Errors() {
		e.Msg.Metadata.(goka.PromiseFinisher)(nil, e.Err) //nolint:forcetypeassert // send set it
	}
}

// closeTimeout bounds Close while Kafka is away.
const closeTimeout = 5 * time.Second

// Close flushes what was sent and waits for its answers, at most closeTimeout.
func (p *Producer) Close() error {
	p.async.AsyncClose()
	done := make(chan struct{})
	go func() { p.drained.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(closeTimeout):
		return fmt.Errorf("records without an answer after %s: %w", closeTimeout, ErrUnreachable)
	}
}
