package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

const (
	// stall is how long a scan goes on asking while no answer takes it further.
	stall = 30 * time.Second
	// scanBytes is how much one fetch of a scan asks for.
	scanBytes = 4 << 20
	// scanWait is how long one waits for something to be there, in milliseconds.
	scanWait = 100
)

// Scan hands the records of a partition below an offset to each, in order: those that
// a transaction has committed and those that are of none. It ends at that offset, at the
// first record whose transaction is open, or where no record is left.
func (c *Client) Scan(ctx context.Context, topic string, partition int32, below int64, each func(*sarama.ConsumerMessage) error) error {
	_, err := c.scan(ctx, topic, partition, sarama.OffsetOldest, below, each)
	return err
}

// errRecord ends a scan that looks whether there is a record.
var errRecord = errors.New("there is a record")

// bare is the offset up to which, from another one on and below a third, the log has no
// record for a consumer: only control records, and gaps that aborted transactions, purges
// and compaction leave. Where there is one, its error is errRecord.
func (c *Client) bare(ctx context.Context, topic string, partition int32, from, below int64) (int64, error) {
	return c.scan(ctx, topic, partition, from, below, func(*sarama.ConsumerMessage) error { return errRecord })
}

// scan is Scan from an offset on. It returns the position at which it ended.
func (c *Client) scan(ctx context.Context, topic string, partition int32, from, below int64, each func(*sarama.ConsumerMessage) error) (int64, error) {
	if below == 0 {
		return 0, nil
	}
	client, err := sarama.NewClient(c.settings.Brokers, c.readerConfig("coinbit-ops"))
	if err != nil {
		return 0, c.unreachable(err)
	}
	ctx, stop := context.WithCancel(ctx)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() { // which ends a fetch under way
		_ = client.Close()
		close(closed)
	})
	s := &scanner{client: client, topic: topic, partition: partition, position: from, below: below, size: scanBytes, pages: make(chan page, 1)}
	go s.run(ctx)
	var last page
	for last = range s.pages {
		for i := 0; last.err == nil && i < len(last.records); i++ {
			last.err = each(last.records[i])
		}
		if last.err != nil {
			break
		}
	}
	err = cmp.Or(last.err, ctx.Err())
	stop()
	for range s.pages { // until the scanner has ended
	}
	<-closed
	return last.end, err
}

// scanner reads the records of a partition, a page ahead of who takes them. It fetches by
// itself because it must know its position: sarama's consumer tells of records alone, and
// waits for ever for one where the last offsets have none.
type scanner struct {
	client    sarama.Client
	topic     string
	partition int32
	position  int64 // of the next fetch, or sarama.OffsetOldest
	below     int64
	size      int32 // of the next fetch, in bytes
	pages     chan page
}

// page is what came with one fetch, and the position after it.
type page struct {
	records []*sarama.ConsumerMessage
	end     int64
	err     error
}

// run sends pages until the last one, an error or the end of ctx.
func (s *scanner) run(ctx context.Context) {
	defer close(s.pages)
	for last := false; !last; {
		var p page
		p.records, last, p.err = s.page(ctx)
		p.end, last = s.position, last || p.err != nil
		if ctx.Err() != nil {
			return // what the closed connection said is no error
		}
		select {
		case s.pages <- p:
		case <-ctx.Done():
			return
		}
	}
}

// page fetches until there are records, or none is left.
func (s *scanner) page(ctx context.Context) (records []*sarama.ConsumerMessage, last bool, err error) {
	moved, at := time.Now(), s.position
	for {
		block, err := s.fetch()
		if err == nil {
			records = s.take(block)
			last = s.position >= block.LastStableOffset
		}
		if last = last || s.position >= s.below; last || len(records) > 0 {
			return records, last, nil
		}
		if s.position != at {
			moved, at = time.Now(), s.position
			if err == nil {
				continue
			}
		}
		switch {
		case errors.Is(err, sarama.ErrTopicAuthorizationFailed), errors.Is(err, sarama.ErrUnknownTopicOrPartition), errors.Is(err, sarama.ErrOffsetOutOfRange):
			return nil, false, fmt.Errorf("read %s/%d at %d: %w", s.topic, s.partition, s.position, err)
		case time.Since(moved) > stall:
			return nil, false, fmt.Errorf("read %s/%d at %d: nothing for %s: %w", s.topic, s.partition, s.position, stall, errors.Join(ErrUnreachable, err))
		}
		select {
		case <-time.After(retryBackoff):
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
		if err != nil {
			_ = s.client.RefreshMetadata(s.topic) // the leader may have moved; if Kafka is away, the next fetch says so
		}
	}
}

// fetch asks the leader for what is at the position. Where that was purged, it goes on
// at the first offset that is left.
func (s *scanner) fetch() (*sarama.FetchResponseBlock, error) {
	if s.position < 0 {
		if err := s.toOldest(); err != nil {
			return nil, err
		}
		if s.position >= s.below {
			return nil, errNothing
		}
	}
	leader, epoch, err := s.client.LeaderAndEpoch(s.topic, s.partition)
	if err != nil {
		return nil, err
	}
	request := &sarama.FetchRequest{Version: 12, MinBytes: 1, MaxWaitTime: scanWait, MaxBytes: sarama.MaxResponseSize,
		Isolation: s.client.Config().Consumer.IsolationLevel, SessionEpoch: -1} // no session
	request.AddBlock(s.topic, s.partition, s.position, s.size, epoch)
	response, err := leader.Fetch(request)
	if err != nil {
		return nil, err
	}
	block := response.GetBlock(s.topic, s.partition)
	switch {
	case block == nil: // Kafka slows this client down
		return nil, errNothing
	case errors.Is(block.Err, sarama.ErrOffsetOutOfRange):
		at := s.position
		if err := s.toOldest(); err != nil {
			return nil, err
		}
		if s.position > at {
			return nil, errNothing
		}
		return nil, fmt.Errorf("the log ends before it, it was truncated or made anew: %w", block.Err)
	case !errors.Is(block.Err, sarama.ErrNoError):
		return nil, block.Err
	}
	return block, nil
}

var errNothing = errors.New("there was nothing of this partition")

func (s *scanner) toOldest() (err error) {
	oldest, err := s.client.GetOffset(s.topic, s.partition, sarama.OffsetOldest)
	if err == nil {
		s.position = max(s.position, oldest)
	}
	return err
}

// take moves the position over what a fetch gave, and returns the records among it that a
// consumer is to see.
func (s *scanner) take(block *sarama.FetchResponseBlock) (records []*sarama.ConsumerMessage) {
	aborted := block.AbortedTransactions
	slices.SortFunc(aborted, func(a, b *sarama.AbortedTransaction) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
	void := make(map[int64]bool) // producers that abort the transaction they are in
	for _, set := range block.RecordsSet {
		batch := set.RecordBatch
		if block.Partial || batch != nil && batch.PartialTrailingRecord {
			s.size = 2 * min(s.size, math.MaxInt32/2) // none came as a whole
			return records
		}
		if batch == nil { // of a format that Kafka 4 has no longer, and no client writes since 0.11
			continue
		}
		for len(aborted) > 0 && aborted[0].FirstOffset <= batch.LastOffset() {
			void[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		switch {
		case batch.Control && aborts(batch):
			delete(void, batch.ProducerID)
		case batch.Control, batch.IsTransactional && void[batch.ProducerID]:
		default:
			records = s.appendRecords(records, batch)
		}
		s.position = max(s.position, batch.LastOffset()+1)
	}
	if len(block.RecordsSet) == 0 {
		s.position = max(s.position, afterEmpty(block))
	}
	return records
}

// aborts tells whether a control batch ends a transaction that is void.
func aborts(batch *sarama.RecordBatch) bool {
	// The key is a version and a type, of two bytes each; type 0 is abort.
	return len(batch.Records) > 0 && len(batch.Records[0].Key) >= 4 && batch.Records[0].Key[2] == 0 && batch.Records[0].Key[3] == 0
}

// afterEmpty is the offset after batches that compaction left without a record, 0 if none
// came. sarama drops them when it decodes and keeps this offset to itself.
func afterEmpty(block *sarama.FetchResponseBlock) int64 {
	next := reflect.ValueOf(block).Elem().FieldByName("recordsNextOffset")
	if !next.IsValid() || next.IsNil() {
		return 0
	}
	return next.Elem().Int()
}

func (s *scanner) appendRecords(records []*sarama.ConsumerMessage, batch *sarama.RecordBatch) []*sarama.ConsumerMessage {
	messages := make([]sarama.ConsumerMessage, len(batch.Records))
	records = slices.Grow(records, len(messages))
	for i, r := range batch.Records {
		m := &messages[i]
		m.Topic, m.Partition, m.Offset = s.topic, s.partition, batch.FirstOffset+r.OffsetDelta
		if m.Offset < s.position || m.Offset >= s.below {
			continue
		}
		m.Key, m.Value, m.Headers = r.Key, r.Value, r.Headers
		m.Timestamp = batch.FirstTimestamp.Add(r.TimestampDelta)
		if batch.LogAppendTime {
			m.Timestamp = batch.MaxTimestamp
		}
		records = append(records, m)
	}
	return records
}
