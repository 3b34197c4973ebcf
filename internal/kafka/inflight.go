package kafka

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// Inflight holds the messages of the running session that are delivered but not
// yet acknowledged. It forwards a mark to sarama only when every message before
// it is marked too: sarama keeps the largest mark, so one failed message under
// a later success would be skipped for good.
type Inflight struct {
	// OnMarked, if set, sees each message once its effects are stored and all
	// before it are. It must be quick.
	OnMarked func(m *sarama.ConsumerMessage)

	current atomic.Pointer[session]
}

type topicPartition struct {
	topic     string
	partition int32
}

// session is a sarama session whose marks are put in order.
type session struct {
	sarama.ConsumerGroupSession
	onMarked func(m *sarama.ConsumerMessage)
	claims   map[topicPartition]*claim // never changed
}

// begin starts the book of a new session; the last one's is forgotten, and what
// it had in flight is delivered again.
func (f *Inflight) begin(s sarama.ConsumerGroupSession) sarama.ConsumerGroupSession {
	next := &session{ConsumerGroupSession: s, onMarked: f.OnMarked, claims: make(map[topicPartition]*claim)}
	for topic, partitions := range s.Claims() {
		for _, p := range partitions {
			next.claims[topicPartition{topic, p}] = &claim{target: unknown}
		}
	}
	f.current.Store(next)
	return next
}

func (f *Inflight) session(s sarama.ConsumerGroupSession) sarama.ConsumerGroupSession {
	cur := f.current.Load()
	if cur == nil || cur.ConsumerGroupSession != s {
		return s // cannot be: sarama runs one session at a time
	}
	return cur
}

// claim is told of a claim from which Goka is about to read.
func (f *Inflight) claim(c sarama.ConsumerGroupClaim) {
	k := f.lookup(c.Topic(), c.Partition())
	if k == nil {
		return // cannot be: a session tells its claims at once
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of, k.started = c, time.Now()
	if k.next == 0 { // else a message came already
		k.next = max(0, c.InitialOffset())
	}
}

func (f *Inflight) lookup(topic string, partition int32) *claim {
	cur := f.current.Load()
	if cur == nil {
		return nil
	}
	return cur.claims[topicPartition{topic, partition}]
}

// OnConsume is sarama's ConsumerInterceptor: it sees each message right before the
// claim delivers it, one with which delivery begins anew a second time.
func (f *Inflight) OnConsume(m *sarama.ConsumerMessage) {
	k := f.lookup(m.Topic, m.Partition)
	if k == nil {
		return // cannot be: only what a session claims is consumed
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch n := len(k.queue); {
	case n == 0:
		k.next = m.Offset
	case k.queue[n-1].msg.Offset >= m.Offset:
		return
	}
	k.queue = append(k.queue, delivered{msg: m})
}

// Message is the record delivered at a position, as it came; nil when it is not
// in flight.
func (f *Inflight) Message(topic string, partition int32, offset int64) *sarama.ConsumerMessage {
	k := f.lookup(topic, partition)
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.find(offset); i >= 0 {
		return k.queue[i].msg
	}
	return nil
}

// HighWater is the high watermark of a claimed partition, 0 when unknown.
func (f *Inflight) HighWater(topic string, partition int32) int64 {
	k := f.lookup(topic, partition)
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		return 0
	}
	return k.of.HighWaterMarkOffset()
}

// Lag tells for each partition of the session how many messages are not applied
// yet, and whether everything that was there when its claim began is applied.
func (f *Inflight) Lag(each func(topic string, partition int32, lag int64, caughtUp bool)) {
	cur := f.current.Load()
	if cur == nil {
		return
	}
	for p, k := range cur.claims {
		lag, caughtUp := k.lag()
		each(p.topic, p.partition, lag, caughtUp)
	}
}

// Delay is how long ago m was produced.
func Delay(m *sarama.ConsumerMessage) time.Duration { return time.Since(m.Timestamp) }

// MarkOffset notes that the message before offset is done and marks the end of
// the contiguous run of done messages, if it grew.
func (s *session) MarkOffset(topic string, partition int32, offset int64, metadata string) {
	k := s.claims[topicPartition{topic, partition}]
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.find(offset - 1)
	if i < 0 {
		return
	}
	k.queue[i].done = true
	n := 0
	for n < len(k.queue) && k.queue[n].done {
		if s.onMarked != nil {
			s.onMarked(k.queue[n].msg)
		}
		k.next = k.queue[n].msg.Offset + 1
		k.queue[n].msg = nil
		n++
	}
	if n == 0 {
		return
	}
	k.queue = k.queue[n:]
	s.ConsumerGroupSession.MarkOffset(topic, partition, k.next, metadata)
}

// claim is a partition of a session, and what it delivered.
type claim struct {
	mu      sync.Mutex
	of      sarama.ConsumerGroupClaim // nil until Goka reads from it
	started time.Time                 // when it did
	queue   []delivered               // ascending offsets
	next    int64                     // the offset after the contiguous run of done messages
	target  int64                     // the first high watermark seen, or unknown
}

const unknown = -1

// lag is the distance to the high watermark. sarama says 0 before its first
// fetch and for an empty partition alike, so 0 counts once a second has passed.
func (k *claim) lag() (n int64, caughtUp bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		return 0, false
	}
	high := k.of.HighWaterMarkOffset()
	if k.target == unknown && (high > 0 || time.Since(k.started) > time.Second) {
		k.target = high
	}
	return max(0, high-k.next), k.target != unknown && k.next >= k.target
}

type delivered struct {
	msg  *sarama.ConsumerMessage
	done bool
}

// find is the index of offset in the queue, -1 when it is not there.
func (k *claim) find(offset int64) int {
	i := sort.Search(len(k.queue), func(i int) bool { return k.queue[i].msg.Offset >= offset })
	if i < len(k.queue) && k.queue[i].msg.Offset == offset {
		return i
	}
	return -1
}
