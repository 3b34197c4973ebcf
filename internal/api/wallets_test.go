package api_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"coinbit/internal/api"
	"coinbit/internal/wallet"
)

// compact is JSON that was written to be read.
func compact(t *testing.T, text string) string {
	t.Helper()
	var v json.RawMessage
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

func TestWalletNeverSeen(t *testing.T) {
	res, body := do(newWorld().handler(t), request("GET", "/api/wallets/never-seen", ""))
	if want := compact(t, `{"wallet_id":"never-seen","balance":0,"deposits":0,"first_deposit_at":null,"last_deposit_at":null,
		"flag":{"raised":false,"raised_at":null,"raised_by":null,"op_raised":false,"evidence":null,"removals":0,"last_removal_at":null},
		"window":{"window_start":"2023-11-14T22:11:20.123Z","window_end":"2023-11-14T22:13:20.123Z","total":0,"deposits":0,
			"headroom":10000,"oldest_expires_at":null,"rule":{"threshold_amount":10000,"rolling_period_ms":120000},"parts":[]}}`); body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	wantHeader(t, res, "Content-Type", "application/json")
	wantSafe(t, res)
}

func TestWallet(t *testing.T) {
	w := newWorld()
	now := time.Duration(0)
	h := w.handler(t, func(o *api.Options) { o.Now = func() time.Time { return acceptedAt.Add(now) } })
	deposit := func(after time.Duration, amount string) {
		t.Helper()
		now = after
		if res, body := do(h, post(`{"wallet_id":"alice","amount":`+amount+`}`)); res.StatusCode != 200 {
			t.Fatal(body)
		}
	}
	expect := func(what, want string) {
		t.Helper()
		if res, body := do(h, request("GET", "/api/wallets/alice", "")); res.StatusCode != 200 || body != compact(t, want) {
			t.Errorf("%s:\ngot  %s\nwant %s", what, body, compact(t, want))
		}
	}
	const rule = `{"threshold_amount":10000,"rolling_period_ms":120000}`
	const first = `{"amount":6000,"deposits":1,"first_at":"2023-11-14T22:13:20.123Z","last_at":"2023-11-14T22:13:20.123Z","position":"3:0"}`
	const second = `{"amount":4000.000000001,"deposits":1,"first_at":"2023-11-14T22:14:20.123Z","last_at":"2023-11-14T22:14:20.123Z","position":"3:1"}`

	deposit(0, "6000")
	now = time.Second
	expect("below", `{"wallet_id":"alice","balance":6000,"deposits":1,
		"first_deposit_at":"2023-11-14T22:13:20.123Z","last_deposit_at":"2023-11-14T22:13:20.123Z",
		"flag":{"raised":false,"raised_at":null,"raised_by":null,"op_raised":false,"evidence":null,"removals":0,"last_removal_at":null},
		"window":{"window_start":"2023-11-14T22:11:21.123Z","window_end":"2023-11-14T22:13:21.123Z","total":6000,"deposits":1,
			"headroom":4000,"oldest_expires_at":"2023-11-14T22:15:20.123Z","rule":`+rule+`,"parts":[`+first+`]}}`)

	deposit(time.Minute, "4000.000000001")
	now = 2 * time.Minute
	evidence := func(removed string) string {
		return `{"window_start":"2023-11-14T22:12:20.123Z","window_end":"2023-11-14T22:14:20.123Z","total":10000.000000001,"deposits":2,
			"position":"3:1","rule":` + rule + `,"removed":` + removed + `,"parts":[` + first + `,` + second + `]}`
	}
	const account = `"wallet_id":"alice","balance":10000.000000001,"deposits":2,
		"first_deposit_at":"2023-11-14T22:13:20.123Z","last_deposit_at":"2023-11-14T22:14:20.123Z",`
	const window = `"window":{"window_start":"2023-11-14T22:13:20.123Z","window_end":"2023-11-14T22:15:20.123Z","total":4000.000000001,"deposits":1,
		"headroom":5999.999999999,"oldest_expires_at":"2023-11-14T22:16:20.123Z","rule":` + rule + `,"parts":[` + second + `]}`
	expect("a crossing", `{`+account+`"flag":{"raised":true,"raised_at":"2023-11-14T22:14:20.123Z","raised_by":"crossing","op_raised":false,
		"evidence":`+evidence("false")+`,"removals":0,"last_removal_at":null},`+window+`}`)

	ms := acceptedAt.UnixMilli()
	w.set(func() { w.flagEvent("alice", wallet.FlagEvent{Remove: true, RemovedUpto: 2, At: ms}) })
	expect("removed", `{`+account+`"flag":{"raised":false,"raised_at":null,"raised_by":null,"op_raised":false,
		"evidence":`+evidence("true")+`,"removals":1,"last_removal_at":"2023-11-14T22:13:20.123Z"},`+window+`}`)

	w.set(func() { w.flagEvent("alice", wallet.FlagEvent{Raise: true, At: ms + 1}) })
	expect("the operator", `{`+account+`"flag":{"raised":true,"raised_at":"2023-11-14T22:13:20.124Z","raised_by":"operator","op_raised":true,
		"evidence":`+evidence("true")+`,"removals":1,"last_removal_at":"2023-11-14T22:13:20.123Z"},`+window+`}`)
}

// Several deposits that a row holds as one are said to be several.
func TestWalletSharedCells(t *testing.T) {
	w := newWorld()
	w.counters["w"] = &wallet.Counter{Window: wallet.Window{Rule: rule, Cells: []wallet.Cell{
		{First: acceptedAt.UnixMilli() - 9, Last: acceptedAt.UnixMilli() - 2, Sum: wallet.Amount{Units: 7, Nanos: 500_000_000}, Count: 3, Offset: 12},
	}}}
	_, body := do(w.handler(t), request("GET", "/api/wallets/w", ""))
	if want := `"total":7.5,"deposits":3,"headroom":9992.5,"oldest_expires_at":"2023-11-14T22:15:20.121Z"`; !strings.Contains(body, want) {
		t.Errorf("%s lacks %s", body, want)
	}
	if want := `[{"amount":7.5,"deposits":3,"first_at":"2023-11-14T22:13:20.114Z","last_at":"2023-11-14T22:13:20.121Z","position":"3:12"}]`; !strings.Contains(body, want) {
		t.Errorf("%s lacks %s", body, want)
	}
}

// No time that a row may hold makes an answer that is no RFC 3339.
func TestWalletImpossibleTimes(t *testing.T) {
	for ms, want := range map[int64]string{
		-1 << 63: "0001-01-01T00:00:00.000Z", 1<<63 - 1: "9999-12-31T23:59:59.999Z", 0: "1970-01-01T00:00:00.000Z", -1: "1969-12-31T23:59:59.999Z",
	} {
		w := newWorld()
		w.flags["w"] = &wallet.Flag{OpRaised: true, RaisedAt: ms}
		_, body := do(w.handler(t), request("GET", "/api/wallets/w", ""))
		if !strings.Contains(body, `"raised_at":"`+want+`"`) {
			t.Errorf("%d: %s, want %s", ms, body, want)
		}
	}
}

// It is found, kept from, and waits, as check is and does.
func TestWalletAsCheck(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	get := func(id string, headers ...string) (int, string) {
		res, body := do(h, request("GET", "/api/wallets/"+id, "", headers...))
		return res.StatusCode, body
	}
	for _, id := range []string{"", ".a", "a%2Fb", "%00"} {
		res, body := do(h, request("GET", "/api/wallets/"+id, ""))
		wantProblem(t, res, body, 400, "invalid-wallet-id", badID)
	}
	if status, body := get("a%3Ab"); status != 200 || !strings.Contains(body, `"wallet_id":"a:b"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get("w", "X-Deposit-Position: 0:0"); status != 400 || !strings.Contains(body, "invalid-position") {
		t.Errorf("%d %s", status, body)
	}
	w.held["threshold"] = true
	do(h, post(one))
	time.AfterFunc(20*time.Millisecond, func() { w.release("threshold") })
	if status, body := get("w", "X-Deposit-Position: 3:0"); status != 200 || !strings.Contains(body, `"window_end":"2023-11-14T22:13:20.123Z","total":1,`) {
		t.Errorf("%d %s", status, body)
	}
	w.readyErr = errors.New("threshold table is catching up")
	res, body := do(h, request("GET", "/api/wallets/w", ""))
	wantProblem(t, res, body, 503, "not-ready", "threshold table is catching up")
	w.readyErr, w.readErr = nil, errors.New("disk on fire")
	res, body = do(h, request("GET", "/api/wallets/w", ""))
	wantProblem(t, res, body, 503, "not-ready", unreadable)
	h = newWorld().handler(t, func(o *api.Options) { o.Partition = func(string) (int32, error) { return 0, errors.New("away") } })
	res, body = do(h, request("GET", "/api/wallets/w", ""))
	wantProblem(t, res, body, 503, "not-ready", unreadable)
}
