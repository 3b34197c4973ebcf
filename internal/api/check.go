package api

import (
	"net/http"
	"strconv"

	"coinbit/internal/wallet"
)

// check answers GET /api/check/{wallet_id}.
func (a *API) check(w http.ResponseWriter, r *http.Request) *failure {
	walletID, got, f := a.lookUp(r, false)
	if f != nil {
		return f
	}
	writeCheck(w, walletID, got.account.Balance, got.flag.Raised())
	return nil
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
	_, _ = w.Write(body) // the client may be gone
}
