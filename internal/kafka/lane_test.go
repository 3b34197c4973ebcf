package kafka

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// idleLane is a lane whose records nobody takes.
func idleLane(maxQueue int) *lane {
	l := &lane{w: &writer{maxQueue: maxQueue, pace: newPace(), now: time.Now}}
	l.work, l.room = sync.NewCond(&l.mu), sync.NewCond(&l.mu)
	return l
}

// place is a Row of which nobody keeps anything.
type place struct{ at atomic.Int64 }

func (*place) Acked([]byte, int64) error { return nil }
func (p *place) Place() *atomic.Int64    { return &p.at }

// The lane's queue against a naive twin: partial takes, a claim at the front, refusals,
// abandoned flights; every record is told once and in its key's order.
func TestLaneQueue(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 9))
		l := idleLane(1 << 40)
		type state struct {
			place
			told, n int
		}
		keys := make(map[string]*state)
		puts, told := 0, 0
		check := func(what string) {
			sum := 0
			seen := map[string]bool{}
			for i, q := range l.queue {
				sum += q.held()
				if !q.newest {
					continue
				}
				if seen[q.key] {
					t.Fatalf("seed %d: %s: %s waits twice", seed, what, q.key)
				}
				seen[q.key] = true
				if at := int(q.row.Place().Load()) - l.taken; at != i {
					t.Fatalf("seed %d: %s: %s is at %d, it says %d", seed, what, q.key, i, at)
				}
			}
			if sum != l.bytes {
				t.Fatalf("seed %d: %s: %d bytes, it counts %d", seed, what, sum, l.bytes)
			}
			if int(l.w.pace.waiting.Load()) != len(l.queue) {
				t.Fatalf("seed %d: %s: pace counts %d of %d", seed, what, l.w.pace.waiting.Load(), len(l.queue))
			}
		}
		tell := func(rs []record) {
			for _, q := range rs {
				q.answer(0, nil)
			}
		}
		for range 300 {
			switch n := r.IntN(20); {
			case n < 12:
				k := fmt.Sprint("k", r.IntN(6))
				s := keys[k]
				if s == nil {
					s = &state{}
					keys[k] = s
				}
				if s.told == s.n { // none waits: its place is of another lane, or of long ago
					s.at.Store(int64(l.taken + r.IntN(20) - 5))
				}
				mine := s.n
				s.n++
				puts++
				l.put(record{key: k, value: make([]byte, r.IntN(300<<10)), newest: true, row: s, done: func(int64, error) {
					if s.told != mine {
						t.Fatalf("seed %d: %s told %d, want %d", seed, k, mine, s.told)
					}
					s.told++
					told++
				}})
				check("put")
			case n < 13:
				puts++
				l.put(record{key: "plain", value: make([]byte, 10), done: func(int64, error) { told++ }})
				check("plain")
			case n < 17:
				f := &flight{}
				l.load(f)
				check("load")
				if r.IntN(3) == 0 {
					tell(l.abandon(f))
				} else {
					tell(f.records)
				}
			case n < 18:
				f := &flight{}
				tell(l.abandon(f))
				check("abandon")
			case n < 19: // a renewal
				l.mu.Lock()
				puts++
				first := record{key: "_claim", value: make([]byte, 8), done: func(int64, error) { told++ }}
				l.queue = append([]record{first}, l.queue...)
				l.taken--
				l.bytes += first.size()
				l.w.pace.came()
				l.mu.Unlock()
				check("renewal")
			default:
				l.refuse(errors.New("x"))
				check("refuse")
			}
		}
		l.refuse(errors.New("x"))
		if puts != told {
			t.Fatalf("seed %d: %d put, %d told", seed, puts, told)
		}
	}
}

// Arrays are used again, and every batch holds its own records, in order, for as long as
// it is on its way: while others are put, those before it are told, and it is sent again.
func TestLaneUsesArraysAgain(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		l := idleLane(1 << 40)
		put, sent, again := 0, 0, 0
		some := func() {
			for range r.IntN(40) {
				n := put
				put++
				l.put(record{key: fmt.Sprint(n), value: make([]byte, r.IntN(1+r.IntN(10_000))), done: func(offset int64, _ error) {
					if int(offset) != n {
						t.Fatalf("seed %d: record %d is told %d", seed, n, offset)
					}
				}})
			}
		}
		var stored []record
		base := 0
		for range 200 {
			var f flight
			some()
			batch := l.load(&f)
			some()
			l.tell(stored, int64(base))
			some()
			l.reuse(stored)
			if l.spare != nil {
				again++
			}
			stored = nil
			some()
			if batch == nil {
				continue
			}
			if l.load(&f) != batch {
				t.Fatal("a flight was loaded twice")
			}
			for i, x := range batch.Records {
				if string(x.Key) != fmt.Sprint(sent+i) {
					t.Fatalf("seed %d: %s in the place of %d", seed, x.Key, sent+i)
				}
			}
			base, stored = sent, f.records
			sent += len(batch.Records)
		}
		if again == 0 {
			t.Fatal("no array was used again")
		}
	}
}

// The arrays of a busy time do not stay for ever.
func TestLaneGivesArraysBack(t *testing.T) {
	l := idleLane(maxTableQueue)
	put := func(key string) {
		l.put(record{key: key, value: make([]byte, 90), done: func(int64, error) {}})
	}
	send := func() {
		var f flight
		l.load(&f)
		l.tell(f.records, 0)
		l.reuse(f.records)
	}
	for i := 0; l.bytes < maxTableQueue; i++ {
		put(fmt.Sprint(i))
	}
	for len(l.queue) > 0 {
		send()
	}
	for range 10 {
		put("w")
		send()
	}
	if n := cap(l.spare) + cap(l.queue) + cap(l.records) + cap(l.batched); n > 400 {
		t.Errorf("%d places for one record at a time", n)
	}
	for _, x := range l.records[len(l.records):cap(l.records)] {
		if x.Key != nil || x.Value != nil {
			t.Fatal("a record of an earlier batch is held")
		}
	}
}

// While no request is answered, a lane takes no more than its share of memory, of one
// busy wallet too: those who wait for its replaced rows count.
func TestOneBusyWalletIsBounded(t *testing.T) {
	l := idleLane(maxTableQueue)
	const n = 2 * maxTableQueue / replacedSize
	taken := make(chan int)
	var told atomic.Int64
	go func() {
		defer close(taken)
		row := new(place)
		for i := range n {
			l.put(record{key: "w", value: make([]byte, 100), newest: true, row: row, done: func(int64, error) { told.Add(1) }})
			taken <- i
		}
	}()
	last, blocked := 0, false
	for !blocked {
		select {
		case i, more := <-taken:
			if !more {
				t.Fatalf("all %d rows were taken", n)
			}
			last = i
		case <-time.After(500 * time.Millisecond):
			blocked = true
		}
	}
	if last*replacedSize > maxTableQueue {
		t.Errorf("%d rows were taken", last)
	}
	l.fail(errors.New("end"))
	for range taken { //nolint:revive // let it go on
	}
	if told.Load() != n {
		t.Errorf("%d of %d rows were answered", told.Load(), n)
	}
}

// A repair of an earlier session, should it come late, hides nothing: the newest row is
// in the log too, and the next recovery sees that the older one came after it.
func TestRepairReplacesNothing(t *testing.T) {
	l := idleLane(maxTableQueue)
	nobody, row := func(int64, error) {}, new(place)
	l.put(record{key: "w", value: []byte("newer"), newest: true, row: row, done: nobody})
	l.put(record{key: "w", value: []byte("older"), row: row, done: nobody})
	if got, _ := l.take(); len(got) != 2 || string(got[0].value) != "newer" {
		t.Fatalf("%d records are sent", len(got))
	}
}

// A flight whose lane failed before it was loaded is not sent again: nothing of it was sent,
// and nothing will be.
func TestFailedLaneIsNotRepeated(t *testing.T) {
	l := idleLane(maxLogQueue)
	l.w.ctx = t.Context()
	l.fail(ErrFenced)
	answers := make(chan answer, 1)
	answers <- answer{err: errClosed} // as writer.request answers where there is nothing to load
	start := time.Now()
	if _, err := l.await(new(flight), answers); !errors.Is(err, ErrNotAppended) || time.Since(start) > retryBackoff {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
}
