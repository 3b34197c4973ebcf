package store

import (
	"fmt"
	"testing"
)

// Generations go, but nothing of which memory has more than the disk.
func TestCacheKeepsWhatIsNotOnDisk(t *testing.T) {
	c := newCache(1 << 40)
	for name, e := range map[string]entry{
		"on disk": {batch: 4}, "on its way": {batch: 5}, "dirty": {dirty: true}, "pending": {pending: true},
	} {
		x := c.renew(name, 4)
		x.batch, x.dirty, x.pending = e.batch, e.dirty, e.pending
		c.set(x, []byte(name))
	}
	for range 2 {
		c.age(4)
	}
	for name, stays := range map[string]bool{"on disk": false, "on its way": true, "dirty": true, "pending": true} {
		if e := c.find(name); (e != nil) != stays || stays && string(e.value) != name {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// Memory is bounded, and what is written again and again stays at hand.
func TestCacheIsBounded(t *testing.T) {
	c := newCache(100 * (entrySize + 10))
	for i := range 10_000 {
		for _, key := range []string{"often", fmt.Sprint(i)} {
			e := c.renew(key, 0)
			c.set(e, make([]byte, 6))
		}
		if n := len(c.young) + len(c.old); n > 204 {
			t.Fatalf("%d entries", n)
		}
		if c.find("often") == nil {
			t.Fatal("what was written just now is gone")
		}
	}
	var size int64
	for _, e := range c.young {
		size += int64(len(e.key)+len(e.value)) + entrySize
	}
	if size != c.size {
		t.Fatalf("the young generation has %d bytes, it counts %d", size, c.size)
	}
}
