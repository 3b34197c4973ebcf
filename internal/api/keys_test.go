package api_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"coinbit/internal/api"
	"coinbit/internal/flagged"
	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// cluster is one partition of a log, a balance group that folds it now and then and is
// away at times, and the rows that it wrote, which views follow at their own pace: a
// row holds as many deposits as balance folded in one go.
type cluster struct {
	mu    sync.Mutex
	r     *rand.Rand
	lossy bool // the log is at times not known to have taken a deposit

	log     []*pb.Deposit
	account wallet.Account
	folded  int
	away    bool
	rows    []wallet.Account // of wallet w, in their order
	counted map[string]int   // keys
	stale   int
}

func (c *cluster) random(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.IntN(n)
}

func (c *cluster) set(x *bool, to bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*x = to
}

// append has the log take d after a while.
func (c *cluster) append(d *pb.Deposit, done func(api.Position, error)) {
	go func() {
		time.Sleep(time.Duration(c.random(10)) * time.Millisecond)
		late := c.lossy && c.random(10) == 0
		if late {
			done(api.Position{}, api.ErrUnknown)
			if c.random(2) == 0 {
				return
			}
			time.Sleep(time.Duration(c.random(20_000)) * time.Millisecond)
		}
		c.mu.Lock()
		c.log = append(c.log, d)
		at := api.Position{Partition: partition, Offset: int64(len(c.log) - 1)}
		c.mu.Unlock()
		if !late {
			done(at, nil)
		}
	}()
}

// fold is the balance group.
func (c *cluster) fold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away || c.folded == len(c.log) {
		return
	}
	for ; c.folded < len(c.log); c.folded++ {
		d := c.log[c.folded]
		switch c.account.Apply(wallet.Deposit{Amount: wallet.Amount{Units: 1}, At: d.AcceptedAtMs, Offset: int64(c.folded),
			Key: wallet.HashKey(d.IdempotencyKey), HasKey: true, KeyChecked: d.KeyChecked}) {
		case wallet.Applied:
			c.counted[d.IdempotencyKey]++
		case wallet.KeyStale:
			c.stale++
		}
	}
	row := c.account
	row.RecentKeys = slices.Clone(row.RecentKeys)
	c.rows = append(c.rows, row)
}

// view is what one API has of a cluster, and its log.
type view struct {
	*cluster
	shown  int // rows
	forgot map[wallet.KeyHash]wallet.KeyUse
	stuck  bool
}

func (v *view) row() wallet.Account {
	if v.shown == 0 {
		return wallet.Account{}
	}
	return v.rows[v.shown-1]
}

// follow shows the next row.
func (v *view) follow() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stuck || v.shown == len(v.rows) {
		return
	}
	next := v.rows[v.shown]
	for _, use := range v.row().RecentKeys {
		if next.ForgotSince(use.Offset) {
			v.forgot[use.Hash] = use
		}
	}
	v.shown++
}

func (v *view) Append(context.Context, <-chan struct{}, *pb.Deposit) (api.Position, error) {
	panic("without a key")
}
func (v *view) Send(d *pb.Deposit, done func(api.Position, error)) error {
	if v.random(20) == 0 {
		return api.ErrRefused
	}
	v.append(d, done)
	return nil
}
func (v *view) Ready() error { return nil }
func (v *view) Balance(string) (wallet.Account, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.row(), nil
}
func (v *view) Forgotten(_ string, h wallet.KeyHash) (wallet.KeyUse, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	use, ok := v.forgot[h]
	return use, ok
}
func (v *view) Epoch() uint64                                { return 0 }
func (v *view) Counter(string) (c wallet.Counter, err error) { return c, nil }
func (v *view) Flag(string) (f wallet.Flag, err error)       { return f, nil }
func (v *view) Flagged(*flagged.Entry, int) ([]flagged.Entry, bool, error) {
	return nil, false, nil
}
func (v *view) Watch(string) (<-chan struct{}, func()) {
	changed := make(chan struct{}, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, func() { close(stop) }
}

// every does something again and again until the test is over.
func every(wg *sync.WaitGroup, stop <-chan struct{}, pause func() time.Duration, do func()) {
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(pause()):
				do()
			}
		}
	})
}

// Clients that do as 503 and 504 say, each with a key of its own, through any of the
// APIs: each key counts once, whatever becomes of answers, balance, views and APIs.
func TestKeysCountOnce(t *testing.T) {
	refused := 0
	for seed := range uint64(16) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			c := &cluster{r: r, counted: map[string]int{}, lossy: seed%2 == 1}
			clients, crashes := 300, seed%4 == 3
			patience := 12_000 // of a client, in milliseconds
			if seed%8 < 4 {
				patience = 300
			}
			if crashes { // what an API remembers beyond the row ends with it
				clients = 100
			}
			var background sync.WaitGroup
			stop := make(chan struct{})
			random := func(most int) func() time.Duration {
				return func() time.Duration { return time.Duration(1+c.random(most)) * time.Millisecond }
			}
			every(&background, stop, random(20), c.fold)
			every(&background, stop, random(4000), func() { c.set(&c.away, c.random(3) > 0) })
			var mu sync.Mutex
			handlers := make([]http.Handler, 3)
			lives := make([]context.Context, 3)
			ends := make([]context.CancelFunc, 3)
			views := make([]*view, 3)
			begin := func(i int) {
				v := views[i]
				v.mu.Lock()
				v.shown = max(0, v.shown-v.r.IntN(3)) // what was on disk
				v.forgot = map[wallet.KeyHash]wallet.KeyUse{}
				v.mu.Unlock()
				handlers[i] = newWorld().handler(t, func(o *api.Options) {
					o.Log, o.Tables = v, v
				})
				lives[i], ends[i] = context.WithCancel(context.Background())
			}
			for i := range views {
				views[i] = &view{cluster: c}
				begin(i)
				every(&background, stop, random(3), views[i].follow)
				every(&background, stop, random(3000), func() { c.set(&views[i].stuck, i > 0 && c.random(3) == 0) })
			}
			if crashes {
				every(&background, stop, random(8000), func() {
					mu.Lock()
					defer mu.Unlock()
					i := c.random(len(views))
					ends[i]()
					begin(i)
				})
			}
			var all sync.WaitGroup
			for n := range clients {
				all.Go(func() {
					for try := 1; ; try++ {
						mu.Lock()
						i := c.random(len(handlers))
						h, life := handlers[i], lives[i]
						mu.Unlock()
						ctx, gone := context.WithTimeout(life, random(patience)())
						rec := httptest.NewRecorder()
						h.ServeHTTP(rec, post(one, fmt.Sprintf("Idempotency-Key: k%d", n)).WithContext(ctx))
						told := ctx.Err() == nil // else the client is gone, or has no answer
						gone()
						switch {
						case told && rec.Code == 200:
							return
						case told && rec.Code != 503 && rec.Code != 504 || try == 5000:
							t.Errorf("try %d: %d %s", try, rec.Code, rec.Body)
							return
						}
						time.Sleep(random(min(2000, patience))())
					}
				})
			}
			all.Wait()
			close(stop)
			background.Wait()
			time.Sleep(time.Minute) // what is late in the log
			c.set(&c.away, false)
			c.fold()
			if len(c.counted) != clients || c.account.Balance.String() != fmt.Sprint(clients) {
				t.Errorf("seed %d: %d keys, balance %s, want %d", seed, len(c.counted), c.account.Balance, clients)
			}
			refused += c.stale
			for _, end := range ends {
				end()
			}
		})
	}
	t.Logf("%d deposits were refused as stale", refused)
}
