//go:build kafka

package flowtest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"coinbit/internal/hostile"
	"coinbit/internal/stream"
)

// TestServesBesideAFullHouse: more clients than there are places, each of which makes the
// server wait in another way, and those who want something are answered all the same.
func TestServesBesideAFullHouse(t *testing.T) {
	const clients, perSecond, asked = 4300, 820, 100
	s := newSuite(t, startBroker(t), "API_KEYS=k")
	addr := s.byName["api"].addr
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
			if err := crowd.Await(clients, deadline); err != nil {
				t.Fatal(err)
			}
			var answered atomic.Int64
			var asking errgroup.Group
			asking.SetLimit(10)
			began := time.Now()
			for i := range asked {
				asking.Go(func() error {
					method, path, body := http.MethodPost, "/api/deposit", `{"wallet_id":"honest","amount":1}`
					if i%2 == 1 {
						method, path, body = http.MethodGet, "/api/check/honest", ""
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

// TestWaitingHoldsUpNobody: thousands of checks that wait for a deposit which does not come
// leave the deposits their places, and those that wait for none that there is do not wait.
func TestWaitingHoldsUpNobody(t *testing.T) {
	const clients, asked = 2200, 48
	s := newSuite(t, startBroker(t))
	var filler int
	s.eventually("two wallets share a partition", func() error {
		filler++
		if stream.Partition(fmt.Sprint("filler", filler), 4) != stream.Partition("unseen", 4) {
			return errors.New("not yet")
		}
		return nil
	})
	_, _, header := s.request(http.MethodPost, "api", "/api/deposit", fmt.Sprintf(`{"wallet_id":"filler%d","amount":1}`, filler), nil)
	there := header.Get("X-Deposit-Position") // the log holds it, and the wallet will never have it
	partition, _, _ := strings.Cut(there, ":")
	for name, position := range map[string]string{"never comes": there, "is nowhere": partition + ":1000000"} {
		t.Run(name, func(t *testing.T) {
			crowd := hostile.Start(s.byName["api"].addr, hostile.Kind{
				Text: "GET /api/check/unseen HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Deposit-Position: " + position + "\r\n\r\n",
			}, clients, 1500)
			defer crowd.Stop()
			if err := crowd.Await(clients, deadline); err != nil {
				t.Fatal(err)
			}
			answered := 0
			for range asked {
				status, text := s.do(http.MethodPost, "api", "/api/deposit", `{"wallet_id":"honest","amount":1}`, nil)
				if status == http.StatusOK {
					answered++
				} else {
					t.Logf("%d %s", status, text)
				}
			}
			if answered < asked {
				t.Errorf("%d of %d deposits were answered", answered, asked)
			}
		})
	}
}
