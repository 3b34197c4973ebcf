package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"coinbit/internal/wallet"
)

const (
	// maxBody is the largest body, in bytes.
	maxBody = 64 << 10
	// A body of more than smallBody bytes is larger than any deposit needs. No
	// more than maxLargeBodies of these are in memory at once, so that thousands
	// of clients that send one slowly cost megabytes and not hundreds of them.
	smallBody      = 4 << 10
	maxLargeBodies = 256
)

// gate lets so many in at once, and nobody wait.
type gate chan struct{}

func newGate(n int) gate { return make(gate, n) }

func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }

const tooLarge = "body must be at most 65536 bytes"

// read reads a deposit, whatever the body's Content-Type.
func (a *API) read(w http.ResponseWriter, r *http.Request) (order, *failure) {
	if n := r.ContentLength; 0 <= n && n <= smallBody { // nearly always
		data := make([]byte, n)
		if _, err := io.ReadFull(r.Body, data); err != nil {
			return order{}, unread(err)
		}
		return parse("body", data)
	}
	if r.ContentLength > maxBody { // do not make the client send it
		return order{}, fail(codeTooLarge, tooLarge)
	}
	body := http.MaxBytesReader(w, r.Body, maxBody)
	data, err := io.ReadAll(io.LimitReader(body, smallBody+1))
	if err == nil && len(data) > smallBody {
		if !a.large.enter() {
			return order{}, fail(codeBusy, "too many large bodies at once; try again")
		}
		defer a.large.leave()
		var rest []byte
		rest, err = io.ReadAll(body)
		data = append(data, rest...)
	}
	if err != nil {
		return order{}, unread(err)
	}
	return parse("body", data)
}

// unread is a body that did not arrive whole.
func unread(err error) *failure {
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return fail(codeTooLarge, tooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail(codeSlow, "body did not arrive in time")
	default:
		return fail(codeBody, "body ended early").because(err)
	}
}

// order is a deposit as a client asks for it. key is "" for none.
type order struct {
	walletID string
	amount   wallet.Amount
	key      string
}

// parse reads a deposit, single or of a stream. Field names match exactly, whatever
// json.Unmarshal makes of a struct's; other fields are ignored, but for slips; the
// amount's text never passes through a binary fraction. A field of ours that is given
// twice is refused: readers differ in which of the two counts. what is the data's
// name to the client.
func parse(what string, data []byte) (o order, f *failure) {
	if !json.Valid(data) {
		err := json.Unmarshal(data, new(json.RawMessage)) // says what is wrong
		return o, fail(codeBody, what+" is not valid JSON: "+err.Error())
	}
	id, number, key, f := fields(what, data)
	if f != nil {
		return o, f
	}
	if missing(id) {
		return o, fail(codeWalletID, "wallet_id is required")
	}
	var ok bool
	if o.walletID, ok = text(id); !ok {
		return o, fail(codeWalletID, "wallet_id must be a string")
	}
	if err := wallet.ValidWalletID(o.walletID); err != nil {
		return o, fail(codeWalletID, err.Error())
	}
	if o.amount, f = amount(number); f != nil {
		return o, f
	}
	if missing(key) {
		return o, nil
	}
	if o.key, ok = text(key); !ok {
		return o, fail(codeKey, fieldKey+" must be a string")
	}
	if err := wallet.ValidKey(o.key); err != nil {
		return o, fail(codeKey, err.Error())
	}
	return o, nil
}

// The fields of a deposit.
const (
	fieldWalletID = "wallet_id"
	fieldAmount   = "amount"
	fieldKey      = "idempotency_key" // the header's counterpart
)

// notAmount is wallet.ErrNotNumber of JSON, which has two ways to write one.
const notAmount = "amount must be a number, or a string of a plain decimal"

// amount reads a JSON number, or a JSON string of one without an exponent: for those
// whose numbers are binary fractions.
func amount(raw []byte) (wallet.Amount, *failure) {
	if missing(raw) {
		return wallet.Amount{}, fail(codeAmount, "amount is required")
	}
	number := string(raw)
	if raw[0] == '"' {
		var ok bool
		if number, ok = text(raw); !ok || strings.ContainsAny(number, "eE") {
			return wallet.Amount{}, fail(codeAmount, notAmount)
		}
	}
	a, err := wallet.ParseAmount(number)
	switch {
	case errors.Is(err, wallet.ErrNotNumber):
		return a, fail(codeAmount, notAmount)
	case err != nil:
		return a, fail(codeAmount, err.Error())
	}
	return a, nil
}

// slip says which field of ours a name that is not ours was most likely meant for, nil
// for none: idempotencyKey, say, ignored, would make a retry a second deposit.
func slip(name []byte) *failure {
	const longest = 64
	if len(name) > longest {
		return nil
	}
	var room [longest]byte
	letters := room[:0] // in lower case, without what joins words
	for _, c := range name {
		switch {
		case c >= 'A' && c <= 'Z':
			letters = append(letters, c-'A'+'a')
		case c != '_' && c != '-' && c != '.' && c != ' ':
			letters = append(letters, c)
		}
	}
	switch {
	case bytes.Contains(letters, []byte("idempoten")):
		return misnamed(codeKey, name, fieldKey)
	case string(letters) == "walletid":
		return misnamed(codeWalletID, name, fieldWalletID)
	case string(letters) == "amount":
		return misnamed(codeAmount, name, fieldAmount)
	}
	return nil
}

func misnamed(c code, name []byte, field string) *failure {
	return fail(c, strconv.Quote(string(name))+" is no field of a deposit; it is called "+field)
}

func missing(raw []byte) bool { return len(raw) == 0 || string(raw) == "null" }

// fields finds the fields of a deposit in valid JSON, as they were written.
func fields(what string, data []byte) (walletID, amount, key []byte, f *failure) {
	i := space(data, 0)
	if data[i] != '{' {
		return nil, nil, nil, fail(codeBody, what+" must be a JSON object")
	}
	for i = space(data, i+1); data[i] != '}'; i = space(data, i) {
		if data[i] == ',' {
			i = space(data, i+1)
		}
		end := value(data, i)
		name := data[i:end]
		i = space(data, end) // the colon
		i = space(data, i+1) // the value
		end = value(data, i)
		var field *[]byte
		switch string(unescaped(name)) {
		case fieldWalletID:
			field = &walletID
		case fieldAmount:
			field = &amount
		case fieldKey:
			field = &key
		default:
			if f := slip(unescaped(name)); f != nil {
				return nil, nil, nil, f
			}
		}
		if field != nil {
			if *field != nil {
				return nil, nil, nil, fail(codeBody, string(unescaped(name))+" must be given once")
			}
			*field = data[i:end]
		}
		i = end
	}
	return walletID, amount, key, nil
}

// space is the place of the first byte from i on that is no white space.
func space(data []byte, i int) int {
	for data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r' {
		i++
	}
	return i
}

// value is the end of the value that starts at i. It looks no deeper than it
// must: brackets are counted, not followed.
func value(data []byte, i int) int {
	for depth := 0; ; i++ {
		switch data[i] {
		case '"':
			for i++; data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth <= 1 {
				return i + depth // after the value's own bracket, before that of what holds it
			}
			depth--
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
	}
}

// text is the string that raw is the JSON of; false when it is no string. Bytes
// that are not UTF-8 stay: no field of ours may have them.
func text(raw []byte) (string, bool) {
	if raw[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), true
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

// unescaped is a field's name, nil for one that is too long to be ours or a slip.
func unescaped(name []byte) []byte {
	const longest = len(`""`) + 6*2*len(fieldKey) // each letter as \u0077
	switch {
	case len(name) > longest:
		return nil
	case bytes.IndexByte(name, '\\') < 0:
		return name[1 : len(name)-1]
	}
	s, _ := text(name)
	return []byte(s)
}
