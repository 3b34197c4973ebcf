package verify

import (
	"strconv"

	"github.com/IBM/sarama"

	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

func (r *run) readDeadLetters() error {
	for _, t := range []string{string(stream.DepositDeadLetter), string(stream.FlagWalletDeadLetter)} {
		var err error
		if r.starts[t], err = r.LowWaters(r.ctx, t); err != nil {
			return err
		}
		for p := range r.ends[t] {
			err := r.scan(t, p, func(m *sarama.ConsumerMessage) error {
				r.report.DeadLetters++
				h := make(map[string]string)
				for _, x := range m.Headers {
					h[string(x.Key)] = string(x.Value)
				}
				partition, err := strconv.ParseInt(h[kafka.HeaderPartition], 10, 32)
				offset, err2 := strconv.ParseInt(h[kafka.HeaderOffset], 10, 64)
				if err != nil || err2 != nil {
					r.found(Difference{Where: t, Wallet: string(m.Key), On: t, Partition: p, Offset: m.Offset, Field: "source position",
						Got: strconv.Quote(h[kafka.HeaderPartition] + ":" + h[kafka.HeaderOffset]), Want: "a position"})
					return nil
				}
				r.dead[position{h[kafka.HeaderTopic], int32(partition), offset}] = true
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// aside expects a dead letter for a record, if its group has committed it.
func (r *run) aside(g stream.Group, m *sarama.ConsumerMessage, reason error) {
	at := position{m.Topic, m.Partition, m.Offset}
	switch {
	case r.dead[at]:
		delete(r.dead, at)
	case m.Offset >= r.committed[g][m.Partition]:
	case r.purged(deadLetters(g), m.Key):
		r.report.PurgedLetters++
	default:
		r.found(Difference{Where: m.Topic, Wallet: string(m.Key), On: m.Topic, Partition: m.Partition, Offset: m.Offset,
			Field: "record", Got: "not set aside", Want: "a dead letter: " + reason.Error()})
	}
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
