package kafka

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Monitor knows whether Kafka answers, so that a request can be refused before
// anything is sent.
type Monitor struct{ away atomic.Bool }

// Away tells whether the last probe failed.
func (m *Monitor) Away() bool { return m.away.Load() }

const (
	monitorInterval = time.Second
	// monitorMisses in a row mean away: one slow answer is no outage.
	monitorMisses = 2
)

// Run probes until ctx is done and logs each change of state once.
func (m *Monitor) Run(ctx context.Context, c *Client, log *slog.Logger) {
	tick := time.NewTicker(monitorInterval)
	defer tick.Stop()
	misses := 0
	var since time.Time
	for {
		err := c.Probe(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			misses = 0
			if m.away.CompareAndSwap(true, false) {
				log.Info("kafka is back, deposits are taken again", "after", time.Since(since).Round(time.Millisecond))
			}
		default:
			misses++
			if misses >= monitorMisses && m.away.CompareAndSwap(false, true) {
				since = time.Now()
				log.Warn("kafka is away, deposits are refused", "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
