package app

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lovoo/goka/storage"

	"coinbit/internal/wallet"
)

const (
	// maxForgotten bounds the keys that an API remembers beyond the rows, at about
	// 100 bytes each.
	maxForgotten = 1 << 17
	// fullRow is below the size of every row that has as many keys as rows remember: a
	// key's hash alone takes 12 bytes.
	fullRow = 1200
)

// forgotten are the latest Idempotency-Keys that balance rows forgot for newer ones, as
// the API's view saw it. Of two rows that follow each other it takes what only the
// first one has, before anybody sees the second.
type forgotten struct {
	epoch atomic.Uint64 // counts the logs that the rows were folded from

	mu   sync.RWMutex // guards all below
	log  string       // which one: cluster and topic
	uses map[forgottenKey]wallet.KeyUse
	ring []forgottenKey // oldest at next, once it is full
	next int
	max  int
}

// forgottenKey is a wallet and a key.
type forgottenKey [16]byte

func newForgotten(most int) *forgotten {
	return &forgotten{uses: make(map[forgottenKey]wallet.KeyUse), max: most}
}

func keyOf(walletID string, h wallet.KeyHash) forgottenKey {
	sum := sha256.Sum256(append(h[:], walletID...))
	return forgottenKey(sum[:16])
}

// follow says whose rows come next. The keys of another log's say nothing.
func (f *forgotten) follow(log string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.log == log {
		return
	}
	if f.log != "" {
		f.epoch.Add(1)
	}
	f.log, f.uses, f.ring, f.next = log, make(map[forgottenKey]wallet.KeyUse), nil, 0
}

// before takes the keys that a wallet's row has and the next one does not.
func (f *forgotten) before(s storage.Storage, walletID string, next []byte) error {
	if f == nil || len(next) < fullRow {
		return nil
	}
	held, err := s.Get(walletID)
	if err != nil {
		return fmt.Errorf("read local state: %w", err)
	}
	was, err := balanceRow(held)
	if err != nil || len(was.RecentKeys) == 0 {
		return nil //nolint:nilerr // who reads such a row is told
	}
	is, err := balanceRow(next)
	if err != nil {
		return nil //nolint:nilerr // as before
	}
	for _, use := range was.RecentKeys {
		if !is.ForgotSince(use.Offset) { // the keys are in the order of their offsets
			break
		}
		f.add(keyOf(walletID, use.Hash), use)
	}
	return nil
}

func (f *forgotten) add(k forgottenKey, use wallet.KeyUse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, has := f.uses[k]; has {
		return
	}
	f.uses[k] = use
	if len(f.ring) < f.max {
		f.ring = append(f.ring, k)
		return
	}
	delete(f.uses, f.ring[f.next])
	f.ring[f.next] = k
	f.next = (f.next + 1) % f.max
}

func (f *forgotten) find(walletID string, h wallet.KeyHash) (wallet.KeyUse, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if len(f.uses) == 0 {
		return wallet.KeyUse{}, false
	}
	use, ok := f.uses[keyOf(walletID, h)]
	return use, ok
}
