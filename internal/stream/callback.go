package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/lovoo/goka"

	"coinbit/internal/wallet"
)

// Env is what the processors are built with: the same three functions and the
// rule, so that their callbacks hold nothing but decode, decide, set and emit.
type Env struct {
	// Partitions of every co-partitioned topic.
	Partitions int32
	// RowMemory bounds, in bytes and about, the rows kept decoded; see Keep.
	RowMemory int64
	// Rule in force.
	Rule wallet.Rule
	// SetAside sends the message in hand to the dead letter topic of its
	// stream; it is done, and may be marked, when that is stored. The promise
	// lets a callback wait.
	SetAside func(ctx goka.Context, reason error) *goka.Promise
	// Holds tells whether a partition in hand has as many offsets as n.
	Holds func(ctx context.Context, topic goka.Stream, partition int32, n int64) (bool, error)
	// Refuse ends the service for good: no retry mends the reason.
	Refuse func(reason error)
	// Count is told what became of each message.
	Count func(wallet.Verdict)
	// RuleChanged is told that a row was folded with another rule.
	RuleChanged func(was wallet.Rule)
}

// ErrSessionOver is what a callback fails with when its session ended under it:
// not a fault, the message is delivered again.
var ErrSessionOver = errors.New("consumer group session is over")

// Deposit reads the deposit in hand. The reason says why it cannot be applied; one that
// this build must not judge at all ends the service.
func (e Env) Deposit(ctx goka.Context, msg any) (d wallet.Deposit, reason error) {
	value, _ := msg.([]byte) // nil where the record has none
	d, reason = ReadDeposit(e.RecordOf(ctx), value)
	if errors.Is(reason, ErrEarlierBuild) {
		reason = fmt.Errorf("%s %d:%d: %w", ctx.Topic(), ctx.Partition(), ctx.Offset(), reason)
		e.Refuse(reason)
		Fail(ctx, reason)
	}
	return d, reason
}

// RecordOf is the position of the message in hand.
func (e Env) RecordOf(ctx goka.Context) Record {
	return Record{Key: ctx.Key(), Partition: ctx.Partition(), Offset: ctx.Offset(), Partitions: e.Partitions}
}

// Row is the wallet's row before the message in hand, nil for none. When alive
// is false the session is over and the callback must return at once: Goka then
// answers nil for any row, and a partition may have another owner already.
func Row(ctx goka.Context) (row any, alive bool) {
	if ctx.Context().Err() == nil {
		row = ctx.Value()
	}
	if ctx.Context().Err() != nil {
		ctx.DeferCommit()(ErrSessionOver)
		return nil, false
	}
	return row, true
}

// Fail ends the processor with the message in hand unmarked, so that nothing
// after it is applied first. Goka's own Fail returns once the session is over.
func Fail(ctx goka.Context, err error) {
	err = fmt.Errorf("%s %d:%d: %w", ctx.Topic(), ctx.Partition(), ctx.Offset(), err)
	ctx.Fail(err)
	panic(err)
}

// CheckRow fails when a row says that it has applied more than the log holds:
// the topic was re-created under a table that was kept, and new messages would
// be taken for old ones.
func (e Env) CheckRow(ctx goka.Context, nextOffset int64) {
	if nextOffset <= ctx.Offset() { // the log holds the message in hand, so it holds what came before
		return
	}
	holds, err := e.Holds(ctx.Context(), ctx.Topic(), ctx.Partition(), nextOffset)
	switch {
	case err != nil:
		Fail(ctx, fmt.Errorf("does the topic hold the %d messages that the row has applied? %w", nextOffset, err))
	case !holds:
		Fail(ctx, fmt.Errorf("the row has applied %d messages but the topic holds fewer: "+
			"it was re-created, or lost its end: restore it; or, to fold all tables anew, "+FoldAnew, nextOffset))
	}
}
