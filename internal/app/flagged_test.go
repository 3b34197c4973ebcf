package app

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/lovoo/goka/storage"
	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/flagged"
	"coinbit/internal/store"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// The index has what is on disk when a partition opens, then every change, once the
// view is served; a second attempt begins anew.
func TestFlagList(t *testing.T) {
	var log syncBuffer
	list := &flagList{log: slog.New(slog.NewTextHandler(&log, nil))}
	if _, _, err := list.page(nil, 10); !errors.Is(err, errCatchingUp) {
		t.Fatalf("before a view is served: %v", err)
	}
	row := func(f wallet.Flag) []byte {
		data, err := new(stream.FlagEncoder).Encode(stream.StoreFlag(f))
		must(t, err)
		return data
	}
	raised := func(at, next int64) []byte { return row(wallet.Flag{NextOffset: next, OpRaised: true, RaisedAt: at}) }

	dir, err := store.Claim(t.TempDir(), "cluster", "view")
	must(t, err)
	defer func() { must(t, dir.Close()) }()
	open := func(f follower) storage.Storage {
		build, err := dir.Builder("flagger-table", "id", store.Follow, func(int32, *store.Store) {})
		must(t, err)
		s, err := followed(build, f)("flagger-table", 3)
		must(t, err)
		must(t, s.Open())
		return s
	}
	expect := func(what string, want ...string) {
		t.Helper()
		page, more, err := list.page(nil, 10)
		var got []string
		for _, e := range page {
			got = append(got, e.WalletID)
		}
		if err != nil || more || strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %v %v, want %v", what, got, err, want)
		}
	}

	f := list.follow()
	s := open(f)
	v := &view{Runtime: &Runtime{}, changed: func(string) {}}
	stale := prometheus.NewCounter(prometheus.CounterOpts{Name: "stale"})
	update := v.updated(newUpdater(stream.FlagVersion, stale), f, func([]byte) {})
	for _, c := range []struct {
		key   string
		value []byte
	}{
		{"a", raised(1, 1)}, {"b", raised(2, 2)}, {"c", raised(3, 3)}, {"_claim", []byte("x")},
		{"b", row(wallet.Flag{NextOffset: 4, Removals: 1})}, // removed
		{"a", row(wallet.Flag{NextOffset: 0})},              // stale: it is kept out
		{"d", []byte{0xff}},                                 // unreadable
		{"no wallet's", raised(7, 7)},                       // a cursor of it would be none
	} {
		must(t, update(at{}, s, c.key, c.value))
	}
	if _, _, err := list.page(nil, 10); err == nil {
		t.Error("served before the view is")
	}
	f.served()
	expect("followed", "c", "a")
	must(t, update(at{}, s, "a", raised(9, 9)))
	expect("raised anew", "a", "c")
	if !strings.Contains(log.String(), "wallet=d") {
		t.Errorf("the unreadable row is not told of: %s", log.String())
	}
	must(t, s.Close())

	again := list.follow()
	s = open(again)
	expect("while another is begun", "a", "c")
	again.served()
	expect("from disk", "a", "c")
	must(t, s.Close())
}

type unopenable struct{ storage.Storage }

func (unopenable) Open() error { return errAttempt }

type unreadableRows struct{ storage.Storage }

func (unreadableRows) Open() error                         { return nil }
func (unreadableRows) Iterator() (storage.Iterator, error) { return nil, errAttempt }

// A storage that cannot be read is not opened: an index must not lack its rows.
func TestFollowedStorageFails(t *testing.T) {
	for _, s := range []storage.Storage{unopenable{}, unreadableRows{}} {
		build := followed(func(string, int32) (storage.Storage, error) { return s, nil }, &flagFollower{index: flagged.New()})
		opened, err := build("t", 0)
		must(t, err)
		if err := opened.Open(); !errors.Is(err, errAttempt) {
			t.Errorf("%T: %v", s, err)
		}
	}
	if _, err := followed(func(string, int32) (storage.Storage, error) { return nil, errAttempt }, nil)("t", 0); !errors.Is(err, errAttempt) {
		t.Error(err)
	}
}
