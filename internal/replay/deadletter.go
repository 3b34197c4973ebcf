package replay

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

// Letter is a record that was set aside. Key, Value and header values are bytes as they
// came: nobody has checked them.
type Letter struct {
	// Topic and Position are where it lies now.
	Topic    string
	Position Position
	// Time is the source record's.
	Time time.Time
	// Reason and source are what the processor that set it aside noted.
	Reason         string
	SourceTopic    string
	SourcePosition string
	Key, Value     []byte
	// Headers are the record's own.
	Headers []Header
	// Fields are what could be decoded of Value, and Undecoded how many bytes at its
	// end could not.
	Fields    []Field
	Undecoded int
}

// Header is a record's header.
type Header struct{ Key, Value []byte }

// DeadLetters hands over what was set aside, topic by topic, partition by partition,
// in the order in which it was, up to the end now. One letter is held at a time.
func DeadLetters(ctx context.Context, s Source, each func(Letter) error) error {
	for _, topic := range []string{string(stream.DepositDeadLetter), string(stream.FlagWalletDeadLetter)} {
		ends, err := s.HighWaters(ctx, topic)
		if err != nil {
			return err
		}
		for _, p := range slices.Sorted(maps.Keys(ends)) {
			if err := s.Scan(ctx, topic, p, ends[p], func(m *sarama.ConsumerMessage) error { return each(letter(m)) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func letter(m *sarama.ConsumerMessage) Letter {
	l := Letter{Topic: m.Topic, Position: Position{m.Partition, m.Offset}, Time: m.Timestamp.UTC(), Key: m.Key, Value: m.Value}
	notes := noted(m)
	for _, h := range m.Headers[:len(m.Headers)-len(notes)] {
		l.Headers = append(l.Headers, Header{h.Key, h.Value})
	}
	l.Reason, l.SourceTopic = notes[kafka.HeaderReason], notes[kafka.HeaderTopic]
	if len(notes) > 0 {
		l.SourcePosition = notes[kafka.HeaderPartition] + ":" + notes[kafka.HeaderOffset]
	}
	l.Fields, l.Undecoded = decode(messageOf(m.Topic), m.Value)
	return l
}

// noted are the headers that Producer.SetAside appended: the last ones. A client may
// have sent some of the same names; those stand before them. Letters that somebody else
// wrote may have none.
func noted(m *sarama.ConsumerMessage) map[string]string {
	names := []string{kafka.HeaderReason, kafka.HeaderTopic, kafka.HeaderPartition, kafka.HeaderOffset}
	if len(m.Headers) < len(names) {
		return nil
	}
	notes := make(map[string]string, len(names))
	for i, h := range m.Headers[len(m.Headers)-len(names):] {
		if string(h.Key) != names[i] {
			return nil
		}
		notes[names[i]] = string(h.Value)
	}
	return notes
}
