package test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestKillsInMidStream kills the embedded broker with -9 in the middle of a stream of
// LINES (40,000) deposits to one wallet, KILLS times (2), and starts it again. It has
// then forgotten whose batches it holds, so that what the API repeats is appended
// again. Each line must count as it was answered all the same.
func TestKillsInMidStream(t *testing.T) {
	kills, lines := int(number(t, "KILLS", 2)), int(number(t, "LINES", 40_000))
	rnd, _ := seeded(t)
	addr := freeAddr(t)
	broker, err := startEmbedded(addr, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Stop)
	f := newFleet(t, addr)
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	c, o := newClient(t, f.addr["api"]), newOracle(t, broker.Addrs())
	repeats := 0
	for n := range kills {
		_, from, err := o.bounds("deposit")
		if err != nil {
			t.Fatal(err)
		}
		l := newLedger(n, 1)
		entries := make([]*entry, lines)
		for i := range entries {
			entries[i] = &entry{wallet: l.wallets[0], nanos: l.nanos(100), verdict: unknown}
		}
		var sent atomic.Int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			l.lines(context.Background(), c, entries, func(i int) { sent.Store(int64(i)) })
		}()
		kill := int64(lines/10 + rnd.IntN(lines*8/10))
		eventually(streamLimit, func() bool { return sent.Load() >= kill })
		broker.Kill(0)
		pause(between(rnd, 0, 500*time.Millisecond))
		if err := broker.Restart(0); err != nil {
			t.Fatal(err)
		}
		<-ended
		f.awaitReady(60*time.Second, services...)

		var bad []string
		var v verdicts
		if !eventually(60*time.Second, func() bool {
			log, err := o.read("deposit", from)
			if err != nil {
				bad = []string{err.Error()}
				return false
			}
			v = fold(log, firstPartitions)
			tables, err := o.tableFaults(v, l.wallets, 2*time.Minute)
			if bad = append(ledgerFaults(l, v), tables...); err != nil {
				bad = append(bad, err.Error())
			}
			if got, ok, err := c.check(l.wallets[0], ""); err != nil || !ok || got.nanos != v.balance(l.wallets[0]) {
				bad = append(bad, fmt.Sprintf("the API shows %v (%t, %v), want %s", got, ok, err, decimal(v.balance(l.wallets[0]))))
			}
			return len(bad) == 0
		}) {
			t.Fatalf("kill %d: %d faults found:\n%s", n+1, len(bad), strings.Join(bad[:min(len(bad), 15)], "\n"))
		}
		counts, again := l.count(), len(v.log)-len(v.wallets[l.wallets[0]])
		repeats += again
		t.Logf("kill %d, after line %d: exact. %d acknowledged, %d refused, %d unknown; %d stand in the log again",
			n+1, kill, counts[acked], counts[refused], counts[unknown], again)
	}
	t.Logf("%d kills; %d deposits stood in the log again", kills, repeats)
	f.mustVerify()
}
