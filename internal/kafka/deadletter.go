package kafka

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"coinbit/internal/stream"
)

// Headers that end a dead letter, after the record's own, in this order.
const (
	HeaderReason    = "dead-letter-reason"
	HeaderTopic     = "dead-letter-topic"
	HeaderPartition = "dead-letter-partition"
	HeaderOffset    = "dead-letter-offset"
)

// Headers that a dead letter ends with, after those above, when the record could not be
// copied: then its key and value are only their first bytes, and it has none of the
// record's own headers. The sizes are of all bytes, -1 for none; the hashes are SHA-256
// in hex.
const (
	HeaderKeySize     = "dead-letter-key-size"
	HeaderKeyHash     = "dead-letter-key-sha256"
	HeaderValueSize   = "dead-letter-value-size"
	HeaderValueHash   = "dead-letter-value-sha256"
	HeaderHeadersSize = "dead-letter-headers-size"
)

const (
	// maxReason bounds what a reason says, in bytes.
	maxReason = 1 << 10
	// maxShown is how many first bytes of a key or value a description has.
	maxShown = 256
)

// SetAside sends a delivered record to this producer's topic: key, value bytes and headers
// as they came, plus reason and source position. What is too large for that, or what the
// broker does not take, is described instead. The promise resolves when it is stored.
func (p *Producer) SetAside(m *sarama.ConsumerMessage, reason string) *goka.Promise {
	notes := headers(
		HeaderReason, strings.ToValidUTF8(reason[:min(len(reason), maxReason)], ""),
		HeaderTopic, m.Topic,
		HeaderPartition, strconv.Itoa(int(m.Partition)),
		HeaderOffset, strconv.FormatInt(m.Offset, 10),
	)
	at := letterTime(m.Timestamp, time.Now())
	described := func() record { return description(m, notes, at) }
	letter := letterOf(m.Key, m.Value, ownHeaders(m), notes, at)
	letter.raw.instead = described
	if letter.size() >= stream.MaxDeadLetter-1<<10 { // the rest is for what a batch has besides
		letter = described()
	}
	return p.emit(p.topic, letter, p.partitions)
}

// letterTime is a record's time if a broker takes it, none if it says none, and now for
// one that is yet to come.
func letterTime(at, now time.Time) time.Time {
	switch {
	case at.UnixMilli() < 0:
		return time.Time{}
	case at.After(now.Add(time.Hour)):
		return now
	}
	return at
}

func letterOf(key, value []byte, own, notes []*sarama.RecordHeader, at time.Time) record {
	x := &raw{noKey: key == nil, at: at, headers: append(own, notes...)}
	x.size = headersSize(x.headers)
	return record{key: string(key), value: value, raw: x}
}

func headersSize(headers []*sarama.RecordHeader) (n int) {
	for _, h := range headers {
		n += len(h.Key) + len(h.Value) + 10
	}
	return n
}

// ownHeaders are a record's own headers, in which each has a name.
func ownHeaders(m *sarama.ConsumerMessage) []*sarama.RecordHeader {
	out := make([]*sarama.RecordHeader, 0, len(m.Headers)+4)
	for _, h := range m.Headers {
		if h == nil {
			continue
		}
		if h.Key == nil {
			h = &sarama.RecordHeader{Key: []byte{}, Value: h.Value}
		}
		out = append(out, h)
	}
	return out
}

// description is a dead letter that says what the record was, whatever that is.
func description(m *sarama.ConsumerMessage, notes []*sarama.RecordHeader, at time.Time) record {
	about := headers(
		HeaderKeySize, sizeOf(m.Key), HeaderKeyHash, hashOf(m.Key),
		HeaderValueSize, sizeOf(m.Value), HeaderValueHash, hashOf(m.Value),
		HeaderHeadersSize, strconv.Itoa(headersSize(ownHeaders(m))),
	)
	return letterOf(shown(m.Key), shown(m.Value), nil, append(notes[:len(notes):len(notes)], about...), at)
}

func headers(pairs ...string) []*sarama.RecordHeader {
	out := make([]*sarama.RecordHeader, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, &sarama.RecordHeader{Key: []byte(pairs[i]), Value: []byte(pairs[i+1])})
	}
	return out
}

func shown(b []byte) []byte { return b[:min(len(b), maxShown)] }

func sizeOf(b []byte) string {
	if b == nil {
		return "-1"
	}
	return strconv.Itoa(len(b))
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// put gives a record of a batch what a dead letter has. first is the batch's time, zero
// for one without.
func (x *raw) put(r *sarama.Record, first time.Time) {
	if x.noKey {
		r.Key = nil
	}
	r.Headers = x.headers
	switch {
	case first.IsZero(): // the broker takes no times at the moment
	case x.at.IsZero():
		r.TimestampDelta = time.UnixMilli(-1).Sub(first)
	default:
		r.TimestampDelta = x.at.Sub(first).Truncate(time.Millisecond)
	}
}

// Notes are what SetAside noted in a dead letter.
type Notes struct {
	Reason, Topic, Partition, Offset string
	// About is nil for a record that was copied.
	About *Description
}

// Description is what is known of a record that was too large to copy.
type Description struct {
	KeySize, KeyHash, ValueSize, ValueHash, HeadersSize string
}

// Matches tells whether a record is the one described.
func (d *Description) Matches(m *sarama.ConsumerMessage) bool {
	return *d == Description{sizeOf(m.Key), hashOf(m.Key), sizeOf(m.Value), hashOf(m.Value), strconv.Itoa(headersSize(ownHeaders(m)))}
}

// ReadNotes reads the notes that end a dead letter, and how many headers before them are
// the record's own. A client may have sent some of the same names; those stand before.
// It is false for a letter that somebody else wrote.
func ReadNotes(m *sarama.ConsumerMessage) (n Notes, own int, ok bool) {
	var d Description
	about := []note{{HeaderKeySize, &d.KeySize}, {HeaderKeyHash, &d.KeyHash}, {HeaderValueSize, &d.ValueSize},
		{HeaderValueHash, &d.ValueHash}, {HeaderHeadersSize, &d.HeadersSize}}
	notes := []note{{HeaderReason, &n.Reason}, {HeaderTopic, &n.Topic}, {HeaderPartition, &n.Partition}, {HeaderOffset, &n.Offset}}
	own = len(m.Headers)
	if ends(m.Headers, about) {
		own -= len(about)
		n.About = &d
	}
	if !ends(m.Headers[:own], notes) {
		return Notes{}, len(m.Headers), false
	}
	return n, own - len(notes), true
}

type note struct {
	name string
	to   *string
}

// ends reads notes from the last headers, if these are their names.
func ends(headers []*sarama.RecordHeader, notes []note) bool {
	last := headers[max(0, len(headers)-len(notes)):]
	if len(last) < len(notes) {
		return false
	}
	for i, x := range notes {
		if string(last[i].Key) != x.name {
			return false
		}
	}
	for i, x := range notes {
		*x.to = string(last[i].Value)
	}
	return true
}
