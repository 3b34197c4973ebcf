//go:build kafka

package kafka

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
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
	theirs := saramaProducer(t, x.client)
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
	raw := func(key string, value []byte) *goka.Promise {
		promise, finish := goka.NewPromiseWithFinisher()
		theirs.Input() <- &sarama.ProducerMessage{Topic: table, Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(value), Metadata: finish}
		return promise
	}
	run(w.Emit) // warm up
	run(raw)
	var ratios, cpuRatios []float64
	for range rounds {
		ours, oursCPU := run(w.Emit)
		saramas, saramasCPU := run(raw)
		t.Logf("fenced %.0f rows/s, %.2f µs; sarama %.0f rows/s, %.2f µs", ours, oursCPU, saramas, saramasCPU)
		ratios, cpuRatios = append(ratios, ours/saramas), append(cpuRatios, oursCPU/saramasCPU)
	}
	slices.Sort(ratios)
	slices.Sort(cpuRatios)
	t.Logf("fenced ÷ sarama, median: %.2f in rows/s, %.2f in CPU", ratios[rounds/2], cpuRatios[rounds/2])
	if ratios[rounds/2] < 0.8 {
		t.Error("the fenced writer is slower")
	}
}

// saramaProducer is sarama's own idempotent producer.
func saramaProducer(t *testing.T, c *Client) sarama.AsyncProducer {
	t.Helper()
	cfg := c.base("coinbit-test")
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Idempotent = true
	cfg.Net.MaxOpenRequests = 1
	cfg.Producer.Return.Successes = true
	cfg.Producer.Partitioner = sarama.NewCustomHashPartitioner(stream.NewHasher)
	p, err := sarama.NewAsyncProducer(c.Brokers(), cfg)
	must(t, err)
	var drained sync.WaitGroup
	drained.Go(func() {
		for m := range p.Successes() {
			m.Metadata.(goka.PromiseFinisher)(m, nil) //nolint:forcetypeassert // raw set it
		}
	})
	drained.Go(func() {
		for e := range p.Errors() {
			e.Msg.Metadata.(goka.PromiseFinisher)(nil, e.Err) //nolint:forcetypeassert // raw set it
		}
	})
	t.Cleanup(func() { p.AsyncClose(); drained.Wait() })
	return p
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
