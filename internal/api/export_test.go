package api

import (
	"errors"
	"io"
	"time"

	"coinbit/internal/wallet"
)

// ParseBody is parseBody, its failure as a text.
func ParseBody(data []byte) (string, wallet.Amount, string) {
	id, amount, f := parseBody(data)
	if f != nil {
		return id, amount, f.detail
	}
	return id, amount, ""
}

// Kinds is every code's status and title.
func Kinds() map[string]int {
	all := map[string]int{}
	for c, k := range kinds {
		all[string(c)+"|"+k.title] = k.status
	}
	return all
}

// SetMaxConns makes s take at most n connections.
func (s *Server) SetMaxConns(n int) { s.conns.max = n }

// The bounds that tests reach for.
const (
	MaxInFlight    = maxInFlight
	MaxLargeBodies = maxLargeBodies
	MaxStreams     = maxStreams
	MaxKeyed       = maxKeyed
	MaxLine        = maxLine
)

// SetStallTimeout makes a's streams give a line, and a write, so long.
func (a *API) SetStallTimeout(d time.Duration) { a.stallTimeout = d }

// Streams is how many streams are under way, and how many of their deposits.
func (a *API) Streams() (streams, deposits int) { return len(a.streams), int(a.streamed.Load()) }

// Lines is every line of r and its number, "" for one that is too long, and the
// error at the end.
func Lines(r io.Reader) (texts []string, numbers []int64, err error) {
	l := newLines(r)
	for {
		line, err := l.next()
		if err != nil && !errors.Is(err, errLong) {
			return texts, numbers, err
		}
		texts, numbers = append(texts, string(line)), append(numbers, l.n)
	}
}
