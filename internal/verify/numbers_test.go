package verify

import (
	"math"
	"math/rand/v2"
	"testing"
)

// A set of numbers is what a map is, and holds as few ranges as there are gaps.
func TestNumbersAreAMap(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		s, twin := make(numbers), make(map[identity]bool)
		for range 300 {
			id := identity{1 + r.Uint64N(2), 1 + r.Uint64N(60)}
			if seed%2 == 0 {
				id.sequence = math.MaxUint64 - r.Uint64N(60)
			}
			if s.has(id) != twin[id] || s.add(id) == twin[id] || !s.has(id) {
				t.Fatalf("seed %d: %v is wrong about %+v", seed, s, id)
			}
			twin[id] = true
		}
		for origin, list := range s {
			for i, x := range list {
				if x.first > x.last || i > 0 && list[i-1].last >= x.first-1 {
					t.Fatalf("seed %d: ranges of %d: %v", seed, origin, list)
				}
			}
		}
	}
	s := make(numbers)
	for n := range uint64(100_000) {
		s.add(identity{1, n + 1})
	}
	if len(s[1]) != 1 {
		t.Errorf("%d ranges", len(s[1]))
	}
}
