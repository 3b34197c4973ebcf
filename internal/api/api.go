// Package api is HTTP in and out: it checks what a client sends, hands deposits
// to a log and reads wallets from the tables. It decides nothing about money:
// what counts and what is flagged it only reads. It knows neither Kafka nor
// Goka; the interfaces below are all it sees of them, and nothing of what they
// say in their errors reaches a client, except for why they are not ready.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/flagged"
	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// How long a request may take, from its headers' arrival. Both end within the
// ten seconds that are promised.
const (
	depositBudget = 9 * time.Second
	checkWait     = 2 * time.Second
)

// What a Log says of a deposit that it did not see through.
var (
	// ErrRefused: it was not sent, or Kafka refused it before appending anything; it
	// certainly does not count.
	ErrRefused = errors.New("deposit refused, and certainly not in the log")
	// ErrUnknown: the deposit may or may not come to count.
	ErrUnknown = errors.New("outcome of the deposit unknown")
)

// Position is a place on topic deposit.
type Position struct {
	Partition int32
	Offset    int64
}

// String is PARTITION:OFFSET, as in the header X-Deposit-Position.
func (p Position) String() string { return string(p.append(make([]byte, 0, 32))) }

func (p Position) append(b []byte) []byte {
	b = strconv.AppendInt(b, int64(p.Partition), 10)
	b = append(b, ':')
	return strconv.AppendInt(b, p.Offset, 10)
}

// errPosition goes to clients.
var errPosition = errors.New(headerPosition + " must be PARTITION:OFFSET, two whole numbers")

// ParsePosition reads what String wrote.
func ParsePosition(text string) (Position, error) {
	left, right, _ := strings.Cut(text, ":")
	partition, err := strconv.ParseUint(left, 10, 31)
	if err != nil {
		return Position{}, errPosition
	}
	offset, err := strconv.ParseUint(right, 10, 63)
	if err != nil {
		return Position{}, errPosition
	}
	return Position{int32(partition), int64(offset)}, nil // 31 and 63 bits
}

// Log takes deposits.
type Log interface {
	// Append returns d's position once d is on all in-sync replicas. It fails
	// with ErrRefused when d is certainly not in the log and with ErrUnknown otherwise, also
	// when ctx ends or over is closed first; any other error is taken for ErrUnknown.
	Append(ctx context.Context, over <-chan struct{}, d *pb.Deposit) (Position, error)
	// Send is Append without waiting: unless it returns an error (ErrRefused: d was not
	// sent), done is called exactly once, perhaps before Send returns, and must not block. d is the
	// caller's again once done is called or an error returned. There is place for
	// MaxSent of these beside what Append has under way.
	Send(d *pb.Deposit, done func(Position, error)) error
}

// Tables reads the rows of the three groups. A wallet never seen has the zero
// row. The rows are only read.
type Tables interface {
	// Ready is nil once every table has been caught up with; the error's text
	// goes to clients.
	Ready() error
	Balance(walletID string) (wallet.Account, error)
	// Forgotten is a key that the wallet's balance row knew and forgot for newer ones,
	// as far as that is remembered. Ask it after reading the row: it knows a key before
	// a row that lacks the key is shown.
	Forgotten(walletID string, h wallet.KeyHash) (wallet.KeyUse, bool)
	// Epoch changes when the tables become those of another log, whose positions have
	// nothing to do with those of before.
	Epoch() uint64
	Counter(walletID string) (wallet.Counter, error)
	Flag(walletID string) (wallet.Flag, error)
	// Flagged is a page of the wallets whose flag is raised, see flagged.Index.
	Flagged(after *flagged.Entry, n int) (page []flagged.Entry, more bool, err error)
	// Watch puts a token into changed (buffered, never closed) after any of the
	// wallet's rows changed, until stop is called. Called before the rows are
	// read, it misses no change.
	Watch(walletID string) (changed <-chan struct{}, stop func())
}

// Live is what the live page watches.
type Live interface {
	// Watch returns messages, each an event of a text/event-stream as it is to be
	// sent, until stop is called or the source ends and closes the channel. Who does
	// not take them misses some. It answers false when too many watch.
	Watch() (messages <-chan []byte, stop func(), ok bool)
}

// Options is what an API is built from. Live, Keys, RateLimit, Registry and Logger
// may be left out.
type Options struct {
	Log    Log
	Tables Tables
	Live   Live
	// Partition is the partition of a wallet's deposits, an error while it is
	// not known.
	Partition func(walletID string) (int32, error)
	// Holds tells whether the log has a position; an error when that cannot be found out
	// before ctx is done.
	Holds func(ctx context.Context, at Position) (bool, error)
	// Now is the event time of a deposit accepted now.
	Now func() time.Time
	// Rule is the settings', told of wallets that have not met a rule yet.
	Rule wallet.Rule
	// Keys open /api/; none: it is open.
	Keys []string
	// RateLimit is in requests per second for one client; 0: none.
	RateLimit float64
	Registry  prometheus.Registerer
	Logger    *slog.Logger
}

const (
	// maxInFlight bounds the requests that are past reading their body: those that
	// hold a place in the log's producer, wait for a row to show their key, or read rows.
	maxInFlight = 2048
	// maxWaiting bounds the reads that wait for a row to reach a position, maxWaitingEach
	// those of one client.
	maxWaiting     = 1024
	maxWaitingEach = 256
)

// API answers the suite's HTTP requests. It is safe for concurrent use.
type API struct {
	Options
	*front
	guard    *guard
	deposits map[string]prometheus.Counter // by result
	keys     *keyBook
	// inFlight, large, streams and waiting bound what requests may hold at once.
	inFlight, large, streams gate
	waiting                  *crowd
	streamed                 atomic.Int64 // deposits of streams that the log has not answered
	stallTimeout             time.Duration
	budgets                  budgets
}

// New builds an API. It fails when a required option is missing, a key or the
// rate limit is no possible one, or a metric is registered already.
func New(o Options) (*API, error) {
	if o.Log == nil || o.Tables == nil || o.Partition == nil || o.Holds == nil || o.Now == nil || o.Rule == (wallet.Rule{}) {
		return nil, errors.New("api: Log, Tables, Partition, Holds, Now and Rule are required")
	}
	g, err := newGuard(o.Keys, o.RateLimit)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	f, err := newFront(o.Registry, o.Logger)
	if err != nil {
		return nil, err
	}
	deposits, err := newDeposits(o.Registry)
	if err != nil {
		return nil, err
	}
	a := &API{Options: o, front: f, guard: g, deposits: deposits, keys: newKeyBook(o.Tables),
		inFlight: newGate(maxInFlight), large: newGate(maxLargeBodies), streams: newGate(maxStreams),
		waiting:      newCrowd(maxWaiting, maxWaitingEach),
		stallTimeout: stallTimeout}
	streams := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "coinbit_deposit_streams", Help: "POST /api/deposits requests under way.",
	}, func() float64 { return float64(len(a.streams)) })
	return a, register(o.Registry, streams)
}
