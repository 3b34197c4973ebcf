package app

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"coinbit/internal/api"
	"coinbit/internal/kafka"
	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// maxInFlight bounds deposits that Append handed to the producer and that are not
// answered. Streams have their own bound beside it.
const maxInFlight = 4096

// deposits appends to the deposit topic through a Goka emitter. It is the API's
// api.Log.
type deposits struct {
	*Runtime
	emitter  atomic.Pointer[emitting]
	count    atomic.Int32 // partitions, 0 while not known
	monitor  kafka.Monitor
	inFlight atomic.Int64
}

// emitting is an emitter, what ends the attempt that built it, and what is known of the
// end of the topic that it writes to.
type emitting struct {
	*goka.Emitter
	end   context.CancelCauseFunc
	known []atomic.Int64 // by partition: the log has at least so many offsets
	asked rounds[map[int32]int64]
}

var _ api.Log = (*deposits)(nil)

func newDeposits(rt *Runtime) *deposits {
	d := &deposits{Runtime: rt}
	rt.health.add("kafka", d.ready)
	return d
}

func (d *deposits) ready() error {
	if d.emitter.Load() == nil || d.monitor.Away() {
		return errKafkaAway
	}
	return nil
}

var (
	errKafkaAway = errors.New("kafka is away")
	errTooMany   = errors.New("too many deposits in flight")
)

// partition is the wallet's partition; an error until Kafka was there once.
func (d *deposits) partition(walletID string) (int32, error) {
	n := d.count.Load()
	if n == 0 {
		return 0, errKafkaAway
	}
	return stream.Partition(walletID, n), nil
}

// Append sends a deposit and waits until all in-sync replicas have it.
func (d *deposits) Append(ctx context.Context, over <-chan struct{}, deposit *pb.Deposit) (api.Position, error) {
	if d.inFlight.Add(1) > maxInFlight {
		d.inFlight.Add(-1)
		return api.Position{}, fmt.Errorf("%w: %w", api.ErrRefused, errTooMany)
	}
	type answer struct {
		position api.Position
		err      error
	}
	answered := make(chan answer, 1)
	err := d.Send(deposit, func(at api.Position, err error) {
		d.inFlight.Add(-1)
		answered <- answer{at, err}
	})
	if err != nil {
		d.inFlight.Add(-1)
		return api.Position{}, err
	}
	select {
	case a := <-answered:
		return a.position, a.err
	case <-ctx.Done():
		return api.Position{}, fmt.Errorf("%w: %w", api.ErrUnknown, ctx.Err())
	case <-over:
		return api.Position{}, fmt.Errorf("%w: no answer in time", api.ErrUnknown)
	}
}

// Send hands a deposit to the producer. After that a failure is api.ErrUnknown, unless
// the log certainly does not hold it.
func (d *deposits) Send(deposit *pb.Deposit, done func(api.Position, error)) error {
	emitter := d.emitter.Load()
	if emitter == nil || d.monitor.Away() {
		return fmt.Errorf("%w: %w", api.ErrRefused, errKafkaAway)
	}
	promise, err := emitter.Emit(deposit.WalletId, deposit)
	if err != nil { // only encoding fails here
		return fmt.Errorf("%w: %w", api.ErrRefused, err)
	}
	promise.ThenWithMessage(func(m *sarama.ProducerMessage, err error) {
		if kafka.Denied(err) || errors.Is(err, kafka.ErrMoved) {
			emitter.end(err) // the next is refused before it is sent
		}
		switch {
		case errors.Is(err, goka.ErrEmitterAlreadyClosed):
			done(api.Position{}, fmt.Errorf("%w: %w", api.ErrRefused, err))
		case errors.Is(err, kafka.ErrNotAppended):
			done(api.Position{}, fmt.Errorf("%w: %w", api.ErrRefused, err))
		case err != nil:
			done(api.Position{}, fmt.Errorf("%w: %w", api.ErrUnknown, err))
		default:
			emitter.grown(m.Partition, m.Offset+1)
			done(api.Position{Partition: m.Partition, Offset: m.Offset}, nil)
		}
	})
	return nil
}

// askPause bounds how often Kafka is asked for the log's end, however many want to know.
const askPause = 50 * time.Millisecond

// holds tells whether the log has a position. Kafka is asked if that is not known: a view
// behind the log does not know its end.
func (d *deposits) holds(ctx context.Context, at api.Position) (bool, error) {
	emitter := d.emitter.Load()
	if emitter == nil || int(at.Partition) >= len(emitter.known) {
		return false, errKafkaAway
	}
	known := &emitter.known[at.Partition]
	if at.Offset < known.Load() {
		return true, nil
	}
	ends, err := emitter.asked.ask(ctx)
	for p, end := range ends {
		emitter.grown(p, end)
	}
	return at.Offset < known.Load(), err
}

func (e *emitting) grown(partition int32, end int64) {
	if int(partition) < len(e.known) {
		raise(&e.known[partition], end)
	}
}

// flushTimeout bounds the wait for answers when the API stops.
const flushTimeout = 4 * time.Second

// attempt keeps an emitter until ctx is done.
func (d *deposits) attempt(ctx context.Context) error {
	cluster, err := d.ensureFor(ctx, stream.RightsOf("api"))
	if err != nil {
		return err
	}
	if err := d.ledger.write(cluster); err != nil {
		return err
	}
	d.count.Store(cluster.Partitions)
	client := d.client.In(cluster.Only(string(stream.DepositStream)))
	emitter, err := goka.NewEmitter(d.client.Brokers(), stream.DepositStream, new(stream.DepositEncoder),
		goka.WithEmitterClientID("coinbit-api"),
		goka.WithEmitterHasher(stream.NewHasher),
		goka.WithEmitterProducerBuilder(func([]string, string, func() hash.Hash32) (goka.Producer, error) {
			return client.LogWriter(ctx, "coinbit-api", string(stream.DepositStream), cluster.Partitions)
		}),
	)
	if err != nil {
		return fmt.Errorf("build emitter: %w", err)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	ends := client.Ends(string(stream.DepositStream))
	defer ends.Close()
	d.emitter.Store(&emitting{
		Emitter: emitter, end: end, known: make([]atomic.Int64, cluster.Partitions),
		asked: rounds[map[int32]int64]{do: ends.Ask, pause: askPause},
	})
	end(d.monitor.Run(ctx, client, d.log))
	d.emitter.Store(nil)

	finished := make(chan error, 1)
	go func() { finished <- emitter.Finish() }()
	select {
	case err := <-finished:
		if cause := context.Cause(ctx); kafka.Denied(cause) || errors.Is(cause, kafka.ErrMoved) {
			return fmt.Errorf("write to %s: %w", stream.DepositStream, cause)
		}
		return err
	case <-time.After(flushTimeout):
		return fmt.Errorf("deposits without an answer after %s: %w", flushTimeout, kafka.ErrUnreachable)
	}
}
