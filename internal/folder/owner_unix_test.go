//go:build unix

package folder_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"coinbit/internal/folder"
)

// Only root can give a folder away. The others look at one of root's.
func TestAnotherUsers(t *testing.T) {
	root, name := "/", "tmp"
	if os.Geteuid() == 0 {
		root, name = t.TempDir(), "theirs"
		must(t, os.Mkdir(filepath.Join(root, name), 0o777))
		must(t, os.Chown(filepath.Join(root, name), 12345, 12345))
	}
	if _, err := folder.Own(root, name); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("got %v", err)
	}
}
