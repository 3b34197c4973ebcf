package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/gorilla/mux"

	"coinbit/internal/wallet"
)

// rows are a wallet's rows of the three tables.
type rows struct {
	account wallet.Account
	counter wallet.Counter
	flag    wallet.Flag
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
	if !a.inFlight.enter() {
		return "", got, fail(codeBusy, "too many requests at once; try again")
	}
	defer a.inFlight.leave()
	if err := a.Tables.Ready(); err != nil {
		return "", got, fail(codeNotReady, err.Error())
	}
	if after < 0 {
		got, f = a.rows(walletID, whole)
	} else {
		got, f = a.rowsAfter(r.Context(), walletID, after)
	}
	return walletID, got, f
}

// position is the offset that the client wants to see applied, -1 for none.
func (a *API) position(r *http.Request, walletID string) (int64, *failure) {
	text, given, f := one(r.Header, headerPosition, codePosition)
	if f != nil || !given {
		return -1, f
	}
	p, err := ParsePosition(text)
	if err != nil {
		return -1, fail(codePosition, err.Error())
	}
	partition, err := a.Partition(walletID)
	if err != nil {
		return -1, unreadable(err)
	}
	if p.Partition != partition {
		return -1, fail(codePosition, headerPosition+" is of another partition than the wallet's")
	}
	return p.Offset, nil
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

// rowsAfter reads the wallet once balance and threshold have applied the
// deposit at offset and the flag knows the latest crossing.
func (a *API) rowsAfter(ctx context.Context, walletID string, offset int64) (rows, *failure) {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	changed, stop := a.Tables.Watch(walletID)
	defer stop()
	for {
		got, f := a.rows(walletID, true)
		if f != nil {
			return got, f
		}
		if got.account.NextOffset > offset && got.counter.Account.NextOffset > offset &&
			(got.counter.Tip == nil || got.flag.NextTip > got.counter.Tip.Offset) {
			return got, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return got, fail(codeNotApplied, "the deposit at "+headerPosition+" is not applied yet; try again")
		}
	}
}
