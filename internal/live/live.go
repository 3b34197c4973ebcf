// Package live is the hub behind the live page: views tell it what they take, it
// tells those who watch, a few times a second. It samples: what it does for a
// deposit is bounded, however many come, and nobody who tells it anything ever
// waits. It knows neither Kafka nor HTTP.
package live

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Deposit is one whose effect is visible in a view.
type Deposit struct {
	WalletID string `json:"wallet_id"`
	Amount   string `json:"amount"`  // exact decimals, so text
	Balance  string `json:"balance"` // with it
	At       int64  `json:"at"`      // event time, Unix milliseconds
	DelayMs  int64  `json:"delay_ms"`
}

// Flag is a change of a wallet's flag that is visible in a view.
type Flag struct {
	WalletID string `json:"wallet_id"`
	Raised   bool   `json:"raised"`
	At       int64  `json:"at"`              // event time, Unix milliseconds
	Total    string `json:"total,omitempty"` // of the window that tipped; empty: an operator did it
}

// Bounds that hold for every hub.
const (
	// perTick is the most deposits, and the most flags, that are looked at in a tick.
	perTick = 64
	// shown is how many of them a tick carries, and how many a new watcher sees first.
	shown = 12
	// backlog is how many messages a watcher may be behind before it misses ticks.
	backlog = 16
	// remembered is how many ticks a new watcher sees of the past.
	remembered = 240
	// recent is how long a delay counts in the percentiles.
	recent = 5 * time.Second
)

// Options is what a hub is built from. State may be left out.
type Options struct {
	// Tick is the time between two messages, StateEvery between two looks at State.
	Tick, StateEvery time.Duration
	// Watchers is how many may watch at once.
	Watchers int
	// Hello is told to each watcher first, as JSON; what does not change.
	Hello any
	// State is told when it changes, as JSON. It is asked only while somebody
	// watches, must end soon after its context does, and may take its time.
	State func(context.Context) any
}

// Hub takes from views and gives to watchers. It is safe for concurrent use.
type Hub struct {
	options  Options
	total    atomic.Int64 // deposits since the start
	stride   atomic.Int64 // one of so many is looked at
	watching atomic.Int64
	deposits chan Deposit
	flags    chan Flag
	arrived  chan struct{} // somebody watches who did not before

	mu       sync.Mutex
	watchers map[chan []byte]bool // true: has missed the latest state, which is due again
	over     bool
	past     past
	state    []byte // the latest, as a message; nil before the first
}

// New builds a hub that does nothing before Run.
func New(o Options) (*Hub, error) {
	if o.Tick <= 0 || o.StateEvery <= 0 || o.Watchers <= 0 {
		return nil, errors.New("live: Tick, StateEvery and Watchers must be above 0")
	}
	h := &Hub{
		options: o, watchers: make(map[chan []byte]bool),
		deposits: make(chan Deposit, perTick), flags: make(chan Flag, perTick), arrived: make(chan struct{}, 1),
	}
	h.stride.Store(1)
	return h, nil
}

// Watched tells whether anybody watches: if not, only Count is of use.
func (h *Hub) Watched() bool { return h.watching.Load() > 0 }

// Count counts a deposit and tells whether it is one to be looked at closely and
// handed to Show.
func (h *Hub) Count() bool {
	n := h.total.Add(1)
	return h.watching.Load() > 0 && n%h.stride.Load() == 0 && len(h.deposits) < cap(h.deposits)
}

// Show hands over a deposit that Count chose. It is dropped when the tick is full.
func (h *Hub) Show(d Deposit) {
	select {
	case h.deposits <- d:
	default:
	}
}

// Room tells whether the tick has place for another flag.
func (h *Hub) Room() bool { return h.watching.Load() > 0 && len(h.flags) < cap(h.flags) }

// ShowFlag hands over a flag that changed. It is dropped when the tick is full.
func (h *Hub) ShowFlag(f Flag) {
	select {
	case h.flags <- f:
	default:
	}
}

// Watch returns what is told from now on, each an event of a text/event-stream.
// Who does not take them misses some and holds nobody up. messages is closed when
// the hub ends. stop must be called. It answers false when too many watch.
func (h *Hub) Watch() (messages <-chan []byte, stop func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || len(h.watchers) >= h.options.Watchers {
		return nil, nil, false
	}
	c := make(chan []byte, backlog)
	c <- h.hello()
	if h.state != nil {
		c <- h.state
	}
	h.watchers[c] = false
	if h.watching.Add(1) == 1 {
		select {
		case h.arrived <- struct{}{}:
		default:
		}
	}
	return c, sync.OnceFunc(func() { h.leave(c) }), true
}

func (h *Hub) leave(c chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, there := h.watchers[c]; there {
		delete(h.watchers, c)
		h.watching.Add(-1)
	}
}

// publish gives a message to all who have place for it. The caller holds mu.
func (h *Hub) publish(message []byte) {
	for c := range h.watchers {
		offer(c, message)
	}
}

// publishState gives the state to all, or to those who missed it, as far as they have place,
// and remembers who had none: it may be the last change for hours. The caller holds mu.
func (h *Hub) publishState(toAll bool) {
	for c, missed := range h.watchers {
		if toAll || missed {
			h.watchers[c] = !offer(c, h.state)
		}
	}
}

func offer(c chan<- []byte, message []byte) bool {
	select {
	case c <- message:
		return true
	default:
		return false
	}
}
