// Package streamtest stands in for Goka where a test calls one callback: it hands
// over a message and keeps what the callback did with it. It may be imported by
// tests only.
package streamtest

import (
	"context"
	"errors"
	"testing"

	"github.com/lovoo/goka"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// unused stands for the methods that no callback calls: they panic.
type unused interface{ goka.Context }

// Message is a goka.Context: one message in hand, and what the callback did
// with it.
type Message struct {
	unused
	Ctx      context.Context // nil: Background
	From     goka.Stream
	ID       string // its key
	Position int64
	Row      any

	Set      []any
	Emitted  []any
	Failed   error
	Deferred []error // what each DeferCommit ended with
}

func (m *Message) Context() context.Context { return m.Ctx }
func (m *Message) Topic() goka.Stream       { return m.From }
func (m *Message) Key() string              { return m.ID }
func (m *Message) Partition() int32         { return 0 }
func (m *Message) Offset() int64            { return m.Position }
func (m *Message) Value() any               { return m.Row }
func (m *Message) Fail(err error)           { m.Failed = err } // as after the session's end: it returns

func (m *Message) SetValue(v any, _ ...goka.ContextOption) { m.Set = append(m.Set, v) }

func (m *Message) Emit(_ goka.Stream, _ string, v any, _ ...goka.ContextOption) {
	m.Emitted = append(m.Emitted, v)
}

func (m *Message) DeferCommit() func(error) {
	return func(err error) { m.Deferred = append(m.Deferred, err) }
}

// Value is a message as the value of a record.
func Value(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// Book is what the callbacks' environment was told.
type Book struct {
	Aside   []string
	Refused []string
	Counted []wallet.Verdict
	Rules   []wallet.Rule
	Rule    wallet.Rule // zero: Rule()
	High    int64
	Stored  error // of a dead letter
	Pending bool  // it gets no answer
}

// Rule is the rule in force unless a Book has another.
func Rule() wallet.Rule {
	return wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000}
}

// Env is what a callback is built with.
func (b *Book) Env() stream.Env {
	if b.Rule == (wallet.Rule{}) {
		b.Rule = Rule()
	}
	return stream.Env{
		Partitions: 1, Rule: b.Rule, RowMemory: 1 << 20,
		SetAside: func(_ goka.Context, reason error) *goka.Promise {
			b.Aside = append(b.Aside, reason.Error())
			promise, finish := goka.NewPromiseWithFinisher()
			if !b.Pending {
				finish(nil, b.Stored)
			}
			return promise
		},
		Refuse: func(reason error) { b.Refused = append(b.Refused, reason.Error()) },
		Holds: func(_ context.Context, _ goka.Stream, _ int32, n int64) (bool, error) {
			return b.High == 0 || b.High >= n, nil
		},
		Count:       func(v wallet.Verdict) { b.Counted = append(b.Counted, v) },
		RuleChanged: func(was wallet.Rule) { b.Rules = append(b.Rules, was) },
	}
}

// Run calls the callback and says whether it panicked, as a failure does.
func (m *Message) Run(callback func(goka.Context, any), value any) (panicked error) {
	if m.Ctx == nil {
		m.Ctx = context.Background()
	}
	defer func() {
		if r := recover(); r != nil {
			panicked = r.(error)
		}
	}()
	callback(m, value)
	return nil
}

// WantFailure expects that the processor fails with the message unmarked: no
// row set, nothing emitted, nothing set aside.
func WantFailure(t *testing.T, m *Message, b *Book, panicked, want error) {
	t.Helper()
	if panicked == nil || m.Failed == nil || want != nil && !errors.Is(m.Failed, want) {
		t.Fatalf("panicked %v, failed with %v, want %v", panicked, m.Failed, want)
	}
	if len(m.Set)+len(m.Emitted)+len(b.Aside)+len(b.Counted) != 0 {
		t.Fatalf("it failed and yet set %v, emitted %v, set aside %v, counted %v", m.Set, m.Emitted, b.Aside, b.Counted)
	}
}

// Over is the context of a session that has ended.
func Over() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
