package balance

import (
	"errors"

	"github.com/lovoo/goka"

	"coinbit/internal/stream"
)

var errOverflow = errors.New("the balance would overflow")

// stored waits until a dead letter is stored. Elsewhere the callback goes on at
// once; here the row that follows says "applied", after which a redelivery could
// no longer tell that a dead letter was due.
func stored(ctx goka.Context, p *goka.Promise) bool {
	done := make(chan error, 1)
	p.Then(func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			stream.Fail(ctx, err)
		}
		return true
	case <-ctx.Context().Done():
		ctx.DeferCommit()(stream.ErrSessionOver) // else it is marked once the letter is stored, without its row
		return false
	}
}
