package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

var errClosed = errors.New("the writer is closed")

// ErrNotAppended says that a record is certainly not in the log: it was not sent, or
// whoever it was sent to refused it before appending anything.
var ErrNotAppended = errors.New("certainly not in the log")

func notAppended(err error) error {
	if errors.Is(err, ErrNotAppended) {
		return err
	}
	return fmt.Errorf("%w: %w", err, ErrNotAppended)
}

// perhapsAppended is an error of the latest attempt, after one that may have appended:
// what is certain of the latest is not of them all.
func perhapsAppended(err error) error {
	if !errors.Is(err, ErrNotAppended) {
		return err
	}
	return perhaps{err}
}

type perhaps struct{ err error }

func (p perhaps) Error() string {
	return strings.ReplaceAll(p.err.Error(), ": "+ErrNotAppended.Error(), "") + ", after an attempt that may have appended it"
}
func (p perhaps) Is(target error) bool { return target != ErrNotAppended && errors.Is(p.err, target) }
func (p perhaps) As(target any) bool   { return errors.As(p.err, target) }

const (
	// maxBatch stays below the brokers' message.max.bytes of 1 MiB. One record alone may
	// be larger.
	maxBatch = 512 << 10
	// maxRequest bounds the batches of one request: brokers take 100 MiB.
	maxRequest = 16 << 20
)

// writer appends records to a topic as an idempotent producer: one batch in
// flight per partition, repeated byte for byte until it is answered, so that the
// broker recognises a repeat. Batches grow while one is in flight, and under load
// for a moment longer; see pace.
type writer struct {
	client   sarama.Client
	owner    *Client
	topic    string
	maxQueue int // bytes that wait for a partition before put blocks
	pace     pace
	now      func() time.Time // of records; no decision rests on it
	confirm  bool             // that the topic is the one that it began with

	ctx    context.Context //nolint:containedctx // ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	closed sync.Once

	lanes atomic.Pointer[map[int32]*lane] // read for each record; a map that is replaced, nil when closed

	mu      sync.Mutex // for changes of lanes, and for the rest
	denial  error
	senders map[int32]chan job // by the broker's id: brokers are replaced, ids stay
	said    map[sarama.KError]time.Time
}

// newWriter connects. Its owner must close it.
func (c *Client) newWriter(clientID, topic string, maxQueue int) (*writer, error) {
	client, err := sarama.NewClient(c.settings.Brokers, c.base(clientID))
	if err != nil {
		return nil, c.unreachable(err)
	}
	w := &writer{client: client, owner: c, topic: topic, maxQueue: maxQueue, pace: newPace(), now: time.Now,
		senders: make(map[int32]chan job), said: make(map[sarama.KError]time.Time)}
	w.lanes.Store(&map[int32]*lane{})
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w, nil
}

func (w *writer) lane(partition int32) *lane {
	if lanes := w.lanes.Load(); lanes != nil {
		return (*lanes)[partition]
	}
	return nil
}

// open starts a lane and returns the one that it replaces, if any.
func (w *writer) open(l *lane) (old *lane, err error) {
	l.w, l.work, l.room = w, sync.NewCond(&l.mu), sync.NewCond(&l.mu)
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.lanes.Load()
	if was == nil {
		return nil, errClosed
	}
	lanes := maps.Clone(*was)
	old, lanes[l.id] = lanes[l.id], l
	w.lanes.Store(&lanes)
	w.wg.Go(l.run)
	return old, nil
}

// denied is the error for a right that is not granted, and keeps it.
func (w *writer) denied(r stream.Right) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.denial = w.owner.denied(r)
	return w.denial
}

// Denial is the right that this writer was denied, as an error; nil if none.
func (w *writer) Denial() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.denial
}

// close waits for the answers to what was put, at most closeTimeout.
func (w *writer) close() error {
	var unanswered error
	w.closed.Do(func() {
		deadline := time.AfterFunc(closeTimeout, w.cancel)
		defer deadline.Stop()
		w.mu.Lock()
		lanes := w.lanes.Swap(nil)
		w.mu.Unlock()
		for _, l := range *lanes {
			if l.drain(w.ctx); w.ctx.Err() != nil {
				unanswered = fmt.Errorf("records without an answer after %s: %w", closeTimeout, ErrUnreachable)
			}
			l.fail(errClosed)
		}
		w.cancel()
		unanswered = errors.Join(unanswered, w.client.Close()) // ends requests in flight
		w.wg.Wait()
	})
	return unanswered
}

// produceTimeout is how long a leader waits for its in-sync replicas.
const produceTimeout = 10 * time.Second

// job is a batch on its way to a leader.
type job struct {
	leader  *sarama.Broker
	lane    *lane
	flight  *flight
	answers chan answer // takes one
}

type answer struct {
	offset int64 // of the first record
	sent   bool  // a broker may have it
	err    error
}

// submit hands a flight to the sender of its partition's leader.
func (w *writer) submit(l *lane, f *flight) chan answer {
	answers := make(chan answer, 1)
	leader, err := w.leader(l.id)
	if err != nil {
		answers <- answer{err: err}
		return answers
	}
	w.mu.Lock()
	jobs, ok := w.senders[leader.ID()]
	if !ok {
		jobs = make(chan job, 64)
		w.senders[leader.ID()] = jobs
		w.wg.Go(func() { w.send(jobs) })
	}
	w.mu.Unlock()
	select {
	case jobs <- job{leader, l, f, answers}:
	case <-w.ctx.Done():
	}
	return answers
}

// send makes one request at a time of all batches that wait for a broker.
func (w *writer) send(jobs <-chan job) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var waiting []job
	var confirmed confirmation
	for {
		waiting = waiting[:0]
		select {
		case j := <-jobs:
			waiting = append(waiting, j)
		case <-w.ctx.Done():
			return
		}
		w.pace.wait(timer, w.ctx.Done())
		for more := true; more; {
			select {
			case j := <-jobs:
				waiting = append(waiting, j)
			default:
				more = false
			}
		}
		for rest := waiting; len(rest) > 0; {
			rest = w.request(rest, &confirmed)
		}
	}
}

func produceRequest() *sarama.ProduceRequest {
	return &sarama.ProduceRequest{
		RequiredAcks: sarama.WaitForAll, Timeout: int32(produceTimeout.Milliseconds()), Version: 7, //nolint:gosec // seconds
	}
}

// request sends what waits in the lanes of jobs now: all that came up to here. It
// returns the jobs for which the request has no room.
func (w *writer) request(jobs []job, c *confirmation) (rest []job) {
	req := produceRequest()
	broker := jobs[len(jobs)-1].leader // the newest of that id
	sent, records, size := jobs[:0], 0, 0
	for i, j := range jobs {
		if size > maxRequest {
			rest = jobs[i:]
			break
		}
		if b := j.lane.load(j.flight); b != nil {
			req.AddBatch(w.topic, j.lane.id, b)
			sent = append(sent, j)
			records += len(b.Records)
			size += j.flight.size
		} else {
			j.answers <- answer{err: errClosed} // its lane has failed meanwhile
		}
	}
	if len(sent) == 0 {
		return rest
	}
	res, err := w.produce(broker, req, c)
	w.pace.answered(records)
	if err != nil {
		_ = broker.Close() // the next look-up of the leader connects anew
	}
	for _, j := range sent {
		a := answer{sent: !errors.Is(err, ErrNotAppended), err: err}
		if err == nil {
			switch block := res.GetBlock(w.topic, j.lane.id); {
			case block == nil:
				a.err = sarama.ErrIncompleteResponse
			case !errors.Is(block.Err, sarama.ErrNoError):
				a.err = block.Err
			default:
				a.offset = block.Offset
			}
		}
		j.answers <- a
	}
	return rest
}

// sayEvery is how often a refusal of one kind is logged.
const sayEvery = time.Minute

// complain logs that brokers refuse records, each kind of refusal once in sayEvery.
func (w *writer) complain(partition int32, records, size int, err error) {
	var refused sarama.KError
	if !errors.As(err, &refused) {
		return // of the network, or of this client
	}
	w.mu.Lock()
	said, ok := w.said[refused]
	due := !ok || time.Since(said) > sayEvery
	if due {
		w.said[refused] = time.Now()
	}
	w.mu.Unlock()
	if due {
		w.owner.log.Warn("kafka refuses records", "topic", w.topic, "partition", partition, "records", records,
			"bytes", size, "err", err, "remedy", w.remedy(refused))
	}
}

// remedy is what to do about a refusal.
func (w *writer) remedy(refused sarama.KError) string {
	switch refused { //nolint:exhaustive // the error speaks for itself
	case sarama.ErrInvalidTimestamp:
		return "set the clock of this machine or of the brokers, they are more than message.timestamp.after.max.ms apart; " +
			"until then records go without a time"
	case sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge:
		return "batches become smaller, and a record that alone is too large is refused; raise it with kafka-configs.sh --alter " +
			"--entity-type topics --entity-name " + w.topic + " --add-config max.message.bytes=1048588"
	case sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend:
		return "start the brokers that are away, or lower min.insync.replicas of " + w.topic
	}
	return "see the brokers' log"
}
