package flowtest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// raw reads and writes topics with a client that shares no code with the suite's.
type raw struct {
	s  *suite
	cl *kgo.Client
}

func newRaw(s *suite, broker string) *raw {
	s.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(broker, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // as the API writes
		kgo.MaxVersions(kversion.V3_8_0()))                // topics by name, not yet by id
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(cl.Close)
	return &raw{s, cl}
}

func (r *raw) produce(rec *kgo.Record) {
	r.s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := r.cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
		r.s.t.Fatal(err)
	}
}

// ends are the high watermarks of a topic.
func (r *raw) ends(topic string) map[int32]int64 {
	r.s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	meta := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = kmsg.StringPtr(topic)
	meta.Topics = append(meta.Topics, mt)
	m, err := meta.RequestWith(ctx, r.cl)
	if err != nil {
		r.s.t.Fatal(err)
	}
	list := kmsg.NewPtrListOffsetsRequest()
	lt := kmsg.NewListOffsetsRequestTopic()
	lt.Topic = topic
	for _, p := range m.Topics[0].Partitions {
		lp := kmsg.NewListOffsetsRequestTopicPartition()
		lp.Partition, lp.Timestamp = p.Partition, -1
		lt.Partitions = append(lt.Partitions, lp)
	}
	list.Topics = append(list.Topics, lt)
	ends := make(map[int32]int64)
	for _, shard := range r.cl.RequestSharded(ctx, list) {
		if shard.Err != nil {
			r.s.t.Fatal(shard.Err)
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				ends[p.Partition] = p.Offset
			}
		}
	}
	return ends
}

// read returns every record of a topic, up to its ends now.
func (r *raw) read(topic string) []*kgo.Record {
	r.s.t.Helper()
	ends := r.ends(topic)
	left, from := 0, make(map[int32]kgo.Offset)
	for p, end := range ends {
		from[p] = kgo.NewOffset().AtStart()
		if end > 0 {
			left++
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cl.OptValue(kgo.SeedBrokers).([]string)...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		r.s.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var records []*kgo.Record
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			r.s.t.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Offset >= ends[rec.Partition] {
				return
			}
			records = append(records, rec)
			if rec.Offset == ends[rec.Partition]-1 {
				left--
			}
		})
	}
	return records
}

// at is the record at a position of a topic.
func (r *raw) at(topic string, partition int32, offset int64) *kgo.Record {
	r.s.t.Helper()
	for _, rec := range r.read(topic) {
		if rec.Partition == partition && rec.Offset == offset {
			return rec
		}
	}
	r.s.t.Fatalf("no record at %s %d:%d", topic, partition, offset)
	return nil
}

// rewind commits offset 0 for a stopped group, as an operator might.
func (r *raw) rewind(group, topic string) {
	r.s.t.Helper()
	r.s.eventually("rewind "+group, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.Generation = group, -1
		ct := kmsg.NewOffsetCommitRequestTopic()
		ct.Topic = topic
		for p := range r.ends(topic) {
			cp := kmsg.NewOffsetCommitRequestTopicPartition()
			cp.Partition, cp.Offset = p, 0
			ct.Partitions = append(ct.Partitions, cp)
		}
		req.Topics = append(req.Topics, ct)
		res, err := req.RequestWith(ctx, r.cl)
		if err != nil {
			return err
		}
		for _, p := range res.Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return fmt.Errorf("commit refused: code %d", p.ErrorCode)
			}
		}
		return nil
	})
}
