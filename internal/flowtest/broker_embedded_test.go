//go:build !kafka

package flowtest

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"coinbit/internal/broker"
)

// startBroker starts an embedded broker for one test.
func startBroker(t testing.TB) string {
	t.Helper()
	b, err := broker.Start(context.Background(), t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b.Addr()
}

// startReplaceable is startBroker; replace puts another cluster in its place, on the same
// address, once prepare has seen it on its own.
func startReplaceable(t testing.TB) (addr string, replace func(prepare func(addr string))) {
	t.Helper()
	start := func(dir, addr string) *broker.Broker {
		b, err := broker.Start(context.Background(), dir, addr)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := start(t.TempDir(), "127.0.0.1:0")
	t.Cleanup(func() { b.Close() })
	return b.Addr(), func(prepare func(addr string)) {
		addr, dir := b.Addr(), t.TempDir()
		other := start(dir, "127.0.0.1:0")
		prepare(other.Addr())
		other.Close()
		b.Close()
		b = start(dir, addr)
	}
}

// TestOtherCluster: local state of one cluster is neither used nor in the way
// on another, and is there again on the first.
func TestOtherCluster(t *testing.T) {
	first, second := startBroker(t), startBroker(t)
	s := newSuite(t, first)
	deposit := func(amount int) {
		t.Helper()
		body := fmt.Sprintf(`{"wallet_id":"a","amount":%d}`, amount)
		if status, text := s.do(http.MethodPost, "api", "/api/deposit", body, nil); status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
	}
	holds := func(want string) {
		t.Helper()
		s.eventually("balance "+want, func() error {
			_, text := s.get("api", "/api/check/a", nil)
			if text != `{"wallet_id":"a","balance":`+want+`,"above_threshold":false}` {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
	}
	move := func(broker string) {
		t.Helper()
		s.stop(services...)
		s.env = append(s.env, "BROKER="+broker)
		s.start(services...)
	}
	deposit(1)
	holds("1")
	move(second)
	holds("0")
	deposit(20)
	holds("20")
	move(first)
	holds("1")
	deposit(300)
	holds("301")
}
