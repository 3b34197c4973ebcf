package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/api"
	"coinbit/internal/flagged"
	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

const partition = 3

// world is a log of one partition and the tables folded from it, by the real
// core. Each table applies at once, or when told to.
type world struct {
	mu       sync.Mutex
	log      []wallet.Deposit
	owners   []string
	deposits []*pb.Deposit
	flagged  []func()

	held     map[string]bool // table names that wait for release
	applied  map[string]int  // how far each table has read
	accounts map[string]*wallet.Account
	forgot   map[string]wallet.KeyUse // by wallet and hash
	epoch    uint64
	counters map[string]*wallet.Counter
	flags    map[string]*wallet.Flag
	index    *flagged.Index
	watchers map[chan struct{}]string

	readyErr, readErr, appendErr, holdsErr error
	afterAppend                            func() // before Append returns
}

func newWorld() *world {
	return &world{
		forgot: map[string]wallet.KeyUse{},
		held:   map[string]bool{}, applied: map[string]int{},
		accounts: map[string]*wallet.Account{}, counters: map[string]*wallet.Counter{}, flags: map[string]*wallet.Flag{},
		watchers: map[chan struct{}]string{}, index: flagged.New(),
	}
}

var rule = wallet.Rule{Threshold: wallet.Amount{Units: 10000}, PeriodMs: 120_000}

// Append keeps a copy of d, which is the caller's again.
func (w *world) Append(ctx context.Context, _ <-chan struct{}, d *pb.Deposit) (api.Position, error) {
	d = proto.CloneOf(d)
	w.mu.Lock()
	if w.appendErr != nil {
		defer w.mu.Unlock()
		return api.Position{}, w.appendErr
	}
	amount, err := wallet.NewDepositAmount(d.Units, d.Nanos)
	if err != nil {
		panic(err)
	}
	offset := int64(len(w.log))
	w.deposits = append(w.deposits, d)
	w.owners = append(w.owners, d.WalletId)
	w.log = append(w.log, wallet.Deposit{
		Amount: amount, At: d.AcceptedAtMs, Origin: 1, Sequence: uint64(offset) + 1, Key: wallet.HashKey(d.IdempotencyKey), HasKey: d.IdempotencyKey != "", KeyChecked: d.KeyChecked,
		Partition: partition, Offset: offset,
	})
	w.catchUp()
	after := w.afterAppend
	w.mu.Unlock()
	if after != nil {
		after()
	}
	return api.Position{Partition: partition, Offset: offset}, ctx.Err()
}

// Send is Append with its answer from another goroutine.
func (w *world) Send(d *pb.Deposit, done func(api.Position, error)) error {
	at, err := w.Append(context.Background(), nil, d)
	if errors.Is(err, api.ErrRefused) {
		return err
	}
	go done(at, err)
	return nil
}

// holds tells whether a position is in the log.
func (w *world) holds(_ context.Context, at api.Position) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return at.Offset < int64(len(w.log)), w.holdsErr
}

// release lets the tables apply what they were held from.
func (w *world) release(tables ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range tables {
		delete(w.held, t)
	}
	w.catchUp()
}

func (w *world) catchUp() {
	touched := map[string]bool{}
	for ; !w.held["balance"] && w.applied["balance"] < len(w.log); w.applied["balance"]++ {
		i := w.applied["balance"]
		id, account := w.owners[i], row(w.accounts, w.owners[i])
		was := slices.Clone(account.RecentKeys)
		account.Apply(w.log[i])
		for _, use := range was {
			if _, still := account.Key(use.Hash); !still {
				w.forgot[id+string(use.Hash[:])] = use
			}
		}
		touched[id] = true
	}
	for ; !w.held["threshold"] && w.applied["threshold"] < len(w.log); w.applied["threshold"]++ {
		i := w.applied["threshold"]
		id := w.owners[i]
		c := row(w.counters, id)
		if c.Apply(w.log[i], rule).Emit {
			tip, parts := *c.Tip, c.Parts()
			w.flagged = append(w.flagged, func() { w.flagEvent(id, wallet.FlagEvent{Crossing: &tip, Parts: parts}) })
		}
		touched[id] = true
	}
	for ; !w.held["flagger"] && w.applied["flagger"] < len(w.flagged); w.applied["flagger"]++ {
		w.flagged[w.applied["flagger"]]()
		for id := range w.counters {
			touched[id] = true
		}
	}
	for ch, id := range w.watchers {
		if touched[id] {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}

// flagEvent is the next on flag_wallet.
func (w *world) flagEvent(id string, e wallet.FlagEvent) {
	f := row(w.flags, id)
	e.Offset = f.NextOffset
	f.Apply(e)
	if by, at := f.RaisedBy(); by != wallet.NotRaised {
		w.index.Raise(id, at)
	} else {
		w.index.Lower(id)
	}
}

func row[T any](rows map[string]*T, id string) *T {
	if rows[id] == nil {
		rows[id] = new(T)
	}
	return rows[id]
}

func (w *world) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.readyErr
}

func (w *world) Balance(id string) (wallet.Account, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := *row(w.accounts, id)
	a.RecentKeys = slices.Clone(a.RecentKeys)
	return a, w.readErr
}

func (w *world) Forgotten(id string, h wallet.KeyHash) (wallet.KeyUse, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	use, ok := w.forgot[id+string(h[:])]
	return use, ok
}

func (w *world) Epoch() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epoch
}

func (w *world) Counter(id string) (wallet.Counter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *row(w.counters, id), w.readErr
}

func (w *world) Flag(id string) (wallet.Flag, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *row(w.flags, id), w.readErr
}

func (w *world) Flagged(after *flagged.Entry, n int) ([]flagged.Entry, bool, error) {
	page, more := w.index.Page(after, n)
	return page, more, w.readErr
}

func (w *world) Watch(id string) (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan struct{}, 1)
	w.watchers[ch] = id
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watchers, ch)
	}
}

// set changes the world under its lock.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) appended() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.log)
}

var acceptedAt = time.UnixMilli(1_700_000_000_123)

// options are those of an API over w; ids count from 1.
func (w *world) options() api.Options {
	return api.Options{
		Log: w, Tables: w,
		Partition: func(string) (int32, error) { return partition, nil },
		Holds:     w.holds,
		Now:       func() time.Time { return acceptedAt },
		Rule:      rule,
	}
}

func (w *world) handler(t testing.TB, change ...func(*api.Options)) http.Handler {
	t.Helper()
	o := w.options()
	for _, c := range change {
		c(&o)
	}
	a, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a.Handler()
}

// request is a request with headers given as "Name: value".
func request(method, path, body string, headers ...string) *http.Request {
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(method, path, nil)
	} else {
		r = httptest.NewRequest(method, path, strings.NewReader(body))
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func post(body string, headers ...string) *http.Request {
	return request(http.MethodPost, "/api/deposit", body, headers...)
}

func get(id string, headers ...string) *http.Request {
	return request(http.MethodGet, "/api/check/"+id, "", headers...)
}

// do serves r and returns the answer with its body read. The document must have it.
func do(h http.Handler, r *http.Request) (*http.Response, string) {
	res, body := doElsewhere(h, r)
	mustBeDescribed(r, res, body)
	return res, body
}

// doElsewhere is do for what is not the API.
func doElsewhere(h http.Handler, r *http.Request) (*http.Response, string) {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	res := rec.Result()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}
