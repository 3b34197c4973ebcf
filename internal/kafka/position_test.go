package kafka

import (
	"context"
	"sync"
	"testing"
)

// neverBare is a log with a record at every offset.
func neverBare(_ context.Context, _ string, _ int32, from, _ int64) (int64, error) { return from, nil }

// A claim passes the offsets at its end that no message will have, once, and never a
// message that is on its way or in flight.
func TestPassBare(t *testing.T) {
	f := &Inflight{}
	inner := newFakeSession(1)
	s := f.begin(inner)
	c := newFakeClaim("deposit", 0, 5)
	f.claim(c)
	var mu sync.Mutex
	asked, upto := 0, int64(5)
	at := func(end int64) { mu.Lock(); defer mu.Unlock(); asked, upto = 0, end }
	times := func() int { mu.Lock(); defer mu.Unlock(); return asked }
	ctx, cancel := context.WithCancel(within(t))
	var over sync.WaitGroup
	over.Go(func() {
		f.passBare(ctx, inner, c, func(_ context.Context, topic string, p int32, from, below int64) (int64, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			if topic != "deposit" || p != 0 || from > below {
				t.Errorf("asked for %s/%d from %d to %d", topic, p, from, below)
			}
			if asked == 1 {
				return 0, ErrUnreachable // the first answer never comes
			}
			return max(from, upto), nil
		})
	})
	k := f.lookup("deposit", 0)
	k.lag() // nothing is known yet
	c.setHigh(7)
	eventually(t, "an answer", func() bool { return times() > 1 })
	if n, caughtUp := k.lag(); n != 2 || !caughtUp || inner.committed("deposit", 0) != -1 {
		t.Fatalf("%d behind, %t, marked %v: what waits for a transaction cannot be waited for", n, caughtUp, inner.marks)
	}
	at(9)
	c.setHigh(9)
	eventually(t, "a mark", func() bool { return inner.committed("deposit", 0) == 9 })
	if n, caughtUp := k.lag(); n != 0 || !caughtUp {
		t.Fatalf("%d behind, %t", n, caughtUp)
	}
	c.deliver(f, 9)
	at(12)
	c.setHigh(12) // but 9 is in flight
	if gap := k.gap(); gap != (span{}) || k.pass(9, 12) {
		t.Fatalf("passed what is in flight: %v", gap)
	}
	s.MarkOffset("deposit", 0, 10, "")
	eventually(t, "the mark after it", func() bool { return inner.committed("deposit", 0) == 12 })
	if k.pass(9, 20) {
		t.Fatal("passed from where it is no longer")
	}
	cancel()
	over.Wait()
	f.passBare(ctx, inner, newFakeClaim("other", 0, 0), nil) // nobody's
}
