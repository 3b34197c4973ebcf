package store

import "hash/maphash"

// fresh is what recovery has read since a start from nothing. Most rows of a
// changelog are the first of their key: such a row costs one look into one map, and
// the disk is not asked for it.
type fresh struct {
	hash   func(key string) uint64
	places map[uint64]int // by hash of key: the number of its newest row
	max    int            // keys
	rows   []leaving      // not on their way yet; one for each key
	first  int            // the number of rows[0]

	writing []leaving // on their way to disk, in a batch; their numbers end at first
	batch   uint64
}

// keySize is about what a key takes in places.
const keySize = 32

// freshSize is about what a row of fresh takes beside its key and value.
const freshSize = 128

func newFresh(maxKeys int) *fresh {
	seed := maphash.MakeSeed()
	return &fresh{hash: func(key string) uint64 { return maphash.String(seed, key) }, places: make(map[uint64]int), max: maxKeys}
}

// find returns the newest value of a key. It does not know one that only the disk has.
func (f *fresh) find(key string) (value []byte, known bool) {
	n, seen := f.places[f.hash(key)]
	if !seen {
		return nil, true
	}
	r := in(f.rows, n-f.first, key)
	if r == nil {
		r = in(f.writing, n-f.first+len(f.writing), key)
	}
	if r == nil {
		return nil, false
	}
	return r.value, true
}

// set keeps a value, and tells what it takes in bytes, about. It is false when there
// are too many keys.
func (f *fresh) set(key string, value []byte) (grown int64, ok bool) {
	h := f.hash(key)
	n, seen := f.places[h]
	if seen {
		if r := in(f.rows, n-f.first, key); r != nil {
			grown = int64(len(value) - len(r.value))
			r.value = value
			return grown, true
		}
	} else if len(f.places) >= f.max {
		return 0, false
	}
	f.places[h] = f.first + len(f.rows)
	f.rows = append(f.rows, leaving{key: key, value: value})
	return int64(len(key)+len(value)) + freshSize, true
}

// in is the row of key, at place i or, when that is the row of another key with the
// same hash, before it. It is nil when there is none.
func in(rows []leaving, i int, key string) *leaving {
	for i = min(i, len(rows)-1); i >= 0; i-- {
		if rows[i].key == key {
			return &rows[i]
		}
	}
	return nil
}

// leave says that the rows go to disk, in a batch.
func (f *fresh) leave(batch uint64) {
	f.first += len(f.rows)
	f.writing, f.rows, f.batch = f.rows, f.writing[:0], batch
}

// written says that the disk has what left.
func (f *fresh) written() {
	clear(f.writing)
	f.writing = f.writing[:0]
}
