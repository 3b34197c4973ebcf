package stream

import (
	"hash"
	"hash/fnv"
	"math"
)

// NewHasher makes the hash that maps a key to its partition: Goka's FNV-1a.
// One value is folded: Goka and sarama disagree about the partition of
// math.MinInt32 when the partition count is no power of two, and Goka's view
// then indexes below zero.
func NewHasher() hash.Hash32 { return hasher{fnv.New32a()} }

type hasher struct{ hash.Hash32 }

func (h hasher) Sum32() uint32 {
	if s := h.Hash32.Sum32(); s != 1<<31 {
		return s
	}
	return 0
}

// Partition is the partition of wallet among n > 0, the same on every
// co-partitioned topic.
func Partition(wallet string, n int32) int32 {
	const offset, prime = 2166136261, 16777619
	sum := uint32(offset) // FNV-1a, inline: no allocation on the request path
	for i := 0; i < len(wallet); i++ {
		sum = (sum ^ uint32(wallet[i])) * prime
	}
	if sum == 1<<31 {
		return 0
	}
	p := int32(sum) //nolint:gosec // the wrap-around is the point, as in Goka
	if p < 0 && p != math.MinInt32 {
		p = -p
	}
	return p % n
}
