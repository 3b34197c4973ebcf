package app

import (
	"fmt"
	"testing"

	"github.com/lovoo/goka/storage"
	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// Rows of one wallet with a deposit and a key at each offset below next.
func keyedRow(t *testing.T, next int64) []byte {
	t.Helper()
	var a wallet.Account
	for i := range next {
		a.Apply(wallet.Deposit{Amount: wallet.Amount{Units: uint64(i + 1)}, At: 1, Offset: i, Key: wallet.HashKey(fmt.Sprint(i)), HasKey: true})
	}
	row, err := new(stream.BalanceEncoder).Encode(&a)
	must(t, err)
	return row
}

// What a row forgot for newer keys is known from before the new row is there; the most
// recent of all wallets, and of one log.
func TestForgotten(t *testing.T) {
	f := newForgotten(70)
	f.follow("a")
	changed := 0
	v := &view{Runtime: &Runtime{}, keys: f}
	v.changed = func(string) { changed++ }
	update := v.updated(newUpdater(stream.AccountVersion, prometheus.NewCounter(prometheus.CounterOpts{Name: "stale"})), nil, func([]byte) {})
	s := storage.NewMemory()
	shown := &checked{Storage: s, set: func() { // the row changes now: what it forgets is known
		if use, ok := f.find("w", wallet.HashKey("49")); !ok || use.Offset != 49 || use.Amount.Units != 50 {
			t.Errorf("%+v %v", use, ok)
		}
	}}
	expect := func(what string, want string) {
		t.Helper()
		got := ""
		for i := range 300 {
			if _, ok := f.find("w", wallet.HashKey(fmt.Sprint(i))); ok {
				got += fmt.Sprint(i, " ")
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	list := func(from, to int) (l string) {
		for i := from; i < to; i++ {
			l += fmt.Sprint(i, " ")
		}
		return l
	}
	must(t, update(at{}, s, "w", keyedRow(t, 90)))
	must(t, update(at{}, s, "w", keyedRow(t, 100)))
	expect("nothing is forgotten", "")
	must(t, update(at{}, shown, "w", keyedRow(t, 150)))
	expect("the first 50", list(0, 50))
	must(t, update(at{}, s, "w", keyedRow(t, 120))) // a stale row
	must(t, update(at{}, s, "w", keyedRow(t, 150))) // one again
	expect("as before", list(0, 50))
	must(t, update(at{}, s, "w", keyedRow(t, 190)))
	expect("the latest 70", list(20, 90))
	if _, ok := f.find("v", wallet.HashKey("50")); ok {
		t.Error("another wallet's key")
	}
	must(t, update(at{}, s, "x", append(keyedRow(t, 100), 0xff))) // unreadable
	must(t, update(at{}, s, "x", keyedRow(t, 190)))
	f.follow("a")
	expect("the same log", list(20, 90))
	if f.epoch.Load() != 0 {
		t.Error("another epoch")
	}
	f.follow("b")
	expect("another log", "")
	if f.epoch.Load() != 1 || changed < 4 {
		t.Error("the same epoch")
	}
}

// checked calls set before each Set.
type checked struct {
	storage.Storage
	set func()
}

func (c *checked) Set(key string, value []byte) error {
	c.set()
	return c.Storage.Set(key, value)
}
