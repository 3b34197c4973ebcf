package kafka

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"coinbit/internal/stream"
)

// maxLogQueue is far above what its callers have in flight: Emit does not block.
const maxLogQueue = 32 << 20

// LogWriter is a goka.Producer for one topic. sarama's producer passes each record through
// five goroutines; this one collects what comes while a batch is in flight, and
// never sends a record anew under another producer id. A broker that has forgotten its
// producers may still take a repeat for a new record, so each writer is an origin, and
// its records are numbered in the order of the log; see wallet.Origin.
type LogWriter struct {
	*writer
	partitions int32
}

// LogWriter connects and gets a producer id. Its owner must call Close.
func (c *Client) LogWriter(ctx context.Context, clientID, topic string, partitions int32) (*LogWriter, error) {
	w, err := c.newWriter(clientID, topic, maxLogQueue)
	if err != nil {
		return nil, err
	}
	w.confirm = c.cluster != nil
	origin := newOrigin()
	number := func(value []byte, sequence uint64) []byte { return stream.NumberDeposit(value, origin, sequence) }
	if err := w.openAll(ctx, partitions, number); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return &LogWriter{w, partitions}, nil
}

// openAll starts a lane for each partition, under a producer id that nobody has. number
// may be nil, see lane.
func (w *writer) openAll(ctx context.Context, partitions int32, number func([]byte, uint64) []byte) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	first, _, err := w.newIdentity(ctx, identity{})
	for p := int32(0); p < partitions && err == nil; p++ {
		_, err = w.open(&lane{id: p, identity: first, identify: w.newIdentity, number: number, goesOn: true})
	}
	return err
}

// newOrigin is 64 random bits, never 0: two of the same would lose deposits.
func newOrigin() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // crypto/rand never fails
		if origin := binary.NativeEndian.Uint64(b[:]); origin != 0 {
			return origin
		}
	}
}

// newIdentity asks any broker for a producer id that nobody has.
func (w *writer) newIdentity(ctx context.Context, _ identity) (identity, *record, error) {
	for {
		res, err := await(ctx, func() (*sarama.InitProducerIDResponse, error) {
			broker := w.client.LeastLoadedBroker()
			if broker == nil {
				return nil, sarama.ErrOutOfBrokers
			}
			res, err := broker.InitProducerID(&sarama.InitProducerIDRequest{Version: 3, ProducerID: -1, ProducerEpoch: -1})
			if err != nil {
				_ = broker.Close() // the next look-up connects anew
				return nil, err
			}
			if !errors.Is(res.Err, sarama.ErrNoError) {
				return nil, res.Err
			}
			return res, nil
		})
		switch {
		case err == nil:
			return identity{res.ProducerID, res.ProducerEpoch}, nil, nil
		case errors.Is(err, sarama.ErrClusterAuthorizationFailed):
			return identity{}, nil, w.owner.deniedProducerID()
		case !retriable(err):
			return identity{}, nil, fmt.Errorf("get a producer id: %w", err)
		}
		select {
		case <-time.After(retryBackoff):
		case <-ctx.Done():
			return identity{}, nil, fmt.Errorf("get a producer id: %w: %w", ctx.Err(), w.owner.unreachable(err))
		}
	}
}

// Emit appends a record to its key's partition.
func (l *LogWriter) Emit(topic, key string, value []byte) *goka.Promise {
	return l.emit(topic, record{key: key, value: value}, l.partitions)
}

// emit appends a record to its key's partition.
func (w *writer) emit(topic string, r record, partitions int32) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	if topic != w.topic {
		return finish(nil, fmt.Errorf("this is the producer of %s, not of %s", w.topic, topic))
	}
	partition := stream.Partition(r.key, partitions)
	to := w.lane(partition)
	if to == nil {
		return finish(nil, notAppended(errClosed))
	}
	r.done = func(offset int64, err error) {
		finish(&sarama.ProducerMessage{Topic: topic, Partition: partition, Offset: offset}, err)
	}
	to.put(r)
	return promise
}

// EmitWithHeaders is Emit: deposits have no headers.
func (l *LogWriter) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	if len(headers) > 0 {
		_, finish := goka.NewPromiseWithFinisher()
		return finish(nil, errHeaders)
	}
	return l.Emit(topic, key, value)
}

var errHeaders = errors.New("this producer writes no headers")

// Close waits for the answers to what was emitted, at most closeTimeout.
func (l *LogWriter) Close() error { return l.close() }
