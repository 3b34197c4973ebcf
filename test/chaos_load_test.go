package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"
)

// entry is one deposit that a client made, recognised in the log by its amount:
// no two are equal.
type entry struct {
	wallet   string
	nanos    int64
	key      string
	verdict  verdict
	position string // told by an acknowledgement
}

// sight is one balance that a client saw on one API instance.
type sight struct {
	api, wallet string
	nanos       int64
	position    string // of its own deposit that the answer must hold; may be empty
}

// ledger is all that the clients of one round were told.
type ledger struct {
	wallets []string
	gate    sync.RWMutex // held shared by who deposits
	mu      sync.Mutex
	entries map[int64]*entry // by nanos
	sights  []sight          // in order for each API instance and wallet
	broken  []string
	// misplaced are answers that a position is of another partition than its wallet's.
	misplaced []string
	next      int64
}

func newLedger(round int, wallets int) *ledger {
	l := &ledger{entries: map[int64]*entry{}}
	for i := range wallets {
		l.wallets = append(l.wallets, fmt.Sprintf("c-%s-%d-%02d", runID, round, i))
	}
	return l
}

// nanos makes an amount of some cents that no other deposit of the round has.
func (l *ledger) nanos(cents int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return cents*(nano/100) + l.next
}

func (l *ledger) note(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[e.nanos] = e
}

// hold lets clients finish the deposits under way and begin none until resume.
func (l *ledger) hold() (resume func()) {
	l.gate.Lock()
	return l.gate.Unlock
}

func (l *ledger) told(e *entry, a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.verdict, e.position = a.verdict, a.position
	if a.verdict == broken {
		l.broken = append(l.broken, a.detail)
		e.verdict = unknown
	}
}

func (l *ledger) saw(s sight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sights = append(l.sights, s)
}

func (l *ledger) count() (counts [3]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		counts[e.verdict]++
	}
	return counts
}

// run lets clients of every API instance deposit and read until ctx is done, and
// then get their answers: with Idempotency-Keys they ask until they have one.
func (l *ledger) run(ctx context.Context, seed uint64, apis []*client) {
	var wg sync.WaitGroup
	for worker := range 8 {
		rnd := rand.New(rand.NewPCG(seed, uint64(worker)))
		c := apis[worker%len(apis)]
		wg.Go(func() {
			for ctx.Err() == nil {
				i := rnd.IntN(len(l.wallets))
				// The higher a wallet's number the larger its deposits: some cross the
				// threshold, some never do.
				e := &entry{wallet: l.wallets[i], verdict: unknown,
					nanos: l.nanos(1 + rnd.Int64N(int64(20_000+9_000*i)))}
				if worker >= 6 {
					e.key = strconv.FormatUint(rnd.Uint64(), 36)
				}
				l.deposit(ctx, c, apis, e, rnd)
				l.pause(ctx, time.Duration(rnd.IntN(20))*time.Millisecond)
			}
		})
	}
	for i, c := range apis {
		rnd := rand.New(rand.NewPCG(seed, uint64(200+i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				l.stream(ctx, c, apis, rnd)
				l.pause(ctx, 300*time.Millisecond)
			}
		})
	}
	for i, c := range apis {
		rnd := rand.New(rand.NewPCG(seed, uint64(100+i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				l.look(c, l.wallets[rnd.IntN(len(l.wallets))], "")
				l.pause(ctx, 5*time.Millisecond)
			}
		})
	}
	wg.Wait()
}

// patience is how long after the end of the faults a client asks for its answer.
const patience = 90 * time.Second

// single makes a deposit in a request of its own.
func (l *ledger) single(c *client, e *entry) answer {
	l.note(e)
	l.gate.RLock()
	defer l.gate.RUnlock()
	a := c.post(e.wallet, decimal(e.nanos), e.key)
	l.told(e, a)
	return a
}

func (l *ledger) deposit(ctx context.Context, c *client, apis []*client, e *entry, rnd *rand.Rand) {
	if e.key == "" {
		a := l.single(c, e)
		if a.verdict == acked && rnd.IntN(4) == 0 { // read your writes, at whichever API
			l.look(apis[rnd.IntN(len(apis))], e.wallet, a.position)
		}
		return
	}
	var healed time.Time
	for ; ; pause(100 * time.Millisecond) {
		a := l.single(apis[rnd.IntN(len(apis))], e)
		if a.verdict == acked || a.verdict == broken {
			return
		}
		if ctx.Err() == nil {
			continue
		}
		if healed.IsZero() {
			healed = time.Now()
		} else if time.Since(healed) > patience {
			return
		}
	}
}

// stream makes 200 deposits in one request, to a few wallets, some with a key; what
// became of those is then asked for singly.
func (l *ledger) stream(ctx context.Context, c *client, apis []*client, rnd *rand.Rand) {
	entries := make([]*entry, 200)
	first := rnd.IntN(len(l.wallets) - 2)
	for i := range entries {
		entries[i] = &entry{wallet: l.wallets[first+rnd.IntN(3)], verdict: unknown, nanos: l.nanos(1 + rnd.Int64N(40_000))}
		if rnd.IntN(10) == 0 {
			entries[i].key = strconv.FormatUint(rnd.Uint64(), 36)
		}
	}
	l.lines(ctx, c, entries, func(i int) {
		if i%20 == 19 {
			l.pause(ctx, 5*time.Millisecond)
		}
	})
	for _, e := range entries {
		if e.key != "" && e.verdict != acked && e.verdict != broken {
			l.deposit(ctx, c, apis, e, rnd)
		}
	}
}

// lines makes deposits in one request, and calls sent after each that is sent.
func (l *ledger) lines(ctx context.Context, c *client, entries []*entry, sent func(i int)) {
	l.gate.RLock()
	defer l.gate.RUnlock()
	for _, e := range entries {
		l.note(e)
	}
	body := func(yield func(string) bool) {
		for i, e := range entries {
			line := fmt.Sprintf(`{"wallet_id":%q,"amount":%s`, e.wallet, decimal(e.nanos))
			if e.key != "" {
				line += fmt.Sprintf(`,"idempotency_key":%q`, e.key)
			}
			if !yield(line + "}\n") {
				return
			}
			sent(i)
		}
	}
	c.stream(context.WithoutCancel(ctx), body, len(entries), func(i int, a answer) { l.told(entries[i], a) })
}

// look notes what an API shows of a wallet, and says if it showed anything.
func (l *ledger) look(c *client, wallet, position string) bool {
	s, ok, err := c.check(wallet, position)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if position != "" && strings.Contains(err.Error(), "invalid-position") {
			l.misplaced = append(l.misplaced, err.Error())
		} else {
			l.broken = append(l.broken, err.Error())
		}
	} else if ok {
		l.saw(sight{c.base, wallet, s.nanos, position})
	}
	return ok
}

func (l *ledger) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
