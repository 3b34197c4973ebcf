package kafka

import (
	"sync/atomic"
	"time"
)

// maxWait bounds how long a record waits for others.
const maxWait = time.Millisecond

// pace says when a request is worth sending. Each costs the broker about the same,
// however many records it carries. So under load a request waits until three quarters
// as many records are there as were unanswered lately: the others are then being
// answered, or on their way here. Without load, that is with one record at a time,
// nothing waits.
type pace struct {
	waiting atomic.Int64 // records that are in no request yet
	usual   atomic.Int64 // records unanswered, lately
	want    atomic.Int64 // records that somebody waits for, 0 when nobody does
	there   chan struct{}
}

func newPace() pace { return pace{there: make(chan struct{}, 1)} }

// came notes a record to be sent.
func (p *pace) came() {
	n := p.waiting.Add(1)
	if want := p.want.Load(); want > 0 && n >= want {
		select {
		case p.there <- struct{}{}:
		default:
		}
	}
}

// left notes that n records wait no longer.
func (p *pace) left(n int) { p.waiting.Add(int64(-n)) }

// answered notes the end of a request with n records.
func (p *pace) answered(n int) {
	p.usual.Store(max(int64(n)+p.waiting.Load(), p.usual.Load()/2))
}

// wait returns when a request is worth sending, or after maxWait.
func (p *pace) wait(timer *time.Timer, stop <-chan struct{}) {
	want := p.usual.Load() * 3 / 4
	if p.waiting.Load() >= want {
		return
	}
	select {
	case <-p.there: // of an earlier wait
	default:
	}
	p.want.Store(want)
	defer p.want.Store(0)
	if p.waiting.Load() >= want {
		return
	}
	timer.Reset(maxWait)
	select {
	case <-p.there:
	case <-timer.C:
	case <-stop:
	}
}
