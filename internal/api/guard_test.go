package api_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"coinbit/internal/api"
	"coinbit/internal/wallet"
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
		"Bearer " + strings.Repeat("first-key", 1000), "Bearer first-key\x00", "Bearer first-kex",
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
	// A key is taken from one header and from nowhere else.
	for _, r := range []*http.Request{
		request("GET", "/api/check/w?key=first-key&api_key=first-key&access_token=first-key&Authorization=Bearer+first-key", ""),
		request("GET", "http://Bearer:first-key@example.com/api/check/w", ""),
		get("w", "Cookie: Authorization=first-key", "X-Api-Key: first-key", "Proxy-Authorization: Bearer first-key"),
		get("w", "Authorization: Bearer first-key", "Authorization: Bearer first-key"),
		post(`{"wallet_id":"w","amount":1,"api_key":"first-key"}`),
	} {
		res, body := do(h, r)
		wantProblem(t, res, body, 401, "unauthorized", detail)
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
			{0, from("1.2.3.4:1"), 200, ""}, {0, from("1.2.3.4:1"), 429, "4"}, {1500 * time.Millisecond, from("1.2.3.4:1"), 429, "3"},
			{2500 * time.Millisecond, from("1.2.3.4:1"), 200, ""},
		}},
		{"part of one is rounded up", []func(*api.Options){limit(1.5)}, []step{
			{0, from("1.2.3.4:1"), 200, ""}, {0, from("1.2.3.4:1"), 200, ""}, {0, from("1.2.3.4:1"), 429, "1"},
		}},
		{"one client has all of an IPv6 network", []func(*api.Options){limit(1)}, []step{
			{0, from("[2001:db8:1:2::1]:1"), 200, ""}, {0, from("[2001:db8:1:2:ffff::9]:1"), 429, "1"},
			{0, from("[2001:db8:1:3::1]:1"), 200, ""},
			{0, from("[::ffff:1.2.3.4]:1"), 200, ""}, {0, from("1.2.3.4:1"), 429, "1"}, {0, from("1.2.3.5:1"), 200, ""},
		}},
		{"who tries keys, by address", []func(*api.Options){limit(1), keys("k")}, []step{
			{0, with("a"), 401, ""}, {0, with("b"), 429, "1"}, {0, with("k"), 200, ""}, {time.Second, with("c"), 401, ""},
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

// A page of another site that a user has open can send a deposit too: the body's
// Content-Type does not matter, so no browser asks first. It can also take the places of
// those who read: that it learns nothing helps nobody.
func TestCrossOrigin(t *testing.T) {
	w := newWorld()
	h := w.handler(t, watching(newChannel()))
	for _, header := range []string{"Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
		res, body := do(h, post(one, header, "Content-Type: text/plain"))
		wantProblem(t, res, body, 403, "cross-origin", "a page of another site may not do this")
		for _, path := range []string{"/api/check/w", "/api/wallets/w", "/api/flags", "/api/live"} {
			for _, method := range []string{"GET", "HEAD"} {
				if path == "/api/live" && method == "HEAD" {
					continue
				}
				res, body := do(h, request(method, path, "", header))
				if res.StatusCode != 403 || res.Header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s, %s %s: %d %s", header, method, path, res.StatusCode, body)
				}
			}
		}
	}
	if n := w.appended(); n != 0 {
		t.Errorf("%d deposits were appended", n)
	}
	for _, header := range []string{"X: no browser", "Origin: http://example.com", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"} {
		for _, r := range []*http.Request{post(one, header), get("w", header)} {
			if res, body := do(h, r); res.StatusCode != 200 {
				t.Errorf("%s: %s: %d %s", header, r.Method, res.StatusCode, body)
			}
		}
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
		r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)
		if res, _ := do(h, r); res.StatusCode != 200 {
			t.Fatalf("client %d: %d", i, res.StatusCode)
		}
	}
	for client, want := range map[string]int{"10.0.39.16:1": 429, "10.0.0.0:1": 200} { // the first was pushed out
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
		"no rule":        func(o *api.Options) { o.Rule = wallet.Rule{} },
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
