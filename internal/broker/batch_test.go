package broker

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// batchOf wraps records, n of them, and adds up.
func batchOf(n int32, attributes int16, records []byte) []byte {
	b := kmsg.RecordBatch{Length: int32(49 + len(records)), PartitionLeaderEpoch: -1, Magic: 2, Attributes: attributes,
		LastOffsetDelta: n - 1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: n, Records: records}
	return summed(b.AppendTo(nil))
}

// summed has its check sum right.
func summed(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// recordsOf are n records of one key.
func recordsOf(n int) (records []byte) {
	for i := range int32(n) {
		r := kmsg.Record{OffsetDelta: i, Key: []byte("k"), Value: []byte("value")}
		body := r.AppendTo(nil)[1:] // without a length, which is 0 yet
		records = append(binary.AppendVarint(records, int64(len(body))), body...)
	}
	return records
}

func written(t testing.TB, w interface {
	Write([]byte) (int, error)
	Close() error
}, data []byte) {
	t.Helper()
	_, err := w.Write(data)
	must(t, err)
	must(t, w.Close())
}

// packed is data in each compression, by the number that Kafka gives it.
func packed(t testing.TB, data []byte) map[kgo.CompressionCodecType][][]byte {
	t.Helper()
	var gz, lz, zs bytes.Buffer
	written(t, gzip.NewWriter(&gz), data)
	written(t, lz4.NewWriter(&lz), data)
	z, err := zstd.NewWriter(&zs)
	must(t, err)
	written(t, z, data)
	block := s2.EncodeSnappy(nil, data)
	java := append([]byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"), binary.BigEndian.AppendUint32(nil, uint32(len(block)))...)
	return map[kgo.CompressionCodecType][][]byte{0: {data}, 1: {gz.Bytes()}, 2: {block, append(java, block...)}, 3: {lz.Bytes()}, 4: {zs.Bytes()}}
}

func TestBatches(t *testing.T) {
	for codec, all := range packed(t, recordsOf(3)) {
		for _, records := range all {
			if err := checkBatch(batchOf(3, int16(codec), records)); err != nil {
				t.Errorf("compression %d: %v", codec, err)
			}
			if codec != 0 {
				if err := checkBatch(batchOf(3, int16(codec), records[:len(records)-5])); err == nil {
					t.Errorf("compression %d: half of it is taken", codec)
				}
			}
		}
	}
	good := recordsOf(3)
	long := bytes.Clone(good)
	long[0] = 0x7e // the first record is longer than its batch
	for name, bad := range map[string][]byte{
		"nothing":            nil,
		"short":              batchOf(3, 0, good)[:60],
		"long":               append(batchOf(3, 0, good), 0),
		"old format":         append(append(bytes.Clone(batchOf(3, 0, good)[:16]), 1), batchOf(3, 0, good)[17:]...),
		"no records":         batchOf(0, 0, nil),
		"negative number":    batchOf(-5, 0, good),
		"too few":            batchOf(4, 0, good),
		"too many":           batchOf(2, 0, good),
		"a length that lies": batchOf(3, 0, long),
		"a negative length":  batchOf(1, 0, binary.AppendVarint(nil, -9)),
		"an unknown packing": batchOf(3, 5, good),
		"not packed":         batchOf(3, 1, good),
	} {
		if err := checkBatch(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// What unpacks to more than the bound is refused before it does.
func TestBombs(t *testing.T) {
	for codec, all := range packed(t, make([]byte, maxUnpacked+1)) {
		if codec == 0 {
			continue
		}
		for _, records := range all {
			if _, err := unpack(records, codec); err == nil {
				t.Errorf("compression %d: taken", codec)
			}
		}
	}
	claim := binary.AppendUvarint(nil, 1<<31-1) // of snappy
	if _, err := unpack(append(claim, 0, 'a'), 2); err == nil {
		t.Error("a claim of 2 GiB is taken")
	}
}

// A batch whose records lie about their length ended the process, as soon as somebody
// looked for a time.
func TestLyingBatch(t *testing.T) {
	b := start(t, t.TempDir(), "127.0.0.1:0")
	defer b.Close()
	create(t, b, "t")
	records := recordsOf(2)
	records[0] = 0x7e
	bad, c := dial(t, b), dial(t, b)
	_, err := bad.Write(frameOf(produce("t", batchOf(2, 0, records)), 7))
	must(t, err)
	isCutOff(t, bad)
	ask(t, c, produce("t", batchOf(2, 0, recordsOf(2))), 7)
	offsets := kmsg.NewPtrListOffsetsRequest()
	offsets.ReplicaID = -1
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp = 0
	offsets.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "t", Partitions: []kmsg.ListOffsetsRequestTopicPartition{p}}}
	ask(t, c, offsets, 4)
	answers(t, b)
}

func produce(topic string, batch []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 1000
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch}}}}
	return req
}

func TestTooManyPartitions(t *testing.T) {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions = "t", 6000
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = []kmsg.CreateTopicsRequestTopic{topic}
	if err := check(frameOf(create, 4)[4:]); err != nil {
		t.Error(err)
	}
	create.Topics = append(create.Topics, topic)
	if err := check(frameOf(create, 4)[4:]); err == nil {
		t.Error("12,000 partitions are taken")
	}
	more := kmsg.NewPtrCreatePartitionsRequest()
	more.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "t", Count: 1 << 30}}
	if err := check(frameOf(more, 1)[4:]); err == nil {
		t.Error("2³⁰ partitions are taken")
	}
}
