package lab_test

import (
	"testing"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
	"coinbit/test/bench/lab"
)

// What fills a topic must be what a processor applies: a dead letter costs something else.
func TestLoadIsApplied(t *testing.T) {
	for _, load := range []lab.Load{
		{Records: 5000, Wallets: 1000, Skewed: true},
		{Records: 5000, Wallets: 5000},
		{Records: 5000, Wallets: 1000, Skewed: true, Crossings: true},
	} {
		seen := make(map[string]int)
		var offset int64
		err := load.Each(func(key string, value []byte) error {
			seen[key]++
			offset++
			at := stream.Record{Key: key, Partition: stream.Partition(key, lab.Partitions), Offset: offset, Partitions: lab.Partitions}
			var err error
			if load.Crossings {
				msg, _ := new(stream.FlagEventEncoder).Decode(value)
				_, err = stream.CheckFlagEvent(at, msg)
			} else {
				msg, _ := new(stream.DepositEncoder).Decode(value)
				_, err = stream.CheckDeposit(at, msg)
			}
			return err
		})
		if err != nil || offset != int64(load.Records) {
			t.Errorf("%+v: %d records, %v", load, offset, err)
		}
		if !load.Skewed && len(seen) != load.Wallets {
			t.Errorf("%+v: %d wallets", load, len(seen))
		}
	}
}

// A load is the same each time, so that rounds and runs compare.
func TestLoadRepeats(t *testing.T) {
	sum := func() (s uint64) {
		err := lab.Load{Records: 2000, Wallets: 100, Skewed: true}.Each(func(key string, value []byte) error {
			for _, b := range append([]byte(key), value...) {
				s = s*31 + uint64(b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if a, b := sum(), sum(); a != b {
		t.Errorf("%x, then %x", a, b)
	}
	names := make(map[string]bool)
	for i := range 100_000 {
		id := lab.WalletID(i)
		if names[id] || wallet.ValidWalletID(id) != nil {
			t.Fatalf("wallet %d is %q", i, id)
		}
		names[id] = true
	}
}
