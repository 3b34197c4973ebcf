package api

import (
	"errors"
	"io"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"coinbit/internal/wallet"
)

// ParseBody is parse of a body, its failure as a text.
func ParseBody(data []byte) (walletID string, amount wallet.Amount, key, failure string) {
	o, f := parse("body", data)
	if f != nil {
		return o.walletID, o.amount, o.key, f.detail
	}
	return o.walletID, o.amount, o.key, ""
}

// Kinds is every code's status and title.
func Kinds() map[string]int {
	all := map[string]int{}
	for c, k := range kinds {
		all[string(c)+"|"+k.title] = k.status
	}
	return all
}

// Routes are the API's, as METHOD PATH.
func (a *API) Routes() (list []string) {
	_ = a.routes(nil).Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, _ := route.GetPathTemplate()
		methods, _ := route.GetMethods()
		for _, m := range methods {
			list = append(list, m+" "+strings.ReplaceAll(path, ":[^/]*}", "}"))
		}
		return nil
	})
	return list
}

// SetMaxConns makes s take at most n connections.
func (s *Server) SetMaxConns(n int) { s.conns.max = n }

// The bounds that tests reach for.
const (
	MaxInFlight    = maxInFlight
	MaxWaiting     = maxWaiting
	MaxLargeBodies = maxLargeBodies
	MaxStreams     = maxStreams
	MaxUnderWay    = maxUnderWay
	MaxKeyed       = maxKeyed
	MaxLine        = maxLine
)

// SetStallTimeout makes a's streams give a line, and a write, so long.
func (a *API) SetStallTimeout(d time.Duration) { a.stallTimeout = d }

// Streams is how many streams are under way, and how many of their deposits.
func (a *API) Streams() (streams, deposits int) { return len(a.streams), int(a.streamed.Load()) }

// Keys is how many deposits with a key are under way.
func (a *API) Keys() int {
	a.keys.mu.Lock()
	defer a.keys.mu.Unlock()
	return a.keys.n
}

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
