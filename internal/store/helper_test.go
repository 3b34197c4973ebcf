package store

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/lovoo/goka/storage"
)

// open opens the store at path and closes it with the test.
func open(t testing.TB, path string, mode Mode) *Store {
	t.Helper()
	s := newStore(path, mode)
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	return s
}

// shut closes s once, as Goka does: its proxy calls Close a single time.
func shut(t testing.TB, s *Store) {
	t.Helper()
	select {
	case <-s.stop:
		return
	default:
	}
	if err := s.Close(); err != nil && s.failed == nil {
		t.Error(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get reads key; "" stands for none.
func get(t testing.TB, s *Store, key string) string {
	t.Helper()
	v, err := s.Get(key)
	must(t, err)
	has, err := s.Has(key)
	must(t, err)
	if has != (v != nil) {
		t.Fatalf("Has(%q) is %t, Get answers %q", key, has, v)
	}
	return string(v)
}

func offset(t testing.TB, s *Store) int64 {
	t.Helper()
	o, err := s.GetOffset(noOffset)
	must(t, err)
	return o
}

// rowsOf reads an iterator to its end and releases it.
func rowsOf(t testing.TB, it storage.Iterator, err error) map[string]string {
	t.Helper()
	must(t, err)
	defer it.Release()
	m := make(map[string]string)
	last, first := "", true
	for it.Next() {
		v, err := it.Value()
		must(t, err)
		key := string(it.Key())
		if !first && key <= last {
			t.Fatalf("iterator went from %q to %q", last, key)
		}
		last, first = key, false
		m[key] = string(v)
	}
	must(t, it.Err())
	return m
}

// onDisk is what a process finds that opens the files as they are now: after a
// kill, nothing more reaches them.
func onDisk(t testing.TB, s *Store, mode Mode) (rows map[string]string, o int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy")
	s.flushing.Lock() // no batch is half written; kill_test.go tries that
	copyDir(t, s.path, path)
	s.flushing.Unlock()
	return inDir(t, path, mode)
}

// inDir opens path, reads it all and closes it.
func inDir(t testing.TB, path string, mode Mode) (rows map[string]string, o int64) {
	t.Helper()
	c := newStore(path, mode)
	must(t, c.Open())
	it, err := c.Iterator()
	rows = rowsOf(t, it, err)
	o = offset(t, c)
	must(t, c.Close())
	return rows, o
}

// copyDir copies the files as they are at one moment: LevelDB removes and adds
// some in the background, so it is tried again until nothing changed meanwhile.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	await(t, "a moment of rest in "+from, func() bool {
		before := sizes(t, from)
		must(t, os.RemoveAll(to))
		return os.CopyFS(to, os.DirFS(from)) == nil && maps.Equal(before, sizes(t, from))
	})
}

func sizes(t testing.TB, dir string) map[string]int64 {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	m := make(map[string]int64)
	for _, e := range entries {
		m[e.Name()] = -1
		if info, err := e.Info(); err == nil {
			m[e.Name()] = info.Size()
		}
	}
	return m
}

// record is one entry of a changelog; its offset is its index.
type record struct {
	key   string
	value []byte // nil: tombstone
}

// fold is what the changelog up to and including offset upto holds.
func fold(log []record, upto int64) map[string]string {
	m := make(map[string]string)
	for _, r := range log[:upto+1] {
		if r.value == nil {
			delete(m, r.key)
		} else {
			m[r.key] = string(r.value)
		}
	}
	return m
}

func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s: %q is %.40q, want %.40q", what, k, g, v)
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%s: %q is %.40q, want none", what, k, v)
		}
	}
	t.FailNow()
}
