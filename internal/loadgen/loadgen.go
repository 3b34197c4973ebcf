// Package loadgen sends HTTP requests and measures their answers. It runs beside
// what it measures, on the same processors, so a request costs it two system
// calls and no allocation: requests are bytes that are ready to send, and
// answers are read only as far as needed to know where they end. It knows the
// suite only from outside, by HTTP.
package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options say where to send what, and for how long.
type Options struct {
	// Addr is host:port of an HTTP/1.1 server.
	Addr string
	// Request is the i-th request, from 0, and which of Kinds it is. It may append
	// it to buf, which is empty, has room for 4 KiB and is used again for the next
	// request. Calls are concurrent.
	Request func(buf []byte, i uint64) (request []byte, kind int)
	// Kinds names the kinds of requests, which are timed apart. At least one.
	Kinds []string
	// Connections is how many are open, each with one request at a time.
	Connections int
	// Rate is in requests per second, evenly spread, however slow the answers
	// (open loop). 0 sends the next request of a connection after the answer to
	// its last (closed loop).
	Rate float64
	// Duration and Requests end the load, whichever is first. 0 is no end; one of
	// them is needed.
	Duration time.Duration
	Requests uint64
	// Timeout bounds a request from its first byte sent; 0 is 10 s.
	Timeout time.Duration
	// Progress is told now and then how many requests are done, and of how many;
	// from one goroutine. May be nil.
	Progress func(done, of int64)
}

// OptionError is an option that is out of its bounds.
type OptionError struct{ Option, Problem string }

func (e *OptionError) Error() string { return e.Option + ": " + e.Problem }

func takes(option string, got any, what string) error {
	return &OptionError{option, fmt.Sprintf("got %v, takes %s", got, what)}
}

// ErrConnect says that no load was sent: the server cannot be reached.
var ErrConnect = errors.New("cannot connect")

const (
	maxConnections = 10_000
	maxRate        = 1e6
	defaultTimeout = 10 * time.Second
	// stopGrace is what requests in flight get when the load is told to stop.
	stopGrace = 2 * time.Second
	// overtime is how long after its end an open loop still sends what was due
	// before: the last requests are always a little late.
	overtime = time.Second
	// progressEvery is how often Progress is told.
	progressEvery = 200 * time.Millisecond
)

func (o *Options) check() error {
	switch {
	case o.Request == nil || len(o.Kinds) == 0:
		return errors.New("loadgen: Request and Kinds are required")
	case o.Connections < 1 || o.Connections > maxConnections:
		return takes("connections", o.Connections, fmt.Sprintf("1 to %d", maxConnections))
	case math.IsNaN(o.Rate) || o.Rate < 0 || o.Rate > maxRate:
		return takes("rate", o.Rate, "a number above 0, at most 1000000 requests/s; 0 for a closed loop")
	case o.Duration < 0:
		return takes("duration", o.Duration, "a duration above 0, such as 10s")
	case o.Duration == 0 && o.Requests == 0:
		return &OptionError{"duration", "the load has no end; give a duration or a number of requests"}
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	return nil
}

// load is one Run.
type load struct {
	Options
	start time.Time
	taken atomic.Uint64 // requests that a worker has taken
	due   chan uint64   // of an open loop: requests whose time has come
	tally *tally
}

// Run opens all connections, sends the load and reports. A ctx that ends stops
// the load early: what is in flight gets 2 s, and the report says what was done.
// It fails with an OptionError, or with ErrConnect before anything was sent.
func Run(ctx context.Context, o Options) (Report, error) {
	if err := o.check(); err != nil {
		return Report{}, err
	}
	l := &load{Options: o, tally: newTally(o.Kinds)}
	workers, err := l.connect(ctx)
	if err != nil {
		return Report{}, err
	}
	stop := context.AfterFunc(ctx, func() {
		for _, w := range workers {
			w.hurry()
		}
	})
	defer stop()

	l.start = time.Now()
	var work, around sync.WaitGroup
	finished, finish := context.WithCancel(context.WithoutCancel(ctx))
	if o.Rate > 0 {
		l.due = make(chan uint64)
		around.Go(func() { defer close(l.due); l.pace(ctx) })
	}
	if o.Progress != nil {
		around.Go(func() { l.tell(finished) })
	}
	for _, w := range workers {
		work.Go(func() { w.run(ctx) })
	}
	work.Wait()
	finish()
	around.Wait()
	return l.report(), nil
}

// connect opens all connections, so that none is opened while time is measured.
func (l *load) connect(ctx context.Context) ([]*worker, error) {
	workers := make([]*worker, l.Connections)
	for i := range workers {
		workers[i] = newWorker(l)
		if err := workers[i].dial(ctx); err != nil {
			for _, w := range workers[:i] {
				w.hangUp()
			}
			return nil, fmt.Errorf("%w to %s: %w", ErrConnect, l.Addr, plain(err))
		}
	}
	return workers, nil
}

// plain is what the operating system says of a connection, without the addresses
// that net puts before it.
func plain(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// over tells whether the time of the load is up.
func (l *load) over(now time.Duration) bool { return l.Duration > 0 && now >= l.Duration }

// dueAt is when request i of an open loop is to be sent, after the start.
func (l *load) dueAt(i uint64) time.Duration {
	return time.Duration(float64(i) / l.Rate * float64(time.Second))
}

// pace hands out the requests of an open loop, each when it is due. With no
// worker free it waits, and the requests behind it are late: dueAt tells.
func (l *load) pace(ctx context.Context) {
	sleep := newSleeper()
	for i := uint64(0); l.Requests == 0 || i < l.Requests; i++ {
		at := l.dueAt(i)
		if l.over(at) {
			return
		}
		for wait := at - time.Since(l.start); wait > 0; wait = at - time.Since(l.start) {
			sleep(min(wait, 100*time.Millisecond)) // and look at ctx
			if ctx.Err() != nil {
				return
			}
		}
		if now := time.Since(l.start); l.over(now - overtime) { // far behind
			l.late(i, now)
			return
		}
		select {
		case l.due <- i:
		case <-ctx.Done():
			return
		}
	}
}

// late counts the requests from i on that were due by now and will not be sent.
// Left out, they would make a server that falls behind look quick.
func (l *load) late(i uint64, now time.Duration) {
	for ; l.dueAt(i) < l.Duration && (l.Requests == 0 || i < l.Requests); i++ {
		_, kind := l.Request(nil, i)
		l.tally.unsent(kind, now-l.dueAt(i))
	}
}

// next is the next request and when it was due; false when there is none.
func (l *load) next(ctx context.Context) (i uint64, due time.Duration, ok bool) {
	if l.due != nil {
		i, ok = <-l.due
		return i, l.dueAt(i), ok
	}
	now := time.Since(l.start)
	if ctx.Err() != nil || l.over(now) {
		return 0, 0, false
	}
	i = l.taken.Add(1) - 1
	return i, now, l.Requests == 0 || i < l.Requests
}

// tell reports progress until ctx is done. Without a number of requests, how
// many there will be is told from the time that has gone.
func (l *load) tell(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		done, gone := l.tally.done(), time.Since(l.start)
		of := math.Inf(1)
		if l.Requests > 0 {
			of = float64(l.Requests)
		}
		if l.Duration > 0 {
			of = min(of, float64(done)*max(1, l.Duration.Seconds()/gone.Seconds()))
		}
		l.Progress(done, int64(of))
	}
}
