// Package threshold is the processor that watches each wallet's rolling window.
// When a deposit takes it above the threshold, it emits a Crossing on
// flag_wallet, versioned by that deposit's offset.
package threshold

import (
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// Graph is the processor's place among the topics.
func Graph(env stream.Env) *goka.GroupGraph {
	return goka.DefineGroup(goka.Group(stream.ThresholdGroup),
		goka.Input(stream.DepositStream, new(codec.Bytes), processor{env}.deposit),
		goka.Output(stream.FlagWalletStream, new(stream.FlagEventEncoder)),
		goka.Persist(stream.Keep(stream.CounterEncoder{}, env.RowMemory, env.Partitions)),
	)
}

type processor struct{ stream.Env }

// deposit folds one deposit into its wallet's counter. A repeat sets the
// unchanged row and emits the crossing again: either may be what was lost.
func (p processor) deposit(ctx goka.Context, msg any) {
	d, reason := p.Deposit(ctx, msg)
	if reason != nil {
		return // balance sets it aside
	}
	held, alive := stream.Row(ctx)
	if !alive {
		return
	}
	row, err := stream.KeptRow[wallet.Counter](held, ctx.Partition())
	if err != nil {
		stream.Fail(ctx, err)
	}
	counter := &row.Row
	p.CheckRow(ctx, counter.Account.NextOffset)
	was := counter.Window.Rule
	outcome := counter.Apply(d, p.Rule)
	p.Count(outcome.Verdict)
	if outcome.RuleChanged {
		p.RuleChanged(was)
	}
	if outcome.Emit {
		ctx.Emit(stream.FlagWalletStream, ctx.Key(), &pb.FlagEvent{
			WalletId: ctx.Key(),
			Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{
				Evidence: stream.StoreEvidence(counter.Tip), Parts: stream.StoreParts(counter.Parts()),
			}},
		})
	}
	ctx.SetValue(row)
}
