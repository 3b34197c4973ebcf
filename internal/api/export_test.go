package api

import (
	"errors"
	"io"
	"strings"
	"time"

	"github.com/gorilla/mux"

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
