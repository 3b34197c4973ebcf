package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"

	"coinbit/internal/wallet"
)

// maxBody is the largest body, in bytes.
const maxBody = 64 << 10

// readBody reads the whole body, whatever its Content-Type.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	const tooLarge = "body must be at most 65536 bytes"
	if r.ContentLength > maxBody { // do not make the client send it
		return nil, fail(codeTooLarge, tooLarge)
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var big *http.MaxBytesError
	switch {
	case err == nil:
		return data, nil
	case errors.As(err, &big):
		return nil, fail(codeTooLarge, tooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fail(codeSlow, "body did not arrive in time")
	default:
		return nil, fail(codeBody, "body ended early").because(err)
	}
}

// parseBody reads a deposit. Field names match exactly and other fields are
// ignored; the amount's text never passes through a binary fraction.
func parseBody(data []byte) (walletID string, amount wallet.Amount, f *failure) {
	// A map, because a struct would match names whatever their case.
	var fields map[string]json.RawMessage
	err := json.Unmarshal(data, &fields)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return "", amount, fail(codeBody, "body is not valid JSON: "+err.Error())
	case err != nil || fields == nil:
		return "", amount, fail(codeBody, "body must be a JSON object")
	}

	raw := fields["wallet_id"]
	switch {
	case missing(raw):
		return "", amount, fail(codeWalletID, "wallet_id is required")
	case json.Unmarshal(raw, &walletID) != nil:
		return "", amount, fail(codeWalletID, "wallet_id must be a string")
	}
	if err := wallet.ValidWalletID(walletID); err != nil {
		return "", amount, fail(codeWalletID, err.Error())
	}

	raw = fields["amount"]
	switch {
	case missing(raw):
		return "", amount, fail(codeAmount, "amount is required")
	case raw[0] != '-' && (raw[0] < '0' || raw[0] > '9'): // the start of every JSON number
		return "", amount, fail(codeAmount, wallet.ErrNotNumber.Error())
	}
	amount, err = wallet.ParseAmount(string(raw))
	if err != nil {
		return "", amount, fail(codeAmount, err.Error())
	}
	return walletID, amount, nil
}

func missing(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }
