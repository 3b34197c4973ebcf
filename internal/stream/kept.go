package stream

import (
	"hash/maphash"
	"sync"

	"github.com/lovoo/goka"
)

// Keep makes a table's codec keep the values it encodes, up to about so many bytes
// of memory, and give one back when just those bytes are to be decoded: not a copy
// or the like of them, the very slice. The local store hands that out again as long
// as it has it in memory. Each value is given back once, to whom it then belongs: so
// nobody may use a value after it was encoded. 0 bytes keep nothing.
func Keep(codec goka.Codec, memory int64) goka.Codec {
	if memory <= 0 {
		return codec
	}
	k := &keptCodec{Codec: codec, seed: maphash.MakeSeed()}
	for i := range k.shards {
		k.shards[i] = keptShard{limit: memory / int64(2*len(k.shards)), young: make(map[*byte]any)}
	}
	return k
}

type keptCodec struct {
	goka.Codec
	seed   maphash.Seed
	shards [16]keptShard
}

// keptShard has two generations: when the young one is full, the old one goes. A
// pointer to the first byte names the bytes, and keeps them from becoming others.
type keptShard struct {
	mu          sync.Mutex
	limit, size int64 // of the young
	young, old  map[*byte]any
}

// keptSize is about what a value of so many encoded bytes takes, with them.
func keptSize(data []byte) int64 { return 512 + 4*int64(len(data)) }

func (k *keptCodec) shard(data []byte) *keptShard {
	return &k.shards[maphash.Comparable(k.seed, &data[0])%uint64(len(k.shards))]
}

func (k *keptCodec) Encode(value any) ([]byte, error) {
	data, err := k.Codec.Encode(value)
	if err != nil || len(data) == 0 {
		return data, err
	}
	s := k.shard(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size >= s.limit {
		s.old, s.young, s.size = s.young, make(map[*byte]any, len(s.young)), 0
	}
	s.young[&data[0]] = value
	s.size += keptSize(data)
	return data, nil
}

func (k *keptCodec) Decode(data []byte) (any, error) {
	if len(data) > 0 {
		if value, ok := k.shard(data).take(data); ok {
			return value, nil
		}
	}
	return k.Codec.Decode(data)
}

func (s *keptShard) take(data []byte) (value any, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := &data[0]
	if value, ok = s.young[first]; ok {
		delete(s.young, first)
		s.size -= keptSize(data)
		return value, true
	}
	if value, ok = s.old[first]; ok {
		delete(s.old, first)
	}
	return value, ok
}
