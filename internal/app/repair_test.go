package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/kafka"
	"coinbit/internal/pb"
	"coinbit/internal/store"
	"coinbit/internal/stream"
)

// owner is an instance that owns partition p of balance-table, without Goka
// around it: tests say how far its recovery comes.
type owner struct {
	t   *testing.T
	w   *world
	dir string
	*owned
	p     int32
	s     *store.Store
	crash func() // leaves what is on disk to the next one
}

func newOwner(t *testing.T, w *world, dir string, p int32) *owner {
	t.Helper()
	o := &owned{group: stream.BalanceGroup, parts: make(map[int32]*ownedPartition),
		keep: newUpdater(stream.AccountVersion, prometheus.NewCounter(prometheus.CounterOpts{Name: "stale"}))}
	rows, err := w.client.TableWriter(kafka.TableOptions{Group: stream.BalanceGroup, Partitions: 2, OnRow: o.stored})
	must(t, err)
	o.rows = rows
	t.Cleanup(func() { must(t, rows.Close()) })
	return &owner{t: t, w: w, dir: dir, owned: o, p: p}
}

// open claims the partition and opens its store, as a new session does.
func (o *owner) open() {
	o.t.Helper()
	must(o.t, o.Claim(soon(o.t), o.p))
	place, err := store.Claim(o.dir, "cluster", "balance")
	must(o.t, err)
	build, err := place.Builder("balance-table", "id", store.Lead, o.opened)
	must(o.t, err)
	st, err := build("balance-table", o.p)
	must(o.t, err)
	must(o.t, st.Open())
	o.s = st.(*store.Store) //nolint:forcetypeassert // the builder makes no other
	o.crash = sync.OnceFunc(func() { _ = o.s.Close(); _ = place.Close() })
	o.t.Cleanup(o.crash)
}

type at struct {
	goka.UpdateContext
	partition int32
	offset    int64
}

func (a at) Partition() int32 { return a.partition }
func (a at) Offset() int64    { return a.offset }

// read applies the changelog from where the store is, below an offset, as Goka does.
func (o *owner) read(below int64) {
	o.t.Helper()
	from, err := o.s.GetOffset(-1)
	must(o.t, err)
	must(o.t, o.w.client.Scan(soon(o.t), string(stream.BalanceGroup.Table()), o.p, below, func(m *sarama.ConsumerMessage) error {
		if m.Offset <= from {
			return nil
		}
		if err := o.recover(at{partition: o.p, offset: m.Offset}, o.s, string(m.Key), m.Value); err != nil {
			return err
		}
		return o.s.SetOffset(m.Offset)
	}))
}

func (o *owner) end() int64 {
	o.t.Helper()
	end, err := o.w.client.HighWater(soon(o.t), string(stream.BalanceGroup.Table()), o.p)
	must(o.t, err)
	return end
}

// row appends wallet w's row that has applied so many deposits of 5.
func (w *world) row(t *testing.T, next int64) {
	t.Helper()
	b, err := proto.Marshal(&pb.Balance{Account: &pb.Account{NextOffset: next, BalanceUnits: 5 * uint64(next), Deposits: uint64(next)}})
	must(t, err)
	_, err = w.client.Send(soon(t), string(stream.BalanceGroup.Table()), "w", b)
	must(t, err)
}

func (w *world) last(t *testing.T) int64 {
	t.Helper()
	rows := w.rows(t, "w")
	return rows[len(rows)-1].Account.NextOffset
}

var home = stream.Partition("w", 2)

// Goka also ends a recovery when its session ends in the middle, when another
// partition's fails, and at an old end of the log that a deposed leader told. A
// table read in part must not be folded on, and its rows must not be written again.
func TestRecoveryInPartIsNone(t *testing.T) {
	w := newWorld(t)
	for _, next := range []int64{2, 1, 3} { // the second is stale
		w.row(t, next)
	}
	o := newOwner(t, w, t.TempDir(), home)
	o.open()
	o.read(2)
	if err := o.s.MarkRecovered(); err == nil {
		t.Error("recovery ended before the claim and is taken for complete")
	}
	must(t, o.rows.Close()) // flushes
	if got := w.last(t); got != 3 {
		t.Errorf("the last row has applied %d deposits, want 3: an older one was written after it", got)
	}
}

// Goka does not wait for the end of a repair when its session ends. It must not
// go on under the next claim: others wrote in between.
func TestRepairEndsWithItsClaim(t *testing.T) {
	w := newWorld(t)
	w.row(t, 2)
	w.row(t, 1) // stale
	o := newOwner(t, w, t.TempDir(), home)
	o.open()
	o.read(o.end())
	other := newOwner(t, w, t.TempDir(), home)
	must(t, other.Claim(soon(t), home))
	w.row(t, 3)
	must(t, o.Claim(soon(t), home)) // the next session of the same process
	_ = o.s.MarkRecovered()         // of the one before
	must(t, o.rows.Close())
	if got := w.last(t); got != 3 {
		t.Errorf("the last row has applied %d deposits, want 3: an older one was written after it", got)
	}
}

// A crash between the recovery that saw a stale row and the repair: local state
// is already past the stale row, which is the last one in the changelog.
func TestRepairSurvivesACrash(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.row(t, 2)
	w.row(t, 1) // stale
	first := newOwner(t, w, dir, home)
	first.open()
	first.read(first.end())
	first.crash() // what it has read is on disk; the repair never came
	again := newOwner(t, w, dir, home)
	again.open()
	again.read(again.end())
	must(t, again.s.MarkRecovered())
	eventually(t, "the repair", func() error {
		if w.last(t) != 2 {
			return errors.New("the last row is still the stale one")
		}
		return nil
	})
}

// A table that is made anew while a view follows it (as the errors of owned.Resume
// advise) is read from its start: its offsets begin below those that the view holds.
func TestViewFollowsANewTable(t *testing.T) {
	w := newWorld(t)
	for next := range int64(5) {
		w.row(t, next+1)
	}
	rt, log := runtimeOf(t, Options{}, "BROKER="+w.addr, "STATE_DIR="+t.TempDir(), "PARTITIONS=2")
	views := newTables(rt)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rt.supervise(ctx, "view", views.views[stream.BalanceGroup].attempt) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	shows := func(want int64) func() error {
		return func() error {
			a, err := views.Balance("w")
			if err == nil && a.NextOffset != want {
				err = fmt.Errorf("shows %d, want %d\n%s", a.NextOffset, want, log)
			}
			return err
		}
	}
	eventually(t, "the view", shows(5))
	w.remake(t, string(stream.BalanceGroup.Table()))
	w.row(t, 6)
	eventually(t, "the new table's row", shows(6))
}
