package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Rows of fresh beside a map, with hashes that many keys share.
func TestFresh(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		f := newFresh(100)
		hashes := 1 + r.Uint64N(8)
		f.hash = func(key string) uint64 { return uint64(key[0]) % hashes }
		newest, onDisk := map[string][]byte{}, map[string][]byte{}
		var left []leaving
		for step := range 200 {
			key := string(rune('a' + r.IntN(12)))
			switch n := r.IntN(20); {
			case n < 12:
				value := []byte(fmt.Sprint(step))
				if n == 0 {
					value = nil // a tombstone
				}
				if _, ok := f.set(key, value); !ok {
					t.Fatal("full")
				}
				newest[key] = value
			case n < 14 && left == nil:
				left = append(left, f.rows...)
				f.leave(1)
			case n < 16:
				for _, row := range left {
					onDisk[row.key] = row.value
				}
				left = nil
				f.written()
			}
			for key, want := range newest {
				got, known := f.find(key)
				if !known {
					got = onDisk[key]
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("seed %d, step %d: %q is %q, want %q", seed, step, key, got, want)
				}
			}
		}
	}
}

// What is read faster than the disk takes it waits for the disk.
func TestMemoryIsBounded(t *testing.T) {
	s := newStore(t.TempDir()+"/p", Lead)
	s.Memory(8 << 20)
	must(t, s.Open())
	t.Cleanup(func() { shut(t, s) })
	s.flushing.Lock() // the disk takes nothing
	const rows, size = 20_000, 1000
	read := make(chan struct{})
	var failed error
	go func() {
		defer close(read)
		for i := 0; i < rows && failed == nil; i++ {
			failed = s.Set(fmt.Sprint(i), make([]byte, size))
		}
	}()
	waiting := func() int64 {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.dirtySize
	}
	await(t, "half of memory to be used", func() bool { return waiting() >= 4<<20 })
	select {
	case <-read:
		t.Errorf("all was read before the disk had any: %v", failed)
	case <-time.After(50 * time.Millisecond): // nothing is to be seen of one who waits
	}
	if n := waiting(); n > 4<<20+2*size {
		t.Errorf("%d bytes wait", n)
	}
	s.flushing.Unlock()
	<-read
	must(t, failed)
	if got := get(t, s, "0"); len(got) != size {
		t.Errorf("a row of %d bytes, want %d", len(got), size)
	}
}

// More keys than fresh may know: the rest goes the way of other recoveries.
func TestFreshIsFull(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Lead)
	s.fresh.max = 1
	must(t, s.Set("a", []byte("1")))
	must(t, s.SetOffset(0))
	s.flushing.Lock() // a batch on its way while fresh ends
	s.mu.Lock()
	s.fresh.leave(s.batch + 1)
	s.mu.Unlock()
	must(t, s.Set("b", []byte("2")))
	must(t, s.SetOffset(1))
	if s.fresh != nil {
		t.Error("fresh goes on")
	}
	if a, b := get(t, s, "a"), get(t, s, "b"); a != "1" || b != "2" {
		t.Errorf("a is %q, b is %q", a, b)
	}
	s.flushing.Unlock()
}
