package loadgen

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// maxIdle is how long a connection is used after its last answer: the suite's
	// API closes it after 9 s.
	maxIdle = 5 * time.Second
	// Back-off of a connection that cannot be opened.
	firstBackoff = 10 * time.Millisecond
	maxBackoff   = time.Second
)

// worker owns one connection and has one request on it at a time.
type worker struct {
	*load
	conn    atomic.Pointer[net.Conn] // nil: none is open
	answers *bufio.Reader
	request []byte
	used    time.Time // when the connection last served
	backoff time.Duration
}

func newWorker(l *load) *worker {
	return &worker{load: l, answers: bufio.NewReaderSize(nil, bufferSize), request: make([]byte, 0, bufferSize)}
}

// run sends requests until there are no more.
func (w *worker) run(ctx context.Context) {
	defer w.hangUp()
	for {
		i, due, ok := w.next(ctx)
		if !ok {
			return
		}
		request, kind := w.Request(w.request, i)
		sent := time.Since(w.start)
		status, err := w.exchange(ctx, request)
		done := time.Since(w.start)
		if errors.Is(err, ErrConnect) && ctx.Err() != nil {
			return // told to stop before it was sent
		}
		if w.due == nil {
			w.tally.add(kind, status, err, done, done-sent, 0)
		} else {
			w.tally.add(kind, status, err, done, done-due, sent-due)
		}
		if err != nil {
			w.hangUp()
			if errors.Is(err, ErrConnect) {
				w.pause(ctx)
			}
		}
	}
}

// exchange sends a request and reads its answer's status. Any error leaves the
// connection unfit for another.
func (w *worker) exchange(ctx context.Context, request []byte) (int, error) {
	now := time.Now()
	if w.conn.Load() != nil && now.Sub(w.used) > maxIdle {
		w.hangUp()
	}
	if w.conn.Load() == nil {
		if err := w.dial(ctx); err != nil {
			return 0, errors.Join(ErrConnect, err)
		}
		now = time.Now()
	}
	conn := *w.conn.Load()
	if err := conn.SetDeadline(now.Add(w.Timeout)); err != nil {
		return 0, err
	}
	if ctx.Err() != nil { // hurry may have been before that
		w.hurry()
	}
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	a, err := readAnswer(w.answers)
	if err != nil {
		return 0, err
	}
	if w.answers.Buffered() > 0 {
		return a.status, malformed("more than an answer")
	}
	w.used = now
	if !a.keep {
		w.hangUp()
	}
	return a.status, nil
}

func (w *worker) dial(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", w.Addr)
	if err != nil {
		return err
	}
	w.conn.Store(&conn)
	w.answers.Reset(conn)
	w.used, w.backoff = time.Now(), 0
	return nil
}

func (w *worker) hangUp() {
	if conn := w.conn.Swap(nil); conn != nil {
		_ = (*conn).Close() // it carries nothing more
	}
}

// hurry leaves the request in flight little time. Any goroutine may call it.
func (w *worker) hurry() {
	if conn := w.conn.Load(); conn != nil {
		_ = (*conn).SetDeadline(time.Now().Add(stopGrace)) // fails on a closed one
	}
}

// pause waits longer after each failure to connect, not all workers alike.
func (w *worker) pause(ctx context.Context) {
	w.backoff = min(max(2*w.backoff, firstBackoff), maxBackoff)
	select {
	case <-time.After(w.backoff/2 + rand.N(w.backoff/2)): //nolint:gosec // spread, not secret
	case <-ctx.Done():
	}
}

// failure says in one word why there was no answer.
func failure(err error) string {
	switch {
	case errors.Is(err, ErrConnect):
		return "not connected"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timed out"
	case errors.Is(err, errMalformed):
		return "malformed"
	default:
		return "cut off"
	}
}
