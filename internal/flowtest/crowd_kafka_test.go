//go:build kafka

package flowtest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"coinbit/internal/hostile"
	"coinbit/internal/stream"
)

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
