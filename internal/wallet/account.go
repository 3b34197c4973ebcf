package wallet

import (
	"crypto/sha256"
	"errors"
)

// keptKeys is how many Idempotency-Keys a row remembers.
const keptKeys = 100

// Deposit is one deposit that passed every check of its record.
type Deposit struct {
	Amount Amount
	At     int64 // event time, Unix milliseconds
	// Origin is the run of an API that took the deposit, Sequence its number there,
	// from 1, in the order of the partition. Both are 0 from another producer.
	Origin, Sequence uint64

	Key    KeyHash
	HasKey bool
	// KeyChecked is 1 + NextOffset of the account in which the sender did not find the
	// key; 0: it does not say.
	KeyChecked int64
	// Partition and Offset are its position on topic deposit.
	Partition int32
	Offset    int64
}

// KeyHash is the first 12 bytes of an Idempotency-Key's SHA-256.
type KeyHash [12]byte

// HashKey is what a row keeps of an Idempotency-Key.
func HashKey(key string) KeyHash {
	sum := sha256.Sum256([]byte(key))
	return KeyHash(sum[:12])
}

// Errors of names; the texts go to clients.
var (
	errWalletID = errors.New("wallet_id must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ -, the first a letter or digit")
	errKey      = errors.New("Idempotency-Key must be 1 to 128 visible ASCII characters")
)

// ValidWalletID checks the form of a wallet_id.
func ValidWalletID(id string) error {
	if len(id) < 1 || len(id) > 128 || inWalletID[id[0]] != alphanumeric {
		return errWalletID
	}
	for i := 1; i < len(id); i++ {
		if inWalletID[id[i]] == 0 {
			return errWalletID
		}
	}
	return nil
}

const (
	alphanumeric = 1
	punctuation  = 2
)

// inWalletID says what a character is. Every reader checks every deposit, and random
// ids have comparisons predicted wrongly: 147 ns an id, where this takes 18.
var inWalletID = func() (table [256]byte) {
	for c := range table {
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			table[c] = alphanumeric
		}
	}
	for _, c := range "._:@-" {
		table[c] = punctuation
	}
	return table
}()

// ValidKey checks the form of an Idempotency-Key.
func ValidKey(key string) error {
	if len(key) < 1 || len(key) > 128 {
		return errKey
	}
	for i := range len(key) {
		if key[i] < 0x21 || key[i] > 0x7e {
			return errKey
		}
	}
	return nil
}

// Verdict is what became of a message.
type Verdict uint8

// The verdicts. Redelivered changes nothing of a row, and Repeated its next offset alone.
// What is not counted for its key or the balance still changes the account's origins; only
// Applied changes more.
const (
	Applied     Verdict = iota
	Redelivered         // this very message was folded before
	// Repeated: the same operator event stands earlier in the log; or the same deposit, or
	// a later one of its origin, which had given this one up (nobody was told that it counts).
	Repeated
	KeyReplayed // its Idempotency-Key was used for the same amount
	KeyConflict // its Idempotency-Key was used for another amount
	KeyStale    // its Idempotency-Key may have been used and forgotten since its sender looked
	Overflow    // the balance cannot hold it
)

var verdictNames = [...]string{"applied", "redelivered", "repeated", "key_replayed", "key_conflict", "key_stale", "overflow"}

// String is the verdict as a metric label.
func (v Verdict) String() string {
	if int(v) >= len(verdictNames) {
		return "unknown"
	}
	return verdictNames[v]
}

// Verdicts lists every verdict.
func Verdicts() []Verdict {
	return []Verdict{Applied, Redelivered, Repeated, KeyReplayed, KeyConflict, KeyStale, Overflow}
}

// KeyUse is an Idempotency-Key and the deposit it made.
type KeyUse struct {
	Hash   KeyHash
	Amount Amount
	Offset int64
}

// Account counts each deposit of a wallet once. balance and threshold both keep
// one, so that they always agree on what counts.
type Account struct {
	// NextOffset is the offset after the last message folded in, 0 for none.
	NextOffset int64
	Balance    Amount
	Deposits   uint64
	// FirstAt and LastAt are the smallest and largest event time, in Unix
	// milliseconds.
	FirstAt, LastAt int64
	Origins         []Origin // the latest seen last; see origin.go
	// Pacemaker is how many of Origins stand behind the pacemaker, Missed how many
	// deposits in a row were not its own.
	Pacemaker, Missed uint32
	RecentKeys        []KeyUse // oldest first

	// step is by how much the deposit in hand moved its origin's clock ahead, in
	// milliseconds. It is no part of the row.
	step int64
}

// Key finds an Idempotency-Key among those the account remembers.
func (a *Account) Key(h KeyHash) (KeyUse, bool) {
	for i := len(a.RecentKeys) - 1; i >= 0; i-- {
		if a.RecentKeys[i].Hash == h {
			return a.RecentKeys[i], true
		}
	}
	return KeyUse{}, false
}

// ForgotSince tells whether the account may have forgotten a key that was used at an
// offset or later: what it forgot was used before the oldest that it remembers.
func (a *Account) ForgotSince(offset int64) bool {
	return len(a.RecentKeys) == keptKeys && offset < a.RecentKeys[0].Offset
}

// Apply folds d in, in the order of the partition. A message that was folded
// before is recognised by its offset.
func (a *Account) Apply(d Deposit) Verdict {
	if d.Offset < a.NextOffset {
		return Redelivered
	}
	a.NextOffset = d.Offset + 1
	if !a.takeOrigin(d) {
		return Repeated
	}
	if d.HasKey {
		if use, ok := a.Key(d.Key); ok {
			if use.Amount == d.Amount {
				return KeyReplayed
			}
			return KeyConflict
		}
		if d.KeyChecked > 0 && a.ForgotSince(d.KeyChecked-1) {
			return KeyStale
		}
	}
	sum, ok := a.Balance.Add(d.Amount)
	if !ok {
		return Overflow
	}
	if a.Deposits == 0 {
		a.FirstAt, a.LastAt = d.At, d.At
	}
	a.Balance = sum
	a.Deposits++
	a.FirstAt, a.LastAt = min(a.FirstAt, d.At), max(a.LastAt, d.At)
	if d.HasKey {
		a.RecentKeys = remember(a.RecentKeys, KeyUse{Hash: d.Key, Amount: d.Amount, Offset: d.Offset}, keptKeys)
	}
	return Applied
}

// remember appends x and forgets the oldest beyond n.
func remember[T any](list []T, x T, n int) []T {
	return push(list[max(0, len(list)+1-n):], x)
}

// push appends to a list whose values leave at its front: its array is moved when it is
// used up, not each time, and stays little longer than the list.
func push[T any](list []T, x T) []T {
	if len(list) == cap(list) {
		list = append(make([]T, 0, len(list)+len(list)/4+1), list...)
	}
	return append(list, x)
}
