package kafka

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// Monitor knows whether Kafka answers, so that a request can be refused before
// anything is sent.
type Monitor struct{ away atomic.Bool }

// Away tells whether the last probe failed.
func (m *Monitor) Away() bool { return m.away.Load() }

// monitorMisses in a row mean away: one slow answer is no outage.
const monitorMisses = 2

// Run asks until ctx is done and logs each change of state once. It returns early, with
// an error that wraps ErrMoved, when the cluster is not c's any more.
func (m *Monitor) Run(ctx context.Context, c *Client, log *slog.Logger) error {
	m.away.Store(false) // who runs it has just been answered
	misses, refused := 0, ""
	var since time.Time
	return c.Follow(ctx, func(err error) {
		if err == nil {
			misses, refused = 0, ""
			if m.away.CompareAndSwap(true, false) {
				log.Info("kafka is back, deposits are taken again", "after", time.Since(since).Round(time.Millisecond))
			}
			return
		}
		misses++
		if misses >= monitorMisses && m.away.CompareAndSwap(false, true) {
			since = time.Now()
			log.Warn("kafka is away, deposits are refused", "err", err)
		}
		if errors.Is(err, ErrRefused) && err.Error() != refused && m.Away() { // it was restarted, and a certificate has ended
			refused = err.Error()
			log.Warn("kafka refuses this client, deposits are refused", "err", err)
		}
	})
}
