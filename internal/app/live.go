package app

import (
	"sync/atomic"
	"time"

	"github.com/lovoo/goka/storage"

	"coinbit/internal/live"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// How the live page is told: see docs/decisions/18-live-page.md.
const (
	liveTick     = 250 * time.Millisecond
	liveLook     = time.Second
	liveWatchers = 64
	// sightTimeout bounds a look at Kafka, deniedPause how soon it is asked again for
	// what it denied: each question stands in its audit log.
	sightTimeout = 3 * time.Second
	deniedPause  = time.Minute
)

// newHub is the live page's source. It knows of the groups only what Kafka and
// their tables tell.
func newHub(rt *Runtime, log *deposits, views *tables) (*live.Hub, error) {
	l := &lookout{Runtime: rt, deposits: log, views: views,
		onlookers: make(map[stream.Group]*onlooker), denied: make(map[stream.Group]time.Time)}
	hub, err := live.New(live.Options{
		Tick: liveTick, StateEvery: liveLook, Watchers: liveWatchers, State: l.state,
		Hello: map[string]any{
			"threshold": rt.cfg.ThresholdAmount.String(), "period_ms": rt.cfg.RollingPeriod.Milliseconds(),
		},
	})
	if err != nil {
		return nil, err
	}
	for g, v := range views.views {
		o := &onlooker{hub: hub, version: v.version, ready: func() bool { return v.ready() == nil }}
		switch g {
		case stream.BalanceGroup:
			o.choose = hub.Count
			o.show = func(key string, was, is []byte) { showDeposit(hub, rt.now(), key, was, is) }
		case stream.FlaggerGroup:
			o.choose = hub.Room
			o.show = func(key string, was, is []byte) { showFlag(hub, key, was, is) }
		}
		v.tell, l.onlookers[g] = o, o
	}
	return hub, nil
}

// onlooker tells the hub what a view takes. A view's partitions call it at once.
type onlooker struct {
	hub     *live.Hub
	version func(row []byte) int64
	ready   func() bool // what a view recovers is no news
	// choose picks the records to show; nil: none.
	choose func() bool
	show   func(key string, was, is []byte)
	// applied is the highest version seen, by partition.
	applied atomic.Pointer[[]atomic.Int64]
}

// partitions says how many there are, before the first record.
func (o *onlooker) partitions(n int32) {
	if o != nil {
		seen := make([]atomic.Int64, n)
		o.applied.Store(&seen)
	}
}

// before tells whether the record in hand is one to show, and which row it
// replaces: once the view has taken it, that is gone.
func (o *onlooker) before(s storage.Storage, key string) (was []byte, show bool) {
	if o == nil || o.choose == nil || !o.ready() || !o.choose() {
		return nil, false
	}
	was, err := s.Get(key)
	return was, err == nil // the view fails with it too
}

// after tells of a record that the view took.
func (o *onlooker) after(key string, partition int32, was, is []byte, show bool) {
	if o == nil || !o.hub.Watched() {
		return
	}
	if seen := o.applied.Load(); seen != nil && int(partition) < len(*seen) {
		raise(&(*seen)[partition], o.version(is))
	}
	if show {
		o.show(key, was, is)
	}
}

// raise makes x at least v.
func raise(x *atomic.Int64, v int64) {
	for old := x.Load(); v > old && !x.CompareAndSwap(old, v); old = x.Load() {
	}
}

func showDeposit(hub *live.Hub, now time.Time, walletID string, was, is []byte) {
	before, err := balanceRow(was)
	after, err2 := balanceRow(is)
	// A row that is written again tells of no deposit, one of several at once of none alone.
	if err != nil || err2 != nil || after.Deposits != before.Deposits+1 {
		return
	}
	hub.Show(live.Deposit{
		WalletID: walletID, Amount: after.Balance.Minus(before.Balance).String(), Balance: after.Balance.String(),
		At: after.LastAt, DelayMs: max(0, now.UnixMilli()-after.LastAt), // clocks differ
	})
}

func showFlag(hub *live.Hub, walletID string, was, is []byte) {
	before, err := flagRow(was)
	after, err2 := flagRow(is)
	if err != nil || err2 != nil || before.Raised() == after.Raised() {
		return
	}
	f := live.Flag{WalletID: walletID, Raised: after.Raised(), At: after.LastRemovalAt}
	if f.Raised {
		var by wallet.RaisedBy
		if by, f.At = after.RaisedBy(); by == wallet.ByCrossing {
			f.Total = after.Evidence.Total.String()
		}
	}
	hub.ShowFlag(f)
}

// balanceRow is the row in these bytes; of no bytes a wallet never seen.
func balanceRow(data []byte) (*wallet.Account, error) {
	if data == nil {
		return new(wallet.Account), nil
	}
	row, err := new(stream.BalanceEncoder).Decode(data)
	if err != nil {
		return nil, err
	}
	return stream.LoadBalance(row)
}

func flagRow(data []byte) (wallet.Flag, error) {
	if data == nil {
		return wallet.Flag{}, nil
	}
	row, err := new(stream.FlagEncoder).Decode(data)
	if err != nil {
		return wallet.Flag{}, err
	}
	return stream.LoadFlag(row)
}
