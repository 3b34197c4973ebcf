package app

import (
	"fmt"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/balance"
	"coinbit/internal/flagger"
	"coinbit/internal/stream"
	"coinbit/internal/threshold"
)

// group is what the composition root knows of a processor group beyond its name.
type group struct {
	graph func(stream.Env) *goka.GroupGraph
	// deadLetter is where its messages are set aside; empty: another group's task.
	deadLetter goka.Stream
	// codec of its table, and the version of a row: rows only move forward.
	codec   goka.Codec
	version func(row []byte) int64
}

var groups = map[stream.Group]group{
	stream.BalanceGroup: {graph: balance.Graph, deadLetter: stream.DepositDeadLetter,
		codec: new(stream.BalanceEncoder), version: stream.AccountVersion},
	stream.ThresholdGroup: {graph: threshold.Graph,
		codec: new(stream.CounterEncoder), version: stream.AccountVersion},
	stream.FlaggerGroup: {graph: flagger.Graph, deadLetter: stream.FlagWalletDeadLetter,
		codec: new(stream.FlagEncoder), version: stream.FlagVersion},
}

// updater keeps rows read from a changelog from moving backwards: an ex-owner
// that slept past its session may write an older row when it wakes. A tombstone
// is never ours either. applied is told of each row that was taken.
func updater(version func([]byte) int64, stale prometheus.Counter, applied func(key string)) goka.UpdateCallback {
	return func(_ goka.UpdateContext, s storage.Storage, key string, value []byte) error {
		held, err := s.Get(key)
		if err != nil {
			return fmt.Errorf("read local state: %w", err)
		}
		if value == nil || held != nil && version(value) < version(held) {
			stale.Inc()
			return nil
		}
		if err := s.Set(key, value); err != nil {
			return err
		}
		applied(key)
		return nil
	}
}
