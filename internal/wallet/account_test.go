package wallet_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"reflect"
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
	if got := strings.Join(words, " "); got != "applied redelivered repeated key_replayed key_conflict overflow" {
		t.Error(got)
	}
}

func keyed(offset, units int64, key string) wallet.Deposit {
	return wallet.Deposit{Amount: money(units * billion), At: offset, Offset: offset, Key: wallet.HashKey(key), HasKey: true}
}

// Each row folds one more deposit into the same account.
func TestAccountCountsOnce(t *testing.T) {
	var a wallet.Account
	full := wallet.Deposit{Amount: wallet.Amount{Units: math.MaxInt64}, Offset: 20, ID: 99, Key: wallet.HashKey("full"), HasKey: true}
	for _, c := range []struct {
		name    string
		d       wallet.Deposit
		want    wallet.Verdict
		next    int64
		balance string
	}{
		{"the first, at offset 0", wallet.Deposit{Amount: money(100_000_000), At: 50, ID: 7}, wallet.Applied, 1, "0.1"},
		{"it again", wallet.Deposit{Amount: money(100_000_000), At: 50, ID: 7}, wallet.Redelivered, 1, "0.1"},
		{"its id at another offset", wallet.Deposit{Amount: money(100_000_000), At: 50, ID: 7, Offset: 3}, wallet.Repeated, 4, "0.1"},
		{"a second, earlier", wallet.Deposit{Amount: money(200_000_000), At: 40, ID: 8, Offset: 4}, wallet.Applied, 5, "0.3"},
		{"no id", wallet.Deposit{Amount: money(billion), At: 60, Offset: 5}, wallet.Applied, 6, "1.3"},
		{"no id is no repeat", wallet.Deposit{Amount: money(billion), At: 60, Offset: 6}, wallet.Applied, 7, "2.3"},
		{"a key", keyed(7, 5, "k"), wallet.Applied, 8, "7.3"},
		{"the key again", keyed(8, 5, "k"), wallet.KeyReplayed, 9, "7.3"},
		{"another amount", keyed(9, 6, "k"), wallet.KeyConflict, 10, "7.3"},
		{"the first amount still counts", keyed(10, 5, "k"), wallet.KeyReplayed, 11, "7.3"},
		{"another key", keyed(11, 6, "l"), wallet.Applied, 12, "13.3"},
		{"too much", full, wallet.Overflow, 21, "13.3"},
		{"refused is not remembered", func() wallet.Deposit {
			d := full
			d.Offset, d.Amount = 21, money(billion)
			return d
		}(), wallet.Applied, 22, "14.3"},
		{"a redelivered one is known by its offset alone", wallet.Deposit{Amount: money(1), Offset: 21}, wallet.Redelivered, 22, "14.3"},
	} {
		if got := a.Apply(c.d); got != c.want || a.NextOffset != c.next || a.Balance.String() != c.balance {
			t.Errorf("%s: %v, next %d, balance %v", c.name, got, a.NextOffset, a.Balance)
		}
	}
	if a.Deposits != 7 || a.FirstAt != 0 || a.LastAt != 60 || !reflect.DeepEqual(a.RecentIDs, []uint64{7, 8, 99}) {
		t.Errorf("%+v", a)
	}
	if use, ok := a.Key(wallet.HashKey("k")); !ok || use != (wallet.KeyUse{Hash: wallet.HashKey("k"), Amount: money(5 * billion), Offset: 7}) {
		t.Errorf("%+v, %v", use, ok)
	}
}

// A repeat has the word before a key, and a key before an overflow.
func TestVerdictOrder(t *testing.T) {
	a := wallet.Account{Balance: wallet.Amount{Units: math.MaxInt64}, RecentIDs: []uint64{5},
		RecentKeys: []wallet.KeyUse{{Hash: wallet.HashKey("k"), Amount: money(billion)}}, NextOffset: 1}
	d := keyed(1, 2, "k")
	d.ID = 5
	for _, want := range []wallet.Verdict{wallet.Repeated, wallet.Redelivered} {
		if got := a.Apply(d); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	d.ID, d.Offset = 6, 2
	if got := a.Apply(d); got != wallet.KeyConflict {
		t.Errorf("%v", got)
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

	id := func(id uint64) wallet.Verdict {
		offset++
		return a.Apply(wallet.Deposit{Amount: money(1), ID: id, Offset: offset})
	}
	for i := range uint64(64) {
		id(i + 1)
	}
	if got := id(1); got != wallet.Repeated {
		t.Errorf("the 64th id before: %v", got)
	}
	id(65)
	if got := id(1); got != wallet.Applied || len(a.RecentIDs) != 64 {
		t.Errorf("the 65th id before: %v of %d", got, len(a.RecentIDs))
	}
}
