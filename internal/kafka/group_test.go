package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// fakeGroup answers Consume with a script.
type fakeGroup struct {
	sarama.ConsumerGroup
	sessions atomic.Int32
	errs     chan error
	closed   atomic.Bool
	session  func(ctx context.Context, n int, h sarama.ConsumerGroupHandler) error
	heard    func() bool // what was sent to errs
}

func (g *fakeGroup) Consume(ctx context.Context, _ []string, h sarama.ConsumerGroupHandler) error {
	return g.session(ctx, int(g.sessions.Add(1)), h)
}
func (g *fakeGroup) Errors() <-chan error { return g.errs }
func (g *fakeGroup) Close() error         { g.closed.Store(true); return nil }

// tell reports err on the side, as sarama does with a claim's failure.
func (g *fakeGroup) tell(t *testing.T, err error) {
	t.Helper()
	g.errs <- err
	eventually(t, "the watcher", g.heard)
}

// wrapped is a consumerGroup around g, as GroupBuilder makes it.
func wrapped(t *testing.T, g *fakeGroup) *consumerGroup {
	t.Helper()
	g.errs = make(chan error)
	w := &consumerGroup{ConsumerGroup: g, inflight: &Inflight{}, errs: make(chan error), stop: make(chan struct{})}
	g.heard = func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.last != nil }
	w.watcher.Add(1)
	go w.watch()
	t.Cleanup(func() {
		must(t, w.Close())
		if !g.closed.Load() {
			t.Error("the group was not left")
		}
	})
	return w
}

var errSession = errors.New("the session failed")

func TestConsume(t *testing.T) {
	tests := []struct {
		name    string
		session func(g *fakeGroup, n int) error
		want    error
		text    string
		times   int
	}{
		{"a rebalance joins again at once", func(_ *fakeGroup, n int) error {
			if n < 5 {
				return nil
			}
			return errSession
		}, errSession, "", 5},
		{"a session that ended under a callback is no failure", func(_ *fakeGroup, n int) error {
			if n == 1 {
				return fmt.Errorf("setup: %w", stream.ErrSessionOver)
			}
			return errSession
		}, errSession, "", 2},
		{"nor when it is told on the side", func(g *fakeGroup, n int) error {
			if n == 1 {
				g.tell(t, fmt.Errorf("claim: %w", stream.ErrSessionOver))
				return nil
			}
			return errSession
		}, errSession, "", 2},
		{"a claim's failure ends it", func(g *fakeGroup, _ int) error {
			g.tell(t, errSession)
			return nil
		}, errSession, "", 1},
		{"offset out of range", func(*fakeGroup, int) error { return sarama.ErrOffsetOutOfRange },
			sarama.ErrOffsetOutOfRange, "truncated or re-created", 1},
		{"offset out of range, told on the side", func(g *fakeGroup, _ int) error {
			g.tell(t, &sarama.ConsumerError{Topic: "deposit", Err: sarama.ErrOffsetOutOfRange})
			return nil
		}, sarama.ErrOffsetOutOfRange, "delete this group's offsets and its table together", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := &fakeGroup{}
			g.session = func(_ context.Context, n int, _ sarama.ConsumerGroupHandler) error { return tt.session(g, n) }
			w := wrapped(t, g)
			err := w.Consume(within(t), []string{"deposit"}, nil)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want %v with %q", err, tt.want, tt.text)
			}
			if n := int(g.sessions.Load()); n != tt.times {
				t.Fatalf("%d sessions, want %d", n, tt.times)
			}
		})
	}
}

func TestConsumeEndsWithItsContext(t *testing.T) {
	for _, tt := range []struct {
		name     string
		err, out error
	}{
		{"quietly", nil, nil},
		{"cancelled", context.Canceled, nil},
		{"in mid-callback", fmt.Errorf("x: %w", stream.ErrSessionOver), nil},
		{"with a failure", errSession, errSession}, // what was in flight may be lost: say so
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(within(t))
			defer cancel()
			g := &fakeGroup{session: func(ctx context.Context, _ int, _ sarama.ConsumerGroupHandler) error {
				cancel()
				<-ctx.Done()
				return tt.err
			}}
			if err := wrapped(t, g).Consume(ctx, nil, nil); !errors.Is(err, tt.out) {
				t.Fatalf("got %v, want %v", err, tt.out)
			}
		})
	}
	t.Run("between two sessions", func(t *testing.T) {
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		g := &fakeGroup{session: func(context.Context, int, sarama.ConsumerGroupHandler) error {
			cancel()
			return nil
		}}
		must(t, wrapped(t, g).Consume(ctx, nil, nil))
	})
}

// Goka gets the session and the claim that keep count.
func TestHandlerHandsOutTheTracked(t *testing.T) {
	f := &Inflight{}
	inner := newFakeSession(1)
	c := newFakeClaim("deposit", 0, 0)
	goka := &fakeHandler{t: t, inner: inner}
	h := handler{goka, f, &fakeOwner{}, neverBare}
	must(t, h.Setup(inner))
	done := make(chan error, 1)
	go func() { done <- h.ConsumeClaim(inner, c) }()
	c.in <- c.deliver(f, 0)
	close(c.in)
	must(t, <-done)
	must(t, h.Cleanup(inner))
	if goka.calls != 3 || inner.committed("deposit", 0) != 1 {
		t.Fatalf("%d calls, marked %v", goka.calls, inner.marks)
	}
}

// fakeOwner is an Owner that keeps what it was told.
type fakeOwner struct {
	mu      sync.Mutex
	claimed []int32
	refuses error // of Claim
	late    error // of Resume
}

func (o *fakeOwner) Claim(_ context.Context, partition int32) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.claimed = append(o.claimed, partition)
	return o.refuses
}

func (o *fakeOwner) Resume(context.Context, string, int32, int64) error { return o.late }

// Goka must not recover what is not claimed, nor read on where it may not.
func TestHandlerClaimsFirst(t *testing.T) {
	inner := newFakeSession(1)
	inner.claims = map[string][]int32{"deposit": {1, 0}, "flag_wallet": {0, 1}}
	goka := &fakeHandler{t: t, inner: inner}
	owner := &fakeOwner{}
	h := handler{goka, &Inflight{}, owner, neverBare}
	must(t, h.Setup(inner))
	if slices.Sort(owner.claimed); !slices.Equal(owner.claimed, []int32{0, 1}) || goka.calls != 1 {
		t.Fatalf("claimed %v, %d calls", owner.claimed, goka.calls)
	}
	owner.refuses = ErrFenced
	if err := h.Setup(inner); !errors.Is(err, ErrFenced) || goka.calls != 1 {
		t.Fatalf("got %v, %d calls", err, goka.calls)
	}
	owner.late = ErrLayout
	if err := h.ConsumeClaim(inner, newFakeClaim("deposit", 0, 0)); !errors.Is(err, ErrLayout) || goka.calls != 1 {
		t.Fatalf("got %v, %d calls", err, goka.calls)
	}
}

type fakeHandler struct {
	t     *testing.T
	inner sarama.ConsumerGroupSession
	calls int
}

func (h *fakeHandler) check(s sarama.ConsumerGroupSession) {
	h.calls++
	if _, ok := s.(*session); !ok {
		h.t.Errorf("Goka is given %T", s)
	}
}

func (h *fakeHandler) Setup(s sarama.ConsumerGroupSession) error   { h.check(s); return nil }
func (h *fakeHandler) Cleanup(s sarama.ConsumerGroupSession) error { h.check(s); return nil }
func (h *fakeHandler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	h.check(s)
	for m := range c.Messages() {
		s.MarkOffset(m.Topic, m.Partition, m.Offset+1, "")
	}
	return nil
}
