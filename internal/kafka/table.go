package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
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

var errClosed = errors.New("the table writer is closed")

const (
	// A batch stays below the brokers' message.max.bytes of 1 MiB.
	maxTableBatch = 512 << 10
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
}

// TableWriter appends rows to a group's table, as the one owner of each
// partition that it has claimed.
//
// Goka fences nobody: an instance that slept past its session writes its old
// rows when it wakes, and compaction may keep just those. So each partition has
// a transactional id of its own, from which the owner gets the partition's
// producer id with the next epoch. A claim record, written with them but outside
// any transaction, makes the broker refuse all earlier epochs from there on.
// sarama's producer cannot carry a given producer id, hence this one: one batch
// in flight per partition, repeated byte for byte until it is answered.
type TableWriter struct {
	TableOptions
	client sarama.Client
	owner  *Client
	table  string
	renew  time.Duration

	ctx    context.Context //nolint:containedctx // ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	closed sync.Once

	mu         sync.Mutex
	denial     error
	partitions map[int32]*tablePartition
	senders    map[*sarama.Broker]chan tableJob
}

// TableWriter connects. Its owner must call Close.
func (c *Client) TableWriter(o TableOptions) (*TableWriter, error) {
	cfg := c.base("coinbit-" + string(o.Group) + "-table")
	client, err := sarama.NewClient(c.settings.Brokers, cfg)
	if err != nil {
		return nil, c.unreachable(err)
	}
	w := &TableWriter{
		TableOptions: o, client: client, owner: c, table: string(o.Group.Table()), renew: renewEvery,
		partitions: make(map[int32]*tablePartition), senders: make(map[*sarama.Broker]chan tableJob),
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.wg.Go(w.renewClaims)
	return w, nil
}

// Claim makes this writer the owner of a partition and returns where its claim
// stands: everything that an earlier owner wrote stands before.
func (w *TableWriter) Claim(ctx context.Context, partition int32) (offset int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	p := &tablePartition{w: w, id: partition, producerID: -1, epoch: -1}
	p.work, p.room = sync.NewCond(&p.mu), sync.NewCond(&p.mu)
	if err := p.nextEpoch(ctx); err != nil {
		return 0, err
	}
	w.mu.Lock()
	if w.partitions == nil {
		w.mu.Unlock()
		return 0, errClosed
	}
	old := w.partitions[partition]
	w.partitions[partition] = p
	w.wg.Go(p.run)
	w.mu.Unlock()
	if old != nil {
		old.fail(ErrFenced)
	}
	if offset, err = p.append(ctx, tableRow{key: stream.ClaimKey, value: p.claim(), claim: true}); err != nil {
		return 0, fmt.Errorf("claim %s/%d: %w", w.table, partition, err)
	}
	if p.epoch >= lastEpoch { // this claim fences every owner with the producer id, so nobody may own with it
		return w.Claim(ctx, partition)
	}
	return offset, nil
}

// Put appends a record to a partition that is claimed and recovered, and waits
// until it is stored.
func (w *TableWriter) Put(ctx context.Context, partition int32, key string, value []byte) error {
	p := w.partition(partition)
	if p == nil {
		return fmt.Errorf("%s/%d: %w", w.table, partition, ErrFenced)
	}
	_, err := p.append(ctx, tableRow{key: key, value: value})
	return err
}

func (w *TableWriter) partition(id int32) *tablePartition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.partitions[id]
}

// Emit appends a row to its partition, which must be claimed. It blocks while
// too much waits.
func (w *TableWriter) Emit(key string, value []byte) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	partition := stream.Partition(key, w.Partitions)
	p := w.partition(partition)
	if p == nil {
		return finish(nil, fmt.Errorf("%s/%d: %w", w.table, partition, ErrFenced))
	}
	p.put(tableRow{key: key, value: value, done: func(_ int64, err error) { finish(nil, err) }})
	return promise
}

// denied is the error for a right that is not granted, and keeps it.
func (w *TableWriter) denied(r stream.Right) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.denial = w.owner.denied(r)
	return w.denial
}

// Denial is the right that this writer was denied, as an error; nil if none.
func (w *TableWriter) Denial() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.denial
}

// Close waits for the answers to what was emitted, at most closeTimeout.
func (w *TableWriter) Close() error {
	var unanswered error
	w.closed.Do(func() {
		deadline := time.AfterFunc(closeTimeout, w.cancel)
		defer deadline.Stop()
		w.mu.Lock()
		partitions := w.partitions
		w.partitions = nil
		w.mu.Unlock()
		for _, p := range partitions {
			if p.drain(w.ctx); w.ctx.Err() != nil {
				unanswered = fmt.Errorf("rows without an answer after %s: %w", closeTimeout, ErrUnreachable)
			}
			p.fail(errClosed)
		}
		w.cancel()
		unanswered = errors.Join(unanswered, w.client.Close()) // ends requests in flight
		w.wg.Wait()
	})
	return unanswered
}

func (w *TableWriter) renewClaims() {
	tick := time.NewTicker(w.renew)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.mu.Lock()
			for _, p := range w.partitions {
				p.askRenewal()
			}
			w.mu.Unlock()
		case <-w.ctx.Done():
			return
		}
	}
}

// tableRow is a record on its way; done is told its offset or why it failed.
type tableRow struct {
	key   string
	value []byte
	claim bool // of before recovery: no store waits for it
	done  func(offset int64, err error)
}

// tablePartition is one partition in the hands of this writer.
type tablePartition struct {
	w  *TableWriter
	id int32

	producerID int64
	epoch      int16
	sequence   int32

	mu         sync.Mutex
	work, room *sync.Cond
	queue      []tableRow
	bytes      int
	busy       bool // rows are in flight or being told
	renew      bool
	err        error // why nothing more is taken
}

func (p *tablePartition) claim() []byte {
	b, _ := proto.Marshal(&pb.Claim{ProducerId: p.producerID, Epoch: int32(p.epoch)}) // two numbers always marshal
	return b
}

// append waits until one record is stored.
func (p *tablePartition) append(ctx context.Context, r tableRow) (int64, error) {
	type answer struct {
		offset int64
		err    error
	}
	answers := make(chan answer, 1)
	r.done = func(offset int64, err error) { answers <- answer{offset, err} }
	p.put(r)
	select {
	case a := <-answers:
		return a.offset, a.err
	case <-ctx.Done():
		p.fail(ctx.Err())
		return 0, fmt.Errorf("no answer: %w", ctx.Err())
	}
}

func (p *tablePartition) put(r tableRow) {
	p.mu.Lock()
	for p.bytes >= maxTableQueue && p.err == nil {
		p.room.Wait()
	}
	err := p.err
	if err == nil {
		p.queue = append(p.queue, r)
		p.bytes += r.size()
		p.work.Signal()
	}
	p.mu.Unlock()
	if err != nil {
		r.done(0, err)
	}
}

func (r *tableRow) size() int { return len(r.key) + len(r.value) + 32 }

// fail refuses what waits and what comes.
func (p *tablePartition) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	err, queue := p.err, p.queue
	p.queue, p.bytes = nil, 0
	p.work.Broadcast()
	p.room.Broadcast()
	p.mu.Unlock()
	for _, r := range queue {
		r.done(0, err)
	}
}

// drain waits until nothing waits or is in flight, the partition has failed, or
// ctx is done.
func (p *tablePartition) drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.room.Broadcast()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for (len(p.queue) > 0 || p.busy) && ctx.Err() == nil && p.err == nil {
		p.room.Wait()
	}
}

func (p *tablePartition) askRenewal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renew = true
	p.work.Signal()
}

// take returns the rows of the next batch; none when there are none and wait is
// false, when a renewal is due, or when the partition has failed.
func (p *tablePartition) take(wait bool) []tableRow {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait {
		p.busy = false
		p.room.Broadcast()
	}
	for wait && len(p.queue) == 0 && p.err == nil && !p.renew {
		p.work.Wait()
	}
	if p.renew || p.err != nil {
		return nil
	}
	n, size := 0, 0
	for n < len(p.queue) && (n == 0 || size+p.queue[n].size() <= maxTableBatch) {
		size += p.queue[n].size()
		n++
	}
	rows := p.queue[:n:n]
	p.queue = p.queue[n:]
	if len(p.queue) == 0 {
		p.queue = nil
	}
	p.bytes -= size
	p.busy = p.busy || n > 0
	p.room.Broadcast()
	return rows
}

// run sends batch after batch. The rows of one are told while the next is on
// its way.
func (p *tablePartition) run() {
	var stored []tableRow
	var base int64
	for {
		rows := p.take(len(stored) == 0)
		if len(rows) == 0 && len(stored) == 0 {
			if p.renewed() {
				continue
			}
			return
		}
		var b *sarama.RecordBatch
		var answer chan tableAnswer
		if len(rows) > 0 {
			b = p.batch(rows)
			answer = p.w.submit(p.id, b)
		}
		p.tell(stored, base)
		stored = nil
		if b == nil {
			continue
		}
		var err error
		if base, err = p.await(b, answer); err != nil {
			err = fmt.Errorf("%s/%d: %w", p.w.table, p.id, err)
			p.fail(err)
			for _, r := range rows {
				r.done(0, err)
			}
			return
		}
		stored = rows
	}
}

// renewed gets the next epoch and queues a claim with it. It is false when the
// partition has failed.
func (p *tablePartition) renewed() bool {
	p.mu.Lock()
	err := p.err
	p.mu.Unlock()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(p.w.ctx, claimTimeout)
	defer cancel()
	err = p.nextEpoch(ctx)
	if err == nil && p.epoch >= lastEpoch {
		err = fmt.Errorf("%s/%d: the epochs are used up, a new claim begins again", p.w.table, p.id)
	}
	if err != nil {
		p.fail(err)
		return false
	}
	claim := tableRow{key: stream.ClaimKey, value: p.claim(), done: func(_ int64, err error) {
		if err != nil {
			p.fail(err)
		}
	}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renew = false
	p.queue = append([]tableRow{claim}, p.queue...)
	p.bytes += claim.size()
	return true
}

func (p *tablePartition) tell(rows []tableRow, base int64) {
	for i, r := range rows {
		offset := base + int64(i)
		var err error
		if !r.claim {
			err = p.w.OnRow(p.id, r.key, r.value, offset)
		}
		r.done(offset, err)
	}
}

func (p *tablePartition) batch(rows []tableRow) *sarama.RecordBatch {
	now := time.Now().Truncate(time.Millisecond)
	records := make([]sarama.Record, len(rows))
	b := &sarama.RecordBatch{
		Version: 2, LastOffsetDelta: int32(len(rows) - 1), //nolint:gosec // bounded by maxTableBatch
		FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: p.producerID, ProducerEpoch: p.epoch, FirstSequence: p.sequence,
		Records: make([]*sarama.Record, len(rows)),
	}
	for i, r := range rows {
		records[i] = sarama.Record{OffsetDelta: int64(i), Key: []byte(r.key), Value: r.value}
		b.Records[i] = &records[i]
	}
	p.sequence = int32((int64(p.sequence) + int64(len(rows))) % (1 << 31)) // as Kafka wraps it
	return b
}

// await returns the offset of the batch's first record. What may still succeed
// is sent again, the same bytes: the broker recognises them.
func (p *tablePartition) await(b *sarama.RecordBatch, answer chan tableAnswer) (int64, error) {
	for attempt := 1; ; attempt++ {
		var a tableAnswer
		select {
		case a = <-answer:
		case <-p.w.ctx.Done():
			return 0, errClosed
		}
		switch {
		case a.err == nil:
			return a.offset, nil
		case errors.Is(a.err, sarama.ErrInvalidProducerEpoch), errors.Is(a.err, sarama.ErrProducerFenced):
			return 0, fmt.Errorf("%w: %w", ErrFenced, a.err)
		case errors.Is(a.err, sarama.ErrDuplicateSequenceNumber):
			return 0, ErrUnknownOffset
		case errors.Is(a.err, sarama.ErrTopicAuthorizationFailed):
			return 0, p.w.denied(stream.Right{Operation: stream.Write, Resource: stream.TopicResource, Name: p.w.table})
		case !retriable(a.err), attempt > retries:
			return 0, a.err
		}
		select {
		case <-time.After(retryBackoff):
		case <-p.w.ctx.Done():
			return 0, errClosed
		}
		_ = p.w.client.RefreshMetadata(p.w.table) // a failure shows at the next attempt
		answer = p.w.submit(p.id, b)
	}
}

// retriable tells whether the same request may yet succeed; what is no answer of
// a broker is a matter of the network.
func retriable(err error) bool {
	if errors.Is(err, sarama.ErrClosedClient) {
		return false
	}
	var refused sarama.KError
	if !errors.As(err, &refused) {
		return true
	}
	switch refused { //nolint:exhaustive // all others are final
	case sarama.ErrLeaderNotAvailable, sarama.ErrNotLeaderForPartition, sarama.ErrReplicaNotAvailable,
		sarama.ErrBrokerNotAvailable, sarama.ErrRequestTimedOut, sarama.ErrNetworkException, sarama.ErrInvalidMessage,
		sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend, sarama.ErrUnknownTopicOrPartition,
		sarama.ErrKafkaStorageError, sarama.ErrUnknown,
		sarama.ErrOffsetsLoadInProgress, sarama.ErrConsumerCoordinatorNotAvailable,
		sarama.ErrNotCoordinatorForConsumer, sarama.ErrConcurrentTransactions:
		return true
	}
	return false
}
