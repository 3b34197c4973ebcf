package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/api"
	"coinbit/internal/pb"
)

const (
	success = `{"code":200,"data":null,"message":"success"}`
	upID    = "69da5a28bfee68a8b0bfeba076ee43f8ca4"
)

// nested is an array in an array in an array.
func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestDepositAccepted(t *testing.T) {
	tests := []struct {
		name, body, contentType string
		units                   int64
		nanos                   int32
		id                      string
	}{
		{"the documented example", `{"wallet_id": "69da5a28bfee68a8b0bfeba076ee43f8ca4", "amount": 3500}`, "application/json", 3500, 0, upID},
		{"curl -d", `{"wallet_id":"w","amount":1}`, "application/x-www-form-urlencoded", 1, 0, "w"},
		{"no content type", `{"wallet_id":"w","amount":1}`, "", 1, 0, "w"},
		{"multipart", `{"wallet_id":"w","amount":1}`, "multipart/form-data; boundary=x", 1, 0, "w"},
		{"exact where a float is not", `{"wallet_id":"w","amount":0.1}`, "", 0, 100_000_000, "w"},
		{"more digits than a float has", `{"wallet_id":"w","amount":123456789012.123456789}`, "", 123456789012, 123456789, "w"},
		{"smallest", `{"wallet_id":"w","amount":0.000000001}`, "", 0, 1, "w"},
		{"largest", `{"wallet_id":"w","amount":1000000000000}`, "", 1_000_000_000_000, 0, "w"},
		{"exponent", `{"wallet_id":"w","amount":1e3}`, "", 1000, 0, "w"},
		{"capital exponent with sign", `{"wallet_id":"w","amount":1.5E+1}`, "", 15, 0, "w"},
		{"zeros behind", `{"wallet_id":"w","amount":1.50000000000000}`, "", 1, 500_000_000, "w"},
		{"unknown fields", `{"x":{"amount":5},"wallet_id":"w","amount":1,"amounts":"no","amount2":3,"wallet":5,"y":[null]}`, "", 1, 0, "w"},
		{"a string", `{"wallet_id":"w","amount":"123456789012.123456789"}`, "", 123456789012, 123456789, "w"},
		{"an escaped string", `{"wallet_id":"w","amount":"\u0031.50"}`, "", 1, 500_000_000, "w"},
		{"escaped name and value", `{"wallet\u005fid":"\u0077","\u0061mount":1}`, "", 1, 0, "w"},
		{"white space around", " \r\n\t{\"wallet_id\":\"w\",\"amount\":1}\n ", "", 1, 0, "w"},
		{"every character of an id", `{"wallet_id":"Aa0._:@-","amount":1}`, "", 1, 0, "Aa0._:@-"},
		{"longest id", `{"wallet_id":"` + strings.Repeat("a", 128) + `","amount":1}`, "", 1, 0, strings.Repeat("a", 128)},
		{"a null byte in what is ignored", "{\"x\":\"\\u0000\",\"wallet_id\":\"w\",\"amount\":1}", "", 1, 0, "w"},
		{"no UTF-8 in what is ignored", "{\"\xff\":\"\xfe\xc0\",\"wallet_id\":\"w\",\"amount\":1}", "", 1, 0, "w"},
		{"ignored twice", `{"x":1,"x":2,"wallet_id":"w","amount":1,"y":2,"y":3}`, "", 1, 0, "w"},
		{"ours twice, but not at the top", `{"x":[{"amount":5,"wallet_id":"v"}],"wallet_id":"w","amount":1}`, "", 1, 0, "w"},
		{"brackets in strings", `{"x":"]}\"{,","y\\":["}",{"z\"":"]"}],"wallet_id":"w","amount":1}`, "", 1, 0, "w"},
		{"deep, but not too deep", `{"x":` + nested(9_000) + `,"wallet_id":"w","amount":1}`, "", 1, 0, "w"},
		{"many fields", `{"wallet_id":"w",` + strings.Repeat(`"a":1,`, 10_000) + `"amount":1}`, "", 1, 0, "w"},
		{"many escaped fields", `{"wallet_id":"w",` + strings.Repeat(`"\u0061":1,`, 5_000) + `"amount":1}`, "", 1, 0, "w"},
		{"an exponent of zeros", `{"wallet_id":"w","amount":1e+` + strings.Repeat("0", 60_000) + `3}`, "", 1000, 0, "w"},
		{"zeros before an exponent", `{"wallet_id":"w","amount":0.` + strings.Repeat("0", 60_000) + `1e60001}`, "", 1, 0, "w"},
		{"64 KiB", `{"wallet_id":"w","amount":1,"x":"` + strings.Repeat("a", 64<<10-35) + `"}`, "", 1, 0, "w"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.readyErr = fmt.Errorf("still catching up") // a deposit without a key needs no table
			r := post(tt.body)
			r.Header.Set("Content-Type", tt.contentType)
			res, body := do(w.handler(t), r)
			if res.StatusCode != 200 || body != success {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
			wantHeader(t, res, "Content-Type", "application/json")
			wantHeader(t, res, "X-Deposit-Position", "3:0")
			wantHeader(t, res, "Idempotency-Replayed", "")
			wantSafe(t, res)
			want := &pb.Deposit{WalletId: tt.id, Units: tt.units, Nanos: tt.nanos, AcceptedAtMs: acceptedAt.UnixMilli()}
			if !proto.Equal(w.deposits[0], want) {
				t.Errorf("appended %v, want %v", w.deposits[0], want)
			}
		})
	}
}

func wantHeader(t *testing.T, res *http.Response, name, want string) {
	t.Helper()
	if got := strings.Join(res.Header.Values(name), "|"); got != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

// wantSafe: an answer is for its client alone and is never run.
func wantSafe(t *testing.T, res *http.Response) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
		"Access-Control-Allow-Origin":  "", "Server": "",
	} {
		wantHeader(t, res, name, want)
	}
}

const badID = "wallet_id must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ -, the first a letter or digit"

func TestDepositInvalid(t *testing.T) {
	const (
		isNumber = "amount must be a number, or a string of a plain decimal"
		positive = "amount must be greater than 0"
		large    = "amount must be at most 1000000000000"
		fine     = "amount must have at most 9 decimal places"
		object   = "body must be a JSON object"
	)
	amount := func(text string) string { return `{"wallet_id":"w","amount":` + text + `}` }
	id := func(text string) string { return `{"wallet_id":` + text + `,"amount":1}` }
	tests := []struct{ body, code, detail string }{
		{"", "invalid-body", "body is not valid JSON: unexpected end of JSON input"},
		{"{", "invalid-body", "body is not valid JSON: unexpected end of JSON input"},
		{"wallet_id=w&amount=1", "invalid-body", "body is not valid JSON: invalid character 'w' looking for beginning of value"},
		{amount("1") + "{}", "invalid-body", "body is not valid JSON: invalid character '{' after top-level value"},
		{amount("1") + "x", "invalid-body", "body is not valid JSON: invalid character 'x' after top-level value"},
		{"null", "invalid-body", object},
		{"[]", "invalid-body", object},
		{"1", "invalid-body", object},
		{`"w"`, "invalid-body", object},
		{"{}", "invalid-wallet-id", "wallet_id is required"},
		{`{"amount":1}`, "invalid-wallet-id", "wallet_id is required"},
		{`{"Wallet_Id":"w","amount":1}`, "invalid-wallet-id", `"Wallet_Id" is no field of a deposit; it is called wallet_id`},
		{`{"wallet_id":"w","amount":1,"walletId":"v"}`, "invalid-wallet-id", `"walletId" is no field of a deposit; it is called wallet_id`},
		{id("null"), "invalid-wallet-id", "wallet_id is required"},
		{id("1"), "invalid-wallet-id", "wallet_id must be a string"},
		{id("true"), "invalid-wallet-id", "wallet_id must be a string"},
		{id(`["w"]`), "invalid-wallet-id", "wallet_id must be a string"},
		{id(`{"w":1}`), "invalid-wallet-id", "wallet_id must be a string"},
		{id(`""`), "invalid-wallet-id", badID},
		{id(`".w"`), "invalid-wallet-id", badID},
		{id(`"a b"`), "invalid-wallet-id", badID},
		{id(`"a/b"`), "invalid-wallet-id", badID},
		{id(`"wä"`), "invalid-wallet-id", badID},
		{id(`"w\u0000"`), "invalid-wallet-id", badID},
		{id("\"w\xff\""), "invalid-wallet-id", badID},
		{id(`"` + strings.Repeat("a", 129) + `"`), "invalid-wallet-id", badID},
		{`{"wallet_id":"w"}`, "invalid-amount", "amount is required"},
		{`{"wallet_id":"w","AMOUNT":1}`, "invalid-amount", `"AMOUNT" is no field of a deposit; it is called amount`},
		{`{"wallet_id":"w","amount":1,"\u0041mount":2}`, "invalid-amount", `"Amount" is no field of a deposit; it is called amount`},
		{amount("null"), "invalid-amount", "amount is required"},
		{amount(`""`), "invalid-amount", isNumber},
		{amount(`"1e3"`), "invalid-amount", isNumber},
		{amount(`"1E3"`), "invalid-amount", isNumber},
		{amount(`" 1"`), "invalid-amount", isNumber},
		{amount(`"+1"`), "invalid-amount", isNumber},
		{amount(`"01"`), "invalid-amount", isNumber},
		{amount(`".5"`), "invalid-amount", isNumber},
		{amount(`"5."`), "invalid-amount", isNumber},
		{amount(`"1,5"`), "invalid-amount", isNumber},
		{amount(`"0x10"`), "invalid-amount", isNumber},
		{amount(`"NaN"`), "invalid-amount", isNumber},
		{amount(`"\"1\""`), "invalid-amount", isNumber},
		{amount(`"0"`), "invalid-amount", positive},
		{amount(`"-1"`), "invalid-amount", positive},
		{amount(`"1000000000000.000000001"`), "invalid-amount", large},
		{amount(`"0.0000000001"`), "invalid-amount", fine},
		{amount(`"` + strings.Repeat("9", 60_000) + `"`), "invalid-amount", large},
		{amount("true"), "invalid-amount", isNumber},
		{amount("[1]"), "invalid-amount", isNumber},
		{amount("{}"), "invalid-amount", isNumber},
		{amount("0"), "invalid-amount", positive},
		{amount("-0.0"), "invalid-amount", positive},
		{amount("-1"), "invalid-amount", positive},
		{amount("0e99"), "invalid-amount", positive},
		{amount("1000000000000.000000001"), "invalid-amount", large},
		{amount("1e13"), "invalid-amount", large},
		{amount("1e9999"), "invalid-amount", large},
		{amount("0.0000000001"), "invalid-amount", fine},
		{amount("1e-10"), "invalid-amount", fine},
		{amount("1.0000000001"), "invalid-amount", fine},
		{amount("1e" + strings.Repeat("9", 60_000)), "invalid-amount", large},
		{amount("1e-" + strings.Repeat("9", 60_000)), "invalid-amount", fine},
		{amount(strings.Repeat("9", 60_000)), "invalid-amount", large},
		{amount("0." + strings.Repeat("0", 60_000) + "1"), "invalid-amount", fine},
		{amount(nested(5_000)), "invalid-amount", isNumber},
		{amount(strings.Repeat("[", 60_000)), "invalid-body", "body is not valid JSON: invalid character '[' exceeded max depth"},
		{`{"x":` + nested(20_000) + `,"wallet_id":"w","amount":1}`, "invalid-body", "body is not valid JSON: invalid character '[' exceeded max depth"},
		{`{"wallet_id":"w","amount":1,"amount":1}`, "invalid-body", "amount must be given once"},
		{`{"wallet_id":"w","amount":1,"\u0061mount":2}`, "invalid-body", "amount must be given once"},
		{`{"amount":null,"wallet_id":"w","amount":1}`, "invalid-body", "amount must be given once"},
		{`{"wallet_id":"w","amount":1,"wallet_id":"v"}`, "invalid-body", "wallet_id must be given once"},
		{`{"wallet_id":"w","amount":1,"wallet_i\u0064":"w"}`, "invalid-body", "wallet_id must be given once"},
		{amount("1") + "\x00", "invalid-body", `body is not valid JSON: invalid character '\x00' after top-level value`},
		{"\ufeff" + amount("1"), "invalid-body", "body is not valid JSON: invalid character 'ï' looking for beginning of value"},
		{amount("0x10"), "invalid-body", "body is not valid JSON: invalid character 'x' after object key:value pair"},
		{amount("1_000"), "invalid-body", "body is not valid JSON: invalid character '_' after object key:value pair"},
		{amount("Infinity"), "invalid-body", "body is not valid JSON: invalid character 'I' looking for beginning of value"},
		{amount("NaN"), "invalid-body", "body is not valid JSON: invalid character 'N' looking for beginning of value"},
		{amount("01"), "invalid-body", "body is not valid JSON: invalid character '1' after object key:value pair"},
		{amount("+1"), "invalid-body", "body is not valid JSON: invalid character '+' looking for beginning of value"},
		{amount(".5"), "invalid-body", "body is not valid JSON: invalid character '.' looking for beginning of value"},
	}
	w := newWorld()
	h := w.handler(t)
	for _, tt := range tests {
		res, body := do(h, post(tt.body))
		wantProblem(t, res, body, 400, tt.code, tt.detail)
	}
	if n := w.appended(); n != 0 {
		t.Errorf("%d deposits were appended", n)
	}
}

// wantProblem checks every field of a problem answer.
func wantProblem(t *testing.T, res *http.Response, body string, status int, code, detail string) {
	t.Helper()
	var p struct {
		Type, Title, Detail, Message string
		Status, Code                 int
		Data                         *json.RawMessage
	}
	err := json.Unmarshal([]byte(body), &p)
	if err != nil || !strings.Contains(body, `"data":null`) || strings.HasSuffix(body, "\n") {
		t.Errorf("%v: %s", err, body)
	}
	if res.StatusCode != status || p.Status != status || p.Code != status || p.Title == "" ||
		p.Type != "urn:coinbit:problem:"+code || p.Detail != detail || p.Message != detail {
		t.Errorf("%d %s\nwant %d %s %q", res.StatusCode, body, status, code, detail)
	}
	wantHeader(t, res, "Content-Type", "application/problem+json")
	wantSafe(t, res)
	if (status == 503) != (res.Header.Get("Retry-After") != "") && status != 429 {
		t.Errorf("%d with Retry-After %q", status, res.Header.Get("Retry-After"))
	}
}

func TestProblemBytes(t *testing.T) {
	_, body := do(newWorld().handler(t), post(`{"wallet_id":"w","amount":0}`))
	const want = `{"type":"urn:coinbit:problem:invalid-amount","title":"Invalid amount","status":400,` +
		`"detail":"amount must be greater than 0","code":400,"data":null,"message":"amount must be greater than 0"}`
	if body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	_, body = do(newWorld().handler(t), post(`<`))
	if !strings.Contains(body, `invalid character '<' looking`) {
		t.Errorf("escaped for HTML: %s", body)
	}
}

func TestDepositNotAppended(t *testing.T) {
	const (
		refused   = "deposit was refused and does not count; try again"
		noKey     = "it is not known whether the deposit counts; an Idempotency-Key makes a retry safe"
		sameKey   = "it is not known whether the deposit counts; retry with the same Idempotency-Key"
		secretive = "kafka-7.internal:9092"
	)
	tests := []struct {
		name    string
		err     error
		headers []string
		status  int
		code    string
		detail  string
	}{
		{"refused", fmt.Errorf("%w: %s is away", api.ErrRefused, secretive), nil, 503, "deposit-refused", refused},
		{"refused with key", fmt.Errorf("%w: %s is away", api.ErrRefused, secretive), []string{"Idempotency-Key: k"}, 503, "deposit-refused", refused},
		{"unknown", fmt.Errorf("%w: %s is away", api.ErrUnknown, secretive), nil, 504, "outcome-unknown", noKey},
		{"unknown with key", fmt.Errorf("%w: %s", api.ErrUnknown, secretive), []string{"Idempotency-Key: k"}, 504, "outcome-unknown", sameKey},
		{"both is unknown", fmt.Errorf("%w: %w: %s", api.ErrRefused, api.ErrUnknown, secretive), nil, 504, "outcome-unknown", noKey},
		{"any other", fmt.Errorf("write: %s", secretive), nil, 504, "outcome-unknown", noKey},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.appendErr = tt.err
			res, body := do(w.handler(t), post(`{"wallet_id":"w","amount":1}`, tt.headers...))
			wantProblem(t, res, body, tt.status, tt.code, tt.detail)
			wantHeader(t, res, "X-Deposit-Position", "")
		})
	}
}
