// Package flagger is the processor that holds each wallet's flag: raised by a
// crossing or by an operator, cleared by an operator.
package flagger

import (
	"github.com/lovoo/goka"

	"coinbit/internal/stream"
)

// Graph is the processor's place among the topics.
func Graph(env stream.Env) *goka.GroupGraph {
	return goka.DefineGroup(goka.Group(stream.FlaggerGroup),
		goka.Input(stream.FlagWalletStream, new(stream.FlagEventEncoder), processor{env}.event),
		goka.Persist(new(stream.FlagEncoder)),
	)
}

type processor struct{ stream.Env }

// event folds one flag event into its wallet's flag.
func (p processor) event(ctx goka.Context, msg any) {
	e, reason := stream.CheckFlagEvent(p.RecordOf(ctx), msg)
	if reason != nil {
		p.SetAside(ctx, reason)
		return
	}
	row, alive := stream.Row(ctx)
	if !alive {
		return
	}
	flag, err := stream.LoadFlag(row)
	if err != nil {
		stream.Fail(ctx, err)
	}
	p.CheckRow(ctx, flag.NextOffset)
	p.Count(flag.Apply(e))
	ctx.SetValue(stream.StoreFlag(flag))
}
