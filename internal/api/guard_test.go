package api_test

import (
	"fmt"
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"coinbit/internal/api"
)

func keys(k ...string) func(*api.Options) { return func(o *api.Options) { o.Keys = k } }

func limit(perSecond float64) func(*api.Options) {
	return func(o *api.Options) { o.RateLimit = perSecond }
}

func TestKeys(t *testing.T) {
	const detail = "a valid API key is needed: Authorization: Bearer KEY"
	w := newWorld()
	h := w.handler(t, keys("first-key", "second"))
	for _, auth := range []string{
		"", "Bearer", "Bearer ", "first-key", "Basic first-key", "Bearer first-keys", "Bearer first-ke", "Bearer FIRST-KEY",
		"Bearer first-key second", "Bearer first-key,second", "Bearer\tfirst-key", "Bearerfirst-key",
	} {
		for _, r := range []*http.Request{post(one), get("w"), request("GET", "/api/nothing", ""), request("PUT", "/api/deposit", "")} {
			if auth != "" {
				r.Header.Set("Authorization", auth)
			}
			res, body := do(h, r)
			wantProblem(t, res, body, 401, "unauthorized", detail)
			wantHeader(t, res, "WWW-Authenticate", "Bearer")
			wantHeader(t, res, "Allow", "")
		}
	}
	if w.appended() != 0 {
		t.Error("a deposit was appended")
	}
	for _, auth := range []string{"Bearer first-key", "Bearer second", "bearer second", "BEARER  second "} {
		if res, body := do(h, get("w", "Authorization: "+auth)); res.StatusCode != 200 {
			t.Errorf("%q: %d %s", auth, res.StatusCode, body)
		}
	}
	res, _ := do(h, request("GET", "/api/nothing", "", "Authorization: Bearer second"))
	if res.StatusCode != 404 {
		t.Errorf("no such path, with a key: %d", res.StatusCode)
	}
	res, _ = do(h, request("GET", "/elsewhere", ""))
	if res.StatusCode != 404 {
		t.Errorf("outside of /api/ no key is needed: %d", res.StatusCode)
	}
}

func TestRateLimit(t *testing.T) {
	from := func(addr string) *http.Request {
		r := get("w", "X-Forwarded-For: "+addr) // not believed
		r.RemoteAddr = addr
		return r
	}
	with := func(k string) *http.Request { return get("w", "Authorization: Bearer "+k) }
	type step struct {
		after      time.Duration
		request    *http.Request
		status     int
		retryAfter string
	}
	tests := []struct {
		name   string
		change []func(*api.Options)
		steps  []step
	}{
		{"burst of ten, then ten a second", []func(*api.Options){limit(10)}, append(
			make([]step, 0),
			step{0, from("1.2.3.4:1"), 200, ""}, step{0, from("1.2.3.4:2"), 200, ""}, step{0, from("1.2.3.4:3"), 200, ""},
			step{0, from("1.2.3.4:4"), 200, ""}, step{0, from("1.2.3.4:5"), 200, ""}, step{0, from("1.2.3.4:6"), 200, ""},
			step{0, from("1.2.3.4:7"), 200, ""}, step{0, from("1.2.3.4:8"), 200, ""}, step{0, from("1.2.3.4:9"), 200, ""},
			step{0, from("1.2.3.4:10"), 200, ""}, step{0, from("1.2.3.4:11"), 429, "1"},
			step{0, from("1.2.3.5:1"), 200, ""}, step{0, from("[::1]:1"), 200, ""},
			step{100 * time.Millisecond, from("1.2.3.4:1"), 200, ""}, step{0, from("1.2.3.4:1"), 429, "1"},
		)},
		{"one in four seconds", []func(*api.Options){limit(.25)}, []step{
			{0, from("a"), 200, ""}, {0, from("a"), 429, "4"}, {1500 * time.Millisecond, from("a"), 429, "3"},
			{2500 * time.Millisecond, from("a"), 200, ""},
		}},
		{"part of one is rounded up", []func(*api.Options){limit(1.5)}, []step{
			{0, from("a"), 200, ""}, {0, from("a"), 200, ""}, {0, from("a"), 429, "1"},
		}},
		{"by key, not by address", []func(*api.Options){limit(1), keys("k", "l")}, []step{
			{0, with("k"), 200, ""}, {0, with("l"), 200, ""}, {0, with("k"), 429, "1"}, {0, with("l"), 429, "1"},
			{0, with("m"), 401, ""}, {time.Second, with("k"), 200, ""},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newWorld().handler(t, tt.change...)
				for i, s := range tt.steps {
					time.Sleep(s.after)
					res, body := do(h, s.request)
					if res.StatusCode != s.status {
						t.Errorf("step %d: %d %s, want %d", i, res.StatusCode, body, s.status)
					}
					if s.status == 429 {
						wantProblem(t, res, body, 429, "rate-limited", "too many requests; try again later")
					}
					wantHeader(t, res, "Retry-After", s.retryAfter)
				}
			})
		})
	}
}

// An invalid request counts, and is told of the limit before its own mistake.
func TestRateLimitFirst(t *testing.T) {
	h := newWorld().handler(t, limit(.001))
	for _, want := range []int{400, 429} {
		if res, body := do(h, post("{")); res.StatusCode != want {
			t.Errorf("%d %s, want %d", res.StatusCode, body, want)
		}
	}
}

// The limiters' memory is bounded, whatever the number of clients.
func TestRateLimitManyClients(t *testing.T) {
	h := newWorld().handler(t, limit(.001))
	for i := range 10_001 {
		r := get("w")
		r.RemoteAddr = fmt.Sprintf("client-%d:1", i)
		if res, _ := do(h, r); res.StatusCode != 200 {
			t.Fatalf("client %d: %d", i, res.StatusCode)
		}
	}
	for client, want := range map[string]int{"client-10000:1": 429, "client-0:1": 200} { // 0 was pushed out
		r := get("w")
		r.RemoteAddr = client
		if res, _ := do(h, r); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", client, res.StatusCode, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*api.Options){
		"no log":         func(o *api.Options) { o.Log = nil },
		"no tables":      func(o *api.Options) { o.Tables = nil },
		"no partition":   func(o *api.Options) { o.Partition = nil },
		"no clock":       func(o *api.Options) { o.Now = nil },
		"no ids":         func(o *api.Options) { o.NewID = nil },
		"empty key":      keys("a", ""),
		"negative limit": limit(-1),
		"no number":      limit(math.NaN()),
		"endless limit":  limit(math.Inf(1)),
	} {
		o := newWorld().options()
		change(&o)
		if _, err := api.New(o); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
