package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"coinbit/internal/api"
)

// Whatever is accepted is what encoding/json reads there, each field of ours is
// there once, and the amount is the number in the text exactly.
func FuzzParseBody(f *testing.F) {
	for _, s := range []string{one, `{"wallet_id":"w","amount":0.1}`, `{"wallet_id":"w","amount":1e3,"amount":2}`, `{"amount":1e-9,"wallet_id":"\u0077"}`,
		`{"wallet_id":"w","amount":123456789012.123456789}`, `{"wallet_id":"w","amount":1e999999999}`, `{"wallet_id":"w","amount":-0}`,
		`{"wallet_id":"w","amount":1}{}`, `{"a":{"b":["}",{}]},"wallet_id" : "w" , "amount" : 1 , "wallet_i\u0064":null}`, `[`, `null`, `{"wallet_id":"w","Amount":1}`, `{"wallet_id":"w","amount":100000000000000e-5}`,
		`{"wallet_id":"w","amount":"12.50","idempotency_key":"k"}`, `{"wallet_id":"w","amount":"1e3"}`, `{"wallet_id":"w","amount":1,"idempotencyKey":"k"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, amount, key, problem := api.ParseBody(data)
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
		n := count(data)
		if n["wallet_id"] != 1 || n["amount"] != 1 || n["idempotency_key"] > 1 {
			t.Fatalf("accepted fields %v", n)
		}
		for name := range n {
			if _, ours := map[string]bool{"wallet_id": true, "amount": true, "idempotency_key": true}[name]; !ours &&
				(strings.EqualFold(name, "wallet_id") || strings.EqualFold(name, "amount") || strings.EqualFold(name, "idempotency-key")) {
				t.Fatalf("accepted a field %q", name)
			}
		}
		if has, _ := fields["idempotency_key"].(string); has != key {
			t.Fatalf("read key %q from %v", key, fields)
		}
		var text string
		switch v := fields["amount"].(type) {
		case json.Number:
			text = v.String()
		case string:
			if text = v; strings.Trim(v, "0123456789.") != "" {
				t.Fatalf("read %s from the string %q", amount, v)
			}
		}
		if fields["wallet_id"] != id {
			t.Fatalf("read %q and %s from %v", id, amount, fields)
		}
		want, ok := new(big.Rat).SetString(text)
		got, _ := new(big.Rat).SetString(amount.String())
		if !ok || want.Cmp(got) != 0 || got.Sign() <= 0 {
			t.Fatalf("read %s from %s", amount, text)
		}
	})
}

// count is how often each field of an object is there.
func count(object []byte) map[string]int {
	n := map[string]int{}
	decoder := json.NewDecoder(bytes.NewReader(object))
	_, _ = decoder.Token()
	for decoder.More() {
		name, _ := decoder.Token()
		n[name.(string)]++
		_ = decoder.Decode(new(json.RawMessage))
	}
	return n
}

// Whatever comes over a connection is answered in clean HTTP or not at all, and
// the server lives.
func FuzzServer(f *testing.F) {
	for _, s := range []string{raw(len(one), one), "GET /api/check/w HTTP/1.1\r\nHost: x\r\nX-Deposit-Position: 3:0\r\n\r\n",
		"POST /api/deposit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://x@y/%zz HTTP/1.0\r\n\r\n", raw(2, "{}") + raw(len(one), one)} {
		f.Add([]byte(s))
	}
	w := newWorld()
	w.appendErr = api.ErrRefused // or the log would grow for minutes
	addr := serve(f, w.handler(f, keys("k")), unchanged)
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.(*net.TCPConn).SetLinger(0) // or the ports run out
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = conn.Write(data)
		_ = conn.(*net.TCPConn).CloseWrite()
		in := bufio.NewReader(conn)
		for {
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				return
			}
			body, err := io.ReadAll(res.Body)
			if err != nil { // an answer to HEAD has no body, which ReadResponse cannot know
				return
			}
			if res.StatusCode == 500 || res.StatusCode < 200 && res.StatusCode != 100 {
				t.Fatalf("%d %s", res.StatusCode, body)
			}
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
		if at, err := api.ParsePosition(position); err == nil {
			if again, err := api.ParsePosition(at.String()); err != nil || again != at {
				t.Fatalf("%q is %v, again %v", position, at, again)
			}
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		h.ServeHTTP(httptest.NewRecorder(), p)
		if rec.Code == 500 || !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	})
}

// A stream's lines are what lies between its line ends, however the bytes come.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "\n", "a\nb", "a\r\n\r\n b \n", "\n\n\n", one + "\n" + two, " \t"} {
		f.Add([]byte(s), uint16(3), uint32(0))
		f.Add([]byte(s), uint16(1), uint32(api.MaxLine-1))
		f.Add([]byte(s), uint16(60_000), uint32(api.MaxLine))
	}
	f.Fuzz(func(t *testing.T, data []byte, atOnce uint16, more uint32) {
		data = append(data, bytes.Repeat([]byte("a"), int(more%(3*api.MaxLine)))...) // lines that are too long are rarely found
		texts, numbers, err := api.Lines(&pieces{data, max(1, int(atOnce))})
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(data, []byte("\n")) {
			want := string(bytes.Trim(line, " \t\r"))
			if len(line) > api.MaxLine {
				want = ""
			} else if want == "" {
				continue
			}
			if len(texts) == 0 || texts[0] != want || numbers[0] != int64(i+1) {
				t.Fatalf("line %d of %d bytes is not there", i+1, len(line))
			}
			texts, numbers = texts[1:], numbers[1:]
		}
		if len(texts) != 0 {
			t.Fatalf("%d lines too many", len(texts))
		}
	})
}

// pieces reads so many bytes at once.
type pieces struct {
	data   []byte
	atOnce int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(len(p.data), p.atOnce)])
	p.data = p.data[n:]
	return n, nil
}

// Whatever is streamed is answered line by line, or the stream says where it ended.
func FuzzStream(f *testing.F) {
	f.Add([]byte(one + "\n" + two + "\n\n<\n" + `{"wallet_id":"w","amount":1,"idempotency_key":"k"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld()
		_, body := do(w.handler(t), stream(string(data)))
		got := answers(t, body)
		for i, line := range bytes.Split(data, []byte("\n")) {
			if len(bytes.Trim(line, " \t\r")) == 0 {
				continue
			}
			if len(got) == 0 || got[0].Line != int64(i+1) || (got[0].Position == "") == (got[0].Code == 0) || got[0].End {
				t.Fatalf("line %d: %v", i+1, got)
			}
			got = got[1:]
		}
		if len(got) != 0 {
			t.Fatalf("%d answers too many", len(got))
		}
	})
}
