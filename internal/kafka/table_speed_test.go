//go:build kafka

package kafka

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lovoo/goka"

	"coinbit/internal/stream"
)

// The fenced writer beside sarama's idempotent producer: rows per second and
// CPU a row, in alternating rounds on one broker.
func TestTableWriterIsNoSlowerThanSarama(t *testing.T) {
	const partitions, n, rounds = 8, 60_000, 3
	x := newTable(t, partitions)
	w := x.writer(t, &book{})
	w.OnRow = func(int32, string, []byte, int64) error { return nil }
	for p := range int32(partitions) {
		own(t, w, p)
	}
	p := producer(t, x.client)
	table := string(x.Group.Table())
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprint("wallet-", i)
	}
	byPartition := make([][]string, partitions)
	for _, k := range keys {
		p := stream.Partition(k, partitions)
		byPartition[p] = append(byPartition[p], k)
	}
	value := make([]byte, 300)
	run := func(emit func(key string, value []byte) *goka.Promise) (perSecond, cpuMicros float64) {
		began, cpu := time.Now(), cpuTime(t)
		var stored sync.WaitGroup
		var emitters sync.WaitGroup
		for _, keys := range byPartition { // as Goka does: one callback at a time for each partition
			emitters.Go(func() {
				for i := range n / partitions {
					stored.Add(1)
					emit(keys[i%len(keys)], value).Then(func(err error) {
						if err != nil {
							t.Error(err)
						}
						stored.Done()
					})
				}
			})
		}
		emitters.Wait()
		stored.Wait()
		return n / time.Since(began).Seconds(), float64((cpuTime(t) - cpu).Microseconds()) / n
	}
	raw := func(key string, value []byte) *goka.Promise { return p.Emit(table, key, value) }
	run(w.Emit) // warm up
	run(raw)
	var ratios, cpuRatios []float64
	for range rounds {
		ours, oursCPU := run(w.Emit)
		theirs, theirsCPU := run(raw)
		t.Logf("fenced %.0f rows/s, %.2f µs; sarama %.0f rows/s, %.2f µs", ours, oursCPU, theirs, theirsCPU)
		ratios, cpuRatios = append(ratios, ours/theirs), append(cpuRatios, oursCPU/theirsCPU)
	}
	slices.Sort(ratios)
	slices.Sort(cpuRatios)
	t.Logf("fenced ÷ sarama, median: %.2f in rows/s, %.2f in CPU", ratios[rounds/2], cpuRatios[rounds/2])
	if ratios[rounds/2] < 0.8 {
		t.Error("the fenced writer is slower")
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
