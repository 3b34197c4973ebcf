package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
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
	if f := headerSlip(r.Header); f != nil {
		return receipt{}, f
	}
	key, hasKey, f := one(r.Header, headerKey, codeKey)
	if f != nil {
		return receipt{}, f
	}
	if hasKey {
		if err := wallet.ValidKey(key); err != nil {
			return receipt{}, fail(codeKey, err.Error())
		}
	}
	o, f := a.read(w, r)
	switch {
	case f != nil:
		return receipt{}, f
	case hasKey && o.key != "" && o.key != key:
		return receipt{}, fail(codeKey, headerKey+" and "+fieldKey+" differ")
	case hasKey:
		o.key = key
	}
	// Not before: who sends slowly takes no place from who has sent.
	if !a.inFlight.enter() {
		return receipt{}, fail(codeBusy, "too many requests at once; the deposit was not sent and does not count")
	}
	defer a.inFlight.leave()
	if o.key != "" {
		return a.sendOnce(r.Context(), over, o)
	}
	d := new(pb.Deposit)
	a.fill(d, o, 0)
	at, err := a.Log.Append(r.Context(), over, d)
	return receipt{at: at}, unsent(err, "")
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

// fill makes d the deposit that is about to be handed to the log. This is its
// acceptance: here it gets its time.
func (a *API) fill(d *pb.Deposit, o order, keyChecked int64) {
	d.WalletId = o.walletID
	d.Units = int64(o.amount.Units) //nolint:gosec // at most 10^12
	d.Nanos = int32(o.amount.Nanos) //nolint:gosec // below 1e9
	d.AcceptedAtMs = a.Now().UnixMilli()
	d.IdempotencyKey, d.KeyChecked = o.key, keyChecked
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
// of the key decides; of two deposits with one, the first in the log has it.
func (a *API) sendOnce(ctx context.Context, over <-chan struct{}, o order) (receipt, *failure) {
	u, f := a.keys.enter(ctx, over, o.walletID, wallet.HashKey(o.key))
	if f != nil {
		return receipt{}, f
	}
	defer a.keys.unsent(u)
	got, known, checked, f := a.known(o)
	if known || f != nil {
		return got, f
	}
	at, f := a.hand(ctx, over, o, u, checked)
	if f != nil {
		return receipt{}, f
	}
	changed, stop := a.Tables.Watch(o.walletID)
	defer stop()
	for {
		got, applied, f := a.applied(o, u, at)
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

// hand hands u's deposit to the log and waits for its position.
func (a *API) hand(ctx context.Context, over <-chan struct{}, o order, u *keyUse, checked int64) (Position, *failure) {
	type answer struct {
		at  Position
		err error
	}
	d := new(pb.Deposit)
	a.fill(d, o, checked)
	answers := make(chan answer, 1)
	a.keys.sent(u)
	err := a.Log.Send(d, func(at Position, err error) {
		a.keys.answered(u, at, err) // also when nobody waits any more
		answers <- answer{at, err}
	})
	if err != nil {
		a.keys.answered(u, Position{}, err)
		return Position{}, unsent(err, o.key)
	}
	select {
	case got := <-answers:
		return got.at, unsent(got.err, o.key)
	case <-ctx.Done():
		return Position{}, unknown(ctx.Err())
	case <-over:
		return Position{}, unknown(errors.New("the log does not answer in time"))
	}
}

// known answers from the row if it has the key, or had it. If not, checked is what to
// tell the fold: which row did not.
func (a *API) known(o order) (got receipt, known bool, checked int64, f *failure) {
	if err := a.Tables.Ready(); err != nil {
		return receipt{}, false, 0, fail(codeNotReady, err.Error())
	}
	partition, err := a.Partition(o.walletID)
	if err != nil {
		return receipt{}, false, 0, unreadable(err)
	}
	row, err := a.Tables.Balance(o.walletID)
	if err != nil {
		return receipt{}, false, 0, unreadable(err)
	}
	use, ok := a.used(o, &row)
	if !ok {
		return receipt{}, false, row.NextOffset + 1, nil
	}
	got, f = settle(use, o.amount, Position{partition, use.Offset}, true)
	return got, true, 0, f
}

// used finds the deposit that the key made, in the row or among what it forgot.
func (a *API) used(o order, row *wallet.Account) (wallet.KeyUse, bool) {
	h := wallet.HashKey(o.key)
	if use, ok := row.Key(h); ok {
		return use, true
	}
	return a.Tables.Forgotten(o.walletID, h) // after the row was read: it forgets what is here by then
}

// applied answers from the row once it has passed the deposit at a position, and ends
// its place in the book; false before that.
func (a *API) applied(o order, u *keyUse, at Position) (receipt, bool, *failure) {
	if err := a.Tables.Ready(); err != nil { // rows of an earlier log say nothing of a position on this one
		return receipt{}, false, unknown(err)
	}
	row, err := a.Tables.Balance(o.walletID)
	if err != nil {
		return receipt{}, false, unknown(err)
	}
	if row.NextOffset <= at.Offset {
		return receipt{}, false, nil
	}
	use, ok := a.used(o, &row)
	a.keys.leave(u)
	if !ok {
		return receipt{}, true, uncounted(&row, o, at)
	}
	got, f := settle(use, o.amount, Position{at.Partition, use.Offset}, use.Offset != at.Offset)
	return got, true, f
}

// uncounted is a deposit that the row has passed and whose key it does not know.
func uncounted(row *wallet.Account, o order, at Position) *failure {
	switch _, fits := row.Balance.Add(o.amount); {
	case row.ForgotSince(at.Offset): // and nobody remembers: it had more than 100 keys at once
		return unknown(errors.New("the row has forgotten too many keys since"))
	case !fits:
		return fail(codeOverflow, "the balance cannot hold the deposit; it was set aside and does not count")
	default:
		return fail(codeBusy, "too many other keys of this wallet came before; this one does not count; try again")
	}
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

// headerSlip finds a header that was most likely meant for Idempotency-Key: ignored, it
// would make a retry a second deposit.
func headerSlip(h http.Header) *failure {
	for name := range h { // canonical: in lower case but for the first letters of words
		if name != headerKey && strings.Contains(name, "dempoten") && strings.Contains(strings.ToLower(name), "key") {
			return fail(codeKey, strconv.Quote(name)+" is no header of a deposit; it is called "+headerKey)
		}
	}
	return nil
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
