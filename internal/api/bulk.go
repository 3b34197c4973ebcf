package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// MaxSent bounds the deposits that an API has under way by Log.Send: those of streams
// and the single ones with a key.
const MaxSent = window + maxKeyed

const (
	// maxStreams bounds the streams at once.
	maxStreams = 32
	// window is the most lines that are read and not answered, of all streams: each
	// has an equal share at most. Within it a stream has as many as were answered
	// in the latest tick, so that who comes after them, also with a single deposit,
	// waits for about as long, however slow the log. firstWindow is what it has at
	// least, and begins with.
	window      = 16384
	firstWindow = 1024
	tick        = 100 * time.Millisecond
	// answersAtOnce is about how many bytes of answers go out together.
	answersAtOnce = 32 << 10

	// stallTimeout is how long a line may take to arrive, and answers to be taken.
	stallTimeout = requestTimeout
	// stopBudget is what lines under way get when the server stops, out of the two
	// seconds that it waits for requests.
	stopBudget = time.Second
	// retryPause is between two tries to hand over a deposit that the log refuses.
	retryPause = 5 * time.Millisecond
)

// stream is one request of deposits, line by line. The handler reads the lines
// and hands them to the log, a second goroutine answers them in order. They meet
// in a ring: the reader fills it up to filled, the writer empties it up to
// answered, and the log concludes entries in between.
type stream struct {
	api  *API
	w    http.ResponseWriter
	rc   *http.ResponseController
	body io.Reader
	who  client

	// The reader's own.
	lines *lines
	dated int64 // the line for which the read deadline was set
	began time.Time
	now   time.Duration // since began, as of the latest read or wait
	timer *time.Timer
	spent int64 // entries below are used again, those up to answered can be

	ring             [window]*entry
	filled, answered atomic.Int64
	quota            atomic.Int64 // of the window
	end              *ending      // set before ended
	ended            atomic.Bool
	halted           atomic.Pointer[failure] // why no more is to be read
	cutoff           atomic.Int64            // when lines under way are given up, 0: by their own age

	// A side that waits says so, and the other wakes it.
	parked     atomic.Int64 // the entry that the writer waits for, -1 for none
	waiting    atomic.Bool  // the reader waits for room
	wake, room chan struct{}

	// The writer's own.
	out      bytes.Buffer
	encoder  *json.Encoder
	accepted int      // not counted in the metrics yet
	measured struct { // at the latest tick
		answered int64
		at       time.Duration
	}
	gone     error           // why nothing more can be written
	changed  <-chan struct{} // the row that the writer waits for
	unwatch  func()          // nil without changed
	panicked any
}

// entry is a line under way. Its deposit and its done are used again for a later
// line, unless it was given up: then they stay with the log.
type entry struct {
	at       int64 // in the ring
	line     int64
	sent     time.Duration
	order    order
	key      *keyUse // nil without one
	checked  int64   // which row does not know the key
	deposit  pb.Deposit
	done     func(Position, error)
	state    atomic.Int32
	position Position // what the log said, with err
	err      error

	concluded bool // got and bad are what the client is told
	got       receipt
	bad       *failure
}

// The states of an entry.
const (
	underWay int32 = iota
	settled
	givenUp
)

// ending is why a stream ended before its body did.
type ending struct {
	line int64 // the first that was not taken
	why  *failure
}

// bulk answers POST /api/deposits.
func (a *API) bulk(w http.ResponseWriter, r *http.Request) *failure {
	if len(r.Header[headerKey]) > 0 {
		return fail(codeKey, headerKey+" names one deposit; give each line an "+fieldKey)
	}
	if f := headerSlip(r.Header); f != nil {
		return f
	}
	if !a.streams.enter() {
		return fail(codeBusy, "too many streams at once; nothing was read and nothing counts")
	}
	defer a.streams.leave()
	s := &stream{
		api: a, w: w, rc: http.NewResponseController(w), body: r.Body, began: time.Now(),
		timer: time.NewTimer(0), wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	defer s.timer.Stop()
	s.who, _ = a.guard.client(r)
	s.lines = newLines(s)
	s.encoder = json.NewEncoder(&s.out)
	s.encoder.SetEscapeHTML(false)
	s.parked.Store(-1)
	s.quota.Store(firstWindow)
	_ = s.rc.EnableFullDuplex() // only HTTP/1 has to be told
	w.Header().Set("Content-Type", "application/x-ndjson")
	s.run(stopping(r))
	return nil
}

// run reads and answers until both are done. It panics as net/http wants it when
// the answer must be seen to be cut off.
func (s *stream) run(stop context.Context) {
	told := make(chan struct{})
	detach := context.AfterFunc(stop, func() {
		defer close(told)
		s.cutoff.Store(int64(time.Since(s.began) + stopBudget))
		s.halt(fail(codeStopping, "the server is stopping"))
	})
	written := make(chan struct{})
	go func() {
		defer close(written)
		defer func() {
			if p := recover(); p != nil {
				s.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
				s.halt(fail(codeInternal, "the server made a mistake"))
			}
		}()
		s.write()
	}()
	finish := sync.OnceFunc(func() {
		s.ended.Store(true)
		signal(s.wake)
		<-written
		if !detach() {
			<-told
		}
	})
	defer func() { // reading panicked, or writing
		if p := recover(); p != nil {
			finish()
			s.w.Header().Set("Connection", "close") // what is left of the body is no request
			panic(p)
		}
	}()
	s.end = s.read()
	finish()
	switch {
	case s.panicked != nil:
		panic(s.panicked)
	case s.end == nil && s.gone == nil:
		return
	case s.gone == nil:
		_ = s.rc.SetReadDeadline(time.Now().Add(lingering))
		_, _ = io.Copy(io.Discard, s.body)
	}
	panic(http.ErrAbortHandler)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// halt ends the reading, wherever it is. The first reason counts.
func (s *stream) halt(why *failure) {
	s.halted.CompareAndSwap(nil, why)
	_ = s.rc.SetReadDeadline(time.Unix(1, 0))
	signal(s.room)
	signal(s.wake)
}

// Read reads the body. A line has one deadline however many reads it takes; the
// time in which we do not read is not held against the client.
func (s *stream) Read(p []byte) (int, error) {
	if s.dated < s.lines.n {
		s.dated = s.lines.n
		_ = s.rc.SetReadDeadline(time.Now().Add(s.api.stallTimeout))
	}
	if s.halted.Load() != nil { // after the deadline was set, or it would undo halt's
		return 0, os.ErrDeadlineExceeded
	}
	n, err := s.body.Read(p)
	if errors.Is(err, io.EOF) {
		s.dated = math.MaxInt64 // a deadline would now be that of the connection's next request
	}
	s.now = time.Since(s.began)
	return n, err
}

// read takes all lines, nil, or says where and why it ended.
func (s *stream) read() *ending {
	for {
		line, err := s.lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if why := s.halted.Load(); why != nil {
			return &ending{s.lines.n, why}
		}
		var o order
		var bad *failure
		switch {
		case err == nil:
			o, bad = parse("line", line)
		case errors.Is(err, errLong):
			bad = fail(codeTooLarge, err.Error())
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &ending{s.lines.n, fail(codeSlow, "the line did not arrive in time")}
		default:
			return &ending{s.lines.n, fail(codeBody, "body ended early").because(err)}
		}
		if end := s.take(o, bad); end != nil {
			return end
		}
	}
}

// take sees a line off.
func (s *stream) take(o order, bad *failure) *ending {
	if bad != nil {
		o = order{}
	}
	if !s.wait(retryPause, s.mayTake) {
		return &ending{s.lines.n, s.halted.Load()}
	}
	e := s.entry()
	e.line, e.order, e.sent, e.key = s.lines.n, o, s.now, nil
	e.concluded, e.got, e.bad, e.err = bad != nil, receipt{}, bad, nil
	e.state.Store(underWay)
	var end *ending
	if o.key != "" && !s.wait(retryPause, func() bool { return s.enter(e) }) {
		return &ending{s.lines.n, s.halted.Load()}
	}
	if e.key != nil {
		defer s.api.keys.unsent(e.key)
		e.got, e.concluded, e.checked, e.bad = s.api.known(o)
		e.concluded = e.concluded || e.bad != nil
	}
	switch {
	case e.concluded:
		e.state.Store(settled)
		if errors.Is(e.cause(), errKeysFull) {
			end = &ending{s.lines.n + 1, e.bad}
		}
	case !s.wait(retryPause, func() bool { return s.send(e) }):
		return &ending{s.lines.n, s.halted.Load()}
	case e.concluded:
		end = &ending{s.lines.n + 1, e.bad}
	}
	s.filled.Store(e.at + 1)
	if e.state.Load() == settled {
		s.nudge(e.at)
	}
	return end
}

// mayTake tells whether there is room for a line: all streams have an equal
// share, and RATE_LIMIT counts each line.
func (s *stream) mayTake() bool {
	quota := min(s.quota.Load(), int64(window/max(1, len(s.api.streams))))
	return s.filled.Load()-s.answered.Load() < quota &&
		(s.lines.n == 1 || s.api.guard.limit == 0 || s.api.guard.take(s.who, time.Now()) <= 0)
}

// enter takes a place in the book for e's key; false to try again. What finds none for
// as long as a request may take is concluded.
func (s *stream) enter(e *entry) bool {
	h := wallet.HashKey(e.order.key)
	u, _, err := s.api.keys.try(e.order.walletID, h)
	if err != nil {
		s.api.keys.look(e.order.walletID)
		u, _, err = s.api.keys.try(e.order.walletID, h)
	}
	if err == nil {
		e.key = u
		return true
	}
	if s.now-e.sent < depositBudget {
		return false
	}
	e.bad, e.concluded = noPlace(err), true
	return true
}

// cause is why e failed, nil if it did not, or for no reason of ours.
func (e *entry) cause() error {
	if e.bad == nil {
		return nil
	}
	return e.bad.cause
}

// entry is an entry at the next place in the ring, an answered one if there is.
func (s *stream) entry() *entry {
	var e *entry
	if s.spent < s.answered.Load() {
		e, s.ring[s.spent%window] = s.ring[s.spent%window], nil
		s.spent++
	}
	if e == nil {
		e = new(entry)
		e.done = func(position Position, err error) {
			s.api.streamed.Add(-1)
			if e.key != nil {
				s.api.keys.answered(e.key, position, err)
			}
			e.position, e.err = position, err
			at := e.at // once settled, e may be another line's
			if e.state.CompareAndSwap(underWay, settled) {
				s.nudge(at)
			}
		}
	}
	e.at = s.filled.Load()
	s.ring[e.at%window] = e
	return e
}

// send hands e to the log; false to try again. A log that refuses for as long as
// a request may take concludes e.
func (s *stream) send(e *entry) bool {
	err := ErrRefused
	if s.api.streamed.Add(1) <= window {
		if e.key != nil {
			s.api.keys.sent(e.key)
		}
		s.api.fill(&e.deposit, e.order, e.checked)
		if err = s.api.Log.Send(&e.deposit, e.done); err == nil {
			return true
		}
		if e.key != nil {
			s.api.keys.unhanded(e.key)
		}
	}
	s.api.streamed.Add(-1)
	if refused(err) && s.now-e.sent < depositBudget {
		return false
	}
	e.bad, e.concluded = unsent(err, e.order.key), true
	e.state.Store(settled)
	return true
}

// wait waits until ready, which is also asked after each pause; false when the
// stream is halted.
func (s *stream) wait(pause time.Duration, ready func() bool) bool {
	for !ready() {
		s.waiting.Store(true)
		if ready() {
			s.waiting.Store(false)
			break
		}
		s.timer.Reset(pause)
		select {
		case <-s.room:
		case <-s.timer.C:
		}
		s.waiting.Store(false)
		if s.halted.Load() != nil {
			return false
		}
		s.now = time.Since(s.began)
	}
	return true
}

// nudge wakes the writer if it waits for the entry.
func (s *stream) nudge(at int64) {
	if s.parked.Load() == at {
		signal(s.wake)
	}
}

// write answers every line in its turn, and says at last why there are no more.
func (s *stream) write() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	defer s.unwatchRow()
	for at := int64(0); ; at++ {
		e := s.head(at, ticker.C)
		if e == nil {
			break
		}
		s.answer(e)
		if s.out.Len() >= answersAtOnce {
			s.flush(at + 1)
		}
	}
	if s.end != nil {
		s.tell(s.end.line, &failure{code: s.end.why.code, cause: s.end.why.cause,
			detail: s.end.why.detail + "; this line and all after it were not sent and do not count"}, true)
	}
	s.flush(s.filled.Load())
}

// head waits until the entry is concluded; nil when there is none to come. When
// it must wait it first sends what it has.
func (s *stream) head(at int64, ticks <-chan time.Time) *entry {
	for waited := false; ; waited = true {
		ended := s.ended.Load() // before filled
		if at < s.filled.Load() {
			if e := s.conclude(at); e != nil {
				s.parked.Store(-1)
				return e
			}
		} else if ended {
			return nil
		}
		if !waited {
			s.flush(at)
			s.parked.Store(at) // and look again: it may be there since
			continue
		}
		select {
		case <-s.wake:
		case <-s.changed:
		case <-ticks:
			now := time.Since(s.began)
			perTick := (at - s.measured.answered) * int64(tick) / int64(now-s.measured.at)
			s.quota.Store(max(firstWindow, perTick))
			s.measured.answered, s.measured.at = at, now
		}
	}
}

// conclude is the entry once it is known what its client is told; nil before.
func (s *stream) conclude(at int64) *entry {
	e := s.ring[at%window]
	if e.state.Load() == underWay {
		if !s.late(e) || !e.state.CompareAndSwap(underWay, givenUp) {
			return nil
		}
		s.ring[at%window] = nil // this one is the log's
		return &entry{line: e.line, order: e.order, bad: unsent(ErrUnknown, e.order.key)}
	}
	switch {
	case e.concluded:
	case e.err != nil:
		e.bad = unsent(e.err, e.order.key)
	case e.order.key == "":
		e.got = receipt{at: e.position}
	default:
		var applied bool
		e.got, applied, e.bad = s.api.applied(e.order, e.key, e.position)
		switch {
		case applied || e.bad != nil:
			s.unwatchRow()
		case s.late(e):
			s.unwatchRow()
			e.bad = unknown(context.DeadlineExceeded)
		case s.unwatch == nil:
			s.changed, s.unwatch = s.api.Tables.Watch(e.order.walletID)
			return s.conclude(at) // it may have changed since
		default:
			return nil
		}
	}
	e.concluded = true
	return e
}

func (s *stream) unwatchRow() {
	if s.unwatch != nil {
		s.unwatch()
		s.changed, s.unwatch = nil, nil
	}
}

// late tells whether e has waited for as long as a request may.
func (s *stream) late(e *entry) bool {
	limit := e.sent + depositBudget
	if cutoff := time.Duration(s.cutoff.Load()); cutoff > 0 {
		limit = min(limit, cutoff)
	}
	return time.Since(s.began) >= limit
}

// answer writes the line that answers e.
func (s *stream) answer(e *entry) {
	if e.bad != nil {
		s.api.deposits[result(e.got, e.bad)].Inc()
		s.tell(e.line, e.bad, false)
		return
	}
	b := s.out.AvailableBuffer()
	b = append(b, `{"line":`...)
	b = strconv.AppendInt(b, e.line, 10)
	b = append(b, `,"position":"`...)
	b = e.got.at.append(b)
	if e.got.replayed {
		s.api.deposits[resultReplayed].Inc()
		b = append(b, `","replayed":true}`...)
	} else {
		s.accepted++
		b = append(b, `"}`...)
	}
	s.out.Write(append(b, '\n'))
}

// refusal is the answer to a line that does not count, or the last of a stream
// that ended early.
type refusal struct {
	Line    int64  `json:"line"`
	Code    int    `json:"code"`
	Type    string `json:"type"`
	Message string `json:"message"`
	End     bool   `json:"end,omitempty"`
}

func (s *stream) tell(line int64, f *failure, end bool) {
	if f.cause != nil {
		s.api.logger.Debug("line failed", "code", string(f.code), "cause", f.cause)
	}
	_ = s.encoder.Encode(refusal{line, kinds[f.code].status, typePrefix + string(f.code), f.detail, end}) // into memory
}

// flush sends the answers to all entries below at, and gives their places back.
func (s *stream) flush(at int64) {
	s.answered.Store(at)
	if s.waiting.Load() {
		signal(s.room)
	}
	if s.accepted > 0 {
		s.api.deposits[resultAccepted].Add(float64(s.accepted))
		s.accepted = 0
	}
	if s.out.Len() == 0 {
		return
	}
	if s.gone == nil {
		_ = s.rc.SetWriteDeadline(time.Now().Add(s.api.stallTimeout))
		_, s.gone = s.w.Write(s.out.Bytes())
		if s.gone == nil {
			s.gone = s.rc.Flush()
		}
		if s.gone != nil {
			s.halt(fail(codeSlow, "the client does not take its answers").because(s.gone))
		}
	}
	s.out.Reset()
}
