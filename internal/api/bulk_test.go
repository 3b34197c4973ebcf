package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"coinbit/internal/api"
	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

func stream(body string, headers ...string) *http.Request {
	return request(http.MethodPost, "/api/deposits", body, headers...)
}

// line is an answer.
type line struct {
	Line     int64
	Position string
	Replayed bool
	Code     int
	Type     string
	Message  string
	End      bool
}

func parsed(t testing.TB, text string) line {
	t.Helper()
	var l line
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return l
}

func answers(t testing.TB, body string) []line {
	t.Helper()
	var all []line
	for text := range strings.Lines(body) {
		if !strings.HasSuffix(text, "}\n") {
			t.Errorf("no whole line: %q", text)
		}
		all = append(all, parsed(t, text))
	}
	return all
}

// newAPI is an API over w with its handler.
func (w *world) newAPI(t testing.TB, change ...func(*api.Options)) *api.API {
	t.Helper()
	o := w.options()
	for _, c := range change {
		c(&o)
	}
	a, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// cutOff serves r and tells whether the answer was cut off.
func cutOff(h http.Handler, r *http.Request) (rec *httptest.ResponseRecorder, cut bool) {
	rec = httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			cut = true
		}
	}()
	h.ServeHTTP(rec, r)
	return rec, false
}

func TestStream(t *testing.T) {
	w := newWorld()
	registry := prometheus.NewRegistry()
	h := w.handler(t, func(o *api.Options) { o.Registry = registry })
	long := `{"wallet_id":"w","amount":1,"x":"` + strings.Repeat("a", api.MaxLine)
	longest := `{"wallet_id":"w","amount":1,"x":"` + strings.Repeat("a", api.MaxLine-35) + `"}`
	res, body := do(h, stream(strings.Join([]string{
		`{"wallet_id":"a","amount":12.5}`,
		`  {"amount":1e3,"wallet_id":"b","x":[1]}` + "\r",
		``,
		" \t\r",
		`{"wallet_id":"a","amount":0}`,
		`<`,
		`[]`,
		`{"wallet_id":"a","amount":1} {"wallet_id":"a","amount":1}`,
		`{"wallet_id":"a","amount":7,"idempotency_key":"k"}`,
		`{"wallet_id":"a","amount":7.0,"idempotency_\u006bey":"k"}`,
		`{"wallet_id":"a","amount":8,"idempotency_key":"k"}`,
		`{"wallet_id":"a","amount":1,"idempotency_key":null}`,
		`{"wallet_id":"a","amount":1,"idempotency_key":5}`,
		`{"wallet_id":"a","amount":1,"idempotency_key":"a b"}`,
		`{"wallet_id":"a","amount":1,"idempotency_key":"x","idempotency_key":"y"}`,
		long,
		longest,
		`{"wallet_id":"a b","amount":1}`,
		`{"wallet_id":"c","amount":0.000000001}`,
	}, "\n")))
	const problem = `,"type":"urn:coinbit:problem:`
	want := strings.Join([]string{
		`{"line":1,"position":"3:0"}`,
		`{"line":2,"position":"3:1"}`,
		`{"line":5,"code":400` + problem + `invalid-amount","message":"amount must be greater than 0"}`,
		`{"line":6,"code":400` + problem + `invalid-body","message":"line is not valid JSON: invalid character '<' looking for beginning of value"}`,
		`{"line":7,"code":400` + problem + `invalid-body","message":"line must be a JSON object"}`,
		`{"line":8,"code":400` + problem + `invalid-body","message":"line is not valid JSON: invalid character '{' after top-level value"}`,
		`{"line":9,"position":"3:2"}`,
		`{"line":10,"position":"3:2","replayed":true}`,
		`{"line":11,"code":422` + problem + `idempotency-key-reused","message":"Idempotency-Key was used for another amount"}`,
		`{"line":12,"position":"3:3"}`,
		`{"line":13,"code":400` + problem + `invalid-idempotency-key","message":"idempotency_key must be a string"}`,
		`{"line":14,"code":400` + problem + `invalid-idempotency-key","message":"Idempotency-Key must be 1 to 128 visible ASCII characters"}`,
		`{"line":15,"code":400` + problem + `invalid-body","message":"idempotency_key must be given once"}`,
		`{"line":16,"code":413` + problem + `body-too-large","message":"line must be at most 65536 bytes"}`,
		`{"line":17,"position":"3:4"}`,
		`{"line":18,"code":400` + problem + `invalid-wallet-id","message":"` + badID + `"}`,
		`{"line":19,"position":"3:5"}`, ``,
	}, "\n")
	if res.StatusCode != 200 || body != want {
		t.Errorf("%d\n%s\nwant\n%s", res.StatusCode, body, want)
	}
	wantHeader(t, res, "Content-Type", "application/x-ndjson")
	wantSafe(t, res)
	if got := w.accounts["a"].Balance.String(); got != "20.5" {
		t.Errorf("balance %s", got)
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP coinbit_deposit_streams POST /api/deposits requests under way.
# TYPE coinbit_deposit_streams gauge
coinbit_deposit_streams 0
# HELP coinbit_deposits_total Deposits asked for, by what became of them.
# TYPE coinbit_deposits_total counter
coinbit_deposits_total{result="accepted"} 6
coinbit_deposits_total{result="conflict"} 1
coinbit_deposits_total{result="invalid"} 9
coinbit_deposits_total{result="refused"} 0
coinbit_deposits_total{result="replayed"} 1
coinbit_deposits_total{result="unknown"} 0
`), "coinbit_deposit_streams", "coinbit_deposits_total")
	if err != nil {
		t.Error(err)
	}
}

func TestStreamRefusedBefore(t *testing.T) {
	w := newWorld()
	h := w.handler(t, keys("k"), limit(1))
	bearer := "Authorization: Bearer k"
	res, body := do(h, stream(one))
	wantProblem(t, res, body, 401, "unauthorized", "a valid API key is needed: Authorization: Bearer KEY")
	res, body = do(h, stream(one, bearer, key))
	wantProblem(t, res, body, 400, "invalid-idempotency-key", "Idempotency-Key names one deposit; give each line an idempotency_key")
	res, body = do(h, stream(one, bearer))
	wantProblem(t, res, body, 429, "rate-limited", "too many requests; try again later")
	res, body = do(h, stream(one, "Sec-Fetch-Site: cross-site"))
	wantProblem(t, res, body, 403, "cross-origin", "a page of another site may not do this")
	res, body = do(w.handler(t), request(http.MethodPut, "/api/deposits", one)) // who repeats a PUT thinks it safe
	wantProblem(t, res, body, 405, "method-not-allowed", "this path takes POST")
	if n := w.appended(); n != 0 {
		t.Errorf("%d deposits in the log", n)
	}
	if res, body := do(w.handler(t), stream("")); res.StatusCode != 200 || body != "" {
		t.Errorf("no line: %d %q", res.StatusCode, body)
	}
}

// A line has the fate of a single deposit, word for word.
func TestStreamIsManySingles(t *testing.T) {
	pick := func(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 0))
		single, streamed := newWorld(), newWorld()
		hs, hb := single.handler(t), streamed.handler(t)
		var lines strings.Builder
		var want []line
		for n := range r.IntN(30) {
			key := pick(r, "", "", "k", "l", "a b")
			id := pick(r, `"a"`, `"b"`, `"\u0061"`)
			amount := pick(r, `1`, `1`, `2.5`, `1e3`, `123456789012.123456789`)
			if key != "a b" { // one thing wrong at once: which is looked at first is not promised
				switch r.IntN(6) {
				case 0:
					id = pick(r, `"c d"`, `5`, `null`)
				case 1:
					amount = pick(r, `0`, `-1`, `"1"`, `null`, `1e13`, `0.0000000001`)
				}
			}
			body := fmt.Sprintf(`{"wallet_id":%s,"amount":%s}`, id, amount)
			req := post(body)
			if key != "" {
				req.Header.Set("Idempotency-Key", key)
				body = fmt.Sprintf(`{"wallet_id":%s,"amount":%s,"idempotency_key":%q}`, id, amount, key)
			}
			lines.WriteString(body + "\n")
			res, text := do(hs, req)
			l := line{Line: int64(n + 1), Position: res.Header.Get("X-Deposit-Position"), Replayed: res.Header.Get("Idempotency-Replayed") != ""}
			if res.StatusCode != http.StatusOK {
				var problem struct {
					Type, Message string
					Code          int
				}
				if err := json.Unmarshal([]byte(text), &problem); err != nil {
					t.Fatal(err)
				}
				l.Code, l.Type, l.Message = problem.Code, problem.Type, problem.Message
			}
			want = append(want, l)
		}
		_, body := do(hb, stream(lines.String()))
		if got := answers(t, body); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %s\n got %+v\nwant %+v", seed, lines.String(), got, want)
		}
		for id, account := range single.accounts {
			if got := row(streamed.accounts, id).Balance; got != account.Balance {
				t.Fatalf("seed %d: wallet %s has %v, want %v", seed, id, got, account.Balance)
			}
		}
	}
}

// scattered is a log that answers in any order, each wallet's lines it got in
// the order of order.
type scattered struct {
	mu    sync.Mutex
	order []string
	held  []func()
}

func (l *scattered) Append(context.Context, <-chan struct{}, *pb.Deposit) (api.Position, error) {
	panic("not used")
}
func (l *scattered) Send(d *pb.Deposit, done func(api.Position, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := api.Position{Partition: 1, Offset: int64(len(l.order))}
	l.order = append(l.order, fmt.Sprintf("%s %d", d.WalletId, d.Units))
	l.held = append(l.held, func() { done(at, nil) })
	return nil
}

// answer answers until stop is closed.
func (l *scattered) answer(stop <-chan struct{}) {
	for {
		l.mu.Lock()
		held := l.held
		l.held = nil
		l.mu.Unlock()
		rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		for _, done := range held {
			done()
		}
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func TestStreamKeepsOrder(t *testing.T) {
	const n = 50_000
	log := &scattered{}
	stop := make(chan struct{})
	var answering sync.WaitGroup
	answering.Go(func() { log.answer(stop) })
	defer answering.Wait()
	defer close(stop)
	var body strings.Builder
	for i := range n {
		fmt.Fprintf(&body, `{"wallet_id":"w%d","amount":%d}`+"\n", i%7, i+1)
	}
	a := newWorld().newAPI(t, func(o *api.Options) { o.Log = log })
	_, text := do(a.Handler(), stream(body.String()))
	all := answers(t, text)
	if len(all) != n {
		t.Fatalf("%d answers", len(all))
	}
	for i, l := range all {
		if l.Line != int64(i+1) || l.Position != fmt.Sprintf("1:%d", i) || log.order[i] != fmt.Sprintf("w%d %d", i%7, i+1) {
			t.Fatalf("answer %d: %+v, in the log %s", i, l, log.order[i])
		}
	}
	if streams, deposits := a.Streams(); streams != 0 || deposits != 0 {
		t.Errorf("%d streams and %d deposits are left", streams, deposits)
	}
}

// A log that refuses is asked again; after nine seconds the line is refused and
// the stream ends.
func TestStreamRefused(t *testing.T) {
	for _, tt := range []struct {
		back time.Duration
		want string
		took time.Duration
	}{
		{3 * time.Second, `{"line":1,"position":"3:0"}` + "\n" + `{"line":2,"position":"3:1"}` + "\n", 3 * time.Second},
		{time.Hour, `{"line":1,"code":503,"type":"urn:coinbit:problem:deposit-refused","message":"deposit was refused and does not count; try again"}
{"line":2,"code":503,"type":"urn:coinbit:problem:deposit-refused","message":"deposit was refused and does not count; try again; this line and all after it were not sent and do not count","end":true}
`, 9 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.appendErr = fmt.Errorf("%w: away", api.ErrRefused)
			h := w.handler(t)
			timer := time.AfterFunc(tt.back, func() { w.set(func() { w.appendErr = nil }) })
			defer timer.Stop()
			start := time.Now()
			rec, cut := cutOff(h, stream(one+"\n"+two))
			if took := time.Since(start); took < tt.took || took > tt.took+time.Second {
				t.Errorf("took %v", took)
			}
			if rec.Body.String() != tt.want || cut != strings.Contains(tt.want, "end") {
				t.Errorf("cut off %v:\n%s", cut, rec.Body)
			}
		})
	}
}

// A deposit that the log has and does not answer is unknown after nine seconds,
// and its late answer harms no later line.
func TestStreamUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &scattered{}
		a := newWorld().newAPI(t, func(o *api.Options) { o.Log = log })
		for i := range 5 { // the late ones first
			defer time.AfterFunc(time.Duration(11+i)*time.Second, func() { log.held[i]() }).Stop()
		}
		in, out := io.Pipe()
		go func() {
			_, _ = io.WriteString(out, strings.Repeat(one+"\n", 3))
			time.Sleep(10 * time.Second)
			_, _ = io.WriteString(out, strings.Repeat(two+"\n", 2))
			_ = out.Close()
		}()
		r := stream("")
		r.Body = in
		rec, cut := cutOff(a.Handler(), r)
		all := answers(t, rec.Body.String())
		if cut || len(all) != 5 {
			t.Fatalf("cut off %v: %s", cut, rec.Body)
		}
		for i, l := range all[:3] {
			if l.Line != int64(i+1) || l.Code != 504 || l.Type != "urn:coinbit:problem:outcome-unknown" {
				t.Errorf("%+v", l)
			}
		}
		if all[3].Position != "1:3" || all[4].Position != "1:4" {
			t.Errorf("%+v", all[3:])
		}
		if _, deposits := a.Streams(); deposits != 0 {
			t.Errorf("%d deposits are left", deposits)
		}
	})
}

// A thousand keys of one wallet: none is forgotten before it is answered.
func TestStreamKeysOfOneWallet(t *testing.T) {
	w := newWorld()
	w.held["balance"] = true
	most := 0
	stop := make(chan struct{})
	var releasing sync.WaitGroup
	releasing.Go(func() { // applies what is there, now and then
		for {
			w.set(func() {
				most = max(most, len(w.log)-w.applied["balance"])
				w.held["balance"] = false
				w.catchUp()
				w.held["balance"] = true
			})
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, `{"wallet_id":"w","amount":1,"idempotency_key":"k%d"}`+"\n", i/2)
	}
	_, text := do(w.handler(t), stream(body.String()))
	close(stop)
	releasing.Wait()
	all := answers(t, text)
	fresh := 0
	for i, l := range all {
		if l.Position == "" || i%2 == 1 && (!l.Replayed || l.Position != all[i-1].Position) {
			t.Fatalf("%+v", l)
		}
		if !l.Replayed {
			fresh++
		}
	}
	if len(all) != 1000 || fresh != 500 || w.accounts["w"].Balance.String() != "500" || most > api.MaxUnderWay {
		t.Errorf("%d answers, %d fresh, balance %s, %d at once", len(all), fresh, w.accounts["w"].Balance, most)
	}
	if len(w.watchers) != 0 {
		t.Errorf("%d watches are left", len(w.watchers))
	}
}

// RATE_LIMIT counts lines: a stream is slowed to it.
func TestStreamRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, body := do(newWorld().handler(t, limit(10)), stream(strings.Repeat(one+"\n", 40)))
		if took := time.Since(start); took < 2900*time.Millisecond || took > 3200*time.Millisecond {
			t.Errorf("40 lines at 10 per second, 10 of them at once, took %v", took)
		}
		if n := len(answers(t, body)); n != 40 {
			t.Errorf("%d answers", n)
		}
	})
}

func TestStreamPanics(t *testing.T) {
	h := newWorld().handler(t, func(o *api.Options) { o.Log = panicking{} }) // in the reader
	res, body := do(h, stream(one))
	wantProblem(t, res, body, 500, "internal", "the server made a mistake")
	wantHeader(t, res, "Connection", "close")

	w := newWorld()
	h = w.handler(t, func(o *api.Options) { o.Tables = panickingTables{w} }) // in the writer
	rec, cut := cutOff(h, stream(one+"\n"+`{"wallet_id":"w","amount":1,"idempotency_key":"k"}`+"\n"))
	if !cut && rec.Code != 500 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

// panickingTables panic at the second look at a row, which is the writer's.
type panickingTables struct{ *world }

func (p panickingTables) Balance(string) (wallet.Account, error) {
	if p.appended() > 1 {
		panic("behind")
	}
	return wallet.Account{}, nil
}

// connection is a stream over TCP, for the parts of it to be sent one by one.
type connection struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func connect(t *testing.T, addr string) *connection {
	t.Helper()
	c := dial(t, addr)
	c.send("POST /api/deposits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	return c
}

func dial(t *testing.T, addr string) *connection {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &connection{conn, t, bufio.NewReader(conn)}
}

func (c *connection) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *connection) chunk(text string) {
	c.t.Helper()
	c.send(fmt.Sprintf("%x\r\n%s\r\n", len(text), text))
}

// answer is the response, whose body is read line by line.
func (c *connection) answer() *bufio.Reader {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil || res.StatusCode != 200 {
		c.t.Fatalf("%v %v", res, err)
	}
	return bufio.NewReader(res.Body)
}

// last wants the stream's last line to be, and the answer to be cut off after it.
func (c *connection) last(r *bufio.Reader, n int64, code int, message string) {
	c.t.Helper()
	text, err := r.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	const rest = "; this line and all after it were not sent and do not count"
	if l := parsed(c.t, text); l.Line != n || l.Code != code || !l.End || l.Message != message+rest {
		c.t.Errorf("%s", text)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) && !strings.Contains(fmt.Sprint(err), "reset") {
		c.t.Errorf("the answer was not cut off: %v", err)
	}
}

// Each answer is there before the next line is sent.
func TestStreamFullDuplex(t *testing.T) {
	w := newWorld()
	c := connect(t, serve(t, w.handler(t), unchanged))
	var in *bufio.Reader
	for i := range 5 {
		c.chunk(one + "\n")
		if i == 0 {
			in = c.answer()
		}
		if text, err := in.ReadString('\n'); err != nil || parsed(t, text).Line != int64(i+1) {
			t.Fatalf("%q %v", text, err)
		}
	}
	c.send("0\r\n\r\n")
	if text, err := in.ReadString('\n'); err != io.EOF || text != "" {
		t.Fatalf("%q %v", text, err)
	}
	if got := w.appended(); got != 5 {
		t.Errorf("%d deposits", got)
	}
}

// The deadline of the last line does not outlive it: a later request on the
// connection is whole, however late the stream was answered.
func TestStreamThenDeposit(t *testing.T) {
	w := newWorld()
	w.held["balance"] = true
	a := w.newAPI(t)
	a.SetStallTimeout(50 * time.Millisecond)
	c := dial(t, serve(t, a.Handler(), unchanged))
	line := `{"wallet_id":"w","amount":1,"idempotency_key":"k"}` // without a line end
	c.send(strings.Replace(raw(len(line), line), "/api/deposit", "/api/deposits", 1))
	release := time.AfterFunc(300*time.Millisecond, func() { w.release("balance") })
	defer release.Stop()
	if text, err := io.ReadAll(c.answer()); err != nil || parsed(t, string(text)).Position != "3:0" {
		t.Fatalf("%s %v", text, err)
	}
	c.send(raw(len(one), one))
	res, err := http.ReadResponse(c.in, nil)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%v %v", res, err)
	}
}

// Who stops sending in the middle, or sends one line for ever, is told so and
// cut off. What was whole counts.
func TestStreamStalls(t *testing.T) {
	w := newWorld()
	a := w.newAPI(t)
	a.SetStallTimeout(300 * time.Millisecond)
	addr := serve(t, a.Handler(), unchanged)
	const slow = "the line did not arrive in time"

	c := connect(t, addr)
	c.chunk(one + "\n" + one[:10])
	in := c.answer()
	_, _ = in.ReadString('\n')
	c.last(in, 2, 408, slow)

	c = connect(t, addr) // a byte at a time, or much of one line: it does not help
	c.chunk(one + "\n")
	in = c.answer()
	_, _ = in.ReadString('\n')
	stop := make(chan struct{})
	var dripping sync.WaitGroup
	dripping.Go(func() {
		for {
			if _, err := io.WriteString(c, "1\r\n \r\n"); err != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	c.last(in, 2, 408, slow)
	close(stop)
	dripping.Wait()

	c = connect(t, addr) // but a line now and then is enough, also a blank one
	for range 6 {
		c.chunk("\n")
		<-time.After(100 * time.Millisecond)
	}
	c.chunk(one) // and an end in the middle is no end
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	c.last(c.answer(), 7, 400, "body ended early")
	if n := w.appended(); n != 2 {
		t.Errorf("%d deposits in the log, want 2", n)
	}
	until(t, "no stream is left", func() bool { n, _ := a.Streams(); return n == 0 })
}

// Who does not read the answers is cut off, and until then no more is read from
// it than fits.
func TestStreamNotRead(t *testing.T) {
	log := &acknowledging{done: make(chan func(api.Position, error), 4096)}
	go log.run()
	defer close(log.done)
	a := newWorld().newAPI(t, func(o *api.Options) { o.Log = log })
	a.SetStallTimeout(time.Second)
	conn := connect(t, serve(t, a.Handler(), unchanged))
	_ = conn.Conn.(*net.TCPConn).SetReadBuffer(4096)
	text := strings.Repeat(one+"\n", 1000)
	sent := 0
	for {
		if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", len(text), text); err != nil {
			break
		}
		if sent += 1000; sent > 10_000_000 {
			t.Fatal("there is no end")
		}
	}
	t.Logf("cut off after about %d lines", sent)
	until(t, "no stream is left", func() bool { n, _ := a.Streams(); return n == 0 })
}

// Who leaves leaves nothing behind; what was sent counts.
func TestStreamClientGone(t *testing.T) {
	w := newWorld()
	w.held["balance"] = true
	a := w.newAPI(t)
	addr := serve(t, a.Handler(), unchanged)
	for range 20 {
		c := connect(t, addr)
		c.chunk(strings.Repeat(one+"\n", 50) + one[:5])
		_ = c.answer()
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	until(t, "no stream is left", func() bool { n, d := a.Streams(); return n == 0 && d == 0 })
	if n := w.appended(); n > 1000 || n < 20 {
		t.Errorf("%d deposits in the log", n)
	}
}

// A server that shuts down answers what is under way and says where it stopped.
func TestStreamShutdown(t *testing.T) {
	log := &scattered{}
	a := newWorld().newAPI(t, func(o *api.Options) { o.Log = log })
	server, err := api.NewServer(a.Handler(), api.MaxConns, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(ln) }()
	c := connect(t, ln.Addr().String())
	c.chunk(strings.Repeat(one+"\n", 3))
	until(t, "the lines are under way", func() bool { _, n := a.Streams(); return n == 3 })
	began := time.Now()
	shut := make(chan error)
	go func() { shut <- server.Shutdown(context.Background()) }()
	log.mu.Lock()
	held := log.held
	log.mu.Unlock()
	for _, done := range held[:2] { // the third stays unknown
		done()
	}
	in := c.answer()
	for i := range 2 {
		if text, err := in.ReadString('\n'); err != nil || parsed(t, text).Position != fmt.Sprintf("1:%d", i) {
			t.Errorf("%s %v", text, err)
		}
	}
	if text, err := in.ReadString('\n'); err != nil || parsed(t, text).Code != 504 {
		t.Errorf("%s %v", text, err)
	}
	c.last(in, 4, 503, "the server is stopping")
	if err := <-shut; err != nil {
		t.Error(err)
	}
	<-served
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v, of the two seconds there are", took)
	}
	held[2]()
}

// There are so many streams at once; the next is told so, and single deposits
// find their place beside them.
func TestStreamsAtOnce(t *testing.T) {
	w := newWorld()
	a := w.newAPI(t)
	addr := serve(t, a.Handler(), unchanged)
	for range api.MaxStreams {
		c := connect(t, addr)
		c.chunk(one + "\n")
		_ = c.answer()
	}
	res, body := do(a.Handler(), stream(one))
	wantProblem(t, res, body, 503, "overloaded", "too many streams at once; nothing was read and nothing counts")
	if res, body := do(a.Handler(), post(one)); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// Memory does not grow with a stream, nor with the length of its lines.
func TestStreamMemory(t *testing.T) {
	const bound = 32 << 20
	log := &acknowledging{done: make(chan func(api.Position, error), 4096)}
	go log.run()
	defer close(log.done)
	h := newWorld().handler(t, func(o *api.Options) { o.Log = log })
	for name, body := range map[string]*repeated{
		"short lines":    {line: one + "\n", left: 300_000},
		"long lines":     {line: `{"wallet_id":"w","amount":1,"x":"` + strings.Repeat("a", 65_000) + `"}` + "\n", left: 3_000},
		"too long lines": {line: strings.Repeat("a", 1<<20) + "\n", left: 300},
		"one line":       {line: strings.Repeat("a", 1<<20), left: 300},
		"blank lines":    {line: "\n", left: 3_000_000},
		"bad lines":      {line: "{\n", left: 100_000},
	} {
		var largest atomic.Int64
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		before := int64(m.HeapInuse + m.StackInuse)
		stop, measured := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(measured)
			for {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				largest.Store(max(largest.Load(), int64(m.HeapInuse+m.StackInuse)-before))
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}()
		r := stream("")
		r.Body = body
		h.ServeHTTP(sink{http.Header{}}, r)
		close(stop)
		<-measured
		t.Logf("%s: %d KiB", name, largest.Load()>>10)
		if largest.Load() > bound {
			t.Errorf("%s: %d MiB", name, largest.Load()>>20)
		}
	}
}
