//go:build kafka

package test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"coinbit/internal/hostile"
)

// TestServesBesideAFullHouse: more clients than there are places, each of which makes the
// server wait in another way, and those who want something are answered all the same.
func TestServesBesideAFullHouse(t *testing.T) {
	const clients, perSecond, asked = 4300, 820, 100
	f := newFleet(t, bootstrap, "API_KEYS=k")
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	addr := f.addr["api"]
	// A new connection for each.
	honest := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(method, path, body string) error {
		req, err := http.NewRequest(method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer k")
		res, err := honest.Do(req)
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s %s: %d", method, path, res.StatusCode)
		}
		return nil
	}
	for _, kind := range hostile.Kinds("k") {
		t.Run(kind.Name, func(t *testing.T) {
			crowd := hostile.Start(addr, kind, clients, perSecond)
			defer crowd.Stop()
			if err := crowd.Await(clients, 2*time.Minute); err != nil {
				t.Fatal(err)
			}
			var answered atomic.Int64
			var asking errgroup.Group
			asking.SetLimit(10)
			began := time.Now()
			for i := range asked {
				asking.Go(func() error {
					method, path, body := http.MethodPost, "/api/deposit", `{"wallet_id":"honest-`+runID+`","amount":1}`
					if i%2 == 1 {
						method, path, body = http.MethodGet, "/api/check/honest-"+runID, ""
					}
					if err := ask(method, path, body); err != nil {
						t.Log(err)
						return nil
					}
					answered.Add(1)
					return nil
				})
			}
			_ = asking.Wait() // they log what is wrong
			t.Logf("%d of %d answered, in %s", answered.Load(), asked, time.Since(began).Round(time.Millisecond))
			if answered.Load() < asked*95/100 {
				t.Errorf("%d of %d answered", answered.Load(), asked)
			}
		})
	}
}
