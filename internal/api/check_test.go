package api_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"coinbit/internal/api"
)

func TestCheck(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	do(h, post(`{"wallet_id":"flagged","amount":10000.5}`))
	do(h, post(`{"wallet_id":"sum","amount":0.1}`))
	do(h, post(`{"wallet_id":"sum","amount":0.2}`))
	do(h, post(`{"wallet_id":"a:b@c","amount":1e12}`))
	tests := []struct{ path, body string }{
		{"flagged", `{"wallet_id":"flagged","balance":10000.5,"above_threshold":true}`},
		{"sum", `{"wallet_id":"sum","balance":0.3,"above_threshold":false}`},
		{"never-seen", `{"wallet_id":"never-seen","balance":0,"above_threshold":false}`},
		{"a:b@c", `{"wallet_id":"a:b@c","balance":1000000000000,"above_threshold":true}`},
		{"a%3Ab%40c", `{"wallet_id":"a:b@c","balance":1000000000000,"above_threshold":true}`},
		{"%73um?x=1", `{"wallet_id":"sum","balance":0.3,"above_threshold":false}`},
	}
	for _, tt := range tests {
		res, body := do(h, get(tt.path))
		if res.StatusCode != 200 || body != tt.body {
			t.Errorf("%d %s, want %s", res.StatusCode, body, tt.body)
		}
		wantHeader(t, res, "Content-Type", "application/json")
		wantHeader(t, res, "X-Content-Type-Options", "nosniff")
	}
}

func TestCheckInvalid(t *testing.T) {
	const (
		form  = "X-Deposit-Position must be PARTITION:OFFSET, two whole numbers"
		other = "X-Deposit-Position is of another partition than the wallet's"
	)
	h := newWorld().handler(t)
	for _, id := range []string{"", ".a", "a%2Fb", "a%20b", "a+b", "%00", "%C3%A4", "..", strings.Repeat("a", 129)} {
		res, body := do(h, get(id))
		wantProblem(t, res, body, 400, "invalid-wallet-id", badID)
	}
	for _, p := range []string{"", "3", ":", "3:", ":1", "a:1", "3:b", "-3:1", "3:-1", "+3:1", "3:1:1", " 3:1", "3: 1",
		"2147483648:1", "3:9223372036854775808", "3:1.0", "0x3:1"} {
		res, body := do(h, get("w", "X-Deposit-Position: "+p))
		wantProblem(t, res, body, 400, "invalid-position", form)
	}
	for _, p := range []string{"0:0", "2147483647:0"} {
		res, body := do(h, get("w", "X-Deposit-Position: "+p))
		wantProblem(t, res, body, 400, "invalid-position", other)
	}
	res, body := do(h, get("w", "X-Deposit-Position: 3:0", "X-Deposit-Position: 3:0"))
	wantProblem(t, res, body, 400, "invalid-position", "X-Deposit-Position must be given once")
}

func TestCheckUnavailable(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	w.readyErr = errors.New("flagger table is catching up")
	res, body := do(h, get("w"))
	wantProblem(t, res, body, 503, "not-ready", "flagger table is catching up")
	wantHeader(t, res, "Retry-After", "1")
	w.readyErr, w.readErr = nil, errors.New("disk on fire")
	for _, r := range []string{"", "X-Deposit-Position: 3:0"} {
		req := get("w")
		if r != "" {
			req = get("w", r)
		}
		res, body = do(h, req)
		wantProblem(t, res, body, 503, "not-ready", unreadable)
	}

	unknown := func(o *api.Options) {
		o.Partition = func(string) (int32, error) { return 0, errors.New("kafka-7.internal was never there") }
	}
	w = newWorld()
	h = w.handler(t, unknown)
	for _, r := range []struct{ body, header string }{{"", "X-Deposit-Position: 3:0"}, {one, key}} {
		req := get("w", r.header)
		if r.body != "" {
			req = post(r.body, r.header)
		}
		res, body = do(h, req)
		wantProblem(t, res, body, 503, "not-ready", unreadable)
	}
	if w.appended() != 0 {
		t.Error("a deposit was appended")
	}
	if res, _ := do(h, get("w")); res.StatusCode != 200 {
		t.Errorf("a plain check needs no partition: %d", res.StatusCode)
	}
}

// Each table may lag behind; the answer waits for those it needs, up to 2 s.
func TestReadYourWrites(t *testing.T) {
	const (
		below = `{"wallet_id":"w","balance":1,"above_threshold":false}`
		above = `{"wallet_id":"w","balance":10001,"above_threshold":true}`
	)
	tests := []struct {
		name     string
		deposit  string
		held     []string // released after a second each, in this order
		position string
		want     string // "" for 503
		took     time.Duration
	}{
		{"nothing lags", one, nil, "3:0", below, 0},
		{"balance lags", one, []string{"balance"}, "3:0", below, time.Second},
		{"threshold lags", one, []string{"threshold"}, "3:0", below, time.Second},
		{"no crossing, no need for the flag", one, []string{"balance", "flagger"}, "3:0", below, time.Second},
		{"flag lags", `{"wallet_id":"w","amount":10001}`, []string{"flagger"}, "3:0", above, time.Second},
		{"threshold, then flag", `{"wallet_id":"w","amount":10001}`, []string{"threshold", "flagger"}, "3:0", "", 2 * time.Second},
		{"never written", one, nil, "3:1", "", 0},
		{"largest offset", one, nil, "3:9223372036854775807", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				h := w.handler(t)
				for i, table := range tt.held {
					w.held[table] = true
					time.AfterFunc(time.Duration(i+1)*time.Second+time.Duration(i), func() { w.release(table) })
				}
				do(h, post(tt.deposit))
				start := time.Now()
				res, body := do(h, get("w", "X-Deposit-Position: "+tt.position))
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if tt.want == "" {
					why := "the deposit at X-Deposit-Position is not applied yet; try again"
					if tt.took == 0 {
						why = "the log holds no deposit at X-Deposit-Position"
					}
					wantProblem(t, res, body, 503, "position-not-applied", why)
				} else if res.StatusCode != 200 || body != tt.want {
					t.Errorf("%d %s, want %s", res.StatusCode, body, tt.want)
				}
				if len(w.watchers) != 0 {
					t.Error("the watch was not stopped")
				}
				time.Sleep(time.Minute) // let the timers run out inside the bubble
			})
		})
	}
}

func TestReadYourWritesClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		h := w.handler(t)
		w.held["balance"] = true
		do(h, post(one))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		do(h, get("w", "X-Deposit-Position: 3:0").WithContext(ctx))
		if took := time.Since(start); took != time.Second {
			t.Errorf("waited %v for a client that left after 1s", took)
		}
	})
}

// Where Kafka does not say how long the log is, a check waits as for any deposit.
func TestPositionUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.holdsErr = errors.New("kafka does not answer")
		start := time.Now()
		res, body := do(w.handler(t), get("w", "X-Deposit-Position: 3:0"))
		wantProblem(t, res, body, 503, "position-not-applied", "the deposit at X-Deposit-Position is not applied yet; try again")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// Who waits for a deposit that does not show takes no place from those who deposit, and
// one client not all the places for that.
func TestWaitingHasPlacesOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.held["balance"] = true
		h := w.handler(t, keys("a", "b", "c", "d", "e"))
		position := "X-Deposit-Position: 3:0"
		as := func(key string) string { return "Authorization: Bearer " + key }
		do(h, post(one, as("a")))
		var waiting sync.WaitGroup
		wait := func(key string, n int) {
			for range n {
				waiting.Go(func() { do(h, get("w", position, as(key))) })
			}
			synctest.Wait()
		}
		refused := func(key string) {
			t.Helper()
			res, body := do(h, get("w", position, as(key)))
			wantProblem(t, res, body, 503, "overloaded", "too many wait for their deposits; try again")
		}
		wait("a", api.MaxInFlight) // far more than one may
		refused("a")
		for _, key := range []string{"b", "c", "d"} {
			wait(key, api.MaxWaiting/4)
		}
		refused("e")
		start := time.Now()
		for _, key := range []string{"a", "e"} {
			if res, body := do(h, post(one, as(key))); res.StatusCode != 200 {
				t.Errorf("a deposit: %d %s", res.StatusCode, body)
			}
			if res, body := do(h, get("w", as(key))); res.StatusCode != 200 {
				t.Errorf("a check that waits for nothing: %d %s", res.StatusCode, body)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("they took %v", took)
		}
		waiting.Wait()
		w.release("balance")
		if res, body := do(h, get("w", position, as("e"))); res.StatusCode != 200 {
			t.Errorf("afterwards: %d %s", res.StatusCode, body)
		}
	})
}

func TestPosition(t *testing.T) {
	for _, text := range []string{"0:0", "7:42", "2147483647:9223372036854775807"} {
		p, err := api.ParsePosition(text)
		if err != nil || p.String() != text {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
}
