package kafka

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// Whatever the order of the answers, with messages that never succeed and with
// offsets that the log does not have: a mark is the offset after a message that
// was delivered and, like every one delivered before it, is done.
func TestMarksAreAContiguousPrefix(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		inner := newFakeSession(3)
		var stored []int64
		f := &Inflight{OnMarked: func(m *sarama.ConsumerMessage) { stored = append(stored, m.Offset) }}
		s := f.begin(inner)
		at := r.Int64N(50)
		c := newFakeClaim("deposit", 2, at)
		f.claim(c)

		var delivered []int64 // the naive twin: all of them, and which are done
		done := make(map[int64]bool)
		failed := make(map[int64]bool)
		want := func() int64 {
			w := int64(-1)
			for _, o := range delivered {
				if !done[o] {
					break
				}
				w = o + 1
			}
			return w
		}
		for range 200 {
			if r.IntN(2) == 0 {
				at += 1 + max(0, r.Int64N(12)-8) // compaction and control records leave gaps
				m := c.deliver(f, at)
				if m.Offset != at {
					t.Fatalf("delivered %d, want %d", m.Offset, at)
				}
				delivered = append(delivered, at)
				if r.IntN(60) == 0 {
					failed[at] = true
				}
				continue
			}
			if len(delivered) == 0 {
				continue
			}
			o := delivered[r.IntN(len(delivered))]
			if failed[o] {
				continue
			}
			done[o] = true
			s.MarkOffset("deposit", 2, o+1, "") // twice does no harm
			if got := inner.committed("deposit", 2); got != want() {
				t.Fatalf("seed %d: after %d is done sarama has %d, want %d", seed, o, got, want())
			}
		}
		if marks := inner.marks[topicPartition{"deposit", 2}]; !slices.IsSorted(marks) {
			t.Fatalf("seed %d: marks went back: %v", seed, marks)
		}
		var prefix []int64
		for _, o := range delivered {
			if o < want() {
				prefix = append(prefix, o)
			}
			if m := f.Message("deposit", 2, o); (m == nil) != (o < want()) || m != nil && m.Offset != o {
				t.Fatalf("seed %d: Message(%d) is %v, marked up to %d", seed, o, m, want())
			}
		}
		if !slices.Equal(stored, prefix) {
			t.Fatalf("seed %d: OnMarked saw %v, want %v", seed, stored, prefix)
		}
	}
}

// What is not known changes nothing.
func TestStrayMarks(t *testing.T) {
	f := &Inflight{}
	inner := newFakeSession(3)
	s := f.begin(inner)
	c := newFakeClaim("deposit", 0, 5)
	f.claim(c)
	c.deliver(f, 5)
	c.deliver(f, 6)
	for _, o := range []int64{0, 5, 8, 100, -1} {
		s.MarkOffset("deposit", 0, o, "")
	}
	s.MarkOffset("deposit", 1, 6, "")
	s.MarkOffset("other", 0, 6, "")
	if len(inner.marks) != 0 {
		t.Fatalf("marked %v", inner.marks)
	}
	s.MarkOffset("deposit", 0, 6, "")
	if got := inner.committed("deposit", 0); got != 6 {
		t.Fatalf("marked %d, want 6", got)
	}
}

// A message that failed keeps all after it from being marked, on its partition
// only.
func TestAFailureHoldsLaterMarks(t *testing.T) {
	f := &Inflight{}
	inner := newFakeSession(3)
	s := f.begin(inner)
	a, b := newFakeClaim("deposit", 0, 0), newFakeClaim("deposit", 1, 0)
	f.claim(a)
	f.claim(b)
	for o := range int64(100) {
		a.deliver(f, o)
		b.deliver(f, o)
		if o != 42 {
			s.MarkOffset("deposit", 0, o+1, "")
		}
		s.MarkOffset("deposit", 1, o+1, "")
	}
	if got := inner.committed("deposit", 0); got != 42 {
		t.Errorf("partition 0 is marked to %d over the failed 42", got)
	}
	if got := inner.committed("deposit", 1); got != 100 {
		t.Errorf("partition 1 is marked to %d, want 100", got)
	}
}

// The record comes back as it came, headers in order and nil not turned empty.
func TestMessageIsTheOriginal(t *testing.T) {
	f := &Inflight{}
	if f.Message("deposit", 0, 0) != nil || f.HighWater("deposit", 0) != 0 {
		t.Fatal("a message before any session")
	}
	f.Lag(func(string, int32, int64, bool) { t.Error("lag before any session") })
	inner := newFakeSession(3)
	f.begin(inner)
	c := newFakeClaim("deposit", 0, 0)
	f.claim(c)
	m := &sarama.ConsumerMessage{Topic: "deposit", Offset: 7, Value: []byte{}, Headers: []*sarama.RecordHeader{
		{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("a"), Value: nil},
	}}
	f.OnConsume(m)
	if got := f.Message("deposit", 0, 7); got != m {
		t.Fatalf("got %v, want the very same record", got)
	}
	if f.Message("deposit", 0, 6) != nil || f.Message("deposit", 1, 7) != nil || f.Message("x", 0, 7) != nil {
		t.Fatal("a message at another position")
	}
	c.setHigh(9)
	if got := f.HighWater("deposit", 0); got != 9 {
		t.Fatalf("high watermark %d, want 9", got)
	}
	if f.HighWater("deposit", 1) != 0 {
		t.Fatal("high watermark of a partition that is not claimed")
	}
}

// With a new session the old one's messages are forgotten: they come again. An
// answer to the old session reaches only the old session.
func TestANewSessionForgets(t *testing.T) {
	f := &Inflight{}
	first, second := newFakeSession(3), newFakeSession(3)
	s1 := f.begin(first)
	c1 := newFakeClaim("deposit", 0, 0)
	f.claim(c1)
	c1.deliver(f, 0)
	c1.deliver(f, 1)
	s1.MarkOffset("deposit", 0, 2, "")

	s2 := f.begin(second)
	if f.Message("deposit", 0, 1) != nil {
		t.Fatal("the old session's message is still there")
	}
	c2 := newFakeClaim("deposit", 0, 0)
	f.claim(c2)
	c2.deliver(f, 0)
	s1.MarkOffset("deposit", 0, 1, "") // late
	if first.committed("deposit", 0) != 2 || second.committed("deposit", 0) != -1 {
		t.Fatalf("marked %v and %v", first.marks, second.marks)
	}
	if f.session(second) != s2 || f.session(first) != sarama.ConsumerGroupSession(first) {
		t.Fatal("session wraps the wrong one")
	}
	s2.MarkOffset("deposit", 0, 1, "")
	if got := second.committed("deposit", 0); got != 1 {
		t.Fatalf("marked %d, want 1", got)
	}
}

func TestLag(t *testing.T) {
	type lag struct {
		n        int64
		caughtUp bool
	}
	f := &Inflight{}
	now := func() lag {
		t.Helper()
		var l lag
		n := 0
		f.Lag(func(topic string, partition int32, n64 int64, caughtUp bool) {
			n++
			l = lag{n64, caughtUp}
			if topic != "deposit" || partition != 3 {
				t.Errorf("lag of %s/%d", topic, partition)
			}
		})
		if n != 1 {
			t.Fatalf("%d claims", n)
		}
		return l
	}
	expect := func(want lag) {
		t.Helper()
		if got := now(); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
	inner := newFakeSession(0)
	inner.claims["deposit"] = []int32{3}
	s := f.begin(inner)
	expect(lag{0, false}) // its claim has not begun
	c := newFakeClaim("deposit", 3, 10)
	f.claim(c)
	expect(lag{0, false}) // sarama has not fetched yet
	c.setHigh(12)
	expect(lag{2, false})
	c.deliver(f, 10)
	c.deliver(f, 11)
	expect(lag{2, false}) // delivered is not applied
	s.MarkOffset("deposit", 3, 12, "")
	expect(lag{2, false})
	c.setHigh(20) // what comes later does not move the target
	s.MarkOffset("deposit", 3, 11, "")
	expect(lag{8, true})
	c.deliver(f, 19) // the log has a gap
	s.MarkOffset("deposit", 3, 20, "")
	expect(lag{0, true})
}

// An empty partition is caught up once sarama has had time for a fetch.
func TestLagOfAnEmptyPartition(t *testing.T) {
	f := &Inflight{}
	inner := newFakeSession(3)
	f.begin(inner)
	f.claim(newFakeClaim("deposit", 0, sarama.OffsetOldest))
	k := f.lookup("deposit", 0)
	if n, caughtUp := k.lag(); n != 0 || caughtUp {
		t.Fatalf("lag %d, %t", n, caughtUp)
	}
	k.mu.Lock()
	k.started = time.Now().Add(-2 * time.Second)
	k.mu.Unlock()
	if n, caughtUp := k.lag(); n != 0 || !caughtUp {
		t.Fatalf("lag %d, %t", n, caughtUp)
	}
}

// A message with which sarama begins to deliver anew is in flight once, and what no
// session claims is nobody's.
func TestDeliveredTwice(t *testing.T) {
	f := &Inflight{}
	newFakeClaim("deposit", 0, 0).deliver(f, 1)
	inner := newFakeSession(1)
	s := f.begin(inner)
	c := newFakeClaim("deposit", 0, 0)
	for _, o := range []int64{4, 5, 5, 6} { // also before Goka reads from the claim
		c.deliver(f, o)
	}
	f.claim(c)
	newFakeClaim("balance-table", 0, 0).deliver(f, 1)
	f.claim(newFakeClaim("balance-table", 0, 0))
	for _, o := range []int64{6, 5, 4} {
		if got := inner.committed("deposit", 0); got != -1 {
			t.Fatalf("marked %d before 4 is done", got)
		}
		s.MarkOffset("deposit", 0, o+1, "")
	}
	if got := inner.committed("deposit", 0); got != 7 {
		t.Fatalf("marked %d, want 7", got)
	}
}

func TestDelay(t *testing.T) {
	m := &sarama.ConsumerMessage{Timestamp: time.Now().Add(-time.Minute)}
	if d, known := Delay(m); !known || d < time.Minute || d > time.Hour {
		t.Fatal(d, known)
	}
	for _, none := range []time.Time{{}, time.UnixMilli(-1)} {
		if _, known := Delay(&sarama.ConsumerMessage{Timestamp: none}); known {
			t.Errorf("%s is taken for a time", none)
		}
	}
}

func BenchmarkMark(b *testing.B) {
	f := &Inflight{}
	inner := newFakeSession(3)
	s := f.begin(inner)
	c := newFakeClaim("deposit", 0, 0)
	f.claim(c)
	for o := range int64(b.N) {
		c.deliver(f, o)
		s.MarkOffset("deposit", 0, o+1, "")
		if o%1000 == 0 {
			inner.marks = map[topicPartition][]int64{}
		}
	}
	_ = fmt.Sprint(inner.committed("deposit", 0))
}

// fakeFlow is a consumer group of which some partitions are held back.
type fakeFlow struct{ paused map[int32]bool }

func (f *fakeFlow) set(partitions map[string][]int32, paused bool) {
	for _, ps := range partitions {
		for _, p := range ps {
			f.paused[p] = paused
		}
	}
}
func (f *fakeFlow) Pause(p map[string][]int32)  { f.set(p, true) }
func (f *fakeFlow) Resume(p map[string][]int32) { f.set(p, false) }
func (f *fakeFlow) ResumeAll()                  { clear(f.paused) }

// Behind a message that is not answered, no more than a share of messages and of bytes is
// fetched; its partition goes on when half of them are done, the others never wait. A new
// session holds nothing back, whatever the old one's answers say.
func TestMessagesUnderWayAreBounded(t *testing.T) {
	for name, size := range map[string]int{"number": 10, "bytes": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			flow := &fakeFlow{paused: map[int32]bool{}}
			f := &Inflight{flow: flow}
			inner := newFakeSession(4)
			s := f.begin(inner)
			a, b := newFakeClaim("deposit", 0, 0), newFakeClaim("deposit", 1, 0)
			f.claim(a)
			f.claim(b)
			value, n := make([]byte, size), int64(0)
			deliver := func(c *fakeClaim, offset int64) {
				f.OnConsume(&sarama.ConsumerMessage{Topic: c.topic, Partition: c.partition, Offset: offset, Value: value})
			}
			for ; !flow.paused[0]; n++ {
				if n > maxInflight || n*int64(size) > maxInflightBytes {
					t.Fatalf("%d messages are under way", n)
				}
				deliver(a, n)
				if n > 0 {
					s.MarkOffset("deposit", 0, n+1, "") // all but the first
				}
			}
			for end := n + 10; n < end; n++ { // fetched already
				deliver(a, n)
				s.MarkOffset("deposit", 0, n+1, "")
			}
			if deliver(b, 0); flow.paused[1] {
				t.Error("another partition is held back")
			}
			s.MarkOffset("deposit", 0, 1, "")
			if flow.paused[0] || inner.committed("deposit", 0) != n {
				t.Errorf("paused %t, marked %d of %d", flow.paused[0], inner.committed("deposit", 0), n)
			}
			for ; !flow.paused[0]; n++ {
				deliver(a, n)
			}
			f.begin(newFakeSession(4))
			if flow.paused[0] {
				t.Error("a new session is held back")
			}
			flow.paused[0] = true // by it
			for o := range n {
				s.MarkOffset("deposit", 0, o+1, "")
			}
			if !flow.paused[0] {
				t.Error("the old session's answers let the new one go on")
			}
		})
	}
}
