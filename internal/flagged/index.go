// Package flagged is an index of the wallets whose flag is raised, newest first.
// Tables are keyed by wallet; this is what answers "which ones?". It holds a
// wallet's name and time and no more: what else there is to say of it is read from
// the table. It knows neither Kafka nor HTTP, and is told of every flag by its owner.
package flagged

import (
	"sync"

	"github.com/tidwall/btree"
)

// Entry is a flagged wallet and when its flag was raised, in Unix milliseconds.
// Entries are ordered newest first, those of one millisecond by wallet.
type Entry struct {
	At       int64
	WalletID string
}

func before(a, b Entry) bool {
	if a.At != b.At {
		return a.At > b.At
	}
	return a.WalletID < b.WalletID
}

// Index is safe for concurrent use.
type Index struct {
	mu    sync.RWMutex
	at    map[string]int64
	order *btree.BTreeG[Entry]
}

// New is an empty Index.
func New() *Index {
	return &Index{at: make(map[string]int64), order: btree.NewBTreeGOptions(before, btree.Options{NoLocks: true})}
}

// Raise notes that a wallet's flag stands raised since a time.
func (x *Index) Raise(walletID string, at int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if was, ok := x.at[walletID]; ok {
		if was == at {
			return
		}
		old, _ := x.order.Delete(Entry{was, walletID})
		walletID = old.WalletID // one string for map and tree
	}
	x.at[walletID] = at
	x.order.Set(Entry{at, walletID})
}

// Lower notes that a wallet's flag is not raised.
func (x *Index) Lower(walletID string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if at, ok := x.at[walletID]; ok {
		delete(x.at, walletID)
		x.order.Delete(Entry{at, walletID})
	}
}

// Len is how many wallets are flagged.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.at)
}

// Page returns up to n entries that come after one, from the newest on when it is
// nil, and whether there are more. The entry need not be there any more: so a
// wallet that stays flagged and is not raised anew is on exactly one page of those
// asked for one after another.
func (x *Index) Page(after *Entry, n int) (page []Entry, more bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	take := func(e Entry) bool {
		switch {
		case after != nil && !before(*after, e): // the one itself
			return true
		case len(page) == n:
			more = true
			return false
		}
		page = append(page, e)
		return true
	}
	if after == nil {
		x.order.Scan(take)
	} else {
		x.order.Ascend(*after, take)
	}
	return page, more
}
