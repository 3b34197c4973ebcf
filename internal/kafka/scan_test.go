package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

var topicsMade atomic.Int64

// foreign writes to a topic of its own, of one partition, with a client that is not ours.
type foreign struct {
	t     testing.TB
	c     *Client
	topic string
	cl    *kgo.Client
	adm   *kadm.Client
}

func newForeign(t testing.TB) *foreign {
	t.Helper()
	f := &foreign{t: t, topic: fmt.Sprintf("foreign.%d.%d", time.Now().UnixNano(), topicsMade.Add(1))}
	f.c = newClient(t, tableBroker(t))
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.c.Brokers()...), kgo.DefaultProduceTopic(f.topic),
		kgo.MaxVersions(kversion.V3_8_0()), kgo.TransactionalID(f.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	must(t, err)
	t.Cleanup(cl.Close)
	f.cl, f.adm = cl, kadm.NewClient(cl)
	_, err = f.adm.CreateTopic(within(t), 1, 1, nil, f.topic)
	must(t, err)
	return f
}

// transaction appends values, and then a record that ends it; none while it is open.
func (f *foreign) transaction(values string, end ...kgo.TransactionEndTry) {
	f.t.Helper()
	must(f.t, f.cl.BeginTransaction())
	for _, v := range values {
		must(f.t, f.cl.ProduceSync(within(f.t), kgo.StringRecord(string(v))).FirstErr())
	}
	for _, e := range end {
		must(f.t, f.cl.EndTransaction(within(f.t), e))
		f.ended()
	}
}

// ended waits until the transaction's own record is there: Kafka answers before it is.
func (f *foreign) ended() {
	f.t.Helper()
	for ctx := within(f.t); ; {
		all, err := f.adm.ListEndOffsets(ctx, f.topic)
		must(f.t, err)
		committed, err := f.adm.ListCommittedOffsets(ctx, f.topic)
		must(f.t, err)
		end, _ := all.Lookup(f.topic, 0)
		stable, _ := committed.Lookup(f.topic, 0)
		if stable.Offset == end.Offset {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			f.t.Fatal("the transaction does not end")
		}
	}
}

// plain appends values with no transaction.
func (f *foreign) plain(values string) {
	f.t.Helper()
	for _, v := range values {
		_, err := f.c.Send(within(f.t), f.topic, "", []byte(string(v)))
		must(f.t, err)
	}
}

// purge deletes the records below an offset, or all.
func (f *foreign) purge(below int64) {
	f.t.Helper()
	of := make(kadm.Offsets)
	of.AddOffset(f.topic, 0, below, -1)
	_, err := f.adm.DeleteRecords(within(f.t), of)
	must(f.t, err)
}

const (
	commit = kgo.TryCommit
	abort  = kgo.TryAbort
)

// A scan ends where nothing is left, whatever the last offsets are: at once, not when
// it has waited in vain.
func TestScanEndsWhereNothingIsLeft(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(f *foreign)
		want  string
		upto  int64
	}{
		{"plain records", func(f *foreign) { f.plain("abc") }, "abc", 3},
		{"a committed transaction at the end", func(f *foreign) { f.plain("a"); f.transaction("bc", commit) }, "abc", 4},
		{"an aborted transaction at the end", func(f *foreign) { f.plain("a"); f.transaction("bc", abort) }, "a", 4},
		{"nothing but aborted", func(f *foreign) { f.transaction("bc", abort) }, "", 3},
		{"aborted and committed in turn", func(f *foreign) {
			f.transaction("a", commit)
			f.transaction("bb", abort)
			f.plain("c")
			f.transaction("d", commit)
			f.transaction("e", abort)
			f.plain("f")
		}, "acdf", 11},
		{"an open transaction at the end", func(f *foreign) { f.plain("ab"); f.transaction("cd") }, "ab", 2},
		{"an open transaction that others follow", func(f *foreign) { f.plain("ab"); f.transaction("cd"); f.plain("e") }, "ab", 2},
		{"all purged", func(f *foreign) { f.plain("abc"); f.purge(-1) }, "", 3},
		{"all purged but a control record", func(f *foreign) { f.transaction("ab", commit); f.purge(2) }, "", 3},
		{"some purged", func(f *foreign) { f.plain("abcd"); f.purge(2) }, "cd", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newForeign(t)
			c.write(f)
			end, err := f.c.HighWater(within(t), f.topic, 0)
			must(t, err)
			ctx, cancel := context.WithTimeout(context.Background(), stall/2)
			defer cancel()
			var got strings.Builder
			upto, err := f.c.scan(ctx, f.topic, 0, sarama.OffsetOldest, end, func(m *sarama.ConsumerMessage) error {
				got.Write(m.Value)
				return nil
			})
			must(t, err)
			if got.String() != c.want || upto != c.upto {
				t.Errorf("read %q up to %d, want %q up to %d", got.String(), upto, c.want, c.upto)
			}
			// From each offset on the log is bare to its end, or a record follows.
			var offsets []int64
			must(t, f.c.Scan(ctx, f.topic, 0, end, func(m *sarama.ConsumerMessage) error {
				offsets = append(offsets, m.Offset)
				return nil
			}))
			for from := range end {
				got, err := f.c.bare(ctx, f.topic, 0, from, end)
				record := slices.ContainsFunc(offsets, func(o int64) bool { return o >= from })
				if record != errors.Is(err, errRecord) || !record && (err != nil || got != max(from, upto)) {
					t.Errorf("bare from %d up to %d, %v; a record follows: %t", from, got, err, record)
				}
			}
		})
	}
}

// A scan that nobody needs any more ends at once, and so does one whose taker fails.
func TestScanIsToldToEnd(t *testing.T) {
	f := newForeign(t)
	f.plain("abc")
	ctx, cancel := context.WithCancel(within(t))
	n := 0
	err := f.c.Scan(ctx, f.topic, 0, math.MaxInt64, func(*sarama.ConsumerMessage) error { n++; cancel(); return nil })
	if n != 3 || err == nil {
		t.Errorf("%d records, %v", n, err)
	}
	if err := f.c.Scan(within(t), f.topic, 0, 3, func(*sarama.ConsumerMessage) error { return errSession }); err != errSession { //nolint:errorlint // as it is
		t.Error(err)
	}
	if err := f.c.Scan(within(t), f.topic, 1, 3, nil); err == nil {
		t.Error("no error for a partition that is not there")
	}
	if _, err := f.c.scan(within(t), f.topic, 0, 9, 12, nil); err == nil || !strings.Contains(err.Error(), "the log ends before it") {
		t.Error(err)
	}
}

// Batches of which compaction left no record are passed. Kafka keeps them for their
// producers' sequences; sarama drops them when it decodes, with the offsets they had.
func TestScanPassesEmptyBatches(t *testing.T) {
	broker := sarama.NewMockBroker(t, 1)
	defer broker.Close()
	answer := func(batches ...*sarama.RecordBatch) sarama.MockResponse {
		block := &sarama.FetchResponseBlock{HighWaterMarkOffset: 30_000, LastStableOffset: 30_000, PreferredReadReplica: -1}
		for _, b := range batches {
			b.Version, b.ProducerID = 2, -1
			b.FirstTimestamp, b.MaxTimestamp = time.UnixMilli(1), time.UnixMilli(1)
			block.RecordsSet = append(block.RecordsSet, &sarama.Records{RecordBatch: b})
		}
		return sarama.NewMockWrapper(&sarama.FetchResponse{Version: 12, Blocks: map[string]map[int32]*sarama.FetchResponseBlock{"deposit": {0: block}}})
	}
	record := []*sarama.Record{{Value: []byte("a")}}
	broker.SetHandlerByMap(map[string]sarama.MockResponse{
		"ApiVersionsRequest": sarama.NewMockApiVersionsResponse(t).SetApiKeys([]sarama.ApiVersionsResponseKey{{ApiKey: 1, MaxVersion: 12}, {ApiKey: 2, MaxVersion: 4}, {ApiKey: 3, MaxVersion: 9}}),
		"MetadataRequest":    sarama.NewMockMetadataResponse(t).SetBroker(broker.Addr(), 1).SetLeader("deposit", 0, 1),
		"OffsetRequest":      sarama.NewMockOffsetResponse(t).SetOffset("deposit", 0, sarama.OffsetOldest, 0),
		"FetchRequest": sarama.NewMockSequence(
			answer(&sarama.RecordBatch{LastOffsetDelta: 9_999}),
			answer(&sarama.RecordBatch{FirstOffset: 10_000, LastOffsetDelta: 9_999, Records: record}), // of which one is left
			answer(&sarama.RecordBatch{FirstOffset: 20_000, LastOffsetDelta: 4_999}, &sarama.RecordBatch{FirstOffset: 25_000, LastOffsetDelta: 4_999})),
	})
	var offsets []int64
	upto, err := newClient(t, broker.Addr()).scan(within(t), "deposit", 0, sarama.OffsetOldest, 30_000, func(m *sarama.ConsumerMessage) error {
		offsets = append(offsets, m.Offset)
		return nil
	})
	must(t, err)
	if upto != 30_000 || !slices.Equal(offsets, []int64{10_000}) {
		t.Errorf("read %d up to %d", offsets, upto)
	}
}
