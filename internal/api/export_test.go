package api

import "coinbit/internal/wallet"

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
)
