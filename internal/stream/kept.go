package stream

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/lovoo/goka"
)

// Kept is a row of a table whose codec is Keep's: as decoded, and as last encoded.
type Kept[T any] struct {
	Row       T
	was       written
	partition int32
}

// KeptRow narrows a value of a partition of such a table; a missing row is a wallet
// never seen.
func KeptRow[T any](v any, partition int32) (*Kept[T], error) {
	row, err := loaded[Kept[T]](v)
	row.partition = partition
	return row, err
}

// keepable is a codec whose rows can be kept.
type keepable[T any] interface {
	read(data []byte, row *T) *Malformed
	write(row *T, w *written) []byte
	kept(row *T) // what was written is kept: its lists tell what changes from now on
}

// Keep is the codec of a table, as *Kept[T], that keeps the values it encodes, up to
// about so many bytes of memory, and gives one back when just those bytes are to be
// decoded: not a copy or the like of them, the very slice. The local store hands that
// out again as long as it has it in memory. Each value is given back once, to whom it
// then belongs: so nobody may use a value after it was encoded. Each of so many
// partitions has its share of the memory.
func Keep[T any](codec keepable[T], memory int64, partitions int32) goka.Codec {
	k := &keptCodec[T]{codec: codec, shards: make([]keptShard[T], partitions)}
	for i := range k.shards {
		k.shards[i].limit = memory / int64(partitions)
	}
	return k
}

type keptCodec[T any] struct {
	codec keepable[T]
	// One for each partition: cores that work on different ones do not write to the
	// same memory.
	shards []keptShard[T]
}

// keptShard holds rows in places. Behind their last byte the bytes of a row have room
// for a ticket: the number of its place. It says where to look; that the row there is
// the one of these bytes says their address.
type keptShard[T any] struct {
	mu          sync.Mutex
	limit, size int64
	rows        []*Kept[T]
	free        []uint32
	next        int      // the place to be given up next
	_           [64]byte // no cache line is of two shards
}

const ticketSize = 4

func ticket(data []byte) []byte { return data[len(data) : len(data)+ticketSize] }

// keptSize is about what a row of so many encoded bytes takes, with them.
func keptSize(data []byte) int64 { return 640 + 4*int64(len(data)) }

// Encode returns the row of a *Kept[T].
func (k *keptCodec[T]) Encode(value any) ([]byte, error) {
	row, ok := value.(*Kept[T])
	if !ok || row == nil {
		return nil, fmt.Errorf("encode: want %T, got %T", row, value)
	}
	data := slices.Grow(k.codec.write(&row.Row, &row.was), ticketSize)
	row.was.note(data)
	k.codec.kept(&row.Row)
	if row.was.data != nil {
		n := uint32(len(k.shards))         //nolint:gosec // partitions
		shard := uint32(row.partition) % n //nolint:gosec // not negative
		if place, ok := k.shards[shard].put(row); ok {
			binary.LittleEndian.PutUint32(ticket(data), place*n+shard)
		}
	}
	return data, nil
}

// Decode returns a *Kept[T], or *Malformed for bytes that are no row. Its error is
// always nil.
func (k *keptCodec[T]) Decode(data []byte) (any, error) {
	if len(data) > 0 && cap(data) >= len(data)+ticketSize {
		t, n := binary.LittleEndian.Uint32(ticket(data)), uint32(len(k.shards)) //nolint:gosec // partitions
		if row := k.shards[t%n].take(t/n, data); row != nil {
			return row, nil
		}
	}
	row := new(Kept[T])
	if bad := k.codec.read(data, &row.Row); bad != nil {
		return bad, nil
	}
	return row, nil
}

func (s *keptShard[T]) put(row *Kept[T]) (place uint32, ok bool) {
	size := keptSize(row.was.data)
	if size > s.limit {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.size+size > s.limit {
		s.drop(s.next)
		s.next = (s.next + 1) % len(s.rows)
	}
	if len(s.free) == 0 {
		s.free = append(s.free, uint32(len(s.rows))) //nolint:gosec // memory holds fewer
		s.rows = append(s.rows, nil)
	}
	place, s.free = s.free[len(s.free)-1], s.free[:len(s.free)-1]
	s.rows[place] = row
	s.size += size
	return place, true
}

// take returns the row in a place if it is that of data, and empties the place.
func (s *keptShard[T]) take(place uint32, data []byte) *Kept[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(place) >= int64(len(s.rows)) {
		return nil
	}
	row := s.rows[place]
	if row == nil || &row.was.data[0] != &data[0] || len(row.was.data) != len(data) {
		return nil
	}
	s.drop(int(place))
	return row
}

// drop empties a place. It needs s.mu.
func (s *keptShard[T]) drop(place int) {
	if row := s.rows[place]; row != nil {
		s.rows[place] = nil
		s.free = append(s.free, uint32(place)) //nolint:gosec // memory holds fewer
		s.size -= keptSize(row.was.data)
	}
}
