package lab

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// Kinds of Work.
const (
	// Produce appends a Load to a topic: a raw producer of our deposits.
	Produce = "produce"
	// Fold consumes a topic, keeps a sum for each key in a map and appends it to
	// another topic for each record.
	Fold = "fold"
	// Consume reads a topic to its end.
	Consume = "consume"
)

// Work is what a ceiling's process has to do: the least that any solution must,
// with sarama alone.
type Work struct {
	Do       string
	Brokers  []string
	From, To string // topics
	// Only this partition of From is read; nil: all are.
	Only *int32 `json:",omitempty"`
	Load Load
}

// Result is what the process measured itself, from its first record to its last.
type Result struct {
	Records int
	Seconds float64
}

// PerSecond is records/s.
func (r Result) PerSecond() float64 { return float64(r.Records) / r.Seconds }

// Main is the process of a ceiling: it does the work that arg holds and prints
// its Result.
func Main(ctx context.Context, arg string, out io.Writer) error {
	var w Work
	if err := json.Unmarshal([]byte(arg), &w); err != nil {
		return err
	}
	var r Result
	var err error
	switch w.Do {
	case Produce:
		r, err = w.produce()
	case Fold:
		r, err = w.fold(ctx)
	case Consume:
		r, err = w.consume(ctx)
	default:
		err = fmt.Errorf("no work %q", w.Do)
	}
	if err != nil {
		return err
	}
	err = json.NewEncoder(out).Encode(r)
	if w.Do == Fold {
		<-ctx.Done() // who watches it from outside reads its CPU time first
	}
	return err
}

// config acknowledges by all replicas, in order, without doubles, and batches
// while a request is in flight.
func config() *sarama.Config {
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.ClientID = "ceiling"
	cfg.ChannelBufferSize = 4096
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Idempotent = true
	cfg.Net.MaxOpenRequests = 1
	cfg.Producer.Return.Successes = true
	cfg.Producer.Partitioner = sarama.NewManualPartitioner
	cfg.Consumer.Return.Errors = true
	return cfg
}

// sender is an asynchronous producer that counts its answers.
type sender struct {
	sarama.AsyncProducer
	failed atomic.Pointer[error]
	wg     sync.WaitGroup
}

func (w Work) sender() (*sender, error) {
	p, err := sarama.NewAsyncProducer(w.Brokers, config())
	if err != nil {
		return nil, err
	}
	s := &sender{AsyncProducer: p}
	s.wg.Go(func() {
		for range p.Successes() { //nolint:revive // read, so that it goes on
		}
	})
	s.wg.Go(func() {
		for e := range p.Errors() {
			s.failed.CompareAndSwap(nil, &e.Err)
		}
	})
	return s, nil
}

// flush waits for all answers.
func (s *sender) flush() error {
	s.AsyncClose()
	s.wg.Wait()
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (w Work) produce() (Result, error) {
	s, err := w.sender()
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	err = w.Load.Each(func(key string, value []byte) error {
		s.Input() <- &sarama.ProducerMessage{
			Topic: w.To, Partition: stream.Partition(key, Partitions),
			Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(slices.Clone(value)),
		}
		return nil
	})
	err = errors.Join(err, s.flush())
	return Result{w.Load.Records, time.Since(began).Seconds()}, err
}

// read takes the records of From that are there when it starts, all partitions
// at the same time, and times that from the first record on. begin makes what a
// partition's records are given to.
func (w Work) read(ctx context.Context, begin func(partition int32) func(*sarama.ConsumerMessage) error) (Result, error) {
	client, err := sarama.NewClient(w.Brokers, config())
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = client.Close() }()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return Result{}, err
	}
	ids, err := client.Partitions(w.From)
	if err != nil {
		return Result{}, err
	}
	if w.Only != nil {
		ids = []int32{*w.Only}
	}
	var wg sync.WaitGroup
	errs := make([]error, len(ids))
	var total, first atomic.Int64
	start := time.Now()
	for i, id := range ids {
		end, err := client.GetOffset(w.From, id, sarama.OffsetNewest)
		if err != nil {
			return Result{}, err
		}
		if end == 0 {
			continue
		}
		records, err := consumer.ConsumePartition(w.From, id, sarama.OffsetOldest)
		if err != nil {
			return Result{}, err
		}
		wg.Go(func() {
			n, err := each(ctx, records, end, begin(id), func() { first.CompareAndSwap(0, int64(time.Since(start))) })
			total.Add(int64(n))
			errs[i] = err
		})
	}
	wg.Wait()
	took := time.Since(start) - time.Duration(first.Load())
	return Result{int(total.Load()), took.Seconds()}, errors.Join(errs...)
}

// each takes the records below end; compaction may have removed some.
func each(ctx context.Context, records sarama.PartitionConsumer, end int64, do func(*sarama.ConsumerMessage) error, began func()) (int, error) {
	defer records.AsyncClose()
	for n := 1; ; n++ {
		select {
		case m, ok := <-records.Messages():
			if !ok {
				return n - 1, errors.New("the consumer ended")
			}
			if n == 1 {
				began()
			}
			if err := do(m); err != nil {
				return n, err
			}
			if m.Offset >= end-1 {
				return n, nil
			}
		case err := <-records.Errors():
			return n - 1, err
		case <-ctx.Done():
			return n - 1, ctx.Err()
		}
	}
}

func (w Work) consume(ctx context.Context) (Result, error) {
	return w.read(ctx, func(int32) func(*sarama.ConsumerMessage) error {
		return func(*sarama.ConsumerMessage) error { return nil }
	})
}

func (w Work) fold(ctx context.Context) (Result, error) {
	s, err := w.sender()
	if err != nil {
		return Result{}, err
	}
	r, err := w.read(ctx, func(partition int32) func(*sarama.ConsumerMessage) error {
		sums := make(map[string]int64)
		return func(m *sarama.ConsumerMessage) error {
			amount, err := amountOf(m.Value, w.Load.Crossings)
			if err != nil {
				return err
			}
			sum := sums[string(m.Key)] + amount
			sums[string(m.Key)] = sum
			s.Input() <- &sarama.ProducerMessage{
				Topic: w.To, Partition: partition, Key: sarama.ByteEncoder(m.Key),
				Value: sarama.ByteEncoder(binary.BigEndian.AppendUint64(nil, uint64(sum))),
			}
			return nil
		}
	})
	return r, errors.Join(err, s.flush())
}

// amountOf is a record's amount in billionths; the sums here are small.
func amountOf(value []byte, crossing bool) (int64, error) {
	if crossing {
		var e pb.FlagEvent
		err := proto.Unmarshal(value, &e)
		return e.GetCrossing().GetEvidence().GetOffset(), err
	}
	var d pb.Deposit
	err := proto.Unmarshal(value, &d)
	return d.Units*1_000_000_000 + int64(d.Nanos), err
}
