package api_test

import (
	"encoding/json"
	"math/big"
	"net/http/httptest"
	"strings"
	"testing"

	"coinbit/internal/api"
)

// Whatever is accepted is what encoding/json reads there, and the amount is the
// number in the text exactly.
func FuzzParseBody(f *testing.F) {
	for _, s := range []string{one, `{"wallet_id":"w","amount":0.1}`, `{"wallet_id":"w","amount":1e3,"amount":2}`, `{"amount":1e-9,"wallet_id":"\u0077"}`,
		`{"wallet_id":"w","amount":123456789012.123456789}`, `{"wallet_id":"w","amount":1e999999999}`, `{"wallet_id":"w","amount":-0}`,
		`{"wallet_id":"w","amount":1}{}`, `[`, `null`, `{"wallet_id":"w","Amount":1}`, `{"wallet_id":"w","amount":100000000000000e-5}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, amount, problem := api.ParseBody(data)
		if problem != "" {
			if strings.ContainsAny(problem, "\n\r") {
				t.Fatalf("problem of several lines: %q", problem)
			}
			return
		}
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		decoder.UseNumber()
		var fields map[string]any
		if err := decoder.Decode(&fields); err != nil || !json.Valid(data) {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		text, ok := fields["amount"].(json.Number)
		if !ok || fields["wallet_id"] != id {
			t.Fatalf("read %q and %s from %v", id, amount, fields)
		}
		want, ok := new(big.Rat).SetString(string(text))
		got, _ := new(big.Rat).SetString(amount.String())
		if !ok || want.Cmp(got) != 0 || got.Sign() <= 0 {
			t.Fatalf("read %s from %s", amount, text)
		}
	})
}

// Any header and path gives an answer of ours.
func FuzzHeaders(f *testing.F) {
	f.Add("w", "3:0", "k", "Bearer k")
	f.Add("a%2Fb", "x", "", "Basic")
	w := newWorld()
	h := w.handler(f, keys("k"))
	f.Fuzz(func(t *testing.T, id, position, key, auth string) {
		ctx, cancel := gone()
		defer cancel()
		r := get("x").WithContext(ctx)
		r.URL.Path, r.URL.RawPath = "/api/check/"+id, ""
		r.Header["X-Deposit-Position"] = []string{position}
		r.Header["Authorization"] = []string{auth}
		p := post(one).WithContext(ctx)
		p.Header["Idempotency-Key"] = []string{key}
		p.Header["Authorization"] = []string{"Bearer k"}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		h.ServeHTTP(httptest.NewRecorder(), p)
		if rec.Code == 500 || !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	})
}
