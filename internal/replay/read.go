// Package replay answers questions from the logs: it reads them from the start,
// folds them with the pure core and reports what it found. It writes nothing to
// Kafka, which it knows only as a Source, and it prints nothing.
package replay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// Source is what is read.
type Source interface {
	Scanner
	// HighWaters is the high watermark of each partition of a topic.
	HighWaters(ctx context.Context, topic string) (map[int32]int64, error)
}

// Scanner reads a partition.
type Scanner interface {
	// Scan hands the records of a partition below an offset to each, in order.
	Scan(ctx context.Context, topic string, partition int32, below int64, each func(*sarama.ConsumerMessage) error) error
}

// Progress is told how many of all records are read, by one goroutine at a time;
// nil: nobody is.
type Progress func(read, of int64)

// Each is given the records of one partition, in order.
type Each func(*sarama.ConsumerMessage) error

const (
	depositLog = string(stream.DepositStream)
	flagLog    = string(stream.FlagWalletStream)
)

// readAll reads every partition of topic up to its end now, a few at a time. fold
// is called once for each partition, in goroutines of their own, and calls records.
func readAll(ctx context.Context, s Source, topic string, p Progress, fold func(partition int32, records func(Each) error) error) error {
	ends, err := s.HighWaters(ctx, topic)
	if err != nil {
		return err
	}
	all := int64(0)
	for _, end := range ends {
		all += end
	}
	c := &counter{of: all, show: p}
	g, ctx := errgroup.WithContext(ctx)
	// One more than there are cores, as each waits for the broker at times. What a
	// reader has fetched and not handed over takes some megabytes.
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	for partition, end := range ends {
		g.Go(func() error {
			return fold(partition, func(each Each) error { return c.scan(ctx, s, topic, partition, end, each) })
		})
	}
	return g.Wait()
}

// counter counts what all readers read.
type counter struct {
	of   int64
	show Progress
	read atomic.Int64
	mu   sync.Mutex
}

// step is how many records pass between two looks at the progress.
const step = 4096

func (c *counter) scan(ctx context.Context, s Scanner, topic string, partition int32, below int64, each Each) error {
	var n int64
	err := s.Scan(ctx, topic, partition, below, func(m *sarama.ConsumerMessage) error {
		if n++; n%step == 0 {
			c.add(step)
		}
		return each(m)
	})
	c.add(n % step)
	return err
}

func (c *counter) add(n int64) {
	c.read.Add(n)
	if c.show == nil || !c.mu.TryLock() { // another shows it just now
		return
	}
	defer c.mu.Unlock()
	c.show(c.read.Load(), c.of)
}

// Deposit is what a record of the deposit log says, or why balance and threshold do
// not fold it.
func Deposit(m *sarama.ConsumerMessage, partitions int32) (wallet.Deposit, error) {
	return stream.ReadDeposit(recordOf(m, string(m.Key), partitions), m.Value)
}

// Refused is not nil where a record's reason says that the whole log cannot be folded.
func Refused(m *sarama.ConsumerMessage, reason error) error {
	if errors.Is(reason, stream.ErrEarlierBuild) {
		return fmt.Errorf("%s %s: %w", m.Topic, Position{m.Partition, m.Offset}, reason)
	}
	return nil
}

// FlagEvent is Deposit for flag_wallet and the flagger.
func FlagEvent(m *sarama.ConsumerMessage, partitions int32) (wallet.FlagEvent, error) {
	return stream.ReadFlagEvent(recordOf(m, string(m.Key), partitions), m.Value)
}

// recordOf is for those too who have the key as a string already.
func recordOf(m *sarama.ConsumerMessage, key string, partitions int32) stream.Record {
	return stream.Record{Key: key, Partition: m.Partition, Offset: m.Offset, Partitions: partitions}
}

// Position is a record's place in a topic.
type Position struct {
	Partition int32
	Offset    int64
}

// String is the position as X-Deposit-Position has it.
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Partition, p.Offset) }

func parsePosition(s string) (p Position, err error) {
	_, err = fmt.Sscanf(s, "%d:%d", &p.Partition, &p.Offset)
	return p, err
}

// MarshalText is String, for JSON.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
