package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/IBM/sarama"

	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

// letter is a dead letter that is there: what it holds of a record, but for the reason,
// whose words are for people.
type letter struct {
	at position
	// of is the digest of key, value and the record's own headers; about is not nil for a
	// record that was described instead, of which key and value are the first bytes.
	of         [sha256.Size]byte
	about      *kafka.Description
	key, value []byte
}

// digest is of what a dead letter copies. No two records have the same.
func digest(key, value []byte, headers []*sarama.RecordHeader) [sha256.Size]byte {
	var all []byte
	add := func(b []byte) {
		n := int64(len(b))
		if b == nil {
			n = -1
		}
		all = append(binary.AppendVarint(all, n), b...)
	}
	add(key)
	add(value)
	for _, h := range headers {
		add(append([]byte{}, h.Key...)) // SetAside has a name of no bytes for none
		add(h.Value)
	}
	return sha256.Sum256(all)
}

func (r *run) readDeadLetters() error {
	for _, t := range []string{string(stream.DepositDeadLetter), string(stream.FlagWalletDeadLetter)} {
		var err error
		if r.starts[t], err = r.LowWaters(r.ctx, t); err != nil {
			return err
		}
		for p := range r.ends[t] {
			if err := r.scan(t, p, r.readLetter); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) readLetter(m *sarama.ConsumerMessage) error {
	r.report.DeadLetters++
	notes, own, _ := kafka.ReadNotes(m)
	partition, err := strconv.ParseInt(notes.Partition, 10, 32)
	offset, err2 := strconv.ParseInt(notes.Offset, 10, 64)
	if err != nil || err2 != nil {
		r.found(Difference{Where: m.Topic, Wallet: string(m.Key), On: m.Topic, Partition: m.Partition, Offset: m.Offset,
			Field: "source position", Got: strconv.Quote(notes.Partition + ":" + notes.Offset), Want: "a position"})
		return nil
	}
	x := letter{at: position{m.Topic, m.Partition, m.Offset}, about: notes.About}
	if x.about == nil {
		x.of = digest(m.Key, m.Value, m.Headers[:own])
	} else {
		x.key, x.value = m.Key, m.Value
	}
	of := position{notes.Topic, int32(partition), offset}
	r.dead[of] = append(r.dead[of], x)
	return nil
}

// aside expects a dead letter for a record, if its group has committed it. There may be
// several, each as good as the other.
func (r *run) aside(g stream.Group, m *sarama.ConsumerMessage, reason error) {
	of := position{m.Topic, m.Partition, m.Offset}
	letters := r.dead[of]
	delete(r.dead, of)
	for _, x := range letters {
		if !x.holds(m) {
			r.found(Difference{Where: x.at.topic, Wallet: string(m.Key), On: x.at.topic, Partition: x.at.partition, Offset: x.at.offset,
				Field: "key, value or headers", Got: "changed", Want: fmt.Sprintf("as they are in %s %d:%d", m.Topic, m.Partition, m.Offset)})
		}
	}
	switch {
	case len(letters) > 0 || m.Offset >= r.committed[g][m.Partition]:
	case r.purged(deadLetters(g), m.Key):
		r.report.PurgedLetters++
	default:
		r.found(Difference{Where: m.Topic, Wallet: string(m.Key), On: m.Topic, Partition: m.Partition, Offset: m.Offset,
			Field: "record", Got: "not set aside", Want: "a dead letter: " + reason.Error()})
	}
}

func (x *letter) holds(m *sarama.ConsumerMessage) bool {
	if x.about == nil {
		return x.of == digest(m.Key, m.Value, m.Headers)
	}
	return x.about.Matches(m) && bytes.HasPrefix(m.Key, x.key) && bytes.HasPrefix(m.Value, x.value)
}

func deadLetters(g stream.Group) string {
	if g == stream.FlaggerGroup {
		return string(stream.FlagWalletDeadLetter)
	}
	return string(stream.DepositDeadLetter)
}

// purged tells whether letters were purged from the partition that one of a key is in; one
// without a key may be in any.
func (r *run) purged(topic string, key []byte) bool {
	starts := r.starts[topic]
	if key != nil {
		return starts[stream.Partition(string(key), int32(len(starts)))] > 0 //nolint:gosec // partitions are few
	}
	for _, start := range starts {
		if start > 0 {
			return true
		}
	}
	return false
}
