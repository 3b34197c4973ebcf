package store

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// Rows come as parts of what was fetched. One that stays must not keep the whole of it.
func TestRowsDoNotKeepWhatWasFetched(t *testing.T) {
	const fetches, size = 400, 512 << 10
	for _, mode := range []Mode{Lead, Follow} {
		s := newStore(t.TempDir()+"/p", mode)
		s.Memory(8 << 20)
		must(t, s.Open())
		if mode == Follow {
			must(t, s.MarkRecovered())
		}
		offset := int64(0)
		for fetch := range fetches {
			fetched := make([]byte, size)
			for i := range 50 {
				key := fmt.Sprint("hot", i)
				if i == 0 {
					key = fmt.Sprint("cold", fetch)
				}
				must(t, s.Set(key, fetched[i*340:i*340+300:i*340+300]))
				must(t, s.SetOffset(offset))
				offset++
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.HeapAlloc > fetches*size/4 {
			t.Errorf("mode %d: %d MB of heap after %d MB were fetched", mode, m.HeapAlloc>>20, fetches*size>>20)
		}
		must(t, s.Close())
	}
}

// Rows that cannot leave memory yet do not make each further one dearer: the other side
// has a hundredth of them.
func TestManyRowsThatWait(t *testing.T) {
	row := func(n int) time.Duration {
		s := newStore(t.TempDir()+"/p", Lead)
		s.Memory(2 << 20)
		must(t, s.Open())
		must(t, s.MarkRecovered())
		began := time.Now()
		for i := range n {
			must(t, s.Set(fmt.Sprintf("wallet-%012d", i), make([]byte, 60)))
		}
		took := time.Since(began) / time.Duration(n)
		must(t, s.Close())
		return took
	}
	if few, many := row(200), row(20_000); many > 50*few+100*time.Microsecond {
		t.Errorf("%v a row while 20,000 wait, %v while 200 do", many, few)
	}
}
