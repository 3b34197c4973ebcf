package app

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovoo/goka/storage"
	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/kafka"
	"coinbit/internal/live"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

func accountRow(t testing.TB, a wallet.Account) []byte {
	t.Helper()
	row, err := new(stream.BalanceEncoder).Encode(&a)
	must(t, err)
	return row
}

func flagBytes(t testing.TB, f wallet.Flag) []byte {
	t.Helper()
	row, err := new(stream.FlagEncoder).Encode(stream.StoreFlag(f))
	must(t, err)
	return row
}

// watchedViews are views that have caught up, with a hub that runs and is watched.
type watchedViews struct {
	t      *testing.T
	tables *tables
	events <-chan []byte
	stores map[stream.Group]storage.Storage
}

func newWatchedViews(t *testing.T) *watchedViews {
	t.Helper()
	rt, _ := runtimeOf(t, Options{Now: func() time.Time { return time.UnixMilli(1_700_000_000_500) }})
	w := &watchedViews{t: t, tables: newTables(rt), stores: make(map[stream.Group]storage.Storage)}
	hub, err := newHub(rt, newDeposits(rt), w.tables)
	must(t, err)
	for g, v := range w.tables.views {
		w.stores[g] = storage.NewMemory()
		v.tell.partitions(2)
		v.tell.ready = func() bool { return true }
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); hub.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	events, stop, ok := hub.Watch()
	if !ok {
		t.Fatal("nobody may watch")
	}
	t.Cleanup(stop)
	w.events = events
	return w
}

// take gives a view a record.
func (w *watchedViews) take(g stream.Group, partition int32, key string, row []byte) {
	w.t.Helper()
	v := w.tables.views[g]
	stale := prometheus.NewCounter(prometheus.CounterOpts{Name: "stale"})
	must(w.t, v.updated(newUpdater(v.version, stale), nil, func([]byte) {})(at{partition: partition}, w.stores[g], key, row))
}

// told waits until the hub has told all of want, as JSON without the times of a tick.
func (w *watchedViews) told(field string, want ...string) {
	w.t.Helper()
	var got []string
	end := time.After(deadline)
	for len(got) < len(want) {
		select {
		case m := <-w.events:
			_, data, _ := strings.Cut(string(m), "data: ")
			var event map[string]json.RawMessage
			must(w.t, json.Unmarshal([]byte(data), &event))
			var list []json.RawMessage
			_ = json.Unmarshal(event[field], &list) // a state has none
			slices.Reverse(list)
			for _, x := range list {
				got = append(got, string(x))
			}
		case <-end:
			w.t.Fatalf("got %v, want %v", got, want)
		}
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("got %v, want %v", got, want)
	}
}

// What a view takes is told as deposits and flags; what is written again is not.
func TestOnlooker(t *testing.T) {
	w := newWatchedViews(t)
	first := wallet.Account{NextOffset: 5, Balance: wallet.Amount{Units: 70, Nanos: 500_000_000}, Deposits: 1, LastAt: 1_700_000_000_400}
	second := first
	second.NextOffset, second.Deposits, second.Balance = 9, 2, wallet.Amount{Units: 100}
	w.take(stream.BalanceGroup, 1, "alice", accountRow(t, first))
	w.take(stream.BalanceGroup, 1, "alice", accountRow(t, first))  // a repeat
	w.take(stream.BalanceGroup, 1, "alice", accountRow(t, second)) // at the same event time
	w.take(stream.BalanceGroup, 1, "alice", accountRow(t, first))  // of an owner that slept
	w.told("deposits",
		`{"wallet_id":"alice","amount":"70.5","balance":"70.5","at":1700000000400,"delay_ms":100}`,
		`{"wallet_id":"alice","amount":"29.5","balance":"100","at":1700000000400,"delay_ms":100}`)

	raised := wallet.Flag{NextOffset: 1, NextTip: 10, RaisedAt: 1_700_000_000_300,
		Evidence: &wallet.Evidence{Offset: 9, TippedAt: 1_700_000_000_250, WindowEnd: 1_700_000_000_300, Total: wallet.Amount{Units: 10001}}}
	removed := raised
	removed.NextOffset, removed.RemovedUpto, removed.Removals, removed.LastRemovalAt = 2, 11, 1, 1_700_000_000_450
	operator := removed
	operator.NextOffset, operator.OpRaised, operator.RaisedAt = 3, true, 1_700_000_000_480
	for _, f := range []wallet.Flag{raised, raised, removed, operator} {
		w.take(stream.FlaggerGroup, 0, "alice", flagBytes(t, f))
	}
	w.told("flags",
		`{"wallet_id":"alice","raised":true,"at":1700000000250,"total":"10001"}`,
		`{"wallet_id":"alice","raised":false,"at":1700000000450}`,
		`{"wallet_id":"alice","raised":true,"at":1700000000480}`)

	// How far each view has got tells how far its group is behind.
	w.take(stream.ThresholdGroup, 0, "bob", accountRow(t, wallet.Account{NextOffset: 3})) // begins as a Counter does
	sight := kafka.Sight{Ends: map[int32]int64{0: 10, 1: 10}, Committed: map[int32]int64{0: 4, 1: 7}}
	for g, want := range map[stream.Group][]int64{
		stream.BalanceGroup: {6, 1}, stream.ThresholdGroup: {6, 3}, stream.FlaggerGroup: {6, 3},
	} {
		if got := w.tables.views[g].tell.lag(sight); !slices.Equal(got, want) {
			t.Errorf("%s is %v behind, want %v", g, got, want)
		}
	}
}

// What a view recovers is no news.
func TestOnlookerWhileRecovering(t *testing.T) {
	w := newWatchedViews(t)
	w.tables.views[stream.BalanceGroup].tell.ready = func() bool { return false }
	w.take(stream.BalanceGroup, 0, "old", accountRow(t, wallet.Account{NextOffset: 1, Deposits: 1, Balance: wallet.Amount{Units: 3}}))
	w.tables.views[stream.BalanceGroup].tell.ready = func() bool { return true }
	w.take(stream.BalanceGroup, 0, "new", accountRow(t, wallet.Account{NextOffset: 2, Deposits: 1, Balance: wallet.Amount{Units: 3}, LastAt: 1_700_000_000_500}))
	w.told("deposits", `{"wallet_id":"new","amount":"3","balance":"3","at":1700000000500,"delay_ms":0}`)
}

func TestGroupState(t *testing.T) {
	ends := map[int32]int64{0: 0, 1: 0}
	for _, tt := range []struct {
		sight kafka.Sight
		want  string
	}{
		{kafka.Sight{State: "Stable", Members: 1, Owned: 2, Ends: ends}, isUp},
		{kafka.Sight{State: "Stable", Members: 1, Owned: 1, Ends: ends}, isRebalancing},
		{kafka.Sight{State: "PreparingRebalance", Members: 1, Ends: ends}, isRebalancing},
		{kafka.Sight{State: "CompletingRebalance", Members: 1, Ends: ends}, isRebalancing},
		{kafka.Sight{State: "Empty", Ends: ends}, isAway},
		{kafka.Sight{State: "Dead", Ends: ends}, isAway},
		{kafka.Sight{State: "Odd", Ends: ends}, isUnknown},
	} {
		if got := groupState(tt.sight); got.State != tt.want || got.Why == "" && tt.want != isUp {
			t.Errorf("%+v: %+v", tt.sight, got)
		}
	}
}

// What the hub adds to the balance view's callback, with nobody to tell, with a hub
// that nobody watches and with one that somebody does.
func BenchmarkOnlooker(b *testing.B) {
	a := wallet.Account{NextOffset: 1, Deposits: 1, Balance: wallet.Amount{Units: 100}, LastAt: 1_700_000_000_000}
	for i := range uint64(4) {
		a.Origins = append(a.Origins, wallet.Origin{ID: 1<<60 + i, Sequence: 1 + i, LatestAt: a.LastAt})
	}
	was := accountRow(b, a)
	a.NextOffset, a.Deposits = 2, 2
	is := accountRow(b, a)
	store := storage.NewMemory()
	must(b, store.Set("w", was))
	version := groups[stream.BalanceGroup].version
	for _, bb := range []struct {
		name    string
		hub     bool
		watched bool
	}{{"no hub", false, false}, {"0 watchers", true, false}, {"1 watcher", true, true}} {
		b.Run(bb.name, func(b *testing.B) {
			var tell *onlooker
			if bb.hub {
				hub, err := live.New(live.Options{Tick: liveTick, StateEvery: liveLook, Watchers: 1})
				must(b, err)
				tell = &onlooker{hub: hub, version: version, ready: func() bool { return true }, choose: hub.Count,
					show: func(key string, was, is []byte) { showDeposit(hub, time.Now(), key, was, is) }}
				tell.partitions(8)
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				defer func() { cancel(); wg.Wait() }()
				wg.Go(func() { hub.Run(ctx) })
				if bb.watched {
					events, _, _ := hub.Watch() // until the hub ends
					wg.Go(func() {
						for range events {
						}
					})
				}
			}
			for b.Loop() {
				was, show := tell.before(store, "w")
				tell.after("w", 3, was, is, show)
			}
		})
	}
}
