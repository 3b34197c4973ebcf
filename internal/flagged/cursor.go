package flagged

import (
	"encoding/base64"
	"encoding/binary"
	"errors"

	"coinbit/internal/wallet"
)

// ErrCursor goes to clients.
var ErrCursor = errors.New("cursor must be a next_cursor of an earlier answer, as it was")

// cursorV1 is the first byte of a cursor: the time, 8 bytes, and the wallet follow.
const cursorV1 = 1

// Strict: one entry has one cursor.
var encoding = base64.RawURLEncoding.Strict()

// Cursor is e as a text that clients need not understand, of letters, digits, - and _.
func (e Entry) Cursor() string {
	b := binary.BigEndian.AppendUint64([]byte{cursorV1}, uint64(e.At)) //nolint:gosec // and back
	return encoding.EncodeToString(append(b, e.WalletID...))
}

// ParseCursor reads what Cursor wrote. Its error is ErrCursor.
func ParseCursor(text string) (Entry, error) {
	const head, longest = 9, 9 + 128
	if len(text) > encoding.EncodedLen(longest) {
		return Entry{}, ErrCursor
	}
	b, err := encoding.DecodeString(text)
	if err != nil || len(b) < head || b[0] != cursorV1 || encoding.EncodedLen(len(b)) != len(text) {
		return Entry{}, ErrCursor // base64 passes over line ends
	}
	e := Entry{int64(binary.BigEndian.Uint64(b[1:head])), string(b[head:])} //nolint:gosec // as it was
	if wallet.ValidWalletID(e.WalletID) != nil {
		return Entry{}, ErrCursor
	}
	return e, nil
}
