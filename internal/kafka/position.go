package kafka

import (
	"context"
	"time"

	"github.com/IBM/sarama"
)

// bareFunc is Client.bare.
type bareFunc func(ctx context.Context, topic string, partition int32, from, below int64) (int64, error)

// barePause is how long a claim must stand short of its high watermark, with nothing in
// flight, until the log is asked whether there is anything left to deliver.
const barePause = 500 * time.Millisecond

// passBare moves the end of done messages over offsets at the end of a claim that no
// message will ever have, such as a transaction's control record, and marks it: else the
// group would be behind for ever. sarama hands over messages and tells of no position.
func (f *Inflight) passBare(ctx context.Context, s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim, bare bareFunc) {
	k := f.lookup(c.Topic(), c.Partition())
	if k == nil {
		return // cannot be: a session tells its claims at once
	}
	tick := time.NewTicker(barePause)
	defer tick.Stop()
	var seen, asked span
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		gap := k.gap()
		if gap.from == gap.below || gap != seen || gap == asked {
			seen = gap
			continue
		}
		upto, err := bare(ctx, c.Topic(), c.Partition(), gap.from, gap.below)
		if err != nil {
			continue // the claim itself fails if it is more than a passing fault
		}
		asked = gap
		if k.pass(gap.from, upto) {
			s.MarkOffset(c.Topic(), c.Partition(), upto, "")
		}
	}
}

// span is the offsets from one on and below another.
type span struct{ from, below int64 }

// gap is what lies between the done messages and the high watermark while nothing is in
// flight; else it is empty.
func (k *claim) gap() span {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil || len(k.queue) > 0 {
		return span{}
	}
	return span{k.next, max(k.next, k.of.HighWaterMarkOffset())}
}

// pass notes that no message is, or ever will be, from an offset on up to another, if the
// done messages still end at the first. Beyond it lies, at most, what waits for its
// transaction: a claim has caught up without that. It tells whether the end moved.
func (k *claim) pass(from, upto int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) > 0 || k.next != from {
		return false
	}
	k.next = max(from, upto)
	if k.target == unknown || k.target > k.next {
		k.target = k.next
	}
	return k.next > from
}
