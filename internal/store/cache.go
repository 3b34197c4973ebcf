package store

// entry is what memory knows of one key.
type entry struct {
	key     string
	value   []byte // the newest, for readers; nil: deleted
	acked   []byte // the newest in the changelog, while dirty
	dirty   bool   // acked waits to be written
	pending bool   // value is not acknowledged
	batch   uint64 // the last one that took acked to disk
}

// entrySize is about what an entry takes beside its key and values.
const entrySize = 160

// cache holds the rows written lately, in two generations: when the young one is
// full, the old one goes. What the disk does not have yet stays.
type cache struct {
	limit      int64 // bytes of a generation, about
	size       int64 // of the young one
	kept       int64 // what of it was there from its beginning: not on disk then
	young, old map[string]*entry
}

func newCache(limit int64) cache {
	return cache{limit: limit, young: make(map[string]*entry), old: make(map[string]*entry)}
}

// find returns nil for a key that memory does not know.
func (c *cache) find(key string) *entry {
	if e := c.young[key]; e != nil {
		return e
	}
	return c.old[key]
}

// renew makes key's entry one of the young generation, a new one if need be.
// Batches up to written are on disk.
func (c *cache) renew(key string, written uint64) *entry {
	e := c.young[key]
	if e != nil {
		return e
	}
	if c.size >= c.kept+max(c.kept, c.limit) {
		c.age(written)
		if e = c.young[key]; e != nil { // what is not on disk went on into it
			return e
		}
	}
	if e = c.old[key]; e == nil {
		e = &entry{key: key}
	}
	c.add(e)
	return e
}

func (c *cache) add(e *entry) {
	c.young[e.key] = e
	c.size += int64(len(e.key)+len(e.value)) + entrySize
}

// age drops the old generation but for what is not on disk.
func (c *cache) age(written uint64) {
	gone := c.old
	c.old, c.young, c.size = c.young, make(map[string]*entry, len(gone)), 0
	for key, e := range gone {
		if (e.dirty || e.pending || e.batch > written) && c.old[key] == nil {
			c.add(e)
		}
	}
	c.kept = c.size
}

// set gives an entry its newest value.
func (c *cache) set(e *entry, value []byte) {
	c.size += int64(len(value) - len(e.value))
	e.value = value
}
