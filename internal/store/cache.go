package store

import "sync/atomic"

// entry is what memory knows of one key.
type entry struct {
	key     string
	value   []byte // the newest, for readers; nil: deleted
	acked   []byte // the newest in the changelog, while dirty
	dirty   bool   // acked waits to be written
	pending bool   // value is not acknowledged
	batch   uint64 // the last one that took acked to disk
	used    uint64 // the tick at which it was last written
	store   *Store
	place   atomic.Int64 // its writer's
}

// entrySize is about what an entry takes beside its key and values.
const entrySize = 160

func (e *entry) size() int64 { return int64(len(e.key)+len(e.value)) + entrySize }

// cache holds the rows written lately. When it is full it is swept: what was not
// written for longest goes, a quarter or more, but for what the disk does not have yet.
type cache struct {
	store   *Store
	limit   int64 // bytes, about
	size    int64
	sweepAt int64
	entries map[string]*entry
	grown   int64  // bytes that came since the latest tick
	ticks   uint64 // each for an eighth of the limit that came
}

func newCache(s *Store, limit int64) cache {
	return cache{store: s, limit: limit, sweepAt: limit, entries: make(map[string]*entry)}
}

// find returns nil for a key that memory does not know.
func (c *cache) find(key string) *entry { return c.entries[key] }

// renew is the entry of a key that is about to be written, a new one if need be.
// Batches up to written are on disk.
func (c *cache) renew(key string, written uint64) *entry {
	if c.size >= c.sweepAt {
		c.sweep(written)
	}
	e := c.entries[key]
	if e == nil {
		e = &entry{key: key, store: c.store}
		c.entries[key] = e
		c.grow(e.size())
	}
	e.used = c.ticks
	return e
}

func (c *cache) grow(by int64) {
	c.size += by
	if c.grown += max(by, 0); c.grown >= c.limit/8 {
		c.grown = 0
		c.ticks++
	}
}

// ages is how many ticks back it is known when an entry was last written.
const ages = 16

func (c *cache) age(e *entry) uint64 { return min(c.ticks-e.used, ages-1) }

func (c *cache) sweep(written uint64) {
	var sizes [ages]int64
	for _, e := range c.entries {
		sizes[c.age(e)] += e.size()
	}
	room, old := 3*c.limit/4-sizes[0], uint64(1)
	for ; old < ages && sizes[old] <= room; old++ {
		room -= sizes[old]
	}
	c.drop(written, func(e *entry) bool { return c.age(e) >= old })
	c.drop(written, func(*entry) bool { return c.size > 3*c.limit/4 }) // all were written just now
	c.sweepAt = c.limit
	if c.size > 3*c.limit/4 { // so much must stay that the next sweep has to be worth it
		c.sweepAt = 2 * c.size
	}
}

// caughtUp is told that the disk has what it did not have before: the next sweep may
// find more to drop than the last one did.
func (c *cache) caughtUp() { c.sweepAt = c.limit }

// drop drops those of the entries that are on disk.
func (c *cache) drop(written uint64, which func(*entry) bool) {
	for key, e := range c.entries {
		if e.dirty || e.pending || e.batch > written || !which(e) {
			continue
		}
		delete(c.entries, key)
		c.size -= e.size()
	}
}

// set gives an entry its newest value.
func (c *cache) set(e *entry, value []byte) {
	c.grow(int64(len(value) - len(e.value)))
	e.value = value
}
