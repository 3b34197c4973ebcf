package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Sweeps take nothing of which memory has more than the disk.
func TestCacheKeepsWhatIsNotOnDisk(t *testing.T) {
	c := newCache(nil, 1)
	for name, e := range map[string]*entry{
		"on disk": {batch: 4}, "on its way": {batch: 5}, "dirty": {dirty: true}, "pending": {pending: true},
	} {
		x := c.renew(name, 4)
		x.batch, x.dirty, x.pending = e.batch, e.dirty, e.pending
		c.set(x, []byte(name))
	}
	for range 2 {
		c.sweep(4)
	}
	for name, stays := range map[string]bool{"on disk": false, "on its way": true, "dirty": true, "pending": true} {
		if e := c.find(name); (e != nil) != stays || stays && string(e.value) != name {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// Memory is bounded, and what is written again and again stays at hand.
func TestCacheIsBounded(t *testing.T) {
	const rows = 100
	for _, keys := range []int{rows / 2, rows, 10 * rows, 1 << 20} {
		c := newCache(nil, rows*(entrySize+10))
		r := rand.New(rand.NewPCG(1, 2))
		there := 0
		for range 10_000 {
			one := fmt.Sprint(r.IntN(keys))
			if c.find(one) != nil {
				there++
			}
			for _, key := range []string{"often", one} {
				c.set(c.renew(key, 0), make([]byte, 1+r.IntN(9)))
			}
			if c.size > c.limit+2*(entrySize+20) {
				t.Fatalf("%d bytes of %d", c.size, c.limit)
			}
			if c.find("often") == nil || c.find(one) == nil {
				t.Fatal("what was written just now is gone")
			}
		}
		var size int64
		for _, e := range c.entries {
			size += e.size()
		}
		if size != c.size {
			t.Fatalf("it has %d bytes, and counts %d", size, c.size)
		}
		if least := 10_000 * min(keys, 3*rows/4) / keys * 9 / 10; there < least {
			t.Errorf("of %d keys %d in 10,000 were at hand, want %d", keys, there, least)
		}
	}
}

// What was written longest ago goes first.
func TestCacheForgetsTheOldest(t *testing.T) {
	const rows = 1000
	c := newCache(nil, rows*(entrySize+10))
	for i := range 50 * rows {
		c.set(c.renew(fmt.Sprintf("%05d", i), 0), make([]byte, 5))
		if back := i - rows/2; back > 0 && c.find(fmt.Sprintf("%05d", back)) == nil {
			t.Fatalf("after %d the one before %d others is gone", i, rows/2)
		}
	}
}

// A disk that was slow for a while makes memory no larger for good.
func TestCacheShrinksAgain(t *testing.T) {
	const rows = 100
	c := newCache(nil, rows*(entrySize+10))
	for i := range 20 * rows {
		e := c.renew(fmt.Sprintf("%05d", i), 0)
		c.set(e, make([]byte, 5))
		e.dirty = true
	}
	if c.size < 10*c.limit {
		t.Fatal("something of which memory has more than the disk is gone")
	}
	for _, e := range c.entries {
		e.dirty, e.batch = false, 1
	}
	c.caughtUp()
	c.renew("00000", 1)
	if c.size > c.limit {
		t.Fatalf("%d bytes of %d", c.size, c.limit)
	}
}
