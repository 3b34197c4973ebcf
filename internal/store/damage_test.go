package store

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
)

// Whatever happened to the files, Open succeeds, and what it shows is empty or
// a prefix of the changelog. A read that hits damage later fails, leaves a note
// and the next Open starts afresh.
func TestDamagedFiles(t *testing.T) {
	for _, size := range []int{200, 20_000} { // large rows turn the journal over
		log, origin := history(t, size)
		for seed := range uint64(60) {
			t.Run(fmt.Sprint(size, "/", seed), func(t *testing.T) {
				t.Parallel()
				opensToAPrefix(t, rand.New(rand.NewPCG(seed, 3)), log, origin)
			})
		}
	}
}

func opensToAPrefix(t *testing.T, r *rand.Rand, log []record, origin string) {
	path := t.TempDir() + "/p"
	copyDir(t, origin, path)
	checkDamaged(t, damage(t, r, path), path, log)
}

// The manifest says which files belong together: an entry lost from it must
// never pass for a smaller store.
func TestDamagedManifest(t *testing.T) {
	log, origin := history(t, 60_000)
	found, err := filepath.Glob(filepath.Join(origin, "MANIFEST-*"))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("manifests: %v", found)
	}
	data, err := os.ReadFile(found[0])
	must(t, err)
	path := filepath.Join(t.TempDir(), "p")
	with := func(did string, manifest []byte) {
		t.Helper()
		must(t, os.RemoveAll(path))
		copyDir(t, origin, path)
		must(t, os.WriteFile(filepath.Join(path, filepath.Base(found[0])), manifest, 0o600))
		checkDamaged(t, did, path, log)
	}
	for n := 3; n < len(data); n += 7 {
		flipped := slices.Clone(data)
		flipped[n] ^= 4
		with(fmt.Sprintf("flipped a bit at %d of %d of the manifest", n, len(data)), flipped)
		cut := afterHeader(data, n)
		with(fmt.Sprintf("cut the manifest from %d to %d bytes", len(data), cut), data[:cut])
	}
}

// afterHeader moves a cut of a manifest that falls between two entries, or into
// the 7 bytes of the next one's header, behind these: LevelDB takes that for the
// end. No crash leaves it so, since each entry is synced when it is written.
func afterHeader(manifest []byte, cut int) int {
	for at := 0; at+7 <= len(manifest); {
		if at <= cut && cut < at+7 {
			return at + 7
		}
		at += 7 + int(binary.LittleEndian.Uint16(manifest[at+4:]))
	}
	return cut
}

func checkDamaged(t *testing.T, did, path string, log []record) {
	t.Helper()
	for range 3 { // a read may find the damage: then afresh
		s := newStore(path, Lead)
		if err := s.Open(); err != nil {
			t.Fatalf("%s: %v", did, err)
		}
		rows, o, err := readAll(s)
		if cerr := s.Close(); cerr != nil {
			t.Logf("%s: Close: %v", did, cerr)
		}
		if err != nil {
			if _, statErr := os.Stat(filepath.Join(path, brokenFile)); statErr != nil {
				t.Fatalf("%s: %v, and no note of it", did, err)
			}
			continue
		}
		if o >= int64(len(log)) {
			t.Fatalf("%s: offset %d", did, o)
		}
		same(t, fmt.Sprintf("%s: at offset %d", did, o), rows, fold(log, o))
		return
	}
	t.Fatalf("%s: never readable again", did)
}

const historyKeys = 80

// readAll walks all rows, as an index of them does, then reads by key, as processors
// and views do, and holds the one to the other.
func readAll(s *Store) (map[string]string, int64, error) {
	o, err := s.GetOffset(noOffset)
	if err != nil {
		return nil, 0, err
	}
	walked := make(map[string]string)
	it, err := s.Iterator()
	if err != nil {
		return nil, 0, err
	}
	defer it.Release()
	for it.Next() {
		v, _ := it.Value()
		walked[string(it.Key())] = string(v)
	}
	if err := it.Err(); err != nil {
		return nil, 0, err
	}
	rows := make(map[string]string)
	for i := range historyKeys {
		k := fmt.Sprintf("k%d", i)
		v, err := s.Get(k)
		if err != nil {
			return nil, 0, err
		}
		if v != nil {
			rows[k] = string(v)
		}
	}
	if !maps.Equal(walked, rows) {
		return nil, 0, fmt.Errorf("a walk finds %d rows, reads find %d", len(walked), len(rows))
	}
	return rows, o, nil
}

// history is a store that was opened several times, so that it has tables, a
// manifest with several entries and a journal.
func history(t *testing.T, size int) ([]record, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "origin")
	r := rand.New(rand.NewPCG(1, 4))
	var log []record
	for round := range 5 {
		s := newStore(path, Lead)
		must(t, s.Open())
		must(t, s.MarkRecovered())
		n := 60
		if round == 4 {
			n = 1200
		}
		for i := range n {
			o := int64(len(log))
			// Most of the time a key is left alone: what is lost with one file is
			// then not covered up by the next.
			k := round*8 + 8*i*6/n + r.IntN(8)
			e := record{fmt.Sprintf("k%d", k%historyKeys), []byte(fmt.Sprintf("%d ", o) + strings.Repeat("v", r.IntN(size)))}
			log = append(log, e)
			must(t, s.Set(e.key, e.value))
			must(t, s.Acked(e.key, e.value, o))
			if r.IntN(10) == 0 {
				must(t, s.flush())
			}
		}
		must(t, s.Close())
	}
	return log, path
}

func damage(t *testing.T, r *rand.Rand, path string) string {
	t.Helper()
	entries, err := os.ReadDir(path)
	must(t, err)
	var names []string
	for _, e := range entries {
		if e.Name() != "LOCK" && e.Name() != "LOG" && e.Name() != "LOG.old" {
			names = append(names, e.Name())
		}
	}
	name := filepath.Join(path, names[r.IntN(len(names))])
	base := filepath.Base(name)
	data, err := os.ReadFile(name)
	must(t, err)
	switch r.IntN(5) {
	case 0:
		must(t, os.Remove(name))
		return "deleted " + base
	case 1:
		n := r.IntN(len(data) + 1)
		if strings.HasPrefix(base, "MANIFEST") {
			n = min(afterHeader(data, n), len(data))
		}
		must(t, os.Truncate(name, int64(n)))
		return fmt.Sprintf("cut %s from %d to %d bytes", base, len(data), n)
	case 2:
		if len(data) == 0 {
			return "nothing"
		}
		n := r.IntN(len(data))
		data[n] ^= 1 << r.IntN(8)
		must(t, os.WriteFile(name, data, 0o600))
		return fmt.Sprintf("flipped a bit at %d of %s", n, base)
	case 3:
		if len(data) == 0 {
			return "nothing"
		}
		from := r.IntN(len(data))
		to := min(len(data), from+1+r.IntN(4096))
		clear(data[from:to])
		must(t, os.WriteFile(name, data, 0o600))
		return fmt.Sprintf("zeroed %d to %d of %s", from, to, base)
	default:
		n := 1 + r.IntN(100)
		garbage := make([]byte, n)
		for i := range garbage {
			garbage[i] = byte(r.Uint32())
		}
		must(t, os.WriteFile(name, append(data, garbage...), 0o600))
		return fmt.Sprintf("added %d bytes to %s", n, base)
	}
}

func TestBrokenMarker(t *testing.T) {
	path := t.TempDir() + "/p"
	s := open(t, path, Lead)
	must(t, s.Set("a", []byte("1")))
	must(t, s.SetOffset(3))
	must(t, s.Close())
	must(t, os.WriteFile(filepath.Join(path, brokenFile), nil, 0o600))
	for range 2 { // the note is gone with the files
		rows, o := inDir(t, path, Lead)
		if len(rows) != 0 || o != noOffset {
			t.Fatalf("%v at %d, want an empty store", rows, o)
		}
	}
	if _, err := os.Stat(filepath.Join(path, brokenFile)); !os.IsNotExist(err) {
		t.Fatalf("the note is still there: %v", err)
	}
}

func TestGarbageOffset(t *testing.T) {
	for _, garbage := range [][]byte{{}, {1}, []byte("0123456"), []byte("012345678"), []byte("\xff\xff\xff\xff\xff\xff\xff\x00")} {
		path := t.TempDir() + "/p"
		s := open(t, path, Lead)
		must(t, s.Set("a", []byte("1")))
		must(t, s.SetOffset(3))
		must(t, s.Close())
		db, err := leveldb.OpenFile(path, nil)
		must(t, err)
		must(t, db.Put(offsetKey, garbage, nil))
		must(t, db.Close())
		rows, o := inDir(t, path, Lead)
		if len(rows) != 0 || o != noOffset {
			t.Fatalf("offset %x: opened with %v at %d, want an empty store", garbage, rows, o)
		}
	}
}
