package api

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"coinbit/internal/wallet"
)

const (
	// maxUnderWay bounds the deposits with a key that an API has under way for one
	// wallet. A row remembers its last 100 keys: what six APIs have under way between
	// two rows that a view sees is all in the second.
	maxUnderWay = 16
	// maxKeyed bounds them for all wallets.
	maxKeyed = 16384
	// placeWait is how long a deposit waits for a place before it is refused.
	placeWait = 2 * time.Second
	// lookPause is how often one that waits looks at the row.
	lookPause = 50 * time.Millisecond
)

// keyBook holds the deposits with a key that are under way, those of streams among
// them: from before the row is asked for the key until the row has passed the deposit,
// however its request ended. So no two requests with a key are ever between the two.
//
// See docs/decisions/20-keys.md for what it promises and what the fold does.
type keyBook struct {
	tables Tables

	mu      sync.Mutex // guards all below, and each use; not held while a row is read
	wallets map[string]*underWayKeys
	n       int    // uses
	turn    uint64 // of the latest use that was handed to the log
}

// underWayKeys are those of one wallet. It is there as long as there are any.
type underWayKeys struct {
	uses    []*keyUse     // in the order in which they came
	changed chan struct{} // closed when one leaves or is lost; nil: nobody waits
}

// keyUse is a key on its way:
//
//	taken ──► sent ──► stored at a position ──► the row has passed it
//	  │         ├────► refused
//	  └► never  └────► lost: the log does not know
type keyUse struct {
	walletID string
	hash     wallet.KeyHash
	epoch    uint64 // of the tables
	state    keyState
	turn     uint64   // sent: in which turn; lost: as of which
	at       Position // of a stored one
}

type keyState uint8

const (
	keyTaken keyState = iota
	keySent
	keyStored
	// keyLost may stand in the log or come to: it keeps its place until the row shows
	// the key or has passed a deposit that was handed over since, which the log has
	// behind it. The same key may be sent again at once: the fold counts one of them.
	keyLost
)

func newKeyBook(t Tables) *keyBook { return &keyBook{tables: t, wallets: map[string]*underWayKeys{}} }

// Why there is no place.
var (
	errKeyUnderWay = errors.New("a deposit with this key is under way")
	errKeysFull    = errors.New("too many deposits with a key are under way for this wallet")
)

// enter waits for a place: until over for another request with the key, for placeWait
// for room.
func (b *keyBook) enter(ctx context.Context, over <-chan struct{}, walletID string, h wallet.KeyHash) (*keyUse, *failure) {
	u, changed, err := b.try(walletID, h)
	if err == nil {
		return u, nil
	}
	look := time.NewTicker(lookPause)
	defer look.Stop()
	patience := time.NewTimer(placeWait)
	defer patience.Stop()
	for {
		var impatient <-chan time.Time
		if errors.Is(err, errKeysFull) {
			impatient = patience.C
		}
		select {
		case <-changed:
		case <-look.C:
			b.look(walletID)
		case <-impatient:
			return nil, noPlace(err)
		case <-ctx.Done():
			return nil, noPlace(err)
		case <-over:
			return nil, noPlace(err)
		}
		if u, changed, err = b.try(walletID, h); err == nil {
			return u, nil
		}
	}
}

// noPlace is what try's error says to the client.
func noPlace(err error) *failure {
	if errors.Is(err, errKeyUnderWay) {
		return unknown(err)
	}
	return fail(codeBusy, err.Error()+"; this one was not sent and does not count").because(err)
}

// try takes a place, or tells why there is none, and when it may be asked again.
func (b *keyBook) try(walletID string, h wallet.KeyHash) (*keyUse, <-chan struct{}, error) {
	epoch := b.tables.Epoch()
	b.tidy()
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.wallets[walletID]
	if w == nil {
		w = new(underWayKeys)
	}
	if i := w.find(h); i >= 0 {
		if w.uses[i].state != keyLost {
			return nil, w.wait(), errKeyUnderWay
		}
		b.drop(w, i)
	}
	if b.n >= maxKeyed {
		b.forgetLost()
	}
	if w.places() >= maxUnderWay || b.n >= maxKeyed {
		return nil, w.wait(), errKeysFull
	}
	u := &keyUse{walletID: walletID, hash: h, epoch: epoch}
	w.uses = append(w.uses, u)
	b.wallets[walletID] = w
	b.n++
	return u, nil, nil
}

// forgetLost ends all lost ones when the book is full: their clients may never come back,
// and the fold counts a key once whatever the book knows. It needs b.mu.
func (b *keyBook) forgetLost() {
	for _, w := range b.wallets {
		for i := len(w.uses) - 1; i >= 0; i-- {
			if w.uses[i].state == keyLost {
				b.drop(w, i)
			}
		}
	}
}

func (w *underWayKeys) find(h wallet.KeyHash) int {
	return slices.IndexFunc(w.uses, func(u *keyUse) bool { return u.hash == h })
}

// places is how many of the wallet's are taken. The lost ones leave one: without
// another deposit nobody would learn what became of them.
func (w *underWayKeys) places() int {
	lost := w.lost()
	return len(w.uses) - lost + min(lost, maxUnderWay-1)
}

func (w *underWayKeys) lost() (n int) {
	for _, u := range w.uses {
		if u.state == keyLost {
			n++
		}
	}
	return n
}

func (w *underWayKeys) wait() <-chan struct{} {
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

// wake lets all that wait look again.
func (w *underWayKeys) wake() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// drop needs b.mu.
func (b *keyBook) drop(w *underWayKeys, i int) {
	walletID := w.uses[i].walletID
	w.uses = slices.Delete(w.uses, i, i+1)
	b.n--
	if len(w.uses) == 0 {
		delete(b.wallets, walletID)
	}
	w.wake()
}

// sent says that u is about to be handed to the log. The log's answer goes to answered;
// if it does not take u at all, unhanded.
func (b *keyBook) sent(u *keyUse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	u.state, u.turn = keySent, b.turn
}

// unhanded takes sent back: the log did not take u.
func (b *keyBook) unhanded(u *keyUse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u.state = keyTaken
}

// answered is what the log says of u.
func (b *keyBook) answered(u *keyUse, at Position, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.wallets[u.walletID]
	if w == nil {
		return // of an epoch that is over
	}
	switch {
	case err == nil:
		u.state, u.at = keyStored, at
		return
	case !refused(err):
		u.state, u.turn = keyLost, b.turn
	}
	// The one that was refused, or the oldest of too many that are lost.
	lost := w.lost()
	for i, o := range w.uses {
		if refused(err) && o == u || o.state == keyLost && lost > maxUnderWay {
			b.drop(w, i)
			break
		}
	}
	w.wake() // a lost one lets its key be sent again
}

// leave ends u if it was never sent, or the row has passed it.
func (b *keyBook) leave(u *keyUse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.wallets[u.walletID]
	if w == nil {
		return
	}
	if i := slices.Index(w.uses, u); i >= 0 {
		b.drop(w, i)
		b.passed(w, u)
	}
}

// passed ends the lost ones that u, which the row has passed, stands behind in the log:
// theirs are in the row too, or never will be. It needs b.mu.
func (b *keyBook) passed(w *underWayKeys, u *keyUse) {
	if u.state != keyStored {
		return
	}
	for i := len(w.uses) - 1; i >= 0; i-- {
		if o := w.uses[i]; o.state == keyLost && o.turn < u.turn {
			b.drop(w, i)
		}
	}
}

// unsent ends u if it was never sent.
func (b *keyBook) unsent(u *keyUse) {
	b.mu.Lock()
	taken := u.state == keyTaken
	b.mu.Unlock()
	if taken {
		b.leave(u)
	}
}

// look ends what the wallet's row has passed.
func (b *keyBook) look(walletID string) {
	row, err := b.tables.Balance(walletID)
	if err != nil {
		return
	}
	epoch := b.tables.Epoch()
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.wallets[walletID]
	if w == nil {
		return
	}
	for _, u := range slices.Clone(w.uses) {
		i := slices.Index(w.uses, u)
		_, known := row.Key(u.hash)
		switch {
		case i < 0: // with another
		case u.epoch != epoch && u.state != keyTaken, u.state == keyLost && known:
			b.drop(w, i)
		case u.state == keyStored && row.NextOffset > u.at.Offset:
			b.drop(w, i)
			b.passed(w, u)
		}
	}
}

// tidy looks at some wallets when there are many whose requests may be gone.
func (b *keyBook) tidy() {
	const some = 4
	b.mu.Lock()
	var ids []string
	if b.n > maxKeyed/2 {
		for id := range b.wallets { // in no order
			if ids = append(ids, id); len(ids) == some {
				break
			}
		}
	}
	b.mu.Unlock()
	for _, id := range ids {
		b.look(id)
	}
}
