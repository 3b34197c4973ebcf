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
	input goka.Stream
	// deadLetter is where its messages are set aside; empty: another group's task.
	deadLetter goka.Stream
	// output is where else it writes: what it emits, or sets aside.
	output goka.Stream
	// codec of its table, and the version of a row: rows only move forward.
	codec   goka.Codec
	version func(row []byte) int64
}

var groups = map[stream.Group]group{
	stream.BalanceGroup: {graph: balance.Graph, input: stream.DepositStream, deadLetter: stream.DepositDeadLetter, output: stream.DepositDeadLetter,
		codec: new(stream.BalanceEncoder), version: stream.AccountVersion},
	stream.ThresholdGroup: {graph: threshold.Graph, input: stream.DepositStream, output: stream.FlagWalletStream,
		codec: new(stream.CounterEncoder), version: stream.AccountVersion},
	stream.FlaggerGroup: {graph: flagger.Graph, input: stream.FlagWalletStream, deadLetter: stream.FlagWalletDeadLetter, output: stream.FlagWalletDeadLetter,
		codec: new(stream.FlagEncoder), version: stream.FlagVersion},
}

// updater applies a record of a changelog and says what it did with it. Rows
// only move forward: an ex-owner that slept for longer than the brokers remember
// it may write an older row when it wakes. A tombstone is never ours either.
type updater func(s storage.Storage, key string, value []byte) (update, error)

type update int

const (
	skipped update = iota
	taken
	outdated
)

func newUpdater(version func([]byte) int64, stale prometheus.Counter) updater {
	return func(s storage.Storage, key string, value []byte) (update, error) {
		held, err := s.Get(key)
		if err != nil {
			return skipped, fmt.Errorf("read local state: %w", err)
		}
		if value == nil || held != nil && version(value) < version(held) {
			stale.Inc()
			if held == nil {
				return skipped, nil
			}
			return outdated, nil
		}
		return taken, s.Set(key, value)
	}
}
