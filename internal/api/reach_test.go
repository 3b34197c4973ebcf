package api_test

import (
	"go/ast"
	"go/constant"
	"go/types"
	"maps"
	"slices"
	"sync"
	"testing"

	"golang.org/x/tools/go/packages"
)

// reach finds which problems code can answer with: the constants of type code that
// a function of this package names, and those that it names, and so on.
type reach struct {
	info   *types.Info
	bodies map[*types.Func]*ast.FuncDecl
	byName map[string]*types.Func // methods as RECEIVER.NAME
}

var loaded = sync.OnceValues(func() (*reach, error) {
	pkgs, err := packages.Load(&packages.Config{Mode: packages.LoadSyntax}, ".")
	if err != nil {
		return nil, err
	}
	r := &reach{info: pkgs[0].TypesInfo, bodies: map[*types.Func]*ast.FuncDecl{}, byName: map[string]*types.Func{}}
	for _, file := range pkgs[0].Syntax {
		for _, d := range file.Decls {
			decl, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			f, ok := r.info.Defs[decl.Name].(*types.Func)
			if !ok {
				continue
			}
			r.bodies[f] = decl
			name := f.Name()
			if recv := f.Signature().Recv(); recv != nil {
				t := recv.Type()
				if p, ok := t.(*types.Pointer); ok {
					t = p.Elem()
				}
				name = t.(*types.Named).Obj().Name() + "." + name
			}
			r.byName[name] = f
		}
	}
	return r, nil
})

func reachOf(t *testing.T) *reach {
	t.Helper()
	r, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// problems are the codes that functions, by name, and what they use can answer
// with, sorted. What is given to skip is not followed.
func (r *reach) problems(t *testing.T, skip []string, names ...string) []string {
	t.Helper()
	codes, seen := map[string]bool{}, map[*types.Func]bool{}
	for _, name := range skip {
		seen[r.byName[name]] = true
	}
	var visit func(f *types.Func)
	visit = func(f *types.Func) {
		decl := r.bodies[f]
		if decl == nil || seen[f] {
			return
		}
		seen[f] = true
		ast.Inspect(decl, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			switch o := r.info.Uses[id].(type) {
			case *types.Func:
				visit(o.Origin())
			case *types.Const:
				if named, ok := o.Type().(*types.Named); ok && named.Obj().Name() == "code" {
					codes[constant.StringVal(o.Val())] = true
				}
			}
			return true
		})
	}
	for _, name := range names {
		f := r.byName[name]
		if f == nil {
			t.Fatalf("no function %s", name)
		}
		visit(f)
	}
	return slices.Sorted(maps.Keys(codes))
}

// Handlers look as they did when this was written, or the names below are to follow.
func TestReach(t *testing.T) {
	r := reachOf(t)
	for name, want := range map[string][]string{
		"API.position": {"invalid-position", "not-ready"},
		"API.check":    {"invalid-position", "invalid-wallet-id", "not-ready", "overloaded", "position-not-applied", "unauthorized"},
		"guard.admit":  {"cross-origin", "rate-limited", "unauthorized"},
		"front.bounded": {"path-too-long", "too-many-headers", // and observe's
			"internal"},
		"fail": nil,
	} {
		slices.Sort(want)
		if got := r.problems(t, nil, name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
