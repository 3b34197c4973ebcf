package kafka

import (
	"sort"
	"sync"
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

	mu      sync.Mutex
	current *session
}

type topicPartition struct {
	topic     string
	partition int32
}

// session is a sarama session whose marks are put in order.
type session struct {
	sarama.ConsumerGroupSession
	onMarked func(m *sarama.ConsumerMessage)

	mu     sync.Mutex
	claims map[topicPartition]*claim
}

// begin starts the book of a new session; the last one's is forgotten, and what
// it had in flight is delivered again.
func (f *Inflight) begin(s sarama.ConsumerGroupSession) sarama.ConsumerGroupSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = &session{ConsumerGroupSession: s, onMarked: f.OnMarked, claims: make(map[topicPartition]*claim)}
	return f.current
}

func (f *Inflight) session(s sarama.ConsumerGroupSession) sarama.ConsumerGroupSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current == nil || f.current.ConsumerGroupSession != s {
		return s // cannot be: sarama runs one session at a time
	}
	return f.current
}

// claim wraps c; stop ends its goroutine.
func (f *Inflight) claim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) (tracked sarama.ConsumerGroupClaim, stop func()) {
	f.mu.Lock()
	cur := f.current
	f.mu.Unlock()
	k := &claim{
		ConsumerGroupClaim: c, out: make(chan *sarama.ConsumerMessage, 256),
		next: max(0, c.InitialOffset()), target: unknown, started: time.Now(),
	}
	cur.mu.Lock()
	cur.claims[topicPartition{c.Topic(), c.Partition()}] = k
	cur.mu.Unlock()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); k.pump(done) }()
	return k, func() { close(done); wg.Wait() }
}

func (f *Inflight) lookup(topic string, partition int32) *claim {
	f.mu.Lock()
	cur := f.current
	f.mu.Unlock()
	if cur == nil {
		return nil
	}
	cur.mu.Lock()
	defer cur.mu.Unlock()
	return cur.claims[topicPartition{topic, partition}]
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
	if k := f.lookup(topic, partition); k != nil {
		return k.HighWaterMarkOffset()
	}
	return 0
}

// Lag tells for each partition of the session how many messages are not applied
// yet, and whether everything that was there when its claim began is applied.
func (f *Inflight) Lag(each func(topic string, partition int32, lag int64, caughtUp bool)) {
	f.mu.Lock()
	cur := f.current
	f.mu.Unlock()
	if cur == nil {
		return
	}
	cur.mu.Lock()
	defer cur.mu.Unlock()
	for topic, partitions := range cur.Claims() {
		for _, p := range partitions {
			if k := cur.claims[topicPartition{topic, p}]; k != nil {
				lag, caughtUp := k.lag()
				each(topic, p, lag, caughtUp)
			} else {
				each(topic, p, 0, false)
			}
		}
	}
}

// Delay is how long ago m was produced.
func Delay(m *sarama.ConsumerMessage) time.Duration { return time.Since(m.Timestamp) }

// MarkOffset notes that the message before offset is done and marks the end of
// the contiguous run of done messages, if it grew.
func (s *session) MarkOffset(topic string, partition int32, offset int64, metadata string) {
	s.mu.Lock()
	k := s.claims[topicPartition{topic, partition}]
	s.mu.Unlock()
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

// claim is a sarama claim that remembers what it delivered.
type claim struct {
	sarama.ConsumerGroupClaim
	out chan *sarama.ConsumerMessage

	started time.Time

	mu     sync.Mutex
	queue  []delivered // ascending offsets
	next   int64       // the offset after the contiguous run of done messages
	target int64       // the first high watermark seen, or unknown
}

const unknown = -1

// lag is the distance to the high watermark. sarama says 0 before its first
// fetch and for an empty partition alike, so 0 counts once a second has passed.
func (k *claim) lag() (n int64, caughtUp bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	high := k.HighWaterMarkOffset()
	if k.target == unknown && (high > 0 || time.Since(k.started) > time.Second) {
		k.target = high
	}
	return max(0, high-k.next), k.target != unknown && k.next >= k.target
}

type delivered struct {
	msg  *sarama.ConsumerMessage
	done bool
}

// Messages is what Goka reads.
func (k *claim) Messages() <-chan *sarama.ConsumerMessage { return k.out }

func (k *claim) pump(done <-chan struct{}) {
	defer close(k.out)
	for {
		select {
		case m, ok := <-k.ConsumerGroupClaim.Messages():
			if !ok {
				return
			}
			k.mu.Lock()
			if len(k.queue) == 0 {
				k.next = m.Offset
			}
			k.queue = append(k.queue, delivered{msg: m})
			k.mu.Unlock()
			select {
			case k.out <- m:
			case <-done:
				return
			}
		case <-done:
			return
		}
	}
}

// find is the index of offset in the queue, -1 when it is not there.
func (k *claim) find(offset int64) int {
	i := sort.Search(len(k.queue), func(i int) bool { return k.queue[i].msg.Offset >= offset })
	if i < len(k.queue) && k.queue[i].msg.Offset == offset {
		return i
	}
	return -1
}
