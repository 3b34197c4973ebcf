package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPendingNeverReachesDisk(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Lead)
	must(t, s.Set("replayed", []byte("0")))
	must(t, s.SetOffset(0))
	must(t, s.MarkRecovered())

	must(t, s.Set("a", []byte("1")))
	must(t, s.Set("a", []byte("2")))
	must(t, s.Set("replayed", []byte("3")))
	must(t, s.flush())
	rows, o := onDisk(t, s, Lead)
	same(t, "nothing is acknowledged", rows, map[string]string{"replayed": "0"})
	if o != 0 {
		t.Fatalf("offset %d, want 0", o)
	}
	if got := get(t, s, "a") + get(t, s, "replayed"); got != "23" {
		t.Fatalf("reads %q, want 23", got)
	}

	must(t, s.Acked("a", []byte("1"), 1))
	if got := get(t, s, "a"); got != "2" {
		t.Fatalf("after the first ack a read gives %q, want the newer 2", got)
	}
	must(t, s.flush())
	rows, o = onDisk(t, s, Lead)
	same(t, "one is", rows, map[string]string{"replayed": "0", "a": "1"})
	if o != 1 {
		t.Fatalf("offset %d, want 1", o)
	}
	it, err := s.Iterator()
	same(t, "iterator", rowsOf(t, it, err), rows)
}

func TestGap(t *testing.T) {
	for _, next := range []int64{5, 6, 100} {
		t.Run(fmt.Sprint(next), func(t *testing.T) {
			s := open(t, t.TempDir()+"/p", Lead)
			must(t, s.MarkRecovered())
			must(t, s.Acked("a", []byte("1"), 3)) // a compacted log does not begin at 0
			must(t, s.Set("a", []byte("2")))
			err := s.Acked("a", []byte("2"), next)
			if !errors.Is(err, errGap) || !strings.Contains(err.Error(), "expected offset 4") {
				t.Fatalf("got %v, want errGap", err)
			}
			if err := s.Acked("a", []byte("3"), 4); !errors.Is(err, errGap) {
				t.Fatalf("afterwards %v: a store with a gap must stay failed", err)
			}
			if err := s.Close(); !errors.Is(err, errGap) {
				t.Fatalf("Close says %v", err)
			}
			rows, o := inDir(t, s.path, Lead)
			if o > 3 || len(rows) > 1 || rows["a"] != "" && rows["a"] != "1" {
				t.Fatalf("on disk %v at offset %d: nothing after the gap may be there", rows, o)
			}
		})
	}
}

// An answer that comes late, to a session before this one, is no gap. While
// recovery reads, it must not move the offset either: the records in between
// are not there yet.
func TestLateAck(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Lead)
	must(t, s.Acked("late", []byte("9"), 9))
	must(t, s.flush())
	if rows, o := onDisk(t, s, Lead); o != noOffset || len(rows) != 0 {
		t.Fatalf("recovery has read nothing, yet on disk is %v at offset %d", rows, o)
	}
	for o := range int64(5) {
		must(t, s.Set("a", fmt.Append(nil, o)))
		must(t, s.SetOffset(o))
	}
	must(t, s.Acked("late", []byte("9"), 9))
	must(t, s.Acked("a", []byte("2"), 2))
	must(t, s.MarkRecovered())
	must(t, s.Acked("a", []byte("3"), 3))
	must(t, s.flush())
	rows, o := onDisk(t, s, Lead)
	if o != 4 {
		t.Fatalf("offset %d, want 4", o)
	}
	same(t, "rows", rows, map[string]string{"a": "4"})
	// Recovery ended before the late record: now it counts as a gap.
	if err := s.Acked("late", []byte("9"), 9); !errors.Is(err, errGap) {
		t.Fatalf("got %v, want errGap", err)
	}
}

// A row of a store that is closed may be answered late: the files, which the next
// store has by then, are left alone.
func TestLateAckOfARow(t *testing.T) {
	path := t.TempDir() + "/p"
	s := newStore(path, Lead)
	must(t, s.Open())
	must(t, s.MarkRecovered())
	value := make([]byte, s.memory) // more than may wait
	must(t, s.Set("a", value))
	row, ok := s.Pending("a")
	if _, other := s.Pending("b"); !ok || other {
		t.Fatal("the row that was set last is a, and it waits")
	}
	must(t, s.Close())
	next := open(t, path, Lead)
	must(t, next.Set("a", []byte("1")))
	must(t, next.SetOffset(0))
	must(t, next.MarkRecovered())
	_ = row.Acked(value, 0)
	if s.failed == nil {
		t.Error("the closed store has not tried to write")
	}
	must(t, next.flush())
	rows, o := onDisk(t, next, Lead)
	if same(t, "rows", rows, map[string]string{"a": "1"}); o != 0 {
		t.Errorf("offset %d, want 0", o)
	}
}

// Of two rows with the same bytes the first answer ends the wait. The second may come
// when memory knows the key by another entry: that one must have it.
func TestAckOfARowThatWasForgotten(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Lead)
	must(t, s.MarkRecovered())
	must(t, s.Set("a", []byte("1")))
	must(t, s.Set("a", []byte("1")))
	row, _ := s.Pending("a")
	must(t, row.Acked([]byte("1"), 0))
	must(t, s.flush())
	s.rows.drop(s.written, func(*entry) bool { return true })
	must(t, s.Set("a", []byte("2")))
	must(t, row.Acked([]byte("1"), 1))
	if e := s.rows.find("a"); !e.dirty || string(e.acked) != "1" || !e.pending {
		t.Errorf("the key's entry is %+v", e)
	}
}

// The loop flushes by itself: by time, and earlier when much is dirty.
func TestFlushesByItself(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Follow)
	must(t, s.Set("a", []byte("1")))
	must(t, s.SetOffset(7))
	clean := func() bool { s.mu.RLock(); defer s.mu.RUnlock(); return s.dirtySize == 0 }
	await(t, "a flush by time", clean)
	big := make([]byte, 1<<20)
	s.flushing.Lock() // or the last value may go before its offset, which then waits for the next one
	for i := range 5 {
		must(t, s.Set(fmt.Sprint("big", i), big))
		must(t, s.SetOffset(int64(8+i)))
	}
	s.flushing.Unlock()
	await(t, "a flush by size", clean)
	rows, o := onDisk(t, s, Follow)
	if len(rows) != 6 || o != 12 {
		t.Fatalf("%d rows at offset %d, want 6 at 12", len(rows), o)
	}
}

func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no sign of %s", what)
		}
	}
}

func TestOffsetDefault(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Lead)
	if o, err := s.GetOffset(-7); o != -7 || err != nil {
		t.Fatalf("offset of an empty store is %d, %v", o, err)
	}
	must(t, s.SetOffset(0))
	must(t, s.SetOffset(9))
	must(t, s.SetOffset(4)) // promises resolve in any order
	if o := offset(t, s); o != 9 {
		t.Fatalf("offset is %d, want 9", o)
	}
}

func TestIterator(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Follow)
	// No key may be taken for the offset's, and none is out of the range.
	keys := []string{"", "\x00", "a", "aa", "b", "o", "r", "s", "\xff\xff"}
	for i, k := range keys {
		must(t, s.Set(k, []byte(k+"!")))
		must(t, s.SetOffset(int64(i)))
	}
	tests := []struct {
		start, limit []byte
		want         []string
	}{
		{nil, nil, keys},
		{[]byte("a"), nil, []string{"a", "aa", "b", "o", "r", "s", "\xff\xff"}},
		{nil, []byte("b"), []string{"", "\x00", "a", "aa"}},
		{[]byte("aa"), []byte("o"), []string{"aa", "b"}},
		{[]byte("c"), []byte("d"), nil},
		{[]byte("z"), []byte("a"), nil},
		{[]byte(""), []byte(""), keys}, // what Goka's View.IteratorWithRange passes for "unbounded"
	}
	for _, tt := range tests {
		it, err := s.IteratorWithRange(tt.start, tt.limit)
		want := make(map[string]string)
		for _, k := range tt.want {
			want[k] = k + "!"
		}
		same(t, fmt.Sprintf("[%q, %q)", tt.start, tt.limit), rowsOf(t, it, err), want)
	}
}

func TestSeek(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Follow)
	for i, k := range []string{"b", "d", "f"} {
		must(t, s.Set(k, []byte(k)))
		must(t, s.SetOffset(int64(i)))
	}
	for _, tt := range []struct {
		start, limit, seek, want string
	}{
		{"", "", "", "b d f"}, {"", "", "a", "b d f"}, {"", "", "b", "b d f"}, {"", "", "c", "d f"},
		{"", "", "f", "f"}, {"", "", "g", ""},
		{"c", "", "a", "d f"}, {"c", "", "d", "d f"}, {"c", "e", "e", ""}, {"b", "f", "c", "d"},
	} {
		limit := []byte(nil)
		if tt.limit != "" {
			limit = []byte(tt.limit)
		}
		it, err := s.IteratorWithRange([]byte(tt.start), limit)
		must(t, err)
		if found := it.Seek([]byte(tt.seek)); found != (tt.want != "") {
			t.Errorf("%+v: Seek answers %t", tt, found)
		}
		var got []string
		for it.Next() {
			got = append(got, string(it.Key()))
		}
		must(t, it.Err())
		it.Release()
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%+v: got %q", tt, g)
		}
	}
}

// An iterator is a snapshot: what comes later is not in it.
func TestIteratorIsASnapshot(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Follow)
	must(t, s.Set("a", []byte("1")))
	it, err := s.Iterator()
	must(t, err)
	must(t, s.Set("a", []byte("2")))
	must(t, s.Set("b", []byte("2")))
	must(t, s.flush())
	same(t, "snapshot", rowsOf(t, it, nil), map[string]string{"a": "1"})
}

// One writer, several readers: no race, and no reader sees a value go back.
func TestReadersAndOneWriter(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Lead)
	must(t, s.MarkRecovered())
	const n = 4000
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			last := make([]string, 4)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				k := i % 4
				v, err := s.Get(fmt.Sprint(k))
				if err != nil || string(v) < last[k] {
					t.Errorf("key %d went from %q to %q, %v", k, last[k], v, err)
					return
				}
				last[k] = string(v)
				_, _ = s.GetOffset(0)
				_ = s.Updates()
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			it, err := s.Iterator()
			if err != nil {
				t.Error(err)
				return
			}
			for it.Next() {
				if _, err := it.Value(); err != nil {
					t.Error(err)
				}
			}
			it.Release()
		}
	})
	for i := range n {
		k, v := fmt.Sprint(i%4), fmt.Appendf(nil, "%08d", i)
		must(t, s.Set(k, v))
		if i > 0 {
			p := i - 1 // acknowledged one late
			must(t, s.Acked(fmt.Sprint(p%4), fmt.Appendf(nil, "%08d", p), int64(p)))
		}
		if i%100 == 0 {
			must(t, s.flush())
		}
	}
	close(done)
	wg.Wait()
}

// Goka's proxy opens and closes a storage once; a store that never opened is
// closed too.
func TestClose(t *testing.T) {
	s := newStore(t.TempDir()+"/p", Lead)
	must(t, s.Close())
	must(t, s.Open())
	must(t, s.MarkRecovered())
	must(t, s.Set("a", []byte("1")))
	must(t, s.Close())
	// The producer's last answers may come after it.
	if err := s.Acked("a", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	must(t, s.SetOffset(0))
	if v, err := s.Get("never"); err == nil {
		t.Fatalf("read %q from a closed store without an error", v)
	}
	if _, err := os.Stat(filepath.Join(s.path, brokenFile)); err == nil {
		t.Fatal("a read after Close marks the files as broken")
	}
}

// A batch that cannot be written fails a processor, and the next Open starts
// afresh. A view goes on from memory.
func TestFailedWrite(t *testing.T) {
	for _, mode := range []Mode{Lead, Follow} {
		s := newStore(t.TempDir()+"/p", mode)
		must(t, s.Open())
		must(t, s.Set("a", []byte("1")))
		must(t, s.SetOffset(0))
		must(t, s.flush())
		must(t, s.MarkRecovered())
		must(t, s.Set("b", []byte("2")))
		if mode == Lead {
			must(t, s.Acked("b", []byte("2"), 1))
		}
		must(t, s.db.SetReadOnly()) // what LevelDB does after a write error
		if err := s.flush(); err == nil {
			t.Fatal("the write went through")
		}
		if get(t, s, "a") != "1" || get(t, s, "b") != "2" {
			t.Fatal("reads have lost a row")
		}
		must(t, s.Set("c", []byte("3")))
		if mode == Lead {
			if err := s.Acked("c", []byte("3"), 2); err == nil {
				t.Fatal("Acked goes on")
			}
		}
		if get(t, s, "c") != "3" {
			t.Fatal("reads have lost a row")
		}
		if _, err := s.Iterator(); err == nil {
			t.Fatal("Iterator goes on")
		}
		if err := s.Close(); err == nil {
			t.Fatal("Close is silent")
		}
		if rows, o := inDir(t, s.path, mode); len(rows) != 0 || o != noOffset {
			t.Fatalf("opened with %v at %d, want an empty store", rows, o)
		}
	}
}

// The files cannot be opened and cannot be replaced: an error that names STATE_DIR.
func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	s := newStore(filepath.Join(file, "p"), Lead)
	if err := s.Open(); err == nil || !strings.Contains(err.Error(), "STATE_DIR") {
		t.Fatalf("got %v, want an error about STATE_DIR", err)
	}
	must(t, s.Close())
}

// A state at or beyond the end of the log was written under another one.
func TestOpenThrowsAwayWhatTheLogDoesNotHave(t *testing.T) {
	for limit, kept := range map[int64]bool{9: true, 8: true, 7: false, 0: false} {
		path := t.TempDir()
		s := open(t, path, Follow)
		must(t, s.Set("w", []byte("v")))
		must(t, s.SetOffset(7))
		shut(t, s)
		again := newStore(path, Follow)
		again.Limit(limit)
		must(t, again.Open())
		if v := get(t, again, "w"); (v == "v") != kept || kept != (offset(t, again) == 7) {
			t.Errorf("limit %d: holds %q at %d", limit, v, offset(t, again))
		}
		shut(t, again)
	}
}
