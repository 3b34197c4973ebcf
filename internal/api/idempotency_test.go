package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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

// The row knows only the last 100 keys: one that is gone by the time we look
// says nothing about the deposit.
func TestKeyForgotten(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	w.held["balance"] = true
	w.afterAppend = func() {
		w.set(func() { w.afterAppend = nil })
		ctx, gone := context.WithCancel(t.Context())
		gone()
		for i := range 100 { // their clients have gone: they do not wait
			do(h, post(one, fmt.Sprintf("Idempotency-Key: other-%d", i)).WithContext(ctx))
		}
		w.release("balance")
	}
	res, body := do(h, post(one, key))
	wantProblem(t, res, body, 504, "outcome-unknown", retryKey)
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

// Of requests at once with one key, the first in the log decides for all.
func TestKeyAtOnce(t *testing.T) {
	const requests = 16
	tests := []struct {
		name   string
		bodies []string
	}{
		{"one amount", []string{one}},
		{"two amounts", []string{one, two}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 20 {
				w := newWorld()
				h := w.handler(t)
				w.held["balance"] = true // so that none finds the key in the row before it appends
				var all, sent sync.WaitGroup
				sent.Add(requests)
				w.afterAppend = sent.Done
				answers := make([]*httptest.ResponseRecorder, requests)
				for i := range requests {
					answers[i] = httptest.NewRecorder()
					all.Go(func() { h.ServeHTTP(answers[i], post(tt.bodies[i%len(tt.bodies)], key)) })
				}
				sent.Wait()
				w.release("balance")
				all.Wait()

				kept := w.accounts["w"].Balance.String() // the amount of the first in the log, once
				fresh := 0
				for i, rec := range answers {
					won := strings.Contains(tt.bodies[i%len(tt.bodies)], `"amount":`+kept+`}`)
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
				if fresh != 1 || w.accounts["w"].Deposits != 1 || w.appended() != requests {
					t.Fatalf("%d fresh answers, %d deposits count, %d in the log", fresh, w.accounts["w"].Deposits, w.appended())
				}
			}
		})
	}
}
