package api

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// Headers of ours, in canonical form: header maps are read and set directly.
const (
	headerKey      = "Idempotency-Key"
	headerReplayed = "Idempotency-Replayed"
	headerPosition = "X-Deposit-Position"
)

var success = []byte(`{"code":200,"data":null,"message":"success"}`)

// receipt is a deposit that counts.
type receipt struct {
	at Position
	// replayed: an earlier request made it.
	replayed bool
}

// deposit answers POST /api/deposit.
func (a *API) deposit(w http.ResponseWriter, r *http.Request) *failure {
	got, f := a.accept(w, r)
	a.deposits[result(got, f)].Inc()
	if f != nil {
		return f
	}
	h := w.Header()
	h[headerPosition] = []string{got.at.String()}
	if got.replayed {
		h[headerReplayed] = []string{"true"}
	}
	writeJSON(w, success)
	return nil
}

// accept checks a deposit and sees it through.
func (a *API) accept(w http.ResponseWriter, r *http.Request) (receipt, *failure) {
	over := a.budgets.from(time.Now()) // however long the body takes
	key, hasKey, f := one(r.Header, headerKey, codeKey)
	if f != nil {
		return receipt{}, f
	}
	if hasKey {
		if err := wallet.ValidKey(key); err != nil {
			return receipt{}, fail(codeKey, err.Error())
		}
	}
	walletID, amount, f := a.read(w, r)
	if f != nil {
		return receipt{}, f
	}
	// Not before: who sends slowly takes no place from who has sent.
	if !a.inFlight.enter() {
		return receipt{}, fail(codeBusy, "too many requests at once; the deposit was not sent and does not count")
	}
	defer a.inFlight.leave()
	if hasKey {
		return a.sendOnce(r.Context(), over, walletID, amount, key)
	}
	at, f := a.send(r.Context(), over, walletID, amount, "")
	return receipt{at: at}, f
}

// budgets tells when requests have used up their depositBudget. Those that come within a
// twentieth of a second share one: a timer for each would cost as much as to read and
// check the deposit.
type budgets struct{ latest atomic.Pointer[budget] }

type budget struct {
	over  chan struct{}
	until time.Time // it is for requests that come before
}

// from is closed depositBudget after now, or a little earlier.
func (b *budgets) from(now time.Time) <-chan struct{} {
	latest := b.latest.Load()
	if latest == nil || now.After(latest.until) {
		latest = &budget{make(chan struct{}), now.Add(50 * time.Millisecond)}
		time.AfterFunc(depositBudget, func() { close(latest.over) })
		b.latest.Store(latest) // of two at once either will do
	}
	return latest.over
}

// send hands the deposit to the log. This is its acceptance: here it gets its time.
func (a *API) send(ctx context.Context, over <-chan struct{}, walletID string, amount wallet.Amount, key string) (Position, *failure) {
	d := new(pb.Deposit)
	a.fill(d, walletID, amount, key)
	at, err := a.Log.Append(ctx, over, d)
	return at, unsent(err, key)
}

func (a *API) fill(d *pb.Deposit, walletID string, amount wallet.Amount, key string) {
	d.WalletId = walletID
	d.Units = int64(amount.Units) //nolint:gosec // at most 10^12
	d.Nanos = int32(amount.Nanos) //nolint:gosec // below 1e9
	d.AcceptedAtMs = a.Now().UnixMilli()
	d.IdempotencyKey = key
}

// unsent is what a Log's error says to the client, nil for none.
func unsent(err error, key string) *failure {
	switch {
	case err == nil:
		return nil
	case refused(err):
		return fail(codeRefused, "deposit was refused and does not count; try again").because(err)
	case key == "":
		return fail(codeUnknown, "it is not known whether the deposit counts; an Idempotency-Key makes a retry safe").because(err)
	default:
		return unknown(err)
	}
}

// refused tells whether the deposit certainly does not count.
func refused(err error) bool { return errors.Is(err, ErrRefused) && !errors.Is(err, ErrUnknown) }

// unknown is a keyed deposit that was handed over and not seen to count.
func unknown(err error) *failure {
	return fail(codeUnknown, "it is not known whether the deposit counts; retry with the same Idempotency-Key").because(err)
}

// sendOnce sees to it that the key makes one deposit. What the balance row says
// of the key decides; of two requests at once, the first in the log has it.
func (a *API) sendOnce(ctx context.Context, over <-chan struct{}, walletID string, amount wallet.Amount, key string) (receipt, *failure) {
	if got, known, f := a.known(walletID, amount, key); known || f != nil {
		return got, f
	}
	at, f := a.send(ctx, over, walletID, amount, key)
	if f != nil {
		return receipt{}, f
	}
	changed, stop := a.Tables.Watch(walletID)
	defer stop()
	for {
		got, applied, f := a.applied(walletID, amount, key, at)
		if applied || f != nil {
			return got, f
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return receipt{}, unknown(ctx.Err())
		case <-over:
			return receipt{}, unknown(errors.New("the row does not show it in time"))
		}
	}
}

// known answers from the row if it has the key already.
func (a *API) known(walletID string, amount wallet.Amount, key string) (receipt, bool, *failure) {
	if err := a.Tables.Ready(); err != nil {
		return receipt{}, false, fail(codeNotReady, err.Error())
	}
	partition, err := a.Partition(walletID)
	if err != nil {
		return receipt{}, false, unreadable(err)
	}
	row, err := a.Tables.Balance(walletID)
	if err != nil {
		return receipt{}, false, unreadable(err)
	}
	use, ok := row.Key(wallet.HashKey(key))
	if !ok {
		return receipt{}, false, nil
	}
	got, f := settle(use, amount, Position{partition, use.Offset}, true)
	return got, true, f
}

// applied answers from the row once it has applied the deposit at a position;
// false before that.
func (a *API) applied(walletID string, amount wallet.Amount, key string, at Position) (receipt, bool, *failure) {
	row, err := a.Tables.Balance(walletID)
	if err != nil {
		return receipt{}, false, unknown(err)
	}
	if row.NextOffset <= at.Offset {
		return receipt{}, false, nil
	}
	use, ok := row.Key(wallet.HashKey(key))
	if !ok { // forgotten among newer keys, or the deposit did not fit the balance
		return receipt{}, false, unknown(errors.New("the row does not know the key"))
	}
	got, f := settle(use, amount, Position{at.Partition, use.Offset}, use.Offset != at.Offset)
	return got, true, f
}

// settle answers from the deposit that the key made.
func settle(use wallet.KeyUse, amount wallet.Amount, at Position, replayed bool) (receipt, *failure) {
	if use.Amount != amount {
		return receipt{}, fail(codeKeyReused, "Idempotency-Key was used for another amount")
	}
	return receipt{at, replayed}, nil
}

// unreadable is a wallet that could not be read, with nothing done yet.
func unreadable(err error) *failure {
	return fail(codeNotReady, "the wallet cannot be read at the moment").because(err)
}

// one is a header that may be given once; false when it is not there.
func one(h http.Header, name string, c code) (string, bool, *failure) {
	switch values := h[name]; len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	default:
		return "", true, fail(c, name+" must be given once")
	}
}
