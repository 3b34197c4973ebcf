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
