//go:build kafka

package test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// maxUnknown is how many deposits of one wallet may be of unknown fate before
// the load leaves it alone: it must stay possible to try all subsets.
const maxUnknown = 16

// account is what the load knows about one wallet.
type account struct {
	acked     int64            // nanos
	positions map[string]int64 // of acknowledged deposits without a key → nanos
	unknown   []int64          // nanos of each
	count     int              // acknowledged
	keyed     bool             // every deposit carries an Idempotency-Key and is retried until acknowledged
}

// load posts deposits to many wallets and keeps a ledger of what it was told.
type load struct {
	client  *client
	wallets []string
	seed    uint64
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu       sync.Mutex
	accounts map[string]*account
	refused  int
	broken   []string
}

// startLoad lets 6 workers post to n wallets, and 2 more to n/5 others with
// Idempotency-Keys, each after a pause. The larger a wallet's number, the larger its
// deposits, so that with a period of some seconds some cross the threshold and
// some do not. Stop it with finish.
func startLoad(t *testing.T, c *client, name string, n int, seed uint64, every time.Duration) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{client: c, seed: seed, cancel: cancel, accounts: map[string]*account{}}
	t.Cleanup(func() { l.cancel(); l.wg.Wait() })
	for i := range n + n/5 {
		w := fmt.Sprintf("%s-%s-%02d", name, runID, i)
		l.wallets = append(l.wallets, w)
		l.accounts[w] = &account{positions: map[string]int64{}, keyed: i >= n}
	}
	for worker := range 8 {
		from, to := 0, n
		if worker >= 6 {
			from, to = n, n+n/5
		}
		rnd := rand.New(rand.NewPCG(seed, uint64(worker)))
		l.wg.Go(func() {
			for ctx.Err() == nil {
				i := from + rnd.IntN(to-from)
				cents := 1 + rnd.Int64N(int64(20_000+9_000*(i%50)))
				l.deposit(l.wallets[i], cents*nano/100, fmt.Sprintf("%x", rnd.Uint64()))
				select {
				case <-ctx.Done():
				case <-time.After(every):
				}
			}
		})
	}
	return l
}

// deposit makes one deposit and notes what came of it.
func (l *load) deposit(wallet string, nanos int64, key string) {
	l.mu.Lock()
	a := l.accounts[wallet]
	leave := len(a.unknown) >= maxUnknown
	l.mu.Unlock()
	if leave {
		return
	}
	var got answer
	if a.keyed {
		// To be sure, as the contract has it: again until there is an answer.
		for deadline := time.Now().Add(90 * time.Second); ; pause(100 * time.Millisecond) {
			got = l.client.post(wallet, decimal(nanos), key)
			if got.verdict == acked || got.verdict == broken || time.Now().After(deadline) {
				break
			}
		}
	} else {
		got = l.client.post(wallet, decimal(nanos), "")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch got.verdict {
	case acked:
		a.acked += nanos
		a.count++
		if !a.keyed {
			a.positions[got.position] = nanos
		}
	case refused:
		l.refused++
	case unknown:
		a.unknown = append(a.unknown, nanos)
	case broken:
		l.broken = append(l.broken, got.detail)
	}
}

// finish stops the load and waits for the answers that are still due.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	n, unknowns := 0, 0
	for _, a := range l.accounts {
		n += a.count
		unknowns += len(a.unknown)
		if a.keyed && len(a.unknown) > 0 {
			t.Errorf("%d deposits with an Idempotency-Key got no answer in 90 s of retrying", len(a.unknown))
		}
	}
	t.Logf("load: %d deposits acknowledged, %d refused, %d of unknown fate", n, l.refused, unknowns)
	if n == 0 {
		t.Error("not one deposit was acknowledged")
	}
	if len(l.broken) > 0 {
		t.Errorf("%d answers the contract does not know, first: %s", len(l.broken), l.broken[0])
	}
}

// settle waits until every wallet of the load shows what the log demands, and
// then holds the log against the ledger. from is where the load's deposits begin.
func (l *load) settle(t *testing.T, log *kafkaLog, from map[int32]int64, period time.Duration) {
	t.Helper()
	began := time.Now()
	var want, got map[string]state
	settled := eventually(60*time.Second, func() bool {
		want = judge(log.deposits(from), period)
		got = map[string]state{}
		for _, w := range l.wallets {
			s, ok, err := l.client.check(w, "")
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				got[w] = s
			}
		}
		return len(l.differences(got, want)) == 0
	})
	if !settled {
		d := l.differences(got, want)
		t.Errorf("%d wallets are wrong 60 s after the load ended:\n%s", len(d), strings.Join(d[:min(len(d), 10)], "\n"))
		return
	}
	above := 0
	for _, s := range got {
		if s.above {
			above++
		}
	}
	t.Logf("caught up %v after the load ended; %d of %d wallets are above the threshold",
		time.Since(began).Round(time.Millisecond), above, len(l.wallets))
	if above == 0 || above == len(l.wallets) {
		t.Errorf("%d of %d wallets are above the threshold: this run says nothing about flags", above, len(l.wallets))
	}
	l.audit(t, log.deposits(from), got)
}

func (l *load) differences(got, want map[string]state) []string {
	var d []string
	for _, w := range l.wallets {
		s, ok := got[w]
		if !ok {
			d = append(d, w+": no answer")
		} else if s != want[w] {
			d = append(d, fmt.Sprintf("%s: %v, want %v", w, s, want[w]))
		}
	}
	return d
}

// audit holds balances and log against what the clients were told.
func (l *load) audit(t *testing.T, log []stored, got map[string]state) {
	t.Helper()
	at := map[string]stored{}
	for _, d := range log {
		at[d.position] = d
	}
	for _, w := range l.wallets {
		a := l.accounts[w]
		if rest := got[w].nanos - a.acked; !isSubsetSum(a.unknown, rest) {
			t.Errorf("%s: balance %s is not the acknowledged %s plus some of the %d unknown deposits",
				w, decimal(got[w].nanos), decimal(a.acked), len(a.unknown))
		}
		for position, nanos := range a.positions {
			if d := at[position]; d.wallet != w || d.nanos != nanos {
				t.Errorf("%s: the deposit of %s acknowledged at %s is not there: %+v", w, decimal(nanos), position, d)
			}
		}
	}
}

// isSubsetSum says whether some of the parts, or none, add up to sum.
func isSubsetSum(parts []int64, sum int64) bool {
	sums := map[int64]bool{0: true}
	for _, p := range parts {
		for _, s := range slices.Collect(maps.Keys(sums)) {
			sums[s+p] = true
		}
	}
	return sums[sum]
}
