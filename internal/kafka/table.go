package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// ErrFenced says that another instance has claimed the partition since: what
// this one still wanted to write there is refused.
var ErrFenced = errors.New("another instance owns the partition")

const (
	maxTableQueue = 2 << 20
	// renewEvery is far below what brokers remember: a producer id on a
	// partition for a day, a transactional id for seven.
	renewEvery   = 6 * time.Hour
	claimTimeout = 30 * time.Second
	// lastEpoch is the last one of a producer id. After it the coordinator gives
	// another id, whose claim would fence nobody of this one.
	lastEpoch = math.MaxInt16 - 1
)

// TableOptions say which table a TableWriter writes, and who is told.
type TableOptions struct {
	Group      stream.Group
	Partitions int32
	// OnRow sees each stored row before its promise resolves; its error fails
	// the promise.
	OnRow func(partition int32, key string, value []byte, offset int64) error
	// Row, if set, may give the row that was just set for a key, and nil else. It is
	// told in OnRow's place.
	Row func(partition int32, key string) Row
	// OnFenced, if set, is told of each partition that the broker refuses this
	// writer because another has claimed it since.
	OnFenced func()
}

// Row is a row on its way, in the hands of who keeps the table.
type Row interface {
	// Acked is told of the stored value before its promise resolves; its error fails
	// the promise.
	Acked(value []byte, offset int64) error
	// Place is for the writer alone: where the row's newest record waits.
	Place() *atomic.Int64
}

// TableWriter appends rows to a group's table, as the one owner of each
// partition that it has claimed.
//
// Goka fences nobody: an instance that slept past its session writes its old
// rows when it wakes, and compaction may keep just those. So each partition has
// a transactional id of its own, from which the owner gets the partition's
// producer id with the next epoch. A claim record, written with them but outside
// any transaction, makes the broker refuse all earlier epochs from there on.
// sarama's producer cannot carry a given producer id, hence a writer of our own.
type TableWriter struct {
	TableOptions
	*writer
	renew time.Duration
}

// TableWriter connects. Its owner must call Close.
func (c *Client) TableWriter(o TableOptions) (*TableWriter, error) {
	w, err := c.newWriter("coinbit-"+string(o.Group)+"-table", string(o.Group.Table()), maxTableQueue)
	if err != nil {
		return nil, err
	}
	t := &TableWriter{TableOptions: o, writer: w, renew: renewEvery}
	w.wg.Go(t.renewClaims)
	return t, nil
}

// Claim makes this writer the owner of a partition and returns where its claim
// stands: everything that an earlier owner wrote stands before.
func (t *TableWriter) Claim(ctx context.Context, partition int32) (offset int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	l := &lane{id: partition, stored: t.onRow, fenced: t.OnFenced}
	l.identify = func(ctx context.Context, was identity) (identity, *record, error) {
		next, err := t.nextEpoch(ctx, partition, was)
		if err == nil && next.epoch >= lastEpoch {
			err = fmt.Errorf("%s/%d: the epochs are used up, a new claim begins again", t.topic, partition)
		}
		if err != nil {
			return next, nil, err
		}
		again := claimRecord(next)
		again.claim = false // told like a row, as the store counts offsets
		again.done = func(_ int64, err error) {
			if err != nil {
				l.fail(err)
			}
		}
		return next, &again, nil
	}
	if l.identity, err = t.nextEpoch(ctx, partition, identity{-1, -1}); err != nil {
		return 0, err
	}
	old, err := t.open(l)
	if err != nil {
		return 0, err
	}
	if old != nil {
		old.fail(ErrFenced)
	}
	if offset, err = l.append(ctx, claimRecord(l.identity)); err != nil {
		return 0, fmt.Errorf("claim %s/%d: %w", t.topic, partition, err)
	}
	if l.epoch >= lastEpoch { // this claim fences every owner with the producer id, so nobody may own with it
		return t.Claim(ctx, partition)
	}
	return offset, nil
}

func claimRecord(i identity) record {
	b, _ := proto.Marshal(&pb.Claim{ProducerId: i.producerID, Epoch: int32(i.epoch)}) // two numbers always marshal
	return record{key: stream.ClaimKey, value: b, claim: true}
}

func (t *TableWriter) onRow(partition int32, r *record, offset int64) error {
	if r.claim {
		return nil
	}
	if r.row != nil {
		return r.row.Acked(r.value, offset)
	}
	return t.OnRow(partition, r.key, r.value, offset)
}

// Put appends a record to a partition that is claimed and recovered, and waits
// until it is stored.
func (t *TableWriter) Put(ctx context.Context, partition int32, key string, value []byte) error {
	l := t.lane(partition)
	if l == nil {
		return fmt.Errorf("%s/%d: %w", t.topic, partition, ErrFenced)
	}
	_, err := l.append(ctx, record{key: key, value: value})
	return err
}

// Emit appends a row to its partition, which must be claimed. It blocks while too
// much waits. A row in its owner's hands, see Row, that still waits when its next value
// comes is not sent: the next one holds all that it held.
func (t *TableWriter) Emit(key string, value []byte) *goka.Promise {
	return t.emit(key, value, true)
}

// Repair appends a row that the changelog already held. It goes in nobody's place:
// should it come late, to a partition that was claimed anew since, it must not hide
// what stands there.
func (t *TableWriter) Repair(key string, value []byte) *goka.Promise {
	return t.emit(key, value, false)
}

func (t *TableWriter) emit(key string, value []byte, newest bool) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	partition := stream.Partition(key, t.Partitions)
	l := t.lane(partition)
	if l == nil {
		return finish(nil, fmt.Errorf("%s/%d: %w", t.topic, partition, ErrFenced))
	}
	r := record{key: key, value: value, newest: newest, done: func(_ int64, err error) { finish(nil, err) }}
	if t.Row != nil {
		r.row = t.Row(partition, key)
	}
	l.put(r)
	return promise
}

// Close waits for the answers to what was emitted, at most closeTimeout.
func (t *TableWriter) Close() error { return t.close() }

func (t *TableWriter) renewClaims() {
	tick := time.NewTicker(t.renew)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if lanes := t.lanes.Load(); lanes != nil {
				for _, l := range *lanes {
					l.askRenewal()
				}
			}
		case <-t.ctx.Done():
			return
		}
	}
}

// nextEpoch asks the transaction coordinator for the partition's producer id
// with the next epoch. With an identity in hand it is refused when another
// instance got one since.
func (t *TableWriter) nextEpoch(ctx context.Context, partition int32, was identity) (identity, error) {
	id := t.Group.TransactionalID(partition)
	req := &sarama.InitProducerIDRequest{
		Version: 3, TransactionalID: &id, TransactionTimeout: time.Minute,
		ProducerID: was.producerID, ProducerEpoch: was.epoch,
	}
	for {
		res, err := await(ctx, func() (*sarama.InitProducerIDResponse, error) {
			coordinator, err := t.client.TransactionCoordinator(id)
			if err != nil {
				return nil, err
			}
			res, err := coordinator.InitProducerID(req)
			if err != nil {
				_ = coordinator.Close()
				return nil, err
			}
			if !errors.Is(res.Err, sarama.ErrNoError) {
				return nil, res.Err
			}
			return res, nil
		})
		switch {
		case err == nil:
			return identity{res.ProducerID, res.ProducerEpoch}, nil
		case errors.Is(err, sarama.ErrInvalidProducerEpoch), errors.Is(err, sarama.ErrProducerFenced):
			return was, fmt.Errorf("%s/%d: %w: %w", t.topic, partition, ErrFenced, err)
		case errors.Is(err, sarama.ErrTransactionalIDAuthorizationFailed):
			return was, t.denied(t.Group.FenceRight())
		case !retriable(err):
			return was, fmt.Errorf("transactional id %s: %w", id, err)
		}
		select {
		case <-time.After(retryBackoff):
		case <-ctx.Done():
			return was, fmt.Errorf("transactional id %s: %w: %w (brokers that are fewer than "+
				"their transaction.state.log.replication.factor cannot give one)", id, ctx.Err(), err)
		}
		_ = t.client.RefreshTransactionCoordinator(id) // a failure shows at the next attempt
	}
}
