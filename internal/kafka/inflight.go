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

	// flow, if set, holds back the records of a partition.
	flow flow

	current atomic.Pointer[session]
}

// flow is how a consumer group holds back what it has not fetched yet. It keeps no
// partition from being told that a session ends.
type flow interface {
	Pause(partitions map[string][]int32)
	Resume(partitions map[string][]int32)
	ResumeAll()
}

// Messages in flight, and their bytes, about: above these a claim is read on only when
// half are done. What is fetched already still comes, a mebibyte or a batch at most. All
// claims share maxInflight, but a few of many have at least minInflight.
const (
	maxInflight, maxInflightBytes = 64 << 10, 32 << 20
	minInflight, minInflightBytes = 1 << 10, 256 << 10
)

type topicPartition struct {
	topic     string
	partition int32
}

// session is a sarama session whose marks are put in order.
type session struct {
	sarama.ConsumerGroupSession
	of     *Inflight
	claims map[topicPartition]*claim // never changed
	most   int                       // messages in flight of a claim
	bytes  int                       // of them
}

// begin starts the book of a new session; the last one's is forgotten, and what
// it had in flight is delivered again.
func (f *Inflight) begin(s sarama.ConsumerGroupSession) sarama.ConsumerGroupSession {
	next := &session{ConsumerGroupSession: s, of: f, claims: make(map[topicPartition]*claim)}
	for topic, partitions := range s.Claims() {
		for _, p := range partitions {
			next.claims[topicPartition{topic, p}] = &claim{target: unknown}
		}
	}
	n := max(1, len(next.claims))
	next.most, next.bytes = max(minInflight, maxInflight/n), max(minInflightBytes, maxInflightBytes/n)
	f.current.Store(next)
	if f.flow != nil {
		f.flow.ResumeAll() // what the last session held back
	}
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
	cur := f.current.Load()
	if cur == nil {
		return // cannot be: only what a session claims is consumed
	}
	k := cur.claims[topicPartition{m.Topic, m.Partition}]
	if k == nil {
		return // nor this
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
	k.bytes += weight(m)
	if !k.paused && f.flow != nil && (len(k.queue) > cur.most || k.bytes > cur.bytes) {
		k.paused = true
		f.flow.Pause(map[string][]int32{m.Topic: {m.Partition}})
	}
}

// weight is about what a message holds in memory besides itself.
func weight(m *sarama.ConsumerMessage) int {
	n := len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value) + 64
	}
	return n
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

// Delay is how long ago m was produced, if it says when.
func Delay(m *sarama.ConsumerMessage) (d time.Duration, known bool) {
	return time.Since(m.Timestamp), m.Timestamp.UnixMilli() >= 0
}

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
		m := k.queue[n].msg
		if s.of.OnMarked != nil {
			s.of.OnMarked(m)
		}
		k.next = m.Offset + 1
		k.bytes -= weight(m)
		k.queue[n].msg = nil
		n++
	}
	if n == 0 {
		return
	}
	k.queue = k.queue[n:]
	if k.paused && len(k.queue) <= s.most/2 && k.bytes <= s.bytes/2 && s.of.current.Load() == s {
		k.paused = false
		s.of.flow.Resume(map[string][]int32{topic: {partition}})
	}
	s.ConsumerGroupSession.MarkOffset(topic, partition, k.next, metadata)
}

// claim is a partition of a session, and what it delivered.
type claim struct {
	mu      sync.Mutex
	of      sarama.ConsumerGroupClaim // nil until Goka reads from it
	started time.Time                 // when it did
	queue   []delivered               // ascending offsets
	bytes   int                       // of the queue's messages
	paused  bool                      // no more is fetched
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
