package replay_test

import (
	"context"
	"syscall"
	"testing"

	"github.com/IBM/sarama"

	"coinbit/internal/replay"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
	"coinbit/test/bench/lab"
)

// load is a topic in memory.
type load map[int32][]*sarama.ConsumerMessage

func (l load) HighWaters(context.Context, string) (map[int32]int64, error) {
	ends := make(map[int32]int64)
	for p, log := range l {
		ends[p] = int64(len(log))
	}
	return ends, nil
}

func (l load) Scan(_ context.Context, _ string, partition int32, below int64, each func(*sarama.ConsumerMessage) error) error {
	for _, m := range l[partition][:below] {
		if err := each(m); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkWhatIf is the fold alone, under the rule in force and another.
func BenchmarkWhatIf(b *testing.B) {
	topic := load{}
	err := lab.Load{Records: 300_000, Wallets: 15_000, Skewed: true}.Each(func(key string, value []byte) error {
		p := stream.Partition(key, lab.Partitions)
		topic[p] = append(topic[p], &sarama.ConsumerMessage{Partition: p, Offset: int64(len(topic[p])),
			Key: []byte(key), Value: append([]byte{}, value...)})
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	q := replay.WhatIf{Partitions: lab.Partitions, Rules: []wallet.Rule{
		{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000}, {Threshold: wallet.Amount{Units: 5_000}, PeriodMs: 600_000}}}
	b.ReportAllocs()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		if _, err := q.Ask(context.Background(), topic); err != nil {
			b.Fatal(err)
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	b.ReportMetric(float64(after.Utime.Nano()-before.Utime.Nano())/float64(b.N)/300_000, "cpu-ns/record")
}
