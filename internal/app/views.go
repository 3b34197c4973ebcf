package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"

	"coinbit/internal/api"
	"coinbit/internal/flagged"
	"coinbit/internal/kafka"
	"coinbit/internal/store"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// tables answers the API from three Goka views. It is the API's api.Tables.
type tables struct {
	views    map[stream.Group]*view
	watchers watchers
	flags    flagList
	keys     *forgotten
	ledger   *ledger
}

var _ api.Tables = (*tables)(nil)

func newTables(rt *Runtime) *tables {
	t := &tables{views: make(map[stream.Group]*view), flags: flagList{log: rt.log}, keys: newForgotten(maxForgotten), ledger: &rt.ledger}
	for _, g := range stream.Groups() {
		v := &view{Runtime: rt, name: g, group: groups[g], table: g.Table(), changed: t.watchers.notify}
		v.log = rt.log.With("view", string(v.table))
		t.views[g] = v
		rt.health.add("view "+string(v.table), v.ready)
	}
	t.views[stream.FlaggerGroup].follow = t.flags.follow
	t.views[stream.BalanceGroup].keys = t.keys
	return t
}

// run keeps all views up until ctx is done.
func (t *tables) run(ctx context.Context, rt *Runtime) error {
	var fs []func(context.Context) error
	for _, v := range t.views {
		fs = append(fs, func(ctx context.Context) error {
			return rt.supervise(ctx, "view "+string(v.table), v.attempt)
		})
	}
	return parallel(ctx, fs...)
}

// Ready is nil once every view has caught up.
func (t *tables) Ready() error {
	for _, g := range stream.Groups() {
		if err := t.views[g].ready(); err != nil {
			return fmt.Errorf("%s: %w", t.views[g].table, err)
		}
	}
	if t.ledger.apart.Load() {
		return errCatchingUp // another log has taken this one's place
	}
	return nil
}

func (t *tables) Balance(walletID string) (wallet.Account, error) {
	row, err := t.views[stream.BalanceGroup].get(walletID)
	if err != nil {
		return wallet.Account{}, err
	}
	account, err := stream.LoadBalance(row)
	return *account, err
}

func (t *tables) Forgotten(walletID string, h wallet.KeyHash) (wallet.KeyUse, bool) {
	return t.keys.find(walletID, h)
}

func (t *tables) Epoch() uint64 { return t.keys.epoch.Load() }

func (t *tables) Counter(walletID string) (wallet.Counter, error) {
	row, err := t.views[stream.ThresholdGroup].get(walletID)
	if err != nil {
		return wallet.Counter{}, err
	}
	counter, err := stream.LoadCounter(row)
	return *counter, err
}

func (t *tables) Flag(walletID string) (wallet.Flag, error) {
	row, err := t.views[stream.FlaggerGroup].get(walletID)
	if err != nil {
		return wallet.Flag{}, err
	}
	return stream.LoadFlag(row)
}

func (t *tables) Flagged(after *flagged.Entry, n int) ([]flagged.Entry, bool, error) {
	return t.flags.page(after, n)
}

func (t *tables) Watch(walletID string) (<-chan struct{}, func()) { return t.watchers.watch(walletID) }

// view is one Goka view across the ones built for it. Goka answers nil, not an
// error, while a view catches up, so nothing is served before it has once; a
// reconnect later serves what is held.
type view struct {
	*Runtime
	group
	name    stream.Group
	table   goka.Table
	log     *slog.Logger
	changed func(walletID string)
	follow  func() follower // nil: nobody does
	tell    *onlooker       // nil: nobody
	keys    *forgotten      // nil: they are not remembered

	caughtUp atomic.Pointer[goka.View]
	reading  sync.RWMutex // read-locked while caughtUp is read
}

var errCatchingUp = errors.New("catching up")

func (v *view) ready() error {
	if v.caughtUp.Load() == nil {
		return errCatchingUp
	}
	return nil
}

// serve gives readers another view, once none reads the last one.
func (v *view) serve(view *goka.View) {
	v.reading.Lock()
	defer v.reading.Unlock()
	v.caughtUp.Store(view)
}

func (v *view) get(walletID string) (any, error) {
	v.reading.RLock()
	defer v.reading.RUnlock()
	view := v.caughtUp.Load()
	if view == nil {
		return nil, errCatchingUp
	}
	return view.Get(walletID)
}

// still is err, which says that the table does not go with the topic written to, if both
// are still those of which it speaks. Topics are read by name: one made anew may tell of
// its input before anybody has noticed that it is another one.
func (v *view) still(ctx context.Context, c kafka.Cluster, err error) error {
	now, gone := v.client.Inspect(ctx, stream.TopicsIn(stream.RightsOf("api")))
	switch {
	case gone != nil:
		return gone
	case now.TopicIDs[string(v.table)] != c.TopicIDs[string(v.table)] || !v.ledger.goesTo(now):
		return fmt.Errorf("%w: %s", kafka.ErrMoved, v.table)
	}
	return err
}

// attempt builds a view and runs it until it ends.
func (v *view) attempt(ctx context.Context) error {
	cluster, err := v.ensureFor(ctx, stream.RightsOf("api", string(v.table)))
	if err != nil {
		return err
	}
	client := v.client.In(cluster)
	v.tell.partitions(cluster.Partitions)
	dir, err := store.Claim(v.cfg.StateDir, cluster.ID, "view-"+string(v.table))
	if err != nil {
		return usageError{err}
	}
	defer func() { _ = dir.Close() }()
	ends, err := client.HighWaters(ctx, string(v.table))
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	storage, err := dir.Builder(string(v.table), cluster.TopicIDs[string(v.table)], store.Follow,
		func(partition int32, s *store.Store) {
			s.Limit(ends[partition])
			s.Memory(v.stateMemory(2 * int(cluster.Partitions) * len(stream.Groups())))
			s.OnBroken(fail)
		})
	if err != nil {
		return err
	}
	said := func(input []byte) {
		if err := v.ledger.read(v.name, folded{cluster.TopicIDs[string(v.table)], string(input)}); err != nil {
			fail(v.still(ctx, cluster, err))
		}
	}
	storage = remembered(storage, said)
	v.ledger.follow(v.name, cluster.TopicIDs[string(v.table)])
	if v.keys != nil {
		v.keys.follow(cluster.ID + " " + cluster.TopicIDs[string(v.table)])
	}
	var listener follower
	if v.follow != nil {
		listener = v.follow()
		storage = followed(storage, listener)
	}
	var clients closers // Goka's view never closes the clients it builds
	defer clients.close()
	stale := v.metrics.staleRows.WithLabelValues(string(v.table))
	view, err := goka.NewView(client.Brokers(), v.table, v.codec,
		goka.WithViewLogger(gokaLogger{v.log}),
		goka.WithViewHasher(stream.NewHasher),
		goka.WithViewStorageBuilder(storage),
		goka.WithViewCallback(v.updated(newUpdater(v.version, stale), listener, said)),
		goka.WithViewAutoReconnect(),
		goka.WithViewBackoffBuilder(func() (goka.Backoff, error) {
			return goka.NewSimpleBackoff(firstBackoff, maxBackoff), nil
		}),
		goka.WithViewConsumerSaramaBuilder(func(brokers []string, clientID string) (sarama.Consumer, error) {
			reader, err := client.Reader(brokers, clientID)
			if err != nil {
				return nil, err
			}
			return keep(&clients, kafka.Telling(reader, func(err error) { fail(err) }), nil)
		}),
		goka.WithViewTopicManagerBuilder(func(brokers []string) (goka.TopicManager, error) {
			manager, err := client.TopicManager(brokers)
			return keep(&clients, manager, err)
		}),
	)
	if err != nil {
		return fmt.Errorf("build view: %w", err)
	}
	var waiter sync.WaitGroup
	waiter.Add(1)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer waiter.Done()
		defer stop() // only when nobody reads it: Goka closes a view under its readers
		started := time.Now()
		select {
		case <-view.WaitRunning():
			if ctx.Err() != nil {
				return // it is not what it was taken for
			}
			if listener != nil {
				listener.served()
			}
			v.serve(view)
			v.log.Info("view has caught up", "after", time.Since(started).Round(time.Millisecond))
			debug.FreeOSMemory() // recovery leaves much garbage
			<-ctx.Done()
			v.serve(nil)
		case <-ctx.Done():
		}
	}()
	wait := follow(ctx, client, fail)
	err = view.Run(running)
	told := context.Cause(ctx)
	fail(nil)
	wait()
	waiter.Wait()
	if told != nil && !errors.Is(told, context.Canceled) {
		return told
	}
	return err
}

// remembered tells what the storages that b builds say of their table's input, as they
// open: its record is read once, by an earlier run perhaps.
func remembered(b storage.Builder, said func(input []byte)) storage.Builder {
	return func(topic string, partition int32) (storage.Storage, error) {
		s, err := b(topic, partition)
		return rememberedStorage{s, said}, err
	}
}

type rememberedStorage struct {
	storage.Storage
	said func(input []byte)
}

func (s rememberedStorage) Open() error {
	if err := s.Storage.Open(); err != nil {
		return err
	}
	input, err := s.Get(stream.InputKey)
	if input != nil {
		s.said(input)
	}
	return err
}

// updated applies a record, tells listener, if there is one, and wakes those
// who wait for its wallet.
func (v *view) updated(keep updater, listener follower, said func(input []byte)) goka.UpdateCallback {
	return func(ctx goka.UpdateContext, s storage.Storage, key string, value []byte) error {
		if stream.Reserved(key) {
			if key != stream.InputKey {
				return nil
			}
			said(value)
			return s.Set(key, value)
		}
		if err := v.keys.before(s, key, value); err != nil {
			return err
		}
		was, show := v.tell.before(s, key)
		verdict, err := keep(s, key, value)
		if verdict == taken {
			if listener != nil && err == nil {
				listener.row(key, value)
			}
			v.changed(key)
			v.tell.after(key, ctx.Partition(), was, value, show)
		}
		return err
	}
}

// closers are clients to close when a view has ended.
type closers []io.Closer

func (c *closers) close() {
	for _, x := range *c {
		_ = x.Close()
	}
}

// keep adds what a builder made to c.
func keep[T io.Closer](c *closers, x T, err error) (T, error) {
	if err == nil {
		*c = append(*c, x)
	}
	return x, err
}

// watchers wakes those who wait for a wallet's rows to change.
type watchers struct {
	n  atomic.Int64
	mu sync.Mutex
	m  map[string]map[chan struct{}]struct{}
}

// watch registers a waiter; each change gives its channel a token.
func (w *watchers) watch(walletID string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m == nil {
		w.m = make(map[string]map[chan struct{}]struct{})
	}
	if w.m[walletID] == nil {
		w.m[walletID] = make(map[chan struct{}]struct{})
	}
	w.m[walletID][c] = struct{}{}
	w.n.Add(1)
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.n.Add(-1)
		delete(w.m[walletID], c)
		if len(w.m[walletID]) == 0 {
			delete(w.m, walletID)
		}
	}
}

// notify costs one atomic load while nobody waits.
func (w *watchers) notify(walletID string) {
	if w.n.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.m[walletID] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
