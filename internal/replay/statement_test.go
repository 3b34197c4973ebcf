package replay_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"coinbit/internal/kafka"
	"coinbit/internal/pb"
	"coinbit/internal/replay"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

type broken struct{ *world }

var errBroken = errors.New("broken")

func (broken) Scan(context.Context, string, int32, int64, func(*sarama.ConsumerMessage) error) error {
	return errBroken
}

func read(t testing.TB, w *world, q replay.Statement) ([]replay.Entry, replay.Closing) {
	t.Helper()
	var list []replay.Entry
	end, err := q.Read(context.Background(), w, func(e replay.Entry) error {
		list = append(list, e)
		return nil
	})
	w.must(err)
	return list, end
}

func nanos(a wallet.Amount) int64 { return int64(a.Units)*1_000_000_000 + int64(a.Nanos) }

// highest is the largest sum of any window that holds time t.
func highest(list []naive, t, period int64) (most int64) {
	for _, end := range list {
		var sum int64
		for _, d := range list {
			if d.at <= end.at && d.at > end.at-period {
				sum += d.nanos
			}
		}
		if end.at >= t && end.at < t+period {
			most = max(most, sum)
		}
	}
	return most
}

// Balances, verdicts and crossings are what wallet.Counter folds, at every entry; the
// last balance is wallet.Account's.
func TestStatementIsWhatTheCoreFolds(t *testing.T) {
	for seed := range uint64(100) {
		w := random(t, seed)
		for i := range 6 {
			q := replay.Statement{Partitions: partitions, Wallet: fmt.Sprint("w", i), Rule: inForce}
			p := stream.Partition(q.Wallet, partitions)
			list, end := read(t, w, q)
			var c wallet.Counter
			var applied []naive
			n := 0
			for _, m := range w.topics["deposit"][p] {
				if string(m.Key) != q.Wallet {
					continue
				}
				e := list[n]
				n++
				d, reason := replay.Deposit(m, partitions)
				if e.Position != (replay.Position{Partition: p, Offset: m.Offset}) || (reason == nil) != (e.SetAside == "") {
					t.Fatalf("seed %d: %+v, want %d and %v", seed, e, m.Offset, reason)
				}
				if reason == nil {
					if o := c.Apply(d, inForce); o.Verdict != e.Verdict || o.Emit != e.Crosses {
						t.Fatalf("seed %d: %+v, want %+v", seed, e, o)
					}
				}
				if e.Balance != c.Account.Balance {
					t.Fatalf("seed %d: %+v, want %+v", seed, e, c.Account)
				}
				if e.SetAside != "" || e.Verdict != wallet.Applied {
					continue
				}
				applied = append(applied, naive{at: d.At, nanos: nanos(d.Amount)})
				if nanos(e.Window) != highest(applied, d.At, inForce.PeriodMs) || e.Crosses && e.Window != c.Tip.Total {
					t.Fatalf("seed %d: %+v, want a window of %d", seed, e, highest(applied, d.At, inForce.PeriodMs))
				}
			}
			if n != len(list) || end.Balance != c.Account.Balance || uint64(end.Deposits) != c.Account.Deposits || end.Later != 0 {
				t.Fatalf("seed %d: %d entries of %d, %+v, want %+v", seed, len(list), n, end, c.Account)
			}
		}
	}
}

// At a time, those deposits count that the whole log counts and that were made by then.
func TestStatementAtATime(t *testing.T) {
	for seed := range uint64(100) {
		w := random(t, seed)
		q := replay.Statement{Partitions: partitions, Wallet: "w1", Rule: inForce, At: start + int64(seed)*4000}
		list, end := read(t, w, q)
		var sum, n int64
		for _, d := range w.counted() {
			if d.wallet == q.Wallet && d.at <= q.At {
				sum, n = sum+d.nanos, n+1
			}
		}
		if nanos(end.Balance) != sum || end.Deposits != n {
			t.Fatalf("seed %d: %v from %d, want %d from %d", seed, end.Balance, end.Deposits, sum, n)
		}
		for _, e := range list {
			if e.At > q.At {
				t.Fatalf("seed %d: %+v is later", seed, e)
			}
		}
		q.At = 0
		if all, _ := read(t, w, q); int64(len(all)-len(list)) != end.Later {
			t.Fatalf("seed %d: %d of %d entries, %d later", seed, len(list), len(all), end.Later)
		}
	}
}

// story is a wallet that crosses at 1 s, is cleared at 10 s, raised by hand at 20 s, and
// whose latest deposit repeats the first one's key.
func story(t testing.TB) *world {
	w := newWorld(t)
	p := stream.Partition("a", partitions)
	add := func(at, units int64, key string, id uint64) int64 {
		return w.deposit(&pb.Deposit{WalletId: "a", Units: units, AcceptedAtMs: start + at, Origin: 9, Sequence: id, IdempotencyKey: key})
	}
	add(0, 6000, "k", 1)
	tip := add(1000, 6000, "", 2)
	w.flagEvent(&pb.FlagEvent{WalletId: "a", Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{Evidence: &pb.Evidence{
		Partition: p, Offset: tip, WindowStartMs: start + 1000 - inForce.PeriodMs, WindowEndMs: start + 1000, TotalUnits: 12_000, Deposits: 2,
		Rule: &pb.Rule{ThresholdUnits: 10_000, PeriodMs: inForce.PeriodMs}}}}})
	w.append("deposit", p, []byte("a"), []byte{0xff})
	w.flagEvent(&pb.FlagEvent{WalletId: "a", Event: &pb.FlagEvent_Removal{Removal: &pb.OperatorRemoval{EventId: 7, AtMs: start + 10_000, RemovedUpto: 2}}})
	w.flagEvent(&pb.FlagEvent{WalletId: "a", Event: &pb.FlagEvent_Raise{Raise: &pb.OperatorRaise{EventId: 8, AtMs: start + 20_000}}})
	add(500, 1, "", 3) // late
	add(30_000, 6000, "k", 4)
	add(40_000, 6001, "k", 5)
	add(50_000, 6000, "", 2)
	add(60_000, math.MaxInt64, "", 6)
	return w
}

func TestFlagAtATime(t *testing.T) {
	w := story(t)
	for _, c := range []struct {
		at                 int64
		deposits           int64
		raised, byOperator bool
		removals           uint32
	}{
		{-1, 0, false, false, 0},
		{0, 1, false, false, 0},
		{999, 2, false, false, 0}, // with the late one
		{1000, 3, true, false, 0},
		{9_999, 3, true, false, 0},
		{10_000, 3, false, false, 1},
		{20_000, 3, true, true, 1},
	} {
		_, end := read(t, w, replay.Statement{Partitions: partitions, Wallet: "a", Rule: inForce, At: start + c.at})
		if end.Deposits != c.deposits || end.Flag.Raised() != c.raised || end.Flag.OpRaised != c.byOperator || end.Flag.Removals != c.removals {
			t.Errorf("at %d: %+v, want %+v", c.at, end, c)
		}
	}
	list, _ := read(t, w, replay.Statement{Partitions: partitions, Wallet: "a", Rule: inForce})
	var got []string
	for _, e := range list {
		got = append(got, fmt.Sprintf("%s %s %t %.9s", e.Verdict, e.Balance, e.Crosses, e.SetAside))
	}
	want := []string{"applied 6000 false ", "applied 12000 true ", "applied 12000 false malformed", "applied 12001 false ",
		"key_replayed 12001 false ", "key_conflict 12001 false ", "repeated 12001 false ", "applied 12001 false impossibl"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q, want %q", got, want)
	}
}

// What lies under the wallet's key on a wrong partition is told too, once, after the rest.
func TestStatementTellsOfStrays(t *testing.T) {
	w := newWorld(t)
	own := stream.Partition("a", partitions)
	w.deposit(&pb.Deposit{WalletId: "a", Units: 5, AcceptedAtMs: start})
	stray := func(letter string, source string, key string) {
		h := func(k, v string) *sarama.RecordHeader { return &sarama.RecordHeader{Key: []byte(k), Value: []byte(v)} }
		w.append(letter, 1, []byte(key), []byte("v"), h(kafka.HeaderReason, "wrong partition"), h(kafka.HeaderTopic, strings.TrimSuffix(letter, "_dead_letter")),
			h(kafka.HeaderPartition, source[:1]), h(kafka.HeaderOffset, source[2:]))
	}
	wrong := fmt.Sprint((own + 1) % partitions)
	stray("deposit_dead_letter", wrong+":7", "a")
	stray("deposit_dead_letter", wrong+":7", "a") // again, after a crash
	stray("deposit_dead_letter", wrong+":8", "b")
	stray("deposit_dead_letter", fmt.Sprint(own)+":9", "a") // where the log is read
	stray("flag_wallet_dead_letter", wrong+":10", "a")
	w.append("deposit_dead_letter", 1, []byte("a"), nil) // somebody else's
	stray("deposit_dead_letter", wrong+":6", "a")
	list, end := read(t, w, replay.Statement{Partitions: partitions, Wallet: "a", Rule: inForce})
	var got []string
	for _, e := range list {
		got = append(got, fmt.Sprintf("%s %s %s", e.Position, e.SetAside, e.Balance))
	}
	want := []string{fmt.Sprint(own) + ":0  5", wrong + ":7 wrong partition 5", wrong + ":6 wrong partition 5"}
	if !slices.Equal(got, want) || end.Deposits != 1 || end.Later != 0 {
		t.Errorf("%q and %+v, want %q", got, end, want)
	}
	list, end = read(t, w, replay.Statement{Partitions: partitions, Wallet: "a", Rule: inForce, At: start - 1})
	if len(list) != 0 || end.Later != 3 {
		t.Errorf("before all of it: %v, %+v", list, end)
	}
}

func TestStatementOfNobody(t *testing.T) {
	list, end := read(t, story(t), replay.Statement{Partitions: partitions, Wallet: "nobody", Rule: inForce})
	if len(list) > 0 || end.Deposits != 0 || end.Balance != (wallet.Amount{}) || end.Flag.Raised() {
		t.Errorf("%v %+v", list, end)
	}
	_, err := replay.Statement{Partitions: partitions, Wallet: "a"}.Read(context.Background(), broken{story(t)}, nil)
	if !errors.Is(err, errBroken) {
		t.Error(err)
	}
}
