package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"coinbit/internal/wallet"
)

type flagsPage struct {
	Flags []struct {
		WalletID string `json:"wallet_id"`
		RaisedAt string `json:"raised_at"`
	}
	NextCursor *string `json:"next_cursor"`
}

func flagsOf(t *testing.T, h http.Handler, query string) flagsPage {
	t.Helper()
	res, body := do(h, request("GET", "/api/flags"+query, ""))
	var page flagsPage
	if err := json.Unmarshal([]byte(body), &page); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	return page
}

func TestFlags(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	if res, body := do(h, request("GET", "/api/flags", "")); body != `{"flags":[],"next_cursor":null}` {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	do(h, post(`{"wallet_id":"crossed","amount":10000.5}`))
	ms := acceptedAt.UnixMilli()
	w.set(func() { w.flagEvent("by-hand", wallet.FlagEvent{Raise: true, At: ms + 1}) })
	res, body := do(h, request("GET", "/api/flags?unknown=1", ""))
	if want := compact(t, `{"flags":[
		{"wallet_id":"by-hand","raised":true,"raised_at":"2023-11-14T22:13:20.124Z","raised_by":"operator","op_raised":true,"evidence":null},
		{"wallet_id":"crossed","raised":true,"raised_at":"2023-11-14T22:13:20.123Z","raised_by":"crossing","op_raised":false,
			"evidence":{"window_start":"2023-11-14T22:11:20.123Z","window_end":"2023-11-14T22:13:20.123Z","total":10000.5,"deposits":1,
			"position":"3:0","rule":{"threshold_amount":10000,"rolling_period_ms":120000},"removed":false}}],"next_cursor":null}`); body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	wantHeader(t, res, "Content-Type", "application/json")
	wantSafe(t, res)

	// A removal takes a wallet off, and one that is not in the index yet does not show.
	w.set(func() { w.flagEvent("crossed", wallet.FlagEvent{Remove: true, RemovedUpto: 1}) })
	w.set(func() { w.flags["by-hand"].OpRaised = false })
	if _, body := do(h, request("GET", "/api/flags", "")); body != `{"flags":[],"next_cursor":null}` {
		t.Error(body)
	}
}

// All pages together are all wallets, once each, newest first, whatever the limit,
// while others are raised and lowered.
func TestFlagsPages(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld()
		h := w.handler(t)
		raise := func(id string) {
			w.set(func() {
				w.flagEvent(id, wallet.FlagEvent{Raise: true, At: acceptedAt.UnixMilli() + r.Int64N(20)})
			})
		}
		n := r.IntN(40)
		for i := range n {
			raise(fmt.Sprintf("steady-%d", i))
		}
		seen, last, cursor, limit := map[string]int{}, "9", "", 1+r.IntN(9)
		for {
			page := flagsOf(t, h, fmt.Sprintf("?limit=%d%s", limit, cursor))
			if len(page.Flags) > limit {
				t.Fatalf("%d on a page of %d", len(page.Flags), limit)
			}
			for _, f := range page.Flags {
				if f.RaisedAt > last {
					t.Fatalf("%s after %s", f.RaisedAt, last)
				}
				last = f.RaisedAt
				seen[f.WalletID]++
			}
			if page.NextCursor == nil {
				break
			}
			cursor = "&cursor=" + *page.NextCursor
			id := fmt.Sprintf("other-%d", r.IntN(5))
			if r.IntN(2) == 0 {
				raise(id)
			} else {
				w.set(func() { w.flagEvent(id, wallet.FlagEvent{Remove: true}) })
			}
		}
		for i := range n {
			if id := fmt.Sprintf("steady-%d", i); seen[id] != 1 {
				t.Fatalf("seed %d: %s came %d times", seed, id, seen[id])
			}
		}
	}
}

func TestFlagsDefaultLimit(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	for i := range 501 {
		w.flagEvent(fmt.Sprintf("w%d", i), wallet.FlagEvent{Raise: true, At: int64(i)})
	}
	for query, want := range map[string]int{"": 50, "?limit=1": 1, "?limit=500": 500} {
		if page := flagsOf(t, h, query); len(page.Flags) != want || page.NextCursor == nil || page.Flags[0].WalletID != "w500" {
			t.Errorf("%q: %d, %v", query, len(page.Flags), page.NextCursor)
		}
	}
}

func TestFlagsInvalid(t *testing.T) {
	h := newWorld().handler(t)
	const cursor = "cursor must be a next_cursor of an earlier answer, as it was"
	const limit = "limit must be a whole number from 1 to 500"
	for query, want := range map[string][2]string{
		"limit=0": {"invalid-limit", limit}, "limit=501": {"invalid-limit", limit}, "limit=": {"invalid-limit", limit},
		"limit=-1": {"invalid-limit", limit}, "limit=1e1": {"invalid-limit", limit}, "limit=%2B5": {"invalid-limit", limit},
		"limit=05": {"invalid-limit", limit}, "limit=5&limit=5": {"invalid-limit", limit}, "limit=99999999999999999999": {"invalid-limit", limit},
		"cursor=": {"invalid-cursor", cursor}, "cursor=x": {"invalid-cursor", cursor}, "cursor=AQAAAAAAAAAAdw%3D%3D": {"invalid-cursor", cursor},
		"cursor=AQAAAAAAAAAAdw&cursor=AQAAAAAAAAAAdw": {"invalid-cursor", cursor},
		"cursor=%zz": {"invalid-query", "the query is not well formed"}, "a;b": {"invalid-query", "the query is not well formed"},
	} {
		res, body := do(h, request("GET", "/api/flags?"+query, ""))
		wantProblem(t, res, body, 400, want[0], want[1])
	}
	if page := flagsOf(t, h, "?cursor=AQAAAAAAAAAAdw"); len(page.Flags) != 0 {
		t.Error(page)
	}
}

func TestFlagsUnavailable(t *testing.T) {
	w := newWorld()
	h := w.handler(t)
	w.readyErr = errors.New("flagger table is catching up")
	res, body := do(h, request("GET", "/api/flags", ""))
	wantProblem(t, res, body, 503, "not-ready", "flagger table is catching up")
	w.readyErr, w.readErr = nil, errors.New("disk on fire")
	res, body = do(h, request("GET", "/api/flags", ""))
	wantProblem(t, res, body, 503, "not-ready", "the flags cannot be read at the moment")
	if strings.Contains(body, "disk") {
		t.Error("the client learns why")
	}
	res, body = do(newWorld().handler(t, keys("k")), request("GET", "/api/flags", ""))
	wantProblem(t, res, body, 401, "unauthorized", "a valid API key is needed: Authorization: Bearer KEY")
}
