package api

import (
	"context"
	"net/http"
	"net/url"
	"sync"

	"github.com/gorilla/mux"

	"coinbit/internal/wallet"
)

// rows are a wallet's rows of the three tables.
type rows struct {
	account wallet.Account
	counter wallet.Counter
	flag    wallet.Flag
}

// show tells whether balance and threshold have applied the deposit at offset, and the
// flag knows the latest crossing.
func (r *rows) show(offset int64) bool {
	return r.account.NextOffset > offset && r.counter.Account.NextOffset > offset &&
		(r.counter.Tip == nil || r.flag.NextTip > r.counter.Tip.Offset)
}

// lookUp reads the wallet that r names once its rows have applied the deposit
// that r names, if it does. Without one the threshold row is read if whole.
func (a *API) lookUp(r *http.Request, whole bool) (walletID string, got rows, f *failure) {
	walletID, _ = url.PathUnescape(mux.Vars(r)["wallet_id"]) // "" on error, which is no valid id
	if err := wallet.ValidWalletID(walletID); err != nil {
		return "", got, fail(codeWalletID, err.Error())
	}
	after, f := a.position(r, walletID)
	if f != nil {
		return "", got, f
	}
	got, f = a.look(walletID, whole || after != nil)
	if f == nil && after != nil && !got.show(after.Offset) {
		got, f = a.await(r, walletID, *after)
	}
	return walletID, got, f
}

// look reads the wallet as it is, if there is a place.
func (a *API) look(walletID string, whole bool) (got rows, f *failure) {
	if !a.inFlight.enter() {
		return got, fail(codeBusy, "too many requests at once; try again")
	}
	defer a.inFlight.leave()
	if err := a.Tables.Ready(); err != nil {
		return got, fail(codeNotReady, err.Error())
	}
	return a.rows(walletID, whole)
}

// position is that of the deposit that the client wants to see applied, nil for none.
func (a *API) position(r *http.Request, walletID string) (*Position, *failure) {
	text, given, f := one(r.Header, headerPosition, codePosition)
	if f != nil || !given {
		return nil, f
	}
	p, err := ParsePosition(text)
	if err != nil {
		return nil, fail(codePosition, err.Error())
	}
	partition, err := a.Partition(walletID)
	if err != nil {
		return nil, unreadable(err)
	}
	if p.Partition != partition {
		return nil, fail(codePosition, headerPosition+" is of another partition than the wallet's")
	}
	return &p, nil
}

// rows reads the wallet as it is. The flag is read after the threshold row: it can
// then be held to what that row tells of.
func (a *API) rows(walletID string, whole bool) (got rows, f *failure) {
	var err error
	if whole {
		if got.counter, err = a.Tables.Counter(walletID); err != nil {
			return got, unreadable(err)
		}
	}
	if got.account, err = a.Tables.Balance(walletID); err != nil {
		return got, unreadable(err)
	}
	if got.flag, err = a.Tables.Flag(walletID); err != nil {
		return got, unreadable(err)
	}
	return got, nil
}

// await reads the wallet once its rows show the deposit at a position. Who waits takes no
// place of those who deposit, and does not wait for what the log does not hold.
func (a *API) await(r *http.Request, walletID string, at Position) (got rows, f *failure) {
	who, _ := a.guard.client(r)
	if !a.waiting.enter(who) {
		return got, fail(codeBusy, "too many wait for their deposits; try again")
	}
	defer a.waiting.leave(who)
	ctx, cancel := context.WithTimeout(r.Context(), checkWait)
	defer cancel()
	changed, stop := a.Tables.Watch(walletID)
	defer stop()
	nowhere := make(chan struct{})
	go func() { // until ctx is done at the latest
		if held, err := a.Holds(ctx, at); err == nil && !held {
			close(nowhere)
		}
	}()
	for {
		if got, f = a.rows(walletID, true); f != nil || got.show(at.Offset) {
			return got, f
		}
		select {
		case <-changed:
		case <-nowhere:
			return got, fail(codeNotApplied, "the log holds no deposit at "+headerPosition)
		case <-ctx.Done():
			return got, fail(codeNotApplied, "the deposit at "+headerPosition+" is not applied yet; try again")
		}
	}
}

// crowd lets so many in at once, and fewer of one client, and nobody wait.
type crowd struct {
	all, each int
	mu        sync.Mutex
	n         int
	of        map[client]int
}

func newCrowd(all, each int) *crowd { return &crowd{all: all, each: each, of: make(map[client]int)} }

func (c *crowd) enter(who client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n >= c.all || c.of[who] >= c.each {
		return false
	}
	c.n++
	c.of[who]++
	return true
}

func (c *crowd) leave(who client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
	if c.of[who]--; c.of[who] == 0 {
		delete(c.of, who)
	}
}
