package lab

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// Load is records made from a seed: the same each time.
type Load struct {
	Records int
	Wallets int
	// Skewed draws wallets from a Zipf distribution with a flat head: of 100,000
	// wallets the busiest gets 0.4 % of the deposits. Else they take turns.
	Skewed bool
	// PerSecond is how many deposits share a second of event time. With the skew it
	// decides how full the windows are; 0: 100, with which 8 of a wallet's deposits lie
	// in a period of two minutes on average, and 48 of the busiest's.
	PerSecond int
	// Crossings makes flag events in place of deposits.
	Crossings bool
}

// firstAt is the event time of the first deposit, in Unix milliseconds.
const firstAt = 1_750_000_000_000

// WalletID is the name of wallet i, as long as those in use.
func WalletID(i int) string {
	x := uint64(i)*0x9E3779B97F4A7C15 + 0x1234567
	x ^= x >> 29
	return fmt.Sprintf("%016x%016x%04x", x*0xBF58476D1CE4E5B9, x*0x94D049BB133111EB, i&0xFFFF)[:36]
}

// Each hands over key and value of each record, in order. value is reused.
func (l Load) Each(each func(key string, value []byte) error) error {
	wallets := make([]string, l.Wallets)
	for i := range wallets {
		wallets[i] = WalletID(i)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(rnd, 1.1, 50, uint64(l.Wallets-1))
	var value []byte
	for i := range l.Records {
		at := int64(firstAt + i*1000/cmp.Or(l.PerSecond, 100))
		w := i % l.Wallets
		if l.Skewed {
			w = int(zipf.Uint64())
		}
		var m proto.Message
		if l.Crossings {
			m = &pb.FlagEvent{WalletId: wallets[w], Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{Evidence: &pb.Evidence{
				Partition: stream.Partition(wallets[w], Partitions), Offset: int64(i),
				WindowStartMs: at - 120_000, WindowEndMs: at, TotalUnits: 10_500, TotalNanos: 500_000_000, Deposits: 4,
				Rule: &pb.Rule{ThresholdUnits: 10_000, PeriodMs: 120_000},
			}}}}
		} else {
			// Half are below 120, one in a hundred above 2,000.
			cents := max(1, int64(12_000*math.Exp(1.2*rnd.NormFloat64())))
			m = &pb.Deposit{WalletId: wallets[w], Units: cents / 100, Nanos: int32(cents%100) * 10_000_000,
				AcceptedAtMs: at, Origin: 1 << 62, Sequence: uint64(i + 1)}
		}
		var err error
		if value, err = (proto.MarshalOptions{}).MarshalAppend(value[:0], m); err != nil {
			return err
		}
		if err := each(wallets[w], value); err != nil {
			return err
		}
	}
	return nil
}
