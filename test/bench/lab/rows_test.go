package lab_test

import (
	"testing"

	"github.com/lovoo/goka"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
	"coinbit/test/bench/lab"
)

// BenchmarkRows folds the backlog of drain-balance and drain-threshold in one goroutine,
// without Kafka and the store: what is left is the fold and the codec, and memory that
// no cache holds.
//
//	go test -bench Rows -run - -benchtime 3x ./test/bench/lab
func BenchmarkRows(b *testing.B) {
	load := lab.Load{Records: 2_000_000, Wallets: 100_000, Skewed: true}
	rule := wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000}
	var deposits []wallet.Deposit
	var wallets []int // of each deposit
	known := make(map[string]int)
	offsets := make([]int64, lab.Partitions)
	err := load.Each(func(key string, value []byte) error {
		p := stream.Partition(key, lab.Partitions)
		d, err := stream.ReadDeposit(stream.Record{Key: key, Partition: p, Offset: offsets[p], Partitions: lab.Partitions}, value)
		offsets[p]++
		if _, ok := known[key]; !ok {
			known[key] = len(known)
		}
		deposits, wallets = append(deposits, d), append(wallets, known[key])
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	fold := func(b *testing.B, codec goka.Codec, apply func(row any, d wallet.Deposit) (any, error)) {
		written := 0
		for b.Loop() {
			table := make([][]byte, load.Wallets)
			for i, d := range deposits {
				var row any
				if data := table[wallets[i]]; data != nil {
					row, _ = codec.Decode(data)
				}
				next, err := apply(row, d)
				if err == nil {
					table[wallets[i]], err = codec.Encode(next)
				}
				if err != nil {
					b.Fatal(err)
				}
				written += len(table[wallets[i]])
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(deposits)), "ns/record")
		b.ReportMetric(float64(written)/float64(b.N*len(deposits)), "bytes/row")
	}
	b.Run("balance", func(b *testing.B) {
		fold(b, stream.Keep(stream.BalanceEncoder{}, 1<<30, 1), func(row any, d wallet.Deposit) (any, error) {
			kept, err := stream.KeptRow[wallet.Account](row, 0)
			kept.Row.Apply(d)
			return kept, err
		})
	})
	b.Run("threshold", func(b *testing.B) {
		fold(b, stream.Keep(stream.CounterEncoder{}, 1<<30, 1), func(row any, d wallet.Deposit) (any, error) {
			kept, err := stream.KeptRow[wallet.Counter](row, 0)
			kept.Row.Apply(d, rule)
			return kept, err
		})
	})
	b.Run("threshold, rows from disk", func(b *testing.B) {
		fold(b, stream.CounterEncoder{}, func(row any, d wallet.Deposit) (any, error) {
			counter, err := stream.LoadCounter(row)
			counter.Apply(d, rule)
			return counter, err
		})
	})
}
