package live

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"
)

// point is a tick as the charts need it. A rate is the difference of two totals:
// who missed a tick still has it right.
type point struct {
	At    int64  `json:"at"` // Unix milliseconds
	Total int64  `json:"total"`
	P50   *int64 `json:"p50"` // delay in milliseconds, null when nothing was sampled lately
	P99   *int64 `json:"p99"`
}

// tick is what is told a few times a second, also when nothing happened: it is
// the stream's heartbeat.
type tick struct {
	point
	Deposits []Deposit `json:"deposits"` // newest first
	Flags    []Flag    `json:"flags"`
}

type delay struct {
	seen time.Time
	ms   int64
}

// past is what a hub remembers. Its hub's mutex guards it.
type past struct {
	seq      int64
	points   []point
	deposits []Deposit // newest first
	flags    []Flag
	delays   []delay // oldest first
}

// Run tells watchers what there is until ctx is done. It is called once; after it
// nobody watches any more.
func (h *Hub) Run(ctx context.Context) {
	var looking sync.WaitGroup
	looking.Go(func() { h.look(ctx) })
	defer looking.Wait()
	defer h.end()
	ticks := time.NewTicker(h.options.Tick)
	defer ticks.Stop()
	var before int64
	for {
		select {
		case now := <-ticks.C:
			total := h.total.Load()
			h.stride.Store(max(1, (total-before)/perTick))
			before = total
			h.tell(now, total)
		case <-ctx.Done():
			return
		}
	}
}

// tell publishes a tick.
func (h *Hub) tell(now time.Time, total int64) {
	deposits, flags := drain(h.deposits), drain(h.flags)
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &h.past
	for _, d := range deposits {
		p.delays = append(p.delays, delay{now, d.DelayMs})
	}
	old := 0
	for old < len(p.delays) && now.Sub(p.delays[old].seen) >= recent {
		old++
	}
	p.delays = slices.Delete(p.delays, 0, old)
	t := tick{point: point{At: now.UnixMilli(), Total: total}, Deposits: newest(deposits), Flags: newest(flags)}
	t.P50, t.P99 = percentiles(p.delays)
	p.points = last(append(p.points, t.point), remembered)
	p.deposits = first(slices.Concat(t.Deposits, p.deposits), shown)
	p.flags = first(slices.Concat(t.Flags, p.flags), shown)
	p.seq++
	if len(h.watchers) > 0 {
		h.publishState(false)
		h.publish(message("tick", p.seq, t))
	}
}

// hello is a watcher's first message. The caller holds mu.
func (h *Hub) hello() []byte {
	return message("hello", h.past.seq, struct {
		About    any       `json:"about"`
		TickMs   int64     `json:"tick_ms"`
		Points   []point   `json:"points"`
		Deposits []Deposit `json:"deposits"`
		Flags    []Flag    `json:"flags"`
	}{h.options.Hello, h.options.Tick.Milliseconds(), some(h.past.points), some(h.past.deposits), some(h.past.flags)})
}

// look publishes the state whenever it is another, as long as somebody watches.
func (h *Hub) look(ctx context.Context) {
	if h.options.State == nil {
		return
	}
	ticks := time.NewTicker(h.options.StateEvery)
	defer ticks.Stop()
	for {
		if h.Watched() {
			state := message("state", 0, h.options.State(ctx))
			h.mu.Lock()
			if !h.over && !bytes.Equal(state, h.state) {
				h.state = state
				h.publishState(true)
			}
			h.mu.Unlock()
		}
		select {
		case <-ticks.C:
		case <-h.arrived:
		case <-ctx.Done():
			return
		}
	}
}

// end sends everybody home.
func (h *Hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	for c := range h.watchers {
		delete(h.watchers, c)
		h.watching.Add(-1)
		close(c)
	}
}

// message is an event of a text/event-stream. An id of 0 is none.
func message(event string, id int64, data any) []byte {
	b := append([]byte("event: "), event...)
	if id > 0 {
		b = strconv.AppendInt(append(b, "\nid: "...), id, 10)
	}
	b = append(b, "\ndata: "...)
	var text bytes.Buffer
	enc := json.NewEncoder(&text) // ends with a line end
	enc.SetEscapeHTML(false)
	if enc.Encode(data) != nil { // only what is no JSON at all
		text.WriteString("null\n")
	}
	return append(append(b, text.Bytes()...), '\n')
}

// percentiles are the 50th and the 99th, nil of none.
func percentiles(delays []delay) (p50, p99 *int64) {
	if len(delays) == 0 {
		return nil, nil
	}
	ms := make([]int64, len(delays))
	for i, d := range delays {
		ms[i] = d.ms
	}
	slices.Sort(ms)
	at := func(share int) *int64 { return &ms[(len(ms)*share+99)/100-1] } // nearest rank
	return at(50), at(99)
}

// drain empties a channel without waiting.
func drain[T any](c chan T) []T {
	var list []T
	for len(list) < cap(c) {
		select {
		case x := <-c:
			list = append(list, x)
		default:
			return list
		}
	}
	return list
}

// newest are the last that came, the latest first; never nil.
func newest[T any](list []T) []T {
	list = slices.Clone(last(list, shown))
	slices.Reverse(list)
	return some(list)
}

func first[T any](list []T, n int) []T { return list[:min(n, len(list))] }

func last[T any](list []T, n int) []T { return list[max(0, len(list)-n):] }

// some is list as JSON has it when there is nothing: [] and not null.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
