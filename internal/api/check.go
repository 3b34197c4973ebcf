package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/gorilla/mux"

	"coinbit/internal/wallet"
)

// check answers GET /api/check/{wallet_id}.
func (a *API) check(w http.ResponseWriter, r *http.Request) *failure {
	walletID, _ := url.PathUnescape(mux.Vars(r)["wallet_id"]) // "" on error, which is no valid id
	if err := wallet.ValidWalletID(walletID); err != nil {
		return fail(codeWalletID, err.Error())
	}
	after, f := a.position(r, walletID)
	if f != nil {
		return f
	}
	if !a.inFlight.enter() {
		return fail(codeBusy, "too many requests at once; try again")
	}
	defer a.inFlight.leave()
	if err := a.Tables.Ready(); err != nil {
		return fail(codeNotReady, err.Error())
	}
	var row wallet.Account
	var flag wallet.Flag
	if after < 0 {
		row, flag, f = a.row(walletID)
	} else {
		row, flag, f = a.readAfter(r.Context(), walletID, after)
	}
	if f != nil {
		return f
	}
	writeCheck(w, walletID, row.Balance, flag.Raised())
	return nil
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

// row reads the wallet as it is.
func (a *API) row(walletID string) (wallet.Account, wallet.Flag, *failure) {
	row, err := a.Tables.Balance(walletID)
	if err != nil {
		return row, wallet.Flag{}, unreadable(err)
	}
	flag, err := a.Tables.Flag(walletID)
	if err != nil {
		return row, flag, unreadable(err)
	}
	return row, flag, nil
}

// readAfter reads the wallet once balance and threshold have applied the
// deposit at offset and the flag knows the latest crossing. The flag is read
// after the threshold row: it can then be held to what that row tells of.
func (a *API) readAfter(ctx context.Context, walletID string, offset int64) (wallet.Account, wallet.Flag, *failure) {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	changed, stop := a.Tables.Watch(walletID)
	defer stop()
	for {
		counter, err := a.Tables.Counter(walletID)
		if err != nil {
			return wallet.Account{}, wallet.Flag{}, unreadable(err)
		}
		row, flag, f := a.row(walletID)
		if f != nil {
			return row, flag, f
		}
		if row.NextOffset > offset && counter.Account.NextOffset > offset &&
			(counter.Tip == nil || flag.NextTip > counter.Tip.Offset) {
			return row, flag, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return row, flag, fail(codeNotApplied, "the deposit at "+headerPosition+" is not applied yet; try again")
		}
	}
}

// writeCheck writes the bare object. A valid wallet_id needs no escaping.
func writeCheck(w http.ResponseWriter, walletID string, balance wallet.Amount, above bool) {
	b := make([]byte, 0, 256)
	b = append(b, `{"wallet_id":"`...)
	b = append(b, walletID...)
	b = append(b, `","balance":`...)
	b = append(b, balance.String()...)
	b = append(b, `,"above_threshold":`...)
	b = strconv.AppendBool(b, above)
	writeJSON(w, append(b, '}'))
}

func writeJSON(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) //nolint:gosec // JSON of checked values, never sniffed; the client may be gone
}
