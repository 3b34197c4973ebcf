package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A power cut while the second journal is begun and the first one's table is not made
// yet; the platter has the second, not the first.
func TestPowerCutLosesTheFirstJournal(t *testing.T) {
	moments := 0
	for _, batches := range [][]int{{20, 10, 28}, {28, 62}, {28, 28, 28, 28, 10, 120}, {20, 20, 5, 110}} { // rows of 4 KB in each; more than half of memory would not wait
		for range 3 {
			path := t.TempDir() + "/p"
			s := newStore(path, Lead)
			s.Memory(1 << 20)
			must(t, s.Open())
			must(t, s.MarkRecovered())
			var log []record
			var cut string
			for n, rows := range batches {
				if n == len(batches)-1 {
					cut = filepath.Join(t.TempDir(), "cut")
					copyDir(t, path, cut)
				}
				s.flushing.Lock() // the loop is not to flush half of it
				for i := range rows {
					e := record{fmt.Sprintf("b%d-%d", n, i), make([]byte, 4000)}
					must(t, s.Acked(e.key, e.value, int64(len(log))))
					log = append(log, e)
				}
				s.flushing.Unlock()
				must(t, s.flush())
			}
			was, _ := filepath.Glob(filepath.Join(cut, "*.log"))
			is, _ := filepath.Glob(filepath.Join(path, "*.log"))
			slices.Sort(was)
			newest := ""
			var data []byte
			for _, f := range is {
				if b, err := os.ReadFile(f); err == nil && len(b) >= batches[len(batches)-1]*4000 && filepath.Base(f) > filepath.Base(was[len(was)-1]) {
					newest, data = f, b
				}
			}
			must(t, s.Close())
			if newest == "" {
				continue // its table was made too soon
			}
			moments++
			for _, f := range was {
				must(t, os.Truncate(f, 0))
			}
			must(t, os.WriteFile(filepath.Join(cut, filepath.Base(newest)), data, 0o600))

			c := newStore(cut, Lead)
			must(t, c.Open())
			o := offset(t, c)
			missing := 0
			for i := int64(0); i <= o; i++ {
				v, err := c.Get(log[i].key)
				must(t, err)
				if v == nil {
					missing++
				}
			}
			must(t, c.Close())
			if missing > 0 {
				t.Errorf("%v: opens at offset %d with %d rows missing", batches, o, missing)
			}
		}
	}
	if moments == 0 {
		t.Fatal("there was no such moment")
	}
}
