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
	// Described is set for a record that was too large to copy: then Key and Value are
	// only their first bytes.
	Described *kafka.Description
}

// Header is a record's header.
type Header struct{ Key, Value []byte }

// DeadLetters hands over what was set aside, topic by topic, partition by partition,
// in the order in which it was, up to the end now. One letter is held at a time.
func DeadLetters(ctx context.Context, s Source, each func(Letter) error) error {
	for _, topic := range []string{string(stream.DepositDeadLetter), string(stream.FlagWalletDeadLetter)} {
		if err := lettersOf(ctx, s, topic, each); err != nil {
			return err
		}
	}
	return nil
}

func lettersOf(ctx context.Context, s Source, topic string, each func(Letter) error) error {
	ends, err := s.HighWaters(ctx, topic)
	if err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(ends)) {
		if err := s.Scan(ctx, topic, p, ends[p], func(m *sarama.ConsumerMessage) error { return each(letter(m)) }); err != nil {
			return err
		}
	}
	return nil
}

func letter(m *sarama.ConsumerMessage) Letter {
	l := Letter{Topic: m.Topic, Position: Position{m.Partition, m.Offset}, Time: m.Timestamp.UTC(), Key: m.Key, Value: m.Value}
	notes, own, noted := kafka.ReadNotes(m)
	for _, h := range m.Headers[:own] {
		l.Headers = append(l.Headers, Header{h.Key, h.Value})
	}
	l.Reason, l.SourceTopic, l.Described = notes.Reason, notes.Topic, notes.About
	if noted {
		l.SourcePosition = notes.Partition + ":" + notes.Offset
	}
	l.Fields, l.Undecoded = decode(messageOf(m.Topic), m.Value)
	return l
}
