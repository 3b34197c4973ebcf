// Package folder makes the folders in which the program keeps what nobody else may read
// or change: below a place that the operator names and may share with others.
package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Own makes the folders root and, one in the other, names below it. Those below root are
// this user's alone: a link that somebody laid there is not followed, and what belongs to
// somebody else is not used. It returns the innermost path.
func Own(root string, names ...string) (string, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	path := root
	for _, name := range names {
		path = filepath.Join(path, name)
		if err := own(path); err != nil {
			return "", err
		}
	}
	return path, nil
}

func own(path string) error {
	if err := os.Mkdir(path, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	found, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !found.IsDir() {
		return fmt.Errorf("%s is a file or a link, not a folder: remove it", path)
	}
	// Judged and changed is what is open, which nobody can replace.
	f, err := os.Open(path) //nolint:gosec // below what the operator names
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(found, opened) || !ours(opened) {
		return fmt.Errorf("%s belongs to another user: remove it, or name another place", path)
	}
	if opened.Mode().Perm() == 0o700 {
		return nil
	}
	return f.Chmod(0o700)
}
