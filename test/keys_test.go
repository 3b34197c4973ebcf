//go:build kafka

package test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// once has clients with a key each deposit 1 to a wallet at the APIs, each try at any of
// them, as 503 and 504 say, until they are told 200.
func once(t *testing.T, wallet string, clients int, spread time.Duration, apis ...*client) (wait func()) {
	t.Helper()
	var all sync.WaitGroup
	var tries, unknowns atomic.Int64
	until := time.Now().Add(4 * time.Minute)
	for i := range clients {
		all.Go(func() {
			pause(rand.N(spread + 1))
			for time.Now().Before(until) {
				tries.Add(1)
				switch a := apis[rand.IntN(len(apis))].post(wallet, "1", fmt.Sprintf("key-%d", i)); a.verdict {
				case acked:
					return
				case broken:
					t.Errorf("key-%d: %s", i, a.detail)
					return
				case unknown:
					unknowns.Add(1)
				case refused:
				}
				pause(rand.N(500 * time.Millisecond))
			}
			t.Errorf("key-%d: no 200 in time", i)
		})
	}
	return func() {
		all.Wait()
		t.Logf("%s: %d keys in %d tries, %d of them with an unknown outcome", wallet, clients, tries.Load(), unknowns.Load())
	}
}

// TestKeysCountOnce: a key counts once for all who do as the answers say, however many
// are under way at once, while balance is away and comes back.
func TestKeysCountOnce(t *testing.T) {
	f := newFleet(t, bootstrap)
	f.addr["api-2"] = freeAddr(t)
	f.start(services...)
	f.launchAs(binary, "api-2", "api", "PORT="+f.addr["api-2"])
	f.awaitReady(60*time.Second, append(services, "api-2")...)
	first, second := newClient(t, f.addr["api"]), newClient(t, f.addr["api-2"])
	holds := func(wallet string, want int64) {
		t.Helper()
		var got state
		if !eventually(30*time.Second, func() bool {
			s, ok, err := first.check(wallet, "")
			got = s
			return ok && err == nil && s.nanos >= want*1_000_000_000
		}) || got.nanos != want*1_000_000_000 {
			t.Errorf("%s holds %v, want %d", wallet, got, want)
		}
	}
	t.Run("300 at once", func(t *testing.T) {
		once(t, "keys-300", 300, 0, first)()
		holds("keys-300", 300)
	})
	t.Run("300 while balance is away", func(t *testing.T) {
		f.term("balance", 15*time.Second)
		wait := once(t, "keys-away", 300, 9*time.Second, first)
		pause(8 * time.Second)
		f.start("balance")
		wait()
		holds("keys-away", 300)
	})
	t.Run("1000 through two while balance is killed twice", func(t *testing.T) {
		wait := once(t, "keys-1000", 1000, 0, first, second)
		for range 2 {
			pause(300 * time.Millisecond)
			f.kill9("balance")
			f.start("balance")
			f.awaitReady(60*time.Second, "balance")
		}
		wait()
		holds("keys-1000", 1000)
	})
	f.mustVerify()
}
