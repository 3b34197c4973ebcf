package store

import (
	"github.com/syndtr/goleveldb/leveldb/iterator"
)

// rows is a storage.Iterator without the keys' prefix.
type rows struct {
	it iterator.Iterator
	s  *Store
}

func (r *rows) Next() bool             { return r.it.Next() }
func (r *rows) Key() []byte            { return r.it.Key()[1:] }
func (r *rows) Value() ([]byte, error) { return r.it.Value(), nil }
func (r *rows) Release()               { r.it.Release() }

// Seek moves before the first row whose key is at least key, for Next to step on it.
func (r *rows) Seek(key []byte) bool {
	if !r.it.Seek(rowKey(string(key))) {
		return false
	}
	r.it.Prev() // before the first row this is the start, where Next begins
	return true
}

// Err is what ended the walk early, if anything did.
func (r *rows) Err() error {
	if err := r.it.Error(); err != nil {
		return r.s.broken(err)
	}
	return nil
}
