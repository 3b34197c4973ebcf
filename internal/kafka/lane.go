package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// record is one on its way; done is told its offset or why it failed.
type record struct {
	key   string
	value []byte
	claim bool // of before recovery: no store waits for it
	// newest says that it holds all that an earlier record of its row held: one that
	// still waits is not sent, this one goes in its place.
	newest bool
	row    Row  // if its owner gave one
	raw    *raw // of a dead letter, else nil
	done   func(offset int64, err error)
	// replaced are the dones of the records in whose place it goes, oldest first.
	replaced []func(offset int64, err error)
}

// raw is what a dead letter has besides key and value.
type raw struct {
	noKey   bool
	headers []*sarama.RecordHeader
	size    int       // of the headers
	at      time.Time // zero: none
	// instead goes in the record's place when the broker does not take it as it is.
	instead func() record
}

// size is about what it takes in a batch.
func (r *record) size() int {
	n := len(r.key) + len(r.value) + 32
	if r.raw != nil {
		n += r.raw.size
	}
	return n
}

// replacedSize is about what those who wait for a replaced record hold in memory.
const replacedSize = 1 << 10

// held is what it takes of the queue's bound.
func (r *record) held() int { return r.size() + len(r.replaced)*replacedSize }

// answer tells all that it stands for, in their order.
func (r *record) answer(offset int64, err error) {
	for _, done := range r.replaced {
		done(offset, err)
	}
	r.done(offset, err)
}

// identity is what a broker knows a producer by.
type identity struct {
	producerID int64
	epoch      int16
}

// lane is one partition in the hands of a writer.
type lane struct {
	w  *writer
	id int32
	// identify gets the identity of what comes next, and may name a record that
	// goes before it.
	identify func(ctx context.Context, was identity) (identity, *record, error)
	// stored sees each record before its done; its error is done's.
	stored func(partition int32, r *record, offset int64) error
	// fenced, if set, is told once when the broker refuses this owner.
	fenced func()
	// number, if set, numbers each record's value, from 1: in the order of the queue, which
	// is that of the log.
	number func(value []byte, sequence uint64) []byte
	// goesOn: after a batch has failed the lane goes on, with another identity.
	goesOn bool

	identity
	sequence int32

	mu         sync.Mutex
	work, room *sync.Cond
	queue      []record
	taken      int // records that left the queue at its front
	numbered   uint64
	bytes      int
	busy       bool // records are in flight or being told
	renew      bool // another identity is due
	err        error
	spare      []record // an array for the queue, once those of its last records are told
	limit      int      // bytes of a batch, 0 for maxBatch; see adapt

	untimed bool      // records go without a time; of run and what it waits for, like all below
	relearn time.Time // when limit and untimed end

	records []sarama.Record // of the batch in flight
	batched []*sarama.Record
}

const renewTimeout = 30 * time.Second

// append waits until one record is stored.
func (l *lane) append(ctx context.Context, r record) (int64, error) {
	answers := make(chan answer, 1)
	r.done = func(offset int64, err error) { answers <- answer{offset: offset, err: err} }
	l.put(r)
	select {
	case a := <-answers:
		return a.offset, a.err
	case <-ctx.Done():
		l.fail(ctx.Err())
		return 0, fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// put queues a record. It blocks while too much waits.
func (l *lane) put(r record) {
	l.mu.Lock()
	for l.bytes >= l.w.maxQueue && l.err == nil {
		l.room.Wait()
	}
	err := l.err
	if err == nil && !l.replace(r) {
		if l.number != nil {
			l.numbered++
			r.value = l.number(r.value, l.numbered)
		}
		l.queue = append(l.queue, r)
		l.bytes += r.size()
		l.w.pace.came()
		l.work.Signal()
	}
	l.mu.Unlock()
	if err != nil {
		r.done(0, notAppended(err))
	}
}

// replace puts a record in the place of one of its row that waits. It needs l.mu.
func (l *lane) replace(r record) bool {
	if !r.newest || r.row == nil {
		return false
	}
	place := r.row.Place()
	at := int(place.Load()) - l.taken
	if at < 0 || at >= len(l.queue) || l.queue[at].row != r.row || !l.queue[at].newest { // it has left, or never was here
		place.Store(int64(l.taken + len(l.queue)))
		return false
	}
	q := &l.queue[at]
	l.bytes -= q.held()
	q.replaced = append(q.replaced, q.done)
	q.value, q.done = r.value, r.done
	l.bytes += q.held()
	return true
}

// fail refuses what waits and what comes.
func (l *lane) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	err = l.err
	l.mu.Unlock()
	l.refuse(err)
}

// refuse refuses what waits: none of it was sent, or the broker refused it too.
func (l *lane) refuse(err error) {
	err = notAppended(err)
	l.mu.Lock()
	queue := l.queue
	l.queue, l.bytes = nil, 0
	l.w.pace.left(len(queue))
	l.work.Broadcast()
	l.room.Broadcast()
	l.mu.Unlock()
	for _, r := range queue {
		r.answer(0, err)
	}
}

// drain waits until nothing waits or is in flight, the lane has failed, or ctx
// is done.
func (l *lane) drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.room.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for (len(l.queue) > 0 || l.busy) && ctx.Err() == nil && l.err == nil {
		l.room.Wait()
	}
}

func (l *lane) askRenewal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renew = true
	l.work.Signal()
}

// flight is a batch on its way: loaded when its request is about to be sent.
type flight struct {
	records []record
	size    int // of the records, about
	batch   *sarama.RecordBatch
	loaded  time.Time // by the wall clock: it goes on while the process or the machine sleeps
	over    bool      // nobody waits for it any more
}

// repeatFor is for how long a batch is sent again. Rows and brokers remember who sent it for
// a day; an API that was stopped for longer must not send what nobody knows any more.
const repeatFor = 10 * time.Minute

func (f *flight) tooOld() bool { return time.Now().Round(0).Sub(f.loaded) > repeatFor }

// ready tells whether records wait to be sent. If wait, it waits until they do, a
// renewal is due, or the lane has failed.
func (l *lane) ready(wait bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait {
		l.busy = false
		l.room.Broadcast()
	}
	for wait && len(l.queue) == 0 && l.err == nil && !l.renew {
		l.work.Wait()
	}
	return len(l.queue) > 0 && l.err == nil && !l.renew
}

// load fills a flight with all that waits, and returns its batch. A flight that was
// loaded stays as it is; the batch is nil when there is nothing left to send.
func (l *lane) load(f *flight) *sarama.RecordBatch {
	l.mu.Lock()
	if f.batch == nil && !f.over {
		f.records, f.size = l.take()
	}
	l.mu.Unlock()
	if f.batch == nil && len(f.records) > 0 {
		f.batch, f.loaded = l.batch(f.records), time.Now().Round(0)
	}
	return f.batch
}

// abandon ends a flight and returns the records that failed with it.
func (l *lane) abandon(f *flight) []record {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(f.records) == 0 {
		f.records, f.size = l.take()
	}
	f.over = true
	return f.records
}

// take needs l.mu. It returns the size of what it takes, too.
func (l *lane) take() ([]record, int) {
	if l.limit > 0 && time.Now().After(l.relearn) {
		l.limit = 0
	}
	n, size, held, limit := 0, 0, 0, cmp.Or(l.limit, maxBatch)
	for n < len(l.queue) && (n == 0 || size+l.queue[n].size() <= limit) {
		size += l.queue[n].size()
		held += l.queue[n].held()
		n++
	}
	records := l.queue[:n:n]
	l.taken += n
	if n == len(l.queue) {
		records, l.queue, l.spare = l.queue, l.spare, nil
	} else {
		l.queue = l.queue[n:]
	}
	l.bytes -= held
	l.w.pace.left(n)
	l.busy = l.busy || n > 0
	l.room.Broadcast()
	return records, size
}

// putBack returns records that were taken to the front of the queue, to be sent
// before all others. It is false when the lane has failed.
func (l *lane) putBack(records []record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.queue = slices.Concat(records, l.queue)
	l.taken -= len(records)
	for i := range records {
		l.bytes += records[i].held()
		l.w.pace.came()
	}
	return true
}

// run sends batch after batch. The records of one are told while the next is on
// its way.
func (l *lane) run() {
	var stored []record
	var base int64
	for {
		ready := l.ready(len(stored) == 0)
		if !ready && len(stored) == 0 {
			if l.renewed() {
				continue
			}
			return
		}
		var f flight
		var answers chan answer
		if ready {
			answers = l.w.submit(l, &f)
		}
		l.tell(stored, base)
		l.reuse(stored)
		stored = nil
		if !ready {
			continue
		}
		var err error
		if base, err = l.await(&f, answers); err == nil {
			stored = f.records
			continue
		}
		l.settle(&f, err)
	}
}

// settle sees to a flight that failed. What the broker certainly did not take has used
// no sequence numbers: the next batch has them.
func (l *lane) settle(f *flight, err error) {
	records := l.abandon(f)
	certain := errors.Is(err, ErrNotAppended)
	if certain && f.batch != nil {
		l.sequence = f.batch.FirstSequence
		if l.adapt(f, err) && l.putBack(records) {
			return
		}
	}
	err = fmt.Errorf("%s/%d: %w", l.w.topic, l.id, err)
	l.w.complain(l.id, len(records), f.size, err)
	switch {
	case !l.goesOn:
		l.fail(err)
	case !certain:
		l.askRenewal()
	}
	for i := range records {
		records[i].answer(0, err)
	}
}

// relearnAfter is how long a lane keeps to what it learned from a refusal.
const relearnAfter = time.Minute

// adapt changes how the lane sends, so that the broker takes what it refused: without a
// time, in smaller batches, or another record in a dead letter's place. It is false when
// nothing is left to change.
func (l *lane) adapt(f *flight, err error) bool {
	alone := len(f.records) == 1
	switch {
	case errors.Is(err, sarama.ErrInvalidTimestamp) && !f.batch.FirstTimestamp.IsZero():
		l.untimed = true
	case tooLarge(err) && !alone, errors.Is(err, sarama.ErrInvalidRecord) && !alone && slices.ContainsFunc(f.records, describable):
		l.mu.Lock()
		l.limit = max(1, f.size/2)
		l.mu.Unlock()
	case (tooLarge(err) || errors.Is(err, sarama.ErrInvalidRecord)) && describable(f.records[0]):
		done := f.records[0].done
		f.records[0] = f.records[0].raw.instead()
		f.records[0].done = done
		return true
	default:
		return false
	}
	l.relearn = time.Now().Add(relearnAfter)
	l.w.complain(l.id, len(f.records), f.size, err)
	return true
}

// describable tells whether it is the copy of a record that a dead letter can describe instead.
func describable(r record) bool { return r.raw != nil && r.raw.instead != nil }

// renewed gets the next identity. It is false when the lane has failed.
func (l *lane) renewed() bool {
	l.mu.Lock()
	err := l.err
	l.mu.Unlock()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(l.w.ctx, renewTimeout)
	defer cancel()
	next, first, err := l.identify(ctx, l.identity)
	switch {
	case err != nil && !l.goesOn:
		if errors.Is(err, ErrFenced) {
			l.tellFenced()
		}
		l.fail(err)
		return false
	case err != nil:
		l.refuse(err)
		select {
		case <-time.After(retryBackoff):
		case <-l.w.ctx.Done():
		}
		return true
	}
	l.identity, l.sequence = next, 0
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renew = false
	if first != nil {
		l.queue = slices.Insert(l.queue, 0, *first)
		l.taken--
		l.bytes += first.size()
		l.w.pace.came()
	}
	return true
}

func (l *lane) tell(records []record, base int64) {
	for i := range records {
		r := &records[i]
		offset := base + int64(i)
		var err error
		if l.stored != nil {
			err = l.stored(l.id, r, offset)
		}
		r.answer(offset, err)
	}
}

// oversized tells that an array is so much longer than what was in it that to keep it
// would be to keep the memory of a busier time.
func oversized(has, used int) bool { return has > 4*used+64 }

// reuse takes back the array of records that are told. One without room may be a part
// of a longer one, and goes.
func (l *lane) reuse(records []record) {
	if cap(records) == len(records) || oversized(cap(records), len(records)) {
		return
	}
	clear(records)
	l.mu.Lock()
	defer l.mu.Unlock()
	if cap(records) > cap(l.spare) {
		l.spare = records[:0]
	}
}

func (l *lane) tellFenced() {
	if l.fenced != nil {
		l.fenced()
	}
}

// batch makes a batch of records, the only one until it is answered.
func (l *lane) batch(records []record) *sarama.RecordBatch {
	now := l.w.now().Truncate(time.Millisecond)
	if l.untimed = l.untimed && time.Now().Before(l.relearn); l.untimed {
		now = time.Time{}
	}
	if oversized(cap(l.records), len(records)) {
		l.records, l.batched = nil, nil
	}
	l.records = slices.Grow(l.records[:0], len(records))
	l.batched = slices.Grow(l.batched[:0], len(records))
	for i, r := range records {
		l.records = append(l.records, sarama.Record{OffsetDelta: int64(i), Key: []byte(r.key), Value: r.value})
		l.batched = append(l.batched, &l.records[i])
		if r.raw != nil {
			r.raw.put(&l.records[i], now)
		}
	}
	clear(l.records[len(records):cap(l.records)]) // of a longer batch
	b := &sarama.RecordBatch{
		Version: 2, LastOffsetDelta: int32(len(records) - 1), //nolint:gosec // bounded by maxBatch
		FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: l.producerID, ProducerEpoch: l.epoch, FirstSequence: l.sequence,
		Records: l.batched,
	}
	l.sequence = int32((int64(l.sequence) + int64(len(records))) % (1 << 31)) // as Kafka wraps it
	return b
}

// await returns the offset of the batch's first record. What may still succeed
// is sent again, the same bytes: the broker recognises them. Its error wraps
// ErrNotAppended when no attempt can have appended the batch.
func (l *lane) await(f *flight, answers chan answer) (int64, error) {
	for attempt, certain := 1, true; ; attempt++ {
		var a answer
		select {
		case a = <-answers:
		case <-l.w.ctx.Done():
			return 0, errClosed
		}
		certain = certain && (!a.sent || untaken(a.err))
		switch {
		case a.err == nil:
			return a.offset, nil
		case errors.Is(a.err, sarama.ErrInvalidProducerEpoch), errors.Is(a.err, sarama.ErrProducerFenced):
			l.tellFenced()
			return 0, fmt.Errorf("%w: %w", ErrFenced, a.err)
		case errors.Is(a.err, sarama.ErrDuplicateSequenceNumber):
			return 0, errUnknownOffset
		case !retriable(a.err), attempt > retries, f.batch != nil && f.tooOld():
			if errors.Is(a.err, sarama.ErrTopicAuthorizationFailed) {
				a.err = l.w.denied(stream.Right{Operation: stream.Write, Resource: stream.TopicResource, Name: l.w.topic})
			}
			if certain {
				return 0, notAppended(a.err)
			}
			return 0, perhapsAppended(a.err)
		case attempt == patience:
			l.w.complain(l.id, len(f.records), f.size, a.err)
		}
		select {
		case <-time.After(retryBackoff):
		case <-l.w.ctx.Done():
			return 0, errClosed
		}
		_ = l.w.client.RefreshMetadata(l.w.topic) // a failure shows at the next attempt
		answers = l.w.submit(l, f)
	}
}

// patience is after how many attempts a line says that a broker refuses a batch.
const patience = 8

// untaken tells whether a broker answers so before it appends anything.
func untaken(err error) bool {
	var refused sarama.KError
	if !errors.As(err, &refused) {
		return false
	}
	switch refused { //nolint:exhaustive // after all others it may be in the log
	case sarama.ErrInvalidTimestamp, sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge, sarama.ErrInvalidRecord,
		sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed, sarama.ErrPolicyViolation,
		sarama.ErrInvalidTopic, sarama.ErrInvalidRequiredAcks, sarama.ErrUnsupportedForMessageFormat,
		sarama.ErrNotEnoughReplicas:
		return true
	}
	return false
}

func tooLarge(err error) bool {
	return errors.Is(err, sarama.ErrMessageSizeTooLarge) || errors.Is(err, sarama.ErrMessageSetSizeTooLarge)
}

// retriable tells whether the same request may yet succeed; what is no answer of
// a broker is a matter of the network.
func retriable(err error) bool {
	if errors.Is(err, sarama.ErrClosedClient) || errors.Is(err, errClosed) || errors.Is(err, ErrMoved) {
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
