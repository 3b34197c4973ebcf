package test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// probes asks for health. It keeps no connections.
var probes = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// success is the body of every deposit that was counted.
const success = `{"code":200,"data":null,"message":"success"}`

// nano is one unit of currency in the tests' unit: billionths, as integers.
const nano = int64(1_000_000_000)

// verdict is what an answer says about the fate of a deposit.
type verdict int

const (
	acked   verdict = iota // counted, once
	refused                // certainly not counted
	unknown                // may be counted
	broken                 // an answer the contract does not know
)

// answer is what became of one POST.
type answer struct {
	verdict  verdict
	position string // X-Deposit-Position
	detail   string
}

// client talks to one API.
type client struct {
	base string
	http *http.Client
}

func newClient(t *testing.T, addr string) *client {
	transport := &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	// A request ends within 10 s; what has no answer after 15 s is unknown.
	return &client{base: "http://" + addr, http: &http.Client{Timeout: 15 * time.Second, Transport: transport}}
}

// post makes a deposit. amount is a JSON number; key may be empty.
func (c *client) post(wallet, amount, key string) answer {
	body := `{"wallet_id": "` + wallet + `", "amount": ` + amount + `}`
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.base+"/api/deposit", strings.NewReader(body))
	if err != nil {
		return answer{verdict: broken, detail: err.Error()}
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return answer{verdict: refused, detail: err.Error()}
		}
		return answer{verdict: unknown, detail: err.Error()}
	}
	text, err := readAll(res)
	if err != nil {
		return answer{verdict: unknown, detail: err.Error()}
	}
	a := answer{verdict: broken, position: res.Header.Get("X-Deposit-Position"), detail: fmt.Sprintf("%d %s", res.StatusCode, text)}
	switch {
	case res.StatusCode == http.StatusOK && text == success:
		a.verdict = acked
	case res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "":
		a.verdict = refused
	case res.StatusCode == http.StatusGatewayTimeout:
		a.verdict = unknown
	}
	return a
}

// streamLimit is how long a stream of deposits may take.
const streamLimit = 5 * time.Minute

// stream makes n deposits, one a line, in one request, and says of each what became
// of it.
func (c *client) stream(ctx context.Context, lines iter.Seq[string], n int, told func(line int, a answer)) {
	ctx, cancel := context.WithTimeout(ctx, streamLimit)
	defer cancel()
	read, write := io.Pipe()
	var written sync.WaitGroup
	written.Go(func() {
		var err error
		for line := range lines {
			if _, err = io.WriteString(write, line); err != nil {
				break // the other side has gone
			}
		}
		_ = write.CloseWithError(err)
	})
	defer written.Wait()
	defer func() { _ = read.Close() }()
	// What has no answer in the end: begins as the answer to the request.
	rest, answered := answer{verdict: unknown, detail: "the stream was cut off"}, 0
	defer func() {
		for ; answered < n; answered++ {
			told(answered, rest)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/api/deposits", read)
	if err != nil {
		rest = answer{verdict: broken, detail: err.Error()}
		return
	}
	res, err := (&http.Client{Transport: c.http.Transport}).Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			rest = answer{verdict: refused, detail: err.Error()}
		}
		return
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		rest = lineAnswer(0, res.StatusCode, "", res.Status)
		return
	}
	for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
		var got struct {
			Line     int
			Position string
			Code     int
			Message  string
			End      bool
		}
		if err := json.Unmarshal(scanner.Bytes(), &got); err != nil || got.Line != answered+1 || got.Line > n && !got.End {
			rest = answer{verdict: broken, detail: fmt.Sprintf("answer after line %d of %d: %s", answered, n, scanner.Text())}
			return
		}
		if got.End { // this line and all after it
			rest = answer{verdict: refused, detail: got.Message}
			return
		}
		told(answered, lineAnswer(got.Line, got.Code, got.Position, got.Message))
		answered++
	}
}

func lineAnswer(line, code int, position, detail string) answer {
	a := answer{verdict: broken, position: position, detail: fmt.Sprintf("line %d: %d %s", line, code, detail)}
	switch {
	case position != "":
		a.verdict = acked
	case code == http.StatusServiceUnavailable:
		a.verdict = refused
	case code == http.StatusGatewayTimeout:
		a.verdict = unknown
	}
	return a
}

// mustPost makes a deposit that has to succeed, and returns its position.
func (c *client) mustPost(t *testing.T, wallet, amount string) string {
	t.Helper()
	a := c.post(wallet, amount, "")
	if a.verdict != acked {
		t.Fatalf("deposit of %s to %s: %s", amount, wallet, a.detail)
	}
	if a.position == "" {
		t.Errorf("deposit of %s to %s: no X-Deposit-Position", amount, wallet)
	}
	return a.position
}

// state is a wallet as the API shows it.
type state struct {
	nanos int64 // the balance
	above bool
}

func (s state) String() string {
	return fmt.Sprintf("{balance %s, above %v}", decimal(s.nanos), s.above)
}

// check asks for a wallet. With a position it reads its own writes. ok is false
// when the API cannot tell yet (503) or is away.
func (c *client) check(wallet, position string) (s state, ok bool, err error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.base+"/api/check/"+wallet, nil)
	if err != nil {
		return s, false, err
	}
	if position != "" {
		req.Header.Set("X-Deposit-Position", position)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return s, false, nil
	}
	text, err := readAll(res)
	if err != nil || res.StatusCode == http.StatusServiceUnavailable {
		return s, false, nil
	}
	if res.StatusCode != http.StatusOK {
		return s, false, fmt.Errorf("check %s: %d %s", wallet, res.StatusCode, text)
	}
	var row struct {
		Wallet  string      `json:"wallet_id"`
		Balance json.Number `json:"balance"`
		Above   *bool       `json:"above_threshold"`
	}
	if err := json.Unmarshal([]byte(text), &row); err != nil || row.Wallet != wallet || row.Above == nil {
		return s, false, fmt.Errorf("check %s: unexpected body %s", wallet, text)
	}
	nanos, err := parseNanos(row.Balance.String())
	if err != nil {
		return s, false, fmt.Errorf("check %s: %w", wallet, err)
	}
	return state{nanos, *row.Above}, true, nil
}

// await waits until a wallet's state, read with position, is as wanted. It is
// for states that do not change any more: the first answer must be right.
func (c *client) await(t *testing.T, wallet, position string, want state) {
	t.Helper()
	var got state
	answered := eventually(60*time.Second, func() bool {
		var ok bool
		var err error
		got, ok, err = c.check(wallet, position)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	})
	if !answered {
		t.Fatalf("check %s with position %s: no answer in 60 s", wallet, position)
	}
	if got != want {
		t.Errorf("check %s with position %s: %v, want %v", wallet, position, got, want)
	}
}

func readAll(res *http.Response) (string, error) {
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return string(b), err
}

// parseNanos reads a decimal exactly.
func parseNanos(s string) (int64, error) {
	r, ok := new(big.Rat).SetString(s)
	if !ok || strings.ContainsAny(s, "eE/") {
		return 0, fmt.Errorf("%q is no plain decimal", s)
	}
	r.Mul(r, new(big.Rat).SetInt64(nano))
	if !r.IsInt() || !r.Num().IsInt64() {
		return 0, fmt.Errorf("%q is beyond nine decimal places or too large", s)
	}
	return r.Num().Int64(), nil
}

// decimal writes an amount of nanos as a JSON number.
func decimal(nanos int64) string {
	s := fmt.Sprintf("%d.%09d", nanos/nano, nanos%nano)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
