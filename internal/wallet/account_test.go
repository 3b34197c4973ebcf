package wallet_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"strings"
	"testing"

	"coinbit/internal/wallet"
)

func TestValidWalletID(t *testing.T) {
	for id, ok := range map[string]bool{
		"69da5a28bfee68a8b0bfeba076ee43f8ca4": true,
		"a":                                   true,
		"Z":                                   true,
		"0.a_b:c@d-e":                         true,
		strings.Repeat("x", 128):              true,
		strings.Repeat("x", 129):              false,
		"":                                    false,
		".a":                                  false,
		"_a":                                  false,
		"-a":                                  false,
		"@a":                                  false,
		":a":                                  false,
		"a b":                                 false,
		"a/b":                                 false,
		"a\x00":                               false,
		"a\n":                                 false,
		"é":                                   false,
		"aé":                                  false,
		"a[":                                  false,
		"a`":                                  false,
		"a{":                                  false,
	} {
		err := wallet.ValidWalletID(id)
		if (err == nil) != ok || err != nil && !strings.HasPrefix(err.Error(), "wallet_id") {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestValidKey(t *testing.T) {
	for key, ok := range map[string]bool{
		"!": true, "~": true, "8e03978e-40d5-43dd-bc93-6894a57f9324": true, strings.Repeat("k", 128): true,
		"": false, " ": false, "a b": false, "a\x7f": false, "a\t": false, "ä": false, strings.Repeat("k", 129): false,
	} {
		if err := wallet.ValidKey(key); (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestHashKey(t *testing.T) {
	sum, got := sha256.Sum256([]byte("key")), wallet.HashKey("key")
	if string(got[:]) != string(sum[:12]) {
		t.Errorf("%x of %x", got, sum)
	}
}

func TestVerdictWords(t *testing.T) {
	var words []string
	for _, v := range wallet.Verdicts() {
		words = append(words, v.String())
	}
	if got := strings.Join(words, " "); got != "applied redelivered repeated key_replayed key_conflict key_stale overflow" {
		t.Error(got)
	}
}

func keyed(offset, units int64, key string) wallet.Deposit {
	return wallet.Deposit{Amount: money(units * billion), At: offset, Offset: offset, Key: wallet.HashKey(key), HasKey: true}
}

// Each row folds one more deposit into the same account.
func TestAccountCountsOnce(t *testing.T) {
	var a wallet.Account
	full := wallet.Deposit{Amount: wallet.Amount{Units: math.MaxInt64}, Offset: 20, Origin: 1, Sequence: 99, Key: wallet.HashKey("full"), HasKey: true}
	for _, c := range []struct {
		name    string
		d       wallet.Deposit
		want    wallet.Verdict
		next    int64
		balance string
	}{
		{"the first, at offset 0", wallet.Deposit{Amount: money(100_000_000), At: 50, Origin: 1, Sequence: 7}, wallet.Applied, 1, "0.1"},
		{"it again", wallet.Deposit{Amount: money(100_000_000), At: 50, Origin: 1, Sequence: 7}, wallet.Redelivered, 1, "0.1"},
		{"it at another offset", wallet.Deposit{Amount: money(100_000_000), At: 50, Origin: 1, Sequence: 7, Offset: 3}, wallet.Repeated, 4, "0.1"},
		{"a second, earlier", wallet.Deposit{Amount: money(200_000_000), At: 40, Origin: 1, Sequence: 8, Offset: 4}, wallet.Applied, 5, "0.3"},
		{"no origin", wallet.Deposit{Amount: money(billion), At: 60, Offset: 5}, wallet.Applied, 6, "1.3"},
		{"no origin is no repeat", wallet.Deposit{Amount: money(billion), At: 60, Offset: 6}, wallet.Applied, 7, "2.3"},
		{"a key", keyed(7, 5, "k"), wallet.Applied, 8, "7.3"},
		{"the key again", keyed(8, 5, "k"), wallet.KeyReplayed, 9, "7.3"},
		{"another amount", keyed(9, 6, "k"), wallet.KeyConflict, 10, "7.3"},
		{"the first amount still counts", keyed(10, 5, "k"), wallet.KeyReplayed, 11, "7.3"},
		{"another key", keyed(11, 6, "l"), wallet.Applied, 12, "13.3"},
		{"too much", full, wallet.Overflow, 21, "13.3"},
		{"refused is not remembered", func() wallet.Deposit {
			d := full
			d.Offset, d.Amount, d.Sequence = 21, money(billion), 100
			return d
		}(), wallet.Applied, 22, "14.3"},
		{"a redelivered one is known by its offset alone", wallet.Deposit{Amount: money(1), Offset: 21}, wallet.Redelivered, 22, "14.3"},
	} {
		if got := a.Apply(c.d); got != c.want || a.NextOffset != c.next || a.Balance.String() != c.balance {
			t.Errorf("%s: %v, next %d, balance %v", c.name, got, a.NextOffset, a.Balance)
		}
	}
	if a.Deposits != 7 || a.FirstAt != 0 || a.LastAt != 60 || len(a.Origins) != 2 || a.Origins[1].Sequence != 100 {
		t.Errorf("%+v", a)
	}
	if use, ok := a.Key(wallet.HashKey("k")); !ok || use != (wallet.KeyUse{Hash: wallet.HashKey("k"), Amount: money(5 * billion), Offset: 7}) {
		t.Errorf("%+v, %v", use, ok)
	}
}

// A repeat has the word before a key, and a key before an overflow.
func TestVerdictOrder(t *testing.T) {
	a := wallet.Account{Balance: wallet.Amount{Units: math.MaxInt64}, Origins: []wallet.Origin{{ID: 1, Sequence: 5}},
		RecentKeys: []wallet.KeyUse{{Hash: wallet.HashKey("k"), Amount: money(billion)}}, NextOffset: 1}
	d := keyed(1, 2, "k")
	d.Origin, d.Sequence = 1, 5
	for _, want := range []wallet.Verdict{wallet.Repeated, wallet.Redelivered} {
		if got := a.Apply(d); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	d.Sequence, d.Offset = 6, 2
	if got := a.Apply(d); got != wallet.KeyConflict {
		t.Errorf("%v", got)
	}
}

// A key that may have been used and forgotten since its sender looked does not count;
// one whose sender saw all that was forgotten does.
func TestKeyStale(t *testing.T) {
	account := func(keys int64) (a wallet.Account) {
		for i := range keys {
			a.Apply(keyed(i, 1, fmt.Sprint(i)))
		}
		return a
	}
	for _, c := range []struct {
		keys, checked int64
		key           string
		want          wallet.Verdict
	}{
		{99, 1, "new", wallet.Applied},      // nothing is forgotten yet
		{100, 1, "new", wallet.Applied},     // nor here
		{101, 1, "new", wallet.KeyStale},    // "0" is
		{101, 2, "new", wallet.Applied},     // its sender saw that one
		{250, 150, "new", wallet.KeyStale},  // and here 149 not
		{250, 151, "new", wallet.Applied},   //
		{250, 1, "200", wallet.KeyReplayed}, // what is known is known
		{250, 0, "0", wallet.Applied},       // its sender does not say
		{250, -5, "0", wallet.Applied},      // nor that one
		{250, math.MaxInt64, "0", wallet.Applied},
	} {
		a := account(c.keys)
		d := keyed(1000, 1, c.key)
		d.KeyChecked = c.checked
		if got := a.Apply(d); got != c.want || a.NextOffset != 1001 {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestAccountForgets(t *testing.T) {
	var a wallet.Account
	offset := int64(0)
	key := func(name string) wallet.Verdict { offset++; return a.Apply(keyed(offset, 1, name)) }
	for i := range 100 {
		key(fmt.Sprint(i))
	}
	if got := key("0"); got != wallet.KeyReplayed {
		t.Errorf("the 100th key before: %v", got)
	}
	key("one more")
	if got := key("1"); got != wallet.KeyReplayed {
		t.Errorf("the 100th key before: %v", got)
	}
	if got := key("0"); got != wallet.Applied || len(a.RecentKeys) != 100 {
		t.Errorf("the 101st key before: %v of %d", got, len(a.RecentKeys))
	}
}

func from(origin, sequence uint64, at, offset int64) wallet.Deposit {
	return wallet.Deposit{Amount: money(1), Origin: origin, Sequence: sequence, At: at, Offset: offset}
}

// A repeat is known at any distance: a million deposits of other origins, and of its
// own, may lie in between.
func TestRepeatAtAnyDistance(t *testing.T) {
	var a wallet.Account
	n := int64(1_000_000)
	for i := range n {
		a.Apply(from(uint64(1+i%15), uint64(1+i/15), i, i))
	}
	before := a.Deposits
	for i := range int64(1_000) {
		again := i * (n / 1_000)
		if got := a.Apply(from(uint64(1+again%15), uint64(1+again/15), again, n+i)); got != wallet.Repeated {
			t.Fatalf("deposit %d again: %v", again, got)
		}
	}
	if a.Deposits != before {
		t.Errorf("%d deposits, %d before the repeats", a.Deposits, before)
	}
}

// What an API gave up (nobody was told that it counts) and comes late, behind a later
// one of it, does not count.
func TestGivenUpAndLate(t *testing.T) {
	var a wallet.Account
	for i, c := range []struct {
		sequence uint64
		want     wallet.Verdict
	}{{1, wallet.Applied}, {3, wallet.Applied}, {2, wallet.Repeated}, {4, wallet.Applied}} {
		if got := a.Apply(from(9, c.sequence, 0, int64(i))); got != c.want {
			t.Errorf("sequence %d: %v", c.sequence, got)
		}
	}
}

// An origin is forgotten behind sixteen others; or behind four, when by the clock of one
// origin a day has gone by.
func TestOriginsForgotten(t *testing.T) {
	const day = 24 * 60 * 60 * 1000
	for name, c := range map[string]struct {
		others int   // origins that came after it
		pass   int64 // ms, on the pacemaker's clock
		want   wallet.Verdict
	}{
		"behind 15":                {15, 0, wallet.Repeated},
		"behind 16":                {16, 0, wallet.Applied},
		"behind 3, a day later":    {3, day + 1, wallet.Repeated},
		"behind 4, a day later":    {4, day + 1, wallet.Applied},
		"behind 4, a day":          {4, day, wallet.Repeated},
		"behind 15, a day later":   {15, day + 1, wallet.Applied},
		"behind 4, a moment later": {4, 1, wallet.Repeated},
	} {
		var a wallet.Account
		offset := int64(0)
		apply := func(origin, sequence uint64, at int64) wallet.Verdict {
			offset++
			return a.Apply(from(origin, sequence, at, offset))
		}
		apply(2, 1, 0) // the pacemaker
		apply(1, 1, 0)
		apply(2, 2, 0)
		for i := range c.others - 1 {
			apply(uint64(3+i), 1, 100*day) // the difference of two clocks is not time that goes by
		}
		if c.pass > 0 {
			apply(2, 3, c.pass)
		}
		if got := apply(1, 1, c.pass); got != c.want {
			t.Errorf("%s: %v, %+v", name, got, a.Origins)
		}
		if err := a.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
