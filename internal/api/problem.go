package api

import (
	"bytes"
	"encoding/json"
	"net/http"
)

// code names one kind of failure. Clients decide on it: codes are never renamed.
type code string

// The closed set of failures.
const (
	codeBody         code = "invalid-body"
	codeWalletID     code = "invalid-wallet-id"
	codeAmount       code = "invalid-amount"
	codeKey          code = "invalid-idempotency-key"
	codePosition     code = "invalid-position"
	codeQuery        code = "invalid-query"
	codeCursor       code = "invalid-cursor"
	codeLimit        code = "invalid-limit"
	codeUnauthorized code = "unauthorized"
	codeCrossOrigin  code = "cross-origin"
	codeNotFound     code = "not-found"
	codeMethod       code = "method-not-allowed"
	codeSlow         code = "request-timeout"
	codeTooLarge     code = "body-too-large"
	codeLongPath     code = "path-too-long"
	codeHeaders      code = "too-many-headers"
	codeKeyReused    code = "idempotency-key-reused"
	codeOverflow     code = "balance-overflow"
	codeRateLimited  code = "rate-limited"
	codeInternal     code = "internal"
	codeBusy         code = "overloaded"
	codeStopping     code = "stopping"
	codeNotReady     code = "not-ready"
	codeRefused      code = "deposit-refused"
	codeNotApplied   code = "position-not-applied"
	codeUnknown      code = "outcome-unknown"
)

// typePrefix and the code make a problem's type.
const typePrefix = "urn:coinbit:problem:"

// kinds maps every code to its status and its title.
var kinds = map[code]struct {
	status int
	title  string
}{
	codeBody:         {http.StatusBadRequest, "Body not understood"},
	codeWalletID:     {http.StatusBadRequest, "Invalid wallet_id"},
	codeAmount:       {http.StatusBadRequest, "Invalid amount"},
	codeKey:          {http.StatusBadRequest, "Invalid Idempotency-Key"},
	codePosition:     {http.StatusBadRequest, "Invalid X-Deposit-Position"},
	codeQuery:        {http.StatusBadRequest, "Query not understood"},
	codeCursor:       {http.StatusBadRequest, "Invalid cursor"},
	codeLimit:        {http.StatusBadRequest, "Invalid limit"},
	codeUnauthorized: {http.StatusUnauthorized, "API key needed"},
	codeCrossOrigin:  {http.StatusForbidden, "Cross-origin request"},
	codeNotFound:     {http.StatusNotFound, "No such path"},
	codeMethod:       {http.StatusMethodNotAllowed, "Method not allowed"},
	codeSlow:         {http.StatusRequestTimeout, "Body came too slowly"},
	codeTooLarge:     {http.StatusRequestEntityTooLarge, "Body too large"},
	codeLongPath:     {http.StatusRequestURITooLong, "Path too long"},
	codeHeaders:      {http.StatusRequestHeaderFieldsTooLarge, "Too many headers"},
	codeKeyReused:    {http.StatusUnprocessableEntity, "Idempotency-Key reused"},
	codeOverflow:     {http.StatusUnprocessableEntity, "Balance too large"},
	codeRateLimited:  {http.StatusTooManyRequests, "Too many requests"},
	codeInternal:     {http.StatusInternalServerError, "Internal error"},
	codeBusy:         {http.StatusServiceUnavailable, "Too busy"},
	codeStopping:     {http.StatusServiceUnavailable, "Stopping"},
	codeNotReady:     {http.StatusServiceUnavailable, "Not ready yet"},
	codeRefused:      {http.StatusServiceUnavailable, "Deposit refused"},
	codeNotApplied:   {http.StatusServiceUnavailable, "Position not applied yet"},
	codeUnknown:      {http.StatusGatewayTimeout, "Outcome unknown"},
}

// failure is an answer other than success. Its cause is for the log alone.
type failure struct {
	code   code
	detail string
	cause  error
}

func fail(c code, detail string) *failure { return &failure{code: c, detail: detail} }

// because keeps the cause, which no client sees.
func (f *failure) because(err error) *failure {
	f.cause = err
	return f
}

// problem is RFC 9457's object plus the three fields of the success envelope,
// so that a client of either habit understands it.
type problem struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail"`
	Code    int    `json:"code"`
	Data    *int   `json:"data"` // always null
	Message string `json:"message"`
}

const problemType = "application/problem+json"

// write answers with f. Headers that go with it are set before.
func (f *failure) write(w http.ResponseWriter) {
	status := kinds[f.code].status
	h := w.Header()
	h.Set("Content-Type", problemType)
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write(f.body()) // the client may be gone
}

// body is f as the client reads it.
func (f *failure) body() []byte {
	kind := kinds[f.code]
	return encode(problem{
		Type: typePrefix + string(f.code), Title: kind.title, Status: kind.status,
		Detail: f.detail, Code: kind.status, Message: f.detail,
	})
}

// encode is v as JSON. Nothing of ours can fail to be encoded.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a bytes.Buffer takes all
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
