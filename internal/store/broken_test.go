package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A read that finds damage tells the owner: nobody else would open the files anew.
func TestDamageIsTold(t *testing.T) {
	s := open(t, t.TempDir()+"/p", Follow)
	value := make([]byte, 1000)
	for i := range 300 {
		for j := range value {
			value[j] = byte(rand.Uint32()) // nothing that compresses
		}
		must(t, s.Set(fmt.Sprintf("k%03d", i), slices.Clone(value)))
		must(t, s.SetOffset(int64(i)))
	}
	must(t, s.Close())
	// In a table: a journal would be read, and found damaged, by Open.
	s = newStore(s.path, Follow)
	must(t, s.Open())
	must(t, s.Close())
	tables, _ := filepath.Glob(filepath.Join(s.path, "*.ldb"))
	if len(tables) == 0 {
		t.Fatal("no table was written")
	}
	for _, table := range tables {
		data, err := os.ReadFile(table)
		must(t, err)
		data[len(data)/2] ^= 0x10 // a row's block, not the offset's, which Open reads
		must(t, os.WriteFile(table, data, 0o600))
	}
	s = newStore(s.path, Follow)
	var told error
	s.OnBroken(func(err error) { told = err })
	must(t, s.Open())
	var err error
	for i := 0; i < 300 && err == nil; i++ {
		_, err = s.Get(fmt.Sprintf("k%03d", i))
	}
	if !errors.Is(err, ErrBroken) || !errors.Is(told, ErrBroken) {
		t.Errorf("a read says %v, its owner was told %v", err, told)
	}
	if err := s.Close(); err != nil {
		t.Logf("Close: %v", err)
	}
}

// A view whose rows cannot be written goes on from memory, and ends when that is full.
func TestFullMemoryIsTold(t *testing.T) {
	s := newStore(t.TempDir()+"/p", Follow)
	s.Memory(64 << 10)
	var told error
	s.OnBroken(func(err error) { told = err })
	must(t, s.Open())
	must(t, s.Set("a", []byte("1")))
	must(t, s.db.SetReadOnly()) // what LevelDB does after a write error
	if err := s.flush(); !errors.Is(err, ErrBroken) || told != nil {
		t.Fatalf("a write says %v, its owner was told %v", err, told)
	}
	var err error
	rows, value := 0, make([]byte, 1000)
	for ; err == nil && rows < 1000; rows++ {
		err = s.Set(fmt.Sprint(rows), value)
	}
	if !errors.Is(err, ErrBroken) || !errors.Is(told, ErrBroken) || rows < 30 || rows > 70 {
		t.Errorf("after %d rows of 1 kB: %v, its owner was told %v", rows, err, told)
	}
	if err := s.Close(); !errors.Is(err, ErrBroken) {
		t.Errorf("Close: %v", err)
	}
}
