package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

var errClosed = errors.New("the writer is closed")

// A batch stays below the brokers' message.max.bytes of 1 MiB.
const maxBatch = 512 << 10

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

	ctx    context.Context //nolint:containedctx // ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	closed sync.Once

	lanes atomic.Pointer[map[int32]*lane] // read for each record; a map that is replaced, nil when closed

	mu      sync.Mutex // for changes of lanes, and for the rest
	denial  error
	senders map[*sarama.Broker]chan job
}

// newWriter connects. Its owner must close it.
func (c *Client) newWriter(clientID, topic string, maxQueue int) (*writer, error) {
	client, err := sarama.NewClient(c.settings.Brokers, c.base(clientID))
	if err != nil {
		return nil, c.unreachable(err)
	}
	w := &writer{client: client, owner: c, topic: topic, maxQueue: maxQueue, pace: newPace(),
		senders: make(map[*sarama.Broker]chan job)}
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
	lane    *lane
	flight  *flight
	answers chan answer // takes one
}

type answer struct {
	offset int64 // of the first record
	err    error
}

// submit hands a flight to the sender of its partition's leader.
func (w *writer) submit(l *lane, f *flight) chan answer {
	answers := make(chan answer, 1)
	leader, err := w.client.Leader(w.topic, l.id)
	if err != nil {
		answers <- answer{err: err}
		return answers
	}
	w.mu.Lock()
	jobs, ok := w.senders[leader]
	if !ok {
		jobs = make(chan job, 64)
		w.senders[leader] = jobs
		w.wg.Go(func() { w.send(leader, jobs) })
	}
	w.mu.Unlock()
	select {
	case jobs <- job{l, f, answers}:
	case <-w.ctx.Done():
	}
	return answers
}

// send makes one request at a time of all batches that wait for a broker.
func (w *writer) send(broker *sarama.Broker, jobs <-chan job) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var waiting []job
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
		w.request(broker, waiting)
	}
}

func produceRequest() *sarama.ProduceRequest {
	return &sarama.ProduceRequest{
		RequiredAcks: sarama.WaitForAll, Timeout: int32(produceTimeout.Milliseconds()), Version: 7, //nolint:gosec // seconds
	}
}

// request sends what waits in the lanes of jobs now: all that came up to here.
func (w *writer) request(broker *sarama.Broker, jobs []job) {
	req := produceRequest()
	sent, records := jobs[:0], 0
	for _, j := range jobs {
		if b := j.lane.load(j.flight); b != nil {
			req.AddBatch(w.topic, j.lane.id, b)
			sent = append(sent, j)
			records += len(b.Records)
		} else {
			j.answers <- answer{err: errClosed} // its lane has failed meanwhile
		}
	}
	if len(sent) == 0 {
		return
	}
	res, err := broker.Produce(req)
	w.pace.answered(records)
	if err != nil {
		_ = broker.Close() // the next look-up of the leader connects anew
	}
	for _, j := range sent {
		a := answer{err: err}
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
}
