package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// links are those of a page to files of the repository. A text in backticks that
// leads to Go names what is declared there.
var links = regexp.MustCompile("\\[(?:`([A-Za-z.]+)`|[^]]*)\\]\\(([^):#]+)[^):]*\\)")

// TestPagesLinkToWhatIsThere: files, and the named symbols in them.
func TestPagesLinkToWhatIsThere(t *testing.T) {
	for _, page := range []string{"docs/tour.md", "docs/architecture.md", "docs/glossary.md", "docs/integrate.md", "docs/operations.md"} {
		found := 0
		for _, m := range links.FindAllStringSubmatch(readRepo(t, page), -1) {
			found++
			file := path.Join(path.Dir(page), m[2])
			if _, err := os.Stat("../" + file); err != nil {
				t.Errorf("%s links to %s: %v", page, m[2], err)
				continue
			}
			if m[1] != "" && path.Ext(file) == ".go" && !declared(t, file)[m[1]] {
				t.Errorf("%s: there is no %s in %s", page, m[1], file)
			}
		}
		if found == 0 {
			t.Errorf("%s has no links: not understood", page)
		}
	}
	if d := declared(t, "internal/wallet/flag.go"); !d["Flag"] || !d["Flag.Apply"] || d["Apply"] {
		t.Errorf("declared in flag.go: %v", d)
	}
}

// TestArchitectureNamesEachFile of the core, and each package.
func TestArchitectureNamesEachFile(t *testing.T) {
	page := readRepo(t, "docs/architecture.md")
	named := func(file string) {
		if !strings.Contains(page, "]("+file+")") {
			t.Errorf("docs/architecture.md, Rooms and files: no line for %s", strings.TrimPrefix(file, "../"))
		}
	}
	for _, pattern := range []string{"*", "wallet/*.go", "stream/*.go", "kafka/*.go", "store/*.go", "app/*.go", "api/*.go"} {
		files, err := filepath.Glob("../internal/" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				named(file)
			}
		}
	}
}

// declared are the types and functions of a Go file; a method as Type.Method.
func declared(t *testing.T, file string) map[string]bool {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "../"+file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, d := range parsed.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				receiver := d.Recv.List[0].Type
				if pointer, ok := receiver.(*ast.StarExpr); ok {
					receiver = pointer.X
				}
				if id, ok := receiver.(*ast.Ident); ok {
					name = id.Name + "." + name
				}
			}
			names[name] = true
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok {
					names[s.Name.Name] = true
				}
			}
		}
	}
	return names
}
