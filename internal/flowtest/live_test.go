package flowtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLive follows the page's stream from a deposit over the threshold to its flag,
// and how the groups are, as Kafka tells it.
func TestLive(t *testing.T) {
	s := newSuite(t, startBroker(t))
	if status, body := s.get("api", "/", nil); status != http.StatusOK || !strings.HasPrefix(body, "<!doctype html>") {
		t.Errorf("the page: %d %.60s", status, body)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.byName["api"].addr+"/api/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer func() { _ = res.Body.Close() }()

	wallet := fmt.Sprint("live.", time.Now().UnixNano())
	if status, body := s.do(http.MethodPost, "api", "/api/deposit", `{"wallet_id":"`+wallet+`","amount":10000.5}`, nil); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	waiting := []string{"the deposit", "its flag", "all groups up and nothing behind"}
	done := func(what string) { waiting = slices.DeleteFunc(waiting, func(w string) bool { return w == what }) }
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	up := 0
	for len(waiting) > 0 && lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e struct {
			Deposits []struct {
				WalletID string `json:"wallet_id"`
				Amount   string
				Balance  string
			}
			Flags []struct {
				WalletID string `json:"wallet_id"`
				Raised   bool
				Total    string
			}
			Groups []struct {
				State   string
				Members int
				Lag     []int64
			}
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		for _, d := range e.Deposits {
			if d.WalletID == wallet && d.Amount == "10000.5" && d.Balance == "10000.5" {
				done("the deposit")
			}
		}
		for _, f := range e.Flags {
			if f.WalletID == wallet && f.Raised && f.Total == "10000.5" {
				done("its flag")
			}
		}
		if len(e.Groups) > 0 { // told when it changes
			up = 0
		}
		for _, g := range e.Groups {
			if g.State == "up" && g.Members == 1 && len(g.Lag) == 4 && slices.Max(g.Lag) == 0 {
				up++
			}
		}
		if up == 3 && len(waiting) == 1 { // after the deposit went through
			done("all groups up and nothing behind")
		}
	}
	if len(waiting) > 0 {
		t.Errorf("no sign of %v: %v", waiting, lines.Err())
	}
}
