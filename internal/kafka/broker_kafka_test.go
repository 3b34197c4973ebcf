//go:build kafka

package kafka

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/kafkatest"
)

var cluster struct {
	once sync.Once
	c    *kafkatest.Cluster
	dir  string
	err  error
}

// tableBroker is one Kafka for all tests of this package, or the one on BROKER.
func tableBroker(t testing.TB) string {
	t.Helper()
	if b := os.Getenv("BROKER"); b != "" {
		return b
	}
	cluster.once.Do(func() {
		if cluster.dir, cluster.err = os.MkdirTemp("", "coinbit"); cluster.err == nil {
			cluster.c, cluster.err = kafkatest.Start(context.Background(), kafkatest.Options{Dir: cluster.dir})
		}
	})
	must(t, cluster.err)
	return cluster.c.Bootstrap()
}

func stopTableBroker() {
	if cluster.c != nil {
		cluster.c.Stop()
	}
	_ = os.RemoveAll(cluster.dir)
}

// The embedded broker gives a sleeper the next epoch; Kafka does not.
func TestSleepersRenewalIsRefused(t *testing.T) {
	x := newTable(t, 1)
	var a, b book
	w, later := x.writer(t, &a), x.writer(t, &b)
	own(t, w, 0)
	must(t, emit(t, w, "w", "1"))
	own(t, later, 0)
	p := w.lane(0)
	p.askRenewal()
	eventually(t, "a failure", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.err != nil })
	if err := emit(t, w, "w", "stale"); !errors.Is(err, ErrFenced) {
		t.Fatalf("got %v, want ErrFenced", err)
	}
	must(t, emit(t, later, "w", "v"))
}

// Epochs are 16 bits. The coordinator then gives another producer id, whose claim
// says nothing of the earlier one: no owner may be left with the last epoch. (The
// embedded broker forgets the earlier one.)
func TestEpochsRunOut(t *testing.T) {
	x := newTable(t, 1)
	var books [3]book
	a, b, c := x.writer(t, &books[0]), x.writer(t, &books[1]), x.writer(t, &books[2])
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for last := (identity{-1, -1}); last.epoch < lastEpoch-2; {
		next, err := a.nextEpoch(ctx, 0, identity{-1, -1})
		must(t, err)
		if last.producerID >= 0 && next.producerID != last.producerID {
			t.Fatalf("another producer id after epoch %d", last.epoch)
		}
		last = next
	}
	writers := []*TableWriter{a, b, c}
	for i, w := range writers {
		own(t, w, 0)
		must(t, emit(t, w, "w", "v"))
		for _, before := range writers[:i] {
			if err := emit(t, before, "w", "stale"); !errors.Is(err, ErrFenced) {
				t.Fatalf("writer %d: got %v, want ErrFenced", i, err)
			}
		}
	}
}

// Kafka refuses records of a clock that is two hours ahead, and takes them without a time.
func TestKafkaTakesRecordsOfAFastClock(t *testing.T) {
	c, l := logWriter(t, 1)
	w := producer(t, c, l.topic)
	w.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	const n = 1000
	for i, err := range burst(t, w, n, func(int) []byte { return []byte("v") }) {
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	for _, m := range records(t, c, w.topic, 1, n) {
		if !m.Timestamp.IsZero() {
			t.Fatalf("%d is of %s: Kafka did not refuse it", m.Offset, m.Timestamp)
		}
	}
}

// Real Kafka on what the embedded broker only plays: an oversized record and batch, hard
// letters in one batch.
func TestKafkaTakesWhatIsDescribed(t *testing.T) {
	c, l := logWriter(t, 1)
	p := producer(t, c, l.topic) // a topic that takes 1 MiB
	if _, err := store(t, p, string(make([]byte, 2<<20))); !errors.Is(err, ErrNotAppended) {
		t.Fatalf("got %v", err)
	}
	if at, err := store(t, p, "1"); err != nil || at != 0 {
		t.Fatalf("%d, %v", at, err)
	}
	messages := []*sarama.ConsumerMessage{
		{Value: make([]byte, 9<<20)}, {Value: make([]byte, 2<<20)},
		{Value: []byte("v"), Timestamp: time.UnixMilli(-1)}, {Value: []byte("v"), Timestamp: time.Now().Add(-time.Hour)},
		{Value: []byte("v"), Timestamp: time.Now().Add(24 * time.Hour)},
	}
	answers := make(chan error, len(messages))
	for _, m := range messages {
		p.SetAside(m, "test").Then(func(err error) { answers <- err })
	}
	for range messages {
		must(t, <-answers)
	}
	for i, got := range records(t, c, p.topic, 1, 1+len(messages))[1:] {
		if n, _, ok := ReadNotes(got); !ok || (n.About != nil) != (i < 2) || n.About != nil && !n.About.Matches(messages[i]) {
			t.Errorf("letter %d: %+v", i, n)
		}
	}
}
