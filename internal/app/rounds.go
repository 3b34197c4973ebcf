package app

import (
	"context"
	"sync"
	"time"
)

// rounds lets all who ask for the same thing share its answers. Each gets one that was
// begun after he asked; one is under way at a time, and two begin at least pause apart.
type rounds[T any] struct {
	// do finds an answer. It must end.
	do    func() (T, error)
	pause time.Duration

	mu      sync.Mutex
	next    *round[T] // not begun; nil when nobody asks for it
	running bool
}

type round[T any] struct {
	over chan struct{} // closed once the rest is set
	got  T
	err  error
}

// ask waits for an answer, at most until ctx is done.
func (r *rounds[T]) ask(ctx context.Context) (T, error) {
	mine := r.join()
	select {
	case <-mine.over:
		return mine.got, mine.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (r *rounds[T]) join() *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &round[T]{over: make(chan struct{})}
	}
	if !r.running {
		r.running = true
		go r.run() // until nobody asks
	}
	return r.next
}

func (r *rounds[T]) run() {
	for next := r.begin(); next != nil; next = r.begin() {
		rest := time.NewTimer(r.pause)
		next.got, next.err = r.do()
		close(next.over)
		<-rest.C
	}
}

// begin is the round to do now; nil ends the running.
func (r *rounds[T]) begin() *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.next
	r.next = nil
	r.running = next != nil
	return next
}
