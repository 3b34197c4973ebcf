package app

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/kafka"
	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// balanceGroup runs the balance processors on w, with a state directory, until
// they are ready or have ended.
func balanceGroup(t *testing.T, w *world, dir string) (stop func() error) {
	t.Helper()
	return groupUntilReady(t, stream.BalanceGroup, "BROKER="+w.addr, "STATE_DIR="+dir, "PARTITIONS=2")
}

// groupUntilReady runs a group's processors until they are ready or have ended.
func groupUntilReady(t *testing.T, g stream.Group, env ...string) (stop func() error) {
	t.Helper()
	rt, log := runtimeOf(t, Options{}, env...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- processors{rt}.Execute(ctx, g) }()
	stop = func() error {
		cancel()
		select {
		case err := <-done:
			done <- err
			return err
		case <-soon(t).Done():
			t.Fatalf("it does not end\n%s", log)
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-done:
			done <- err
			return stop
		default:
		}
		if rt.health.report(io.Discard) {
			return stop
		}
		if time.Now().After(end) {
			t.Fatalf("not ready\n%s", log)
		}
	}
}

func (w *world) deposit(t *testing.T, wallet string, units uint64, id uint64) {
	t.Helper()
	b, err := proto.Marshal(&pb.Deposit{WalletId: wallet, Units: int64(units), AcceptedAtMs: 1_700_000_000_000, Origin: 7, Sequence: id})
	must(t, err)
	_, err = w.client.Send(soon(t), string(stream.DepositStream), wallet, b)
	must(t, err)
}

func (w *world) remake(t *testing.T, topic string) {
	t.Helper()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin([]string{w.addr}, cfg)
	must(t, err)
	defer func() { must(t, admin.Close()) }()
	must(t, admin.DeleteTopic(topic))
	if topic == string(stream.DepositStream) { // nobody but an admin makes a log anew
		forever := "-1"
		detail := &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &forever}}
		must(t, admin.CreateTopic(topic, detail, false))
	}
	_, err = w.client.Ensure(soon(t), stream.Topics(), 2, 0)
	must(t, err)
}

// rows is all that the wallet's partition of balance-table holds for it.
func (w *world) rows(t *testing.T, wallet string) []*pb.Balance {
	t.Helper()
	table, p := string(stream.BalanceGroup.Table()), stream.Partition(wallet, 2)
	end, err := w.client.HighWater(soon(t), table, p)
	must(t, err)
	var rows []*pb.Balance
	n := int64(0)
	must(t, w.client.Read(soon(t), table, p, 0, func(key string, value []byte) (bool, error) {
		if key == wallet {
			row := new(pb.Balance)
			must(t, proto.Unmarshal(value, row))
			rows = append(rows, row)
		}
		n++
		return n == end, nil
	}))
	return rows
}

// What a folded table must never be used with is refused for good, in words.
func TestTableAndLogBelongTogether(t *testing.T) {
	for topic, want := range map[string]string{
		string(stream.BalanceGroup.Table()): "is new, but its group has read deposit up to",
		string(stream.DepositStream):        "was folded from an earlier topic",
	} {
		t.Run(topic, func(t *testing.T) {
			w, dir := newWorld(t), t.TempDir()
			stop := balanceGroup(t, w, dir)
			for i := range uint64(3) {
				w.deposit(t, "w", 5, i+1)
			}
			eventually(t, "three rows", func() error {
				if n := len(w.rows(t, "w")); n != 3 {
					return errors.New("not yet")
				}
				return nil
			})
			must(t, stop())
			w.remake(t, topic)
			if topic == string(stream.DepositStream) { // the new log has outgrown the old one
				for i := range uint64(9) {
					w.deposit(t, "w", 5, i+1)
				}
			}
			for range 2 { // and the next start does not take it for granted
				if err := balanceGroup(t, w, dir)(); !errors.Is(err, kafka.ErrLayout) || !strings.Contains(err.Error(), want) {
					t.Fatalf("got %v, want %q", err, want)
				}
			}
		})
	}
}

// A stale row that came to stand last, beyond what the broker could fence, is
// put right: compaction would keep it.
func TestStaleRowIsRepaired(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	stop := balanceGroup(t, w, dir)
	w.deposit(t, "w", 5, 1)
	w.deposit(t, "w", 5, 2)
	eventually(t, "two rows", func() error {
		if n := len(w.rows(t, "w")); n != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	must(t, stop())
	stale, err := proto.Marshal(w.rows(t, "w")[0])
	must(t, err)
	_, err = w.client.Send(soon(t), string(stream.BalanceGroup.Table()), "w", stale)
	must(t, err)
	stop = balanceGroup(t, w, dir)
	eventually(t, "the repair", func() error {
		rows := w.rows(t, "w")
		if last := rows[len(rows)-1].Account; len(rows) != 4 || last.BalanceUnits != 10 {
			return errors.New("not yet")
		}
		return nil
	})
	w.deposit(t, "w", 5, 3) // and it goes on
	eventually(t, "the next row", func() error {
		rows := w.rows(t, "w")
		if last := rows[len(rows)-1].Account; last.BalanceUnits != 15 {
			return errors.New("not yet")
		}
		return nil
	})
	must(t, stop())
}
