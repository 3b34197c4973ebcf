package flowtest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKeysInAStorm: more keys of one wallet than its row remembers, at once, single ones
// and lines of streams, while balance is away and comes back. Each counts once.
func TestKeysInAStorm(t *testing.T) {
	const clients, streams, lines = 250, 2, 60
	s := newSuite(t, startBroker(t))
	s.stop("balance")
	var all sync.WaitGroup
	errs := make(chan error, clients+streams)
	until := time.Now().Add(deadline)
	post := func(path, body, key string) (status int, text string, err error) {
		req, err := http.NewRequest(http.MethodPost, "http://"+s.byName["api"].addr+path, strings.NewReader(body))
		if err != nil {
			return 0, "", err
		}
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		res, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		return res.StatusCode, string(b), err
	}
	for i := range clients {
		all.Go(func() {
			key := fmt.Sprintf("single-%d", i)
			for time.Now().Before(until) {
				status, text, err := post("/api/deposit", `{"wallet_id":"hot","amount":1}`, key)
				switch {
				case err == nil && status == http.StatusOK:
					return
				case err == nil && status != http.StatusServiceUnavailable && status != http.StatusGatewayTimeout:
					errs <- fmt.Errorf("%d %s", status, text)
					return
				}
				time.Sleep(50 * time.Millisecond) // as Retry-After, only sooner
			}
			errs <- fmt.Errorf("%s: no 200", key)
		})
	}
	for i := range streams {
		all.Go(func() {
			var body strings.Builder
			for n := range lines {
				fmt.Fprintf(&body, `{"wallet_id":"hot","amount":"1","idempotency_key":"line-%d-%d"}`+"\n", i, n)
			}
			for time.Now().Before(until) {
				_, text, err := post("/api/deposits", body.String(), "")
				if err == nil && strings.Count(text, `"position"`) == lines {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			errs <- fmt.Errorf("stream %d: not all answered", i)
		})
	}
	time.Sleep(time.Second) // what is under way piles up
	s.start("balance")
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	want := fmt.Sprintf(`{"wallet_id":"hot","balance":%d,"above_threshold":false}`, clients+streams*lines)
	if _, got := s.get("api", "/api/check/hot", nil); got != want { // each 200 waited for the row
		t.Errorf("%s, want %s", got, want)
	}
}
