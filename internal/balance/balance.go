// Package balance is the processor that knows what each wallet holds: the exact
// sum of its deposits, each counted once. It is the only one that sets aside
// what cannot be applied from topic deposit.
package balance

import (
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// Graph is the processor's place among the topics.
func Graph(env stream.Env) *goka.GroupGraph {
	return goka.DefineGroup(goka.Group(stream.BalanceGroup),
		goka.Input(stream.DepositStream, new(codec.Bytes), processor{env}.deposit),
		goka.Persist(stream.Keep(stream.BalanceEncoder{}, env.RowMemory, env.Partitions)),
	)
}

type processor struct{ stream.Env }

// deposit folds one deposit into its wallet's account. A repeat sets the
// unchanged row again: its changelog write may be what was lost.
func (p processor) deposit(ctx goka.Context, msg any) {
	d, reason := p.Deposit(ctx, msg)
	if reason != nil {
		p.SetAside(ctx, reason)
		return
	}
	held, alive := stream.Row(ctx)
	if !alive {
		return
	}
	row, err := stream.KeptRow[wallet.Account](held, ctx.Partition())
	if err != nil {
		stream.Fail(ctx, err)
	}
	account := &row.Row
	p.CheckRow(ctx, account.NextOffset)
	verdict := account.Apply(d)
	if verdict == wallet.Overflow && !stored(ctx, p.SetAside(ctx, errOverflow)) {
		return // the session is over
	}
	p.Count(verdict)
	ctx.SetValue(row)
}
