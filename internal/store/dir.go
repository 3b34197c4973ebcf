// Package store keeps a group table's partition on local disk for Goka. The
// changelog topic is the truth; what lies here only saves reading it again. So
// the one promise is: what is on disk is a prefix of the changelog, values and
// offset written together, and anything doubtful is thrown away.
package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
	"github.com/lovoo/goka/storage"

	"coinbit/internal/folder"
)

// maxInstances bounds the search for a free place.
const maxInstances = 1000

// Dir is the place of one running instance below the state directory:
// <root>/<cluster id>/<service>/<n>, held by a lock that ends with the process.
type Dir struct {
	path string
	lock *flock.Flock
}

// Claim takes the first free place of service for a cluster. A place that a
// killed process left is free again, with its state.
func Claim(root, clusterID, service string) (*Dir, error) {
	for n := range maxInstances {
		path, err := folder.Own(root, safe(clusterID), service, strconv.Itoa(n))
		if err != nil {
			return nil, fmt.Errorf("STATE_DIR: %w", err)
		}
		lock := flock.New(filepath.Join(path, "LOCK"))
		ok, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("STATE_DIR: lock %s: %w", path, err)
		}
		if ok {
			return &Dir{path: path, lock: lock}, nil
		}
		_ = lock.Close()
	}
	return nil, fmt.Errorf("STATE_DIR: %s has %d running instances", filepath.Join(root, safe(clusterID), service), maxInstances)
}

// Close gives the place back.
func (d *Dir) Close() error { return d.lock.Close() }

// Path is where the place lies.
func (d *Dir) Path() string { return d.path }

// Mode says who changes a store's values.
type Mode int

const (
	// Follow: only records read from the changelog (a view).
	Follow Mode = iota
	// Lead: the changelog until recovery ends, then a processor, whose values
	// count once they are acknowledged.
	Lead
)

// Builder returns Goka's hook for one table. State of an earlier topic of the
// same name is removed. opened is given each store.
func (d *Dir) Builder(table, topicID string, mode Mode, opened func(partition int32, s *Store)) (storage.Builder, error) {
	name := safe(table) + "@" + safe(topicID)
	if err := d.removeOthers(safe(table)+"@", name); err != nil {
		return nil, err
	}
	return func(_ string, partition int32) (storage.Storage, error) {
		s := newStore(filepath.Join(d.path, name, strconv.Itoa(int(partition))), mode)
		opened(partition, s)
		return s, nil
	}, nil
}

func (d *Dir) removeOthers(prefix, keep string) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("STATE_DIR: %w", err)
	}
	var errs error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Name() != keep {
			errs = errors.Join(errs, os.RemoveAll(filepath.Join(d.path, e.Name())))
		}
	}
	return errs
}

// safe keeps an id from leaving its folder.
func safe(id string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '_'
	}, id)
	return "_" + clean // never empty, never "." or ".."
}
