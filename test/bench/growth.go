package main

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/store"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
	"coinbit/test/bench/figure"
	"coinbit/test/bench/lab"
)

// step is what a processor's callback does with a deposit, without Goka and
// Kafka: decode it and the row, check, fold, encode the row.
type step func(row, deposit []byte, at stream.Record) ([]byte, error)

func balanceStep(row, deposit []byte, at stream.Record) ([]byte, error) {
	return foldWith(new(stream.BalanceEncoder), row, deposit, at, func(row any, d wallet.Deposit) (any, error) {
		account, err := stream.LoadBalance(row)
		account.Apply(d)
		return account, err
	})
}

func thresholdStep(row, deposit []byte, at stream.Record) ([]byte, error) {
	return foldWith(new(stream.CounterEncoder), row, deposit, at, func(row any, d wallet.Deposit) (any, error) {
		counter, err := stream.LoadCounter(row)
		counter.Apply(d, wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000})
		return counter, err
	})
}

type codec interface {
	Encode(value any) ([]byte, error)
	Decode(data []byte) (any, error)
}

func foldWith(c codec, row, deposit []byte, at stream.Record, apply func(row any, d wallet.Deposit) (any, error)) ([]byte, error) {
	d, err := stream.ReadDeposit(at, deposit)
	if err != nil {
		return nil, err
	}
	var decoded any
	if row != nil {
		if decoded, err = c.Decode(row); err != nil {
			return nil, err
		}
	}
	next, err := apply(decoded, d)
	if err != nil {
		return nil, err
	}
	return c.Encode(next)
}

// history is a wallet that deposits every two seconds of event time, which keeps
// 60 deposits in its window, or once an hour, which keeps none.
type history struct {
	step  step
	every int64 // ms
	n     int64
	row   []byte
}

func (h *history) message(n int64) (deposit []byte, at stream.Record, err error) {
	id := lab.WalletID(1)
	deposit, err = proto.Marshal(&pb.Deposit{WalletId: id, Units: 12, Nanos: 340_000_000,
		AcceptedAtMs: 1_750_000_000_000 + n*h.every, Origin: 1 << 62, Sequence: uint64(n + 1)})
	return deposit, stream.Record{Key: id, Partition: stream.Partition(id, lab.Partitions), Offset: n, Partitions: lab.Partitions}, err
}

// upTo folds deposits until n are in the row.
func (h *history) upTo(n int64) error {
	for ; h.n < n; h.n++ {
		deposit, at, err := h.message(h.n)
		if err != nil {
			return err
		}
		if h.row, err = h.step(h.row, deposit, at); err != nil {
			return err
		}
	}
	return nil
}

// next is what the next deposit costs, in ns: folded into the same row again and
// again, the fastest of 20 shares of that. What other programs take of the
// machine meanwhile is no cost of a deposit.
func (h *history) next(repeats int) (float64, error) {
	deposit, at, err := h.message(h.n)
	if err != nil {
		return 0, err
	}
	const shares = 20
	fastest := math.Inf(1)
	for range shares {
		began := time.Now()
		for range repeats / shares {
			if _, err := h.step(h.row, deposit, at); err != nil {
				return 0, err
			}
		}
		fastest = min(fastest, float64(time.Since(began).Nanoseconds())/float64(repeats/shares))
	}
	return fastest, nil
}

// settledAt is after how many deposits a wallet's row has all that it will hold:
// its origin, and a full window. From there on, cost must not grow.
const settledAt = 200

// walletGrows is what a deposit costs as its wallet's history grows.
var walletGrows = lab.Row{
	Name:  "wallet",
	About: "cost of a deposit as its wallet grows, from the first to the millionth",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		counts := []int64{0, 9, settledAt, 999, 9_999}
		if l.Full {
			counts = append(counts, 99_999, 999_999)
		}
		repeats := l.Size(2_000, 50_000)
		plot := figure.Series{What: "A deposit's cost as its wallet grows", X: "deposits of the wallet", Y: "ns a deposit"}
		for _, c := range []struct {
			what  string
			step  step
			every int64
		}{
			{"balance", balanceStep, 3_600_000},
			{"threshold, empty window", thresholdStep, 3_600_000},
			{"threshold, 60 in the window", thresholdStep, 2_000},
		} {
			line := figure.Line{Name: c.what}
			ratio := figure.Figure{What: fmt.Sprintf("%s: deposit %d ÷ deposit %d to one wallet", c.what, counts[len(counts)-1]+1, settledAt+1),
				Unit: "ns", Lower: true, Must: 1.1, Try: 1.0}
			all := make([][]float64, len(counts))
			for range l.Rounds {
				h := history{step: c.step, every: c.every}
				if err := h.upTo(settledAt); err != nil { // warm up
					return err
				}
				if _, err := h.next(repeats); err != nil {
					return err
				}
				h = history{step: c.step, every: c.every}
				for i, n := range counts {
					if err := h.upTo(n); err != nil {
						return err
					}
					ns, err := h.next(repeats)
					if err != nil {
						return err
					}
					all[i] = append(all[i], ns)
					if n == settledAt {
						ratio.Ceiling = append(ratio.Ceiling, ns)
					}
					if ctx.Err() != nil {
						return ctx.Err()
					}
				}
				ratio.Subject = append(ratio.Subject, all[len(counts)-1][len(all[len(counts)-1])-1])
				l.Say("%s: a row of %d bytes", c.what, len(h.row))
			}
			for i, n := range counts {
				line.X, line.Y = append(line.X, float64(n+1)), append(line.Y, figure.Median(all[i]))
			}
			plot.Lines = append(plot.Lines, line)
			r.Add(ratio)
		}
		r.Draw(plot)
		return nil
	},
}

// walletsGrow is how the local store does as it holds more rows: read one, set
// it, and be told that the changelog has it, wallet by wallet at random.
var walletsGrow = lab.Row{
	Name:  "wallets",
	About: "the local store as wallets grow: rows per second and bytes per row",
	Run: func(ctx context.Context, l *lab.Lab, r *figure.Report) error {
		sizes := []int{1_000, 10_000}
		if l.Full {
			sizes = append(sizes, 100_000, 1_000_000, 10_000_000)
		}
		speed := figure.Line{Name: "read and set at random"}
		bytes := figure.Line{Name: "on disk"}
		for _, n := range sizes {
			fill := figure.Figure{What: fmt.Sprintf("store: fill with %d rows", n), Unit: "rows/s"}
			update := figure.Figure{What: fmt.Sprintf("store: read and set among %d rows", n), Unit: "rows/s"}
			disk := figure.Figure{What: fmt.Sprintf("store: on disk with %d rows of 200 bytes", n), Unit: "bytes a row", Lower: true}
			for i := range l.Rounds {
				if n > 1_000_000 && i > 0 {
					break // minutes each
				}
				f, u, d, err := rowsOf(ctx, l, n, l.Size(20_000, 500_000))
				if err != nil {
					return err
				}
				l.Say("%d rows: filled at %.0f/s, then %.0f/s, %.0f bytes a row", n, f, u, d)
				fill.Subject, update.Subject, disk.Subject = append(fill.Subject, f), append(update.Subject, u), append(disk.Subject, d)
			}
			speed.X, speed.Y = append(speed.X, float64(n)), append(speed.Y, figure.Median(update.Subject))
			bytes.X, bytes.Y = append(bytes.X, float64(n)), append(bytes.Y, figure.Median(disk.Subject))
			r.Add(fill, update, disk)
		}
		r.Draw(figure.Series{What: "The local store as wallets grow", X: "wallets", Y: "rows/s", Lines: []figure.Line{speed}})
		r.Draw(figure.Series{What: "Bytes on disk as wallets grow", X: "wallets", Y: "bytes a row of 200", Lines: []figure.Line{bytes}})
		return nil
	},
}

// rowsOf fills a store with n rows, updates some of them at random and closes it.
func rowsOf(ctx context.Context, l *lab.Lab, n, updates int) (fillRate, updateRate, bytesPerRow float64, err error) {
	root := l.StateDir("growth")
	if err := os.RemoveAll(root); err != nil {
		return 0, 0, 0, err
	}
	dir, err := store.Claim(root, "cluster", "growth")
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { _ = dir.Close() }()
	var s *store.Store
	build, err := dir.Builder("table", "topic", store.Lead, func(_ int32, made *store.Store) { s = made })
	if err != nil {
		return 0, 0, 0, err
	}
	if _, err := build("table", 0); err != nil {
		return 0, 0, 0, err
	}
	if err := s.Open(); err != nil {
		return 0, 0, 0, err
	}
	if err := s.MarkRecovered(); err != nil {
		return 0, 0, 0, err
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var offset int64
	set := func(i int) error {
		key := lab.WalletID(i)
		if _, err := s.Get(key); err != nil {
			return err
		}
		row := make([]byte, 200) // half of it like ids: does not compress
		for j := 0; j < 100; j++ {
			row[j] = byte(rnd.Uint32())
		}
		if err := s.Set(key, row); err != nil {
			return err
		}
		offset++
		return s.Acked(key, row, offset)
	}
	timed := func(times int, of func(i int) int) (float64, error) {
		began := time.Now()
		for i := range times {
			if i%4096 == 0 && ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if err := set(of(i)); err != nil {
				return 0, err
			}
		}
		return float64(times) / time.Since(began).Seconds(), nil
	}
	if fillRate, err = timed(n, func(i int) int { return i }); err != nil {
		return 0, 0, 0, err
	}
	if updateRate, err = timed(updates, func(int) int { return rnd.IntN(n) }); err != nil {
		return 0, 0, 0, err
	}
	if err := s.Close(); err != nil {
		return 0, 0, 0, err
	}
	size, err := sizeOf(root)
	return fillRate, updateRate, size / float64(n), err
}

// sizeOf is how many bytes the files below root have.
func sizeOf(root string) (float64, error) {
	var sum float64
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += float64(info.Size())
		}
		return err
	})
	return sum, err
}
