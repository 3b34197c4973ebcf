package folder_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"coinbit/internal/folder"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	return info.Mode()
}

func TestOwn(t *testing.T) {
	root := filepath.Join(t.TempDir(), "not", "yet")
	for range 2 { // made, and found
		path, err := folder.Own(root, "a", "b")
		must(t, err)
		if path != filepath.Join(root, "a", "b") || modeOf(t, path) != os.ModeDir|0o700 || modeOf(t, filepath.Dir(path)) != os.ModeDir|0o700 {
			t.Fatalf("%s: %v", path, modeOf(t, path))
		}
	}
}

// A root that was there stays as it is, what is below it is closed.
func TestOthersCannotRead(t *testing.T) {
	root := t.TempDir()
	must(t, os.Chmod(root, 0o755))
	must(t, os.Mkdir(filepath.Join(root, "a"), 0o755))
	_, err := folder.Own(root, "a")
	must(t, err)
	if modeOf(t, root).Perm() != 0o755 || modeOf(t, filepath.Join(root, "a")).Perm() != 0o700 {
		t.Fatal(modeOf(t, root), modeOf(t, filepath.Join(root, "a")))
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	elsewhere, root := t.TempDir(), t.TempDir()
	must(t, os.Chmod(elsewhere, 0o755))
	must(t, os.Symlink(elsewhere, filepath.Join(root, "link")))
	must(t, os.Symlink(filepath.Join(elsewhere, "nothing"), filepath.Join(root, "dangling")))
	must(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	for _, name := range []string{"link", "dangling", "file"} {
		if _, err := folder.Own(root, name, "x"); err == nil || !strings.Contains(err.Error(), filepath.Join(root, name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 || modeOf(t, elsewhere).Perm() != 0o755 {
		t.Error("something was done elsewhere", entries, err)
	}
}
