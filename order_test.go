package nfctl_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// changers are the functions of a declaration that are held in variables, by name, and
// which variables of it they assign to.
func changers(d ast.Decl) map[string][]string {
	all := map[string][]string{}
	ast.Inspect(d, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok {
			return true
		}
		for i, x := range a.Rhs {
			lit, ok := x.(*ast.FuncLit)
			name, isName := a.Lhs[min(i, len(a.Lhs)-1)].(*ast.Ident)
			if !ok || !isName {
				continue
			}
			ast.Inspect(lit.Body, func(n ast.Node) bool {
				if a, ok := n.(*ast.AssignStmt); ok && a.Tok != token.DEFINE {
					for _, to := range a.Lhs {
						if id, ok := to.(*ast.Ident); ok && id.Name != "_" {
							all[name.Name] = append(all[name.Name], id.Name)
						}
					}
				}
				return true
			})
		}
		return true
	})
	return all
}

// setters are the methods of a package's types, by name, and which fields of theirs they
// assign to, by themselves or by other methods of the same receiver.
type setters map[string]map[string]bool

func (s setters) add(f *ast.File) {
	for range 3 { // as deep as methods call each other
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || fn.Body == nil || len(fn.Recv.List[0].Names) == 0 {
				continue
			}
			recv := fn.Recv.List[0].Names[0].Name
			fields := s[fn.Name.Name]
			if fields == nil {
				fields = map[string]bool{}
				s[fn.Name.Name] = fields
			}
			of := func(e ast.Expr) (name string, ok bool) {
				x, ok := e.(*ast.SelectorExpr)
				if !ok {
					return "", false
				}
				id, ok := x.X.(*ast.Ident)
				return x.Sel.Name, ok && id.Name == recv
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for _, to := range n.Lhs {
						if name, ok := of(to); ok {
							fields[name] = true
						}
					}
				case *ast.IncDecStmt:
					if name, ok := of(n.X); ok {
						fields[name] = true
					}
				case *ast.CallExpr:
					if name, ok := of(n.Fun); ok {
						maps.Copy(fields, s[name])
					}
				}
				return true
			})
		}
	}
}

// An operand is what one of several expressions side by side reads and may change.
type operand struct{ reads, changes []string }

// operandOf looks into an expression, but not into functions, which run later. The
// value of a field is read as "x.f".
func operandOf(e ast.Expr, closures map[string][]string, methods setters) (o operand) {
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.CallExpr:
			switch fun := n.Fun.(type) {
			case *ast.Ident:
				o.changes = append(o.changes, closures[fun.Name]...)
			case *ast.SelectorExpr:
				if x, ok := fun.X.(*ast.Ident); ok {
					for field := range methods[fun.Sel.Name] {
						o.changes = append(o.changes, x.Name+"."+field)
					}
				}
			}
			for _, arg := range n.Args {
				if p, ok := arg.(*ast.UnaryExpr); ok && p.Op == token.AND {
					if id, ok := p.X.(*ast.Ident); ok {
						o.changes = append(o.changes, id.Name)
					}
				}
			}
		}
		return true
	})
	switch e := e.(type) { // what is read alone: a call that is handed it is done with it at once
	case *ast.Ident:
		o.reads = append(o.reads, e.Name)
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			o.reads = append(o.reads, x.Name+"."+e.Sel.Name)
		}
	}
	return o
}

// disorder returns where a value and a call that may change it stand side by side: which
// is done first the language leaves open.
func disorder(f *ast.File, fset *token.FileSet, methods setters) (found []string) {
	for _, d := range f.Decls {
		closures := changers(d)
		look := func(at token.Pos, list []ast.Expr) {
			var all []operand
			for _, e := range list {
				all = append(all, operandOf(e, closures, methods))
			}
			for i, a := range all {
				for j, b := range all {
					if i == j {
						continue
					}
					for _, read := range a.reads {
						if slices.Contains(b.changes, read) {
							found = append(found, fset.Position(at).String()+": "+read)
						}
					}
				}
			}
		}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				look(n.Pos(), n.Args)
			case *ast.ReturnStmt:
				look(n.Pos(), n.Results)
			}
			return true
		})
	}
	return found
}

func TestOrderIsSaid(t *testing.T) {
	fset := token.NewFileSet()
	folders := map[string][]*ast.File{}
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		folders[filepath.Dir(name)] = append(folders[filepath.Dir(name)], f)
	}
	for _, list := range folders {
		methods := setters{}
		for range 2 { // methods of one file call those of another
			for _, f := range list {
				methods.add(f)
			}
		}
		for _, f := range list {
			for _, where := range disorder(f, fset, methods) {
				t.Errorf("%s: a value beside a call that may change it: give the call a line of its own", where)
			}
		}
	}
	f, err := parser.ParseFile(fset, "planted.go", `package p
func (l *T) add(i int) error { return l.take(i) }
func (l *T) take(i int) error { l.stop = nil; return nil }
func (l *T) look() error { return nil }
func f() error { return cmp.Or(l.add(i), l.stop) }
func g() (int, error) { res := 0; make := func() error { res = 1; return nil }; return res, make() }
func h() { x := 0; use(x, read(&x)); use(x, read(x)); use(func() { l.add() }, l.stop); use(l.look(), l.stop) }`,
		parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	methods := setters{}
	methods.add(f)
	if got := disorder(f, fset, methods); len(got) != 3 {
		t.Errorf("of three planted places found %q", got)
	}
}
