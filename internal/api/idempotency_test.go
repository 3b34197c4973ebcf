package api_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"coinbit/internal/api"
	"coinbit/internal/wallet"
)

const (
	one        = `{"wallet_id":"w","amount":1}`
	two        = `{"wallet_id":"w","amount":2}`
	keyReused  = "Idempotency-Key was used for another amount"
	retryKey   = "it is not known whether the deposit counts; retry with the same Idempotency-Key"
	key        = "Idempotency-Key: 7c3b"
	unreadable = "the wallet cannot be read at the moment"
)

func TestKeyReplayed(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	do(h, post(one)) // so that the key's deposit is not at offset 0
	for i, want := range []struct{ body, replayed string }{
		{one, ""}, {one, "true"}, {`{"wallet_id":"w","amount":1.000e0}`, "true"},
	} {
		res, body := do(h, post(want.body, key))
		if res.StatusCode != 200 || body != success {
			t.Fatalf("%d: %d %s", i, res.StatusCode, body)
		}
		wantHeader(t, res, "X-Deposit-Position", "3:1")
		wantHeader(t, res, "Idempotency-Replayed", want.replayed)
	}
	res, body := do(h, post(two, key))
	wantProblem(t, res, body, 422, "idempotency-key-reused", keyReused)
	if n := w.appended(); n != 2 {
		t.Errorf("%d deposits in the log", n)
	}

	// What is known needs no Kafka; and another wallet has keys of its own.
	w.appendErr = errors.New("away")
	if res, _ := do(h, post(one, key)); res.StatusCode != 200 {
		t.Errorf("known key: %d", res.StatusCode)
	}
	if res, _ := do(h, post(`{"wallet_id":"v","amount":1}`, key)); res.StatusCode != 504 {
		t.Errorf("the other wallet's key: %d", res.StatusCode)
	}
}

func TestKeyInvalid(t *testing.T) {
	const form = "Idempotency-Key must be 1 to 128 visible ASCII characters"
	w := newWorld()
	h := w.handler(t)
	for _, k := range []string{"", "a b", "ä", "\x7f", strings.Repeat("k", 129)} {
		res, body := do(h, post(one, "Idempotency-Key: "+k))
		wantProblem(t, res, body, 400, "invalid-idempotency-key", form)
	}
	res, body := do(h, post(one, key, key))
	wantProblem(t, res, body, 400, "invalid-idempotency-key", "Idempotency-Key must be given once")
	if n := w.appended(); n != 0 {
		t.Errorf("%d deposits in the log", n)
	}
	for _, k := range []string{"!", "~", `"quoted"`, strings.Repeat("k", 128)} {
		if res, body := do(h, post(one, "Idempotency-Key: "+k)); res.StatusCode != 200 {
			t.Errorf("%q: %s", k, body)
		}
	}
}

func TestKeyNeedsTables(t *testing.T) {
	w := newWorld()
	w.readyErr = errors.New("balance table is catching up")
	res, body := do(w.handler(t), post(one, key))
	wantProblem(t, res, body, 503, "not-ready", "balance table is catching up")

	w = newWorld()
	w.readErr = errors.New("disk on fire")
	res, body = do(w.handler(t), post(one, key))
	wantProblem(t, res, body, 503, "not-ready", unreadable)
	if w.appended() != 0 {
		t.Error("a deposit was appended")
	}

	w = newWorld()
	w.afterAppend = func() { w.set(func() { w.readErr = errors.New("disk on fire") }) }
	res, body = do(w.handler(t), post(one, key))
	wantProblem(t, res, body, 504, "outcome-unknown", retryKey)
}

// The row knows only the last 100 keys. One that it has forgotten by the time we look
// was used all the same.
func TestKeyForgotten(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	others := func() {
		for i := range 100 {
			if res, body := do(h, post(one, fmt.Sprintf("Idempotency-Key: other-%d", i))); res.StatusCode != 200 {
				t.Fatal(body)
			}
		}
	}
	w.afterAppend = func() {
		w.set(func() { w.afterAppend = nil })
		others()
	}
	for _, replayed := range []string{"", "true"} {
		res, body := do(h, post(one, key))
		if res.StatusCode != 200 {
			t.Fatal(body)
		}
		wantHeader(t, res, "X-Deposit-Position", "3:0")
		wantHeader(t, res, "Idempotency-Replayed", replayed)
	}
	res, body := do(h, post(two, key))
	wantProblem(t, res, body, 422, "idempotency-key-reused", keyReused)

	// When nobody remembers, nobody knows.
	w = newWorld()
	h = w.handler(t)
	w.afterAppend = func() {
		w.set(func() { w.afterAppend = nil })
		others()
		w.set(func() { clear(w.forgot) })
	}
	res, body = do(h, post(one, key))
	wantProblem(t, res, body, 504, "outcome-unknown", retryKey)
}

// An API whose view is behind may not see that a key was used, and that the row forgot
// it since. The fold refuses the deposit: it certainly does not count.
func TestKeyStale(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	behind := &viewBehind{world: w}
	late := w.handler(t, func(o *api.Options) { o.Tables = behind })
	if res, body := do(h, post(one, key)); res.StatusCode != 200 {
		t.Fatal(body)
	}
	for i := range 150 {
		do(h, post(one, fmt.Sprintf("Idempotency-Key: other-%d", i)))
	}
	behind.until = 151 // what was there before the next deposit is not seen before it
	res, body := do(late, post(one, key))
	if res.StatusCode != 200 || res.Header.Get("X-Deposit-Position") != "3:0" {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
	}
	behind.until, behind.forgets = w.appended()+1, true
	res, body = do(late, post(one, "Idempotency-Key: new"))
	wantProblem(t, res, body, 503, "overloaded", "too many other keys of this wallet came before; this one does not count; try again")
	if got := w.accounts["w"].Balance.String(); got != "151" {
		t.Errorf("balance %s, want 151", got)
	}
}

// viewBehind shows an empty row until the log is so long.
type viewBehind struct {
	*world
	until   int
	forgets bool
}

func (v *viewBehind) Balance(id string) (wallet.Account, error) {
	if v.appended() <= v.until-1 || v.appended() == v.until && !v.forgets {
		return wallet.Account{}, nil
	}
	return v.world.Balance(id)
}

func (v *viewBehind) Forgotten(id string, h wallet.KeyHash) (wallet.KeyUse, bool) {
	if v.appended() <= v.until {
		return wallet.KeyUse{}, false
	}
	return v.world.Forgotten(id, h)
}

// A deposit that does not fit the balance is a dead letter, which is known.
func TestKeyOverflow(t *testing.T) {
	w := newWorld()
	w.accounts["w"] = &wallet.Account{Balance: wallet.Amount{Units: math.MaxInt64}}
	res, body := do(w.handler(t), post(one, key))
	wantProblem(t, res, body, 422, "balance-overflow", "the balance cannot hold the deposit; it was set aside and does not count")
}

// The key in the body is the one in the header.
func TestKeyInBody(t *testing.T) {
	const body = `{"wallet_id":"w","amount":1,"idempotency_key":"7c3b"}`
	w := newWorld()
	h := w.handler(t)
	for i, req := range []*http.Request{post(body), post(one, key), post(body, key), post(body)} {
		res, text := do(h, req)
		if res.StatusCode != 200 || (res.Header.Get("Idempotency-Replayed") == "true") != (i > 0) {
			t.Errorf("%d: %d %v %s", i, res.StatusCode, res.Header, text)
		}
	}
	res, text := do(h, post(body, "Idempotency-Key: other"))
	wantProblem(t, res, text, 400, "invalid-idempotency-key", "Idempotency-Key and idempotency_key differ")
	res, text = do(h, post(`{"wallet_id":"w","amount":1,"idempotency_key":""}`))
	wantProblem(t, res, text, 400, "invalid-idempotency-key", "Idempotency-Key must be 1 to 128 visible ASCII characters")
	if n := w.appended(); n != 1 {
		t.Errorf("%d deposits in the log", n)
	}
}

// A slip that was ignored would make a retry a second deposit.
func TestKeySlips(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	for _, name := range []string{"idempotencyKey", "Idempotency-Key", "idempotency-key", "IdempotencyKey", "idempotency_Key",
		"IDEMPOTENCY_KEY", "idempotency key", "idempotencykey", "x-idempotency-key", "idempotence_key", "idempotency_\u004bey"} {
		body := fmt.Sprintf(`{"wallet_id":"w","amount":1,"%s":"k"}`, name)
		want := fmt.Sprintf("%q is no field of a deposit; it is called idempotency_key", strings.ReplaceAll(name, "\\u004b", "K"))
		res, text := do(h, post(body))
		wantProblem(t, res, text, 400, "invalid-idempotency-key", want)
		_, text = do(h, stream(body))
		if l := answers(t, text); len(l) != 1 || l[0].Code != 400 || l[0].Message != want {
			t.Errorf("%s: %s", body, text)
		}
	}
	for _, name := range []string{"X-Idempotency-Key", "Idempotency_Key", "IdempotencyKey", "IDEMPOTENT-KEY"} {
		want := fmt.Sprintf("%q is no header of a deposit; it is called Idempotency-Key", http.CanonicalHeaderKey(name))
		for _, req := range []*http.Request{post(one, name+": k"), stream(one, name+": k")} {
			res, text := do(h, req)
			wantProblem(t, res, text, 400, "invalid-idempotency-key", want)
		}
	}
	if n := w.appended(); n != 0 {
		t.Errorf("%d deposits in the log", n)
	}
}

// So many of a wallet are under way, however their requests ended; one more is refused
// unsent, and once the row has passed them there is room, and what they were is known.
func TestKeysBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.newAPI(t)
		h := a.Handler()
		w.held["balance"] = true
		k := func(i int) string { return fmt.Sprintf("Idempotency-Key: k%d", i) }
		var all sync.WaitGroup
		for i := range api.MaxUnderWay {
			all.Go(func() {
				ctx, gone := context.WithCancel(t.Context())
				if i%2 == 0 {
					time.AfterFunc(time.Second, gone)
				}
				do(h, post(one, k(i)).WithContext(ctx)) // the client is gone, or is told 504
				gone()
			})
		}
		all.Wait()
		start := time.Now()
		res, body := do(h, post(one, k(99)))
		wantProblem(t, res, body, 503, "overloaded", "too many deposits with a key are under way for this wallet; this one was not sent and does not count")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("refused after %v", took)
		}
		if res, body := do(h, post(`{"wallet_id":"v","amount":1}`, "Idempotency-Key: 1")); res.StatusCode == 503 {
			t.Errorf("another wallet: %s", body)
		}
		// One that is under way is waited for, not sent again.
		time.AfterFunc(3*time.Second, func() { w.release("balance") })
		res, body = do(h, post(one, k(0)))
		if res.StatusCode != 200 || res.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%d %s", res.StatusCode, body)
		}
		if res, body := do(h, post(one, k(99))); res.StatusCode != 200 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
		if got := w.accounts["w"].Balance.String(); got != fmt.Sprint(api.MaxUnderWay+1) || w.appended() != api.MaxUnderWay+2 {
			t.Errorf("balance %s of %d in the log", got, w.appended())
		}
		time.Sleep(10 * time.Second) // timers
	})
}

// A deposit of which the log does not know may be sent again at once. It keeps its place
// until the row has passed a later one, and there is always a place for that.
func TestKeysLost(t *testing.T) {
	w := newWorld()
	a := w.newAPI(t)
	h := a.Handler()
	w.appendErr = fmt.Errorf("%w: no answer", api.ErrUnknown)
	for i := range 3 * api.MaxUnderWay {
		res, body := do(h, post(one, fmt.Sprintf("Idempotency-Key: k%d", i)))
		wantProblem(t, res, body, 504, "outcome-unknown", retryKey)
	}
	if n := a.Keys(); n > api.MaxUnderWay+1 {
		t.Errorf("%d places taken", n)
	}
	w.appendErr = nil
	if res, body := do(h, post(one, "Idempotency-Key: k47")); res.StatusCode != 200 {
		t.Fatal(body)
	}
	if n := a.Keys(); n != 0 {
		t.Errorf("%d places taken after a later one was applied", n)
	}
}

// Lost ones whose clients never come back fill the book, and give way when it is full.
func TestKeysLostForGood(t *testing.T) {
	w := newWorld()
	a := w.newAPI(t)
	h := a.Handler()
	w.appendErr = fmt.Errorf("%w: no answer", api.ErrUnknown)
	for i := range api.MaxKeyed {
		body := fmt.Sprintf(`{"wallet_id":"w%d","amount":1}`, i)
		if res, text := do(h, post(body, key)); res.StatusCode != 504 {
			t.Fatalf("%d %s", res.StatusCode, text)
		}
	}
	if n := a.Keys(); n != api.MaxKeyed {
		t.Fatalf("%d places taken: the test tests little", n)
	}
	w.appendErr = nil
	if res, body := do(h, post(one, key)); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// Positions of another log say nothing: what waits for one is given up.
func TestKeysOfAnotherLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.newAPI(t)
		w.held["balance"] = true
		ctx, gone := context.WithTimeout(t.Context(), time.Second)
		defer gone()
		do(a.Handler(), post(one, key).WithContext(ctx))
		w.set(func() {
			w.epoch++
			w.log, w.owners, w.held = nil, nil, map[string]bool{}
		})
		if res, body := do(a.Handler(), post(one, key)); res.StatusCode != 200 || a.Keys() != 0 {
			t.Errorf("%d %s, %d places taken", res.StatusCode, body, a.Keys())
		}
	})
}

// An answer waits for the balance row, however late, and not beyond nine
// seconds.
func TestKeyWaits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		after  time.Duration // when the row is applied
		status int
		took   time.Duration
	}{
		{"in time", 3 * time.Second, 200, 3 * time.Second},
		{"at the last moment", 9*time.Second - time.Millisecond, 200, 9*time.Second - time.Millisecond},
		{"too late", 10 * time.Second, 504, 9 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				h := w.handler(t)
				w.held["balance"] = true
				time.AfterFunc(tt.after, func() { w.release("balance") })
				for range 5 { // changes of the wallet's other rows, and of other wallets
					time.AfterFunc(tt.after/2, func() { w.release("threshold") })
				}
				start := time.Now()
				res, body := do(h, post(one, key))
				if took := time.Since(start); took != tt.took || res.StatusCode != tt.status {
					t.Errorf("%d after %v, want %d after %v: %s", res.StatusCode, took, tt.status, tt.took, body)
				}
				if len(w.watchers) != 0 {
					t.Error("the watch was not stopped")
				}
				time.Sleep(2 * tt.after) // let the timers run out inside the bubble
			})
		})
	}
}

func TestKeyClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		h := w.handler(t)
		w.held["balance"] = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		do(h, post(one, key).WithContext(ctx))
		if took := time.Since(start); took != time.Second {
			t.Errorf("waited %v for a client that left after 1s", took)
		}
	})
}

// Of requests at once with one key, the first decides for all: the others wait for it
// and are not sent.
func TestKeyAtOnce(t *testing.T) {
	const requests = 16
	for name, bodies := range map[string][]string{"one amount": {one}, "two amounts": {one, two}} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				w := newWorld()
				a := w.newAPI(t)
				h := a.Handler()
				w.held["balance"] = true // so that none finds the key in the row
				sent := make(chan struct{}, requests)
				w.afterAppend = func() { sent <- struct{}{} }
				answers := make([]*httptest.ResponseRecorder, requests)
				var all sync.WaitGroup
				for i := range requests {
					answers[i] = httptest.NewRecorder()
					all.Go(func() { h.ServeHTTP(answers[i], post(bodies[i%len(bodies)], key)) })
				}
				<-sent
				w.release("balance")
				all.Wait()
				kept := w.accounts["w"].Balance.String()
				fresh := 0
				for i, rec := range answers {
					won := strings.Contains(bodies[i%len(bodies)], `"amount":`+kept+`}`)
					switch {
					case !won:
						if rec.Code != 422 {
							t.Errorf("the other amount: %d %s", rec.Code, rec.Body)
						}
						continue
					case rec.Code != 200 || rec.Header().Get("X-Deposit-Position") != "3:0":
						t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
					case rec.Header().Get("Idempotency-Replayed") == "":
						fresh++
					}
				}
				if fresh != 1 || w.appended() != 1 || a.Keys() != 0 {
					t.Fatalf("%d fresh answers, %d in the log, %d places taken", fresh, w.appended(), a.Keys())
				}
			}
		})
	}
}
