package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func claim(t *testing.T, root, cluster, service string) *Dir {
	t.Helper()
	d, err := Claim(root, cluster, service)
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestClaim(t *testing.T) {
	root := filepath.Join(t.TempDir(), "not", "there", "yet")
	a := claim(t, root, "cluster", "balance")
	b := claim(t, root, "cluster", "balance")
	c := claim(t, root, "cluster", "threshold")
	d := claim(t, root, "other", "balance")
	seen := make(map[string]bool)
	for _, x := range []*Dir{a, b, c, d} {
		if seen[x.Path()] {
			t.Fatalf("%s was given twice", x.Path())
		}
		seen[x.Path()] = true
		if !strings.HasPrefix(x.Path(), root+string(filepath.Separator)) {
			t.Fatalf("%s is not below %s", x.Path(), root)
		}
	}
	must(t, a.Close())
	if again := claim(t, root, "cluster", "balance"); again.Path() != a.Path() {
		t.Fatalf("given %s, want the place that is free again, %s", again.Path(), a.Path())
	}
}

// What a place holds is found again by the next one who gets it, and only for
// the same cluster and topic.
func TestPlaceKeepsItsState(t *testing.T) {
	root := t.TempDir()
	d := claim(t, root, "cluster", "balance")
	write := func(d *Dir, topicID, value string) {
		t.Helper()
		s := built(t, d, topicID)
		must(t, s.Open())
		must(t, s.Set("a", []byte(value)))
		must(t, s.SetOffset(1))
		must(t, s.Close())
	}
	read := func(d *Dir, topicID string) string {
		t.Helper()
		s := built(t, d, topicID)
		must(t, s.Open())
		defer func() { must(t, s.Close()) }()
		return get(t, s, "a")
	}
	write(d, "topic-1", "1")
	must(t, d.Close())

	d = claim(t, root, "cluster", "balance")
	if got := read(d, "topic-1"); got != "1" {
		t.Fatalf("after a restart %q, want 1", got)
	}
	other := claim(t, root, "cluster 2", "balance")
	if got := read(other, "topic-1"); got != "" {
		t.Fatalf("another cluster finds %q", got)
	}
	must(t, os.MkdirAll(filepath.Join(d.Path(), "unrelated"), 0o750))
	if got := read(d, "topic-2"); got != "" {
		t.Fatalf("the topic was re-created, yet it finds %q", got)
	}
	if old, _ := filepath.Glob(filepath.Join(d.Path(), "*topic-1*")); len(old) != 0 {
		t.Fatalf("state of the old topic is still there: %v", old)
	}
	if _, err := os.Stat(filepath.Join(d.Path(), "unrelated")); err != nil {
		t.Fatal("something else was removed too")
	}
	if got := read(d, "topic-1"); got != "" {
		t.Fatalf("back on the first topic it finds %q", got)
	}
}

func built(t *testing.T, d *Dir, topicID string) *Store {
	t.Helper()
	var s *Store
	build, err := d.Builder("balance-table", topicID, Follow, func(p int32, opened *Store) {
		if p != 3 {
			t.Errorf("told of partition %d", p)
		}
		s = opened
	})
	must(t, err)
	st, err := build("balance-table", 3)
	must(t, err)
	if st != s {
		t.Fatal("opened was not told of the store")
	}
	if !strings.HasPrefix(s.path, d.Path()) || filepath.Base(s.path) != "3" {
		t.Fatalf("the store lies in %s", s.path)
	}
	return s
}

// Root can write anywhere, so what cannot be written here is a file.
func TestUnwritableRoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, root := range []string{file, filepath.Join(file, "below")} {
		d, err := Claim(root, "cluster", "balance")
		if err == nil {
			_ = d.Close()
			t.Fatalf("%s: no error", root)
		}
		if !strings.HasPrefix(err.Error(), "STATE_DIR") || !strings.Contains(err.Error(), file) {
			t.Fatalf("%s: %v, want an error that names STATE_DIR and the place", root, err)
		}
	}
	root := t.TempDir()
	place := filepath.Join(root, safe("cluster"), "balance", "0", "LOCK")
	must(t, os.MkdirAll(place, 0o750))
	if d, err := Claim(root, "cluster", "balance"); err == nil || !strings.Contains(err.Error(), "STATE_DIR") {
		if err == nil {
			_ = d.Close()
		}
		t.Fatalf("a lock that is a folder: %v", err)
	}
}

func TestOddNamesStayBelowTheRoot(t *testing.T) {
	for _, id := range []string{
		"", ".", "..", "../..", "../../etc", "/", "/etc/passwd", `..\..`, "a/../../b", "a\x00b", "\n", "C:", "日本",
		strings.Repeat("x", 64), "lkc-ABC_def.123",
	} {
		root := t.TempDir()
		d := claim(t, root, id, "balance")
		rel, err := filepath.Rel(root, d.Path())
		must(t, err)
		parts := strings.Split(rel, string(filepath.Separator))
		if len(parts) != 3 || parts[0] == ".." || parts[0] == "." || parts[1] != "balance" || parts[2] != "0" {
			t.Errorf("cluster %q lies in %s", id, rel)
		}
		must(t, os.MkdirAll(filepath.Join(d.Path(), "keep"), 0o750))
		var s *Store
		build, err := d.Builder("balance-table", id, Lead, func(_ int32, opened *Store) { s = opened })
		must(t, err)
		_, err = build("", 0)
		must(t, err)
		if rel, err := filepath.Rel(d.Path(), s.path); err != nil || len(strings.Split(rel, string(filepath.Separator))) != 2 || strings.HasPrefix(rel, "..") {
			t.Errorf("topic %q lies in %s", id, rel)
		}
	}
	if safe("a") == safe("b") || safe("") == "" {
		t.Error("safe loses too much")
	}
}
