// Package nfctl_test holds what is true of the repository as a whole: who may
// import whom, who may end the process, and what no file may say.
package nfctl_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// arrows says which packages of ours each package may import. "*" is any of
// them. A package that is not here fails the test: it wants a place first.
var arrows = map[string]string{
	"cmd/nfctl":        "*",
	"internal/lazy":    "",
	"internal/value":   "lazy",
	"internal/field":   "value",
	"internal/pattern": "field value",
	"internal/filter":  "field value lazy",
	"internal/nl":      "",
	"internal/mark":    "value",
	"internal/held":    "packet",
	"internal/packet":  "field value lazy",
	"internal/ct":      "nl field value pattern lazy",
	"internal/queue":   "nl held packet ct mark field value lazy",
	"internal/flows":   "queue packet ct",
	"internal/capture": "queue packet value",
	"internal/rotate":  "",
	"internal/natlog":  "ct rotate field value",
	"internal/rule":    "flows queue packet ct mark filter pattern field value say",
	"internal/nft":     "nl mark pattern value",
	"internal/format":  "field value pattern packet ct queue natlog lazy",
	"internal/rate":    "ct",
	"internal/table":   "rate nl ct format nft filter pattern field value",
	"internal/top":     "ct field format table",
	"internal/attrs":   "ct format table pattern value",
	"internal/serve":   "queue rule nft mark format table pattern value",
	"internal/stream":  "nl",
	"internal/resolve": "value",
	"internal/say":     "",
	"internal/process": "",
	"internal/child":   "process",
	"internal/lua":     "attrs nl ct queue packet format rule table field value lazy say",
	"internal/compat":  "table ct format field pattern value lazy",
	"internal/doctor":  "nl ct queue nft",
	"scripts/demo":     "",
	"scripts/licenses": "",
}

// forTests are packages that only tests import.
var forTests = []string{"internal/gentest", "internal/nstest", "internal/packet/packettest"}

// unwinders may panic: they leave a deep recursion that way, and recover at their
// one entry, so that the caller gets an error.
var unwinders = map[string]string{
	"internal/filter": "Compile recovers *Error",
}

// modules says who may link each module outside tests; a module that is not
// here is for tests and tools. The first prefix that fits counts.
var modules = []struct{ prefix, users string }{
	{"github.com/spf13/cobra", "cmd/nfctl"},
	{"github.com/spf13/pflag", "cmd/nfctl"},
	{"github.com/expr-lang/expr", "internal/filter"},
	{"github.com/yuin/gopher-lua", "internal/lua"},
	{"github.com/gopacket/gopacket", "internal/packet internal/capture"},
	{"golang.org/x/net", "internal/packet"},
	{"github.com/mdlayher/netlink", "internal/nl internal/ct internal/queue internal/nft"},
	{"github.com/ti-mo/netfilter", "internal/nl internal/ct internal/queue internal/nft"},
	{"github.com/florianl/go-nfqueue", "internal/queue"},
	{"golang.org/x/sys/unix", "*"},
}

type listed struct {
	ImportPath, Dir string
	Imports         []string
	GoFiles         []string
	Module          struct{ Path string }
}

// packages are the module's own, as the build sees them.
func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles,Module", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func hasKey(m map[string]string, key string) bool { _, ok := m[key]; return ok }

// allowed says whether package from may import path; why not otherwise.
func allowed(module, from, path string) (why string) {
	if own, ok := strings.CutPrefix(path, module+"/"); ok {
		can, ok := arrows[from]
		switch {
		case slices.Contains(forTests, from):
			return ""
		case slices.Contains(forTests, own):
			return "is for tests"
		case !ok:
			return "the importing package has no place in the table of arrows"
		case can == "*", slices.Contains(strings.Fields(can), strings.TrimPrefix(own, "internal/")):
			return ""
		}
		return "no such arrow"
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	for _, m := range modules {
		if path == m.prefix || strings.HasPrefix(path, m.prefix+"/") {
			if m.users == "*" || slices.Contains(strings.Fields(m.users), from) {
				return ""
			}
			return "only " + m.users + " may"
		}
	}
	return "not a module that the binary links"
}

func TestImports(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		from := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")
		if len(p.GoFiles) == 0 {
			continue // tests alone
		}
		seen++
		if !hasKey(arrows, from) && !slices.Contains(forTests, from) {
			t.Errorf("%s: not in the table of arrows", from)
		}
		for _, path := range p.Imports {
			if why := allowed(p.Module.Path, from, path); why != "" {
				t.Errorf("%s imports %s: %s", from, path, why)
			}
		}
	}
	if seen < 3 {
		t.Errorf("saw %d packages", seen)
	}
}

// The rules themselves must be able to refuse.
func TestImportsRefuse(t *testing.T) {
	for _, c := range []struct {
		from, path string
		ok         bool
	}{
		{"cmd/nfctl", "nfctl/internal/rule", true},
		{"internal/queue", "nfctl/internal/rule", false},
		{"internal/rule", "nfctl/internal/queue", true},
		{"internal/value", "nfctl/internal/field", false},
		{"internal/ct", "nfctl/internal/nstest", false},
		{"internal/new", "nfctl/internal/value", false},
		{"internal/format", "github.com/spf13/cobra", false},
		{"internal/rule", "github.com/expr-lang/expr/ast", false},
		{"internal/filter", "github.com/expr-lang/expr/ast", true},
		{"internal/format", "github.com/mdlayher/netlink", false},
		{"internal/packet", "github.com/google/gopacket", false},
		{"internal/packet", "github.com/gopacket/gopacket/layers", true},
		{"internal/value", "golang.org/x/tools/go/packages", false},
		{"internal/value", "strings", true},
	} {
		if why := allowed("nfctl", c.from, c.path); (why == "") != c.ok {
			t.Errorf("%s → %s: %q", c.from, c.path, why)
		}
	}
}

// cmd/nfctl has the words; what it would need for more is elsewhere. Of internal/nl it
// knows errors and namespaces, not sockets, and the one goroutine that it starts waits
// for SIGHUP.
var (
	commandsUse = []string{"EnterNamespace", "ErrStop", "Foreign", "NamespaceDir", "OpError"}
	commandsRun = []string{"watch"}
)

// beyondWords are the places of a file of cmd/nfctl that do more than words want.
func beyondWords(f *ast.File, fset *token.FileSet) (found []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "nl" && !slices.Contains(commandsUse, n.Sel.Name) {
				found = append(found, fset.Position(n.Pos()).String()+": nl."+n.Sel.Name)
			}
		case *ast.GoStmt:
			if fun, ok := n.Call.Fun.(*ast.SelectorExpr); ok && slices.Contains(commandsRun, fun.Sel.Name) {
				return true
			}
			found = append(found, fset.Position(n.Pos()).String()+": go")
		}
		return true
	})
	return found
}

func TestCommandsHaveWords(t *testing.T) {
	names, err := filepath.Glob("cmd/nfctl/*.go")
	if err != nil || len(names) < 10 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, where := range beyondWords(f, fset) {
			t.Error(where)
		}
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "planted.go", `package p
func f() { nl.Dial(); go func() {}(); go f(); go s.load(); go s.watch(); _ = nl.ErrStop }`, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if got := beyondWords(f, fset); len(got) != 4 {
		t.Errorf("of four planted places found %q", got)
	}
}

// enders are the calls by which a package would end its caller's process.
func enders(f *ast.File, fset *token.FileSet) (found []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		name := ""
		switch fun := call.Fun.(type) {
		case *ast.Ident:
			if fun.Name == "panic" {
				name = "panic"
			}
		case *ast.SelectorExpr:
			if x, ok := fun.X.(*ast.Ident); ok {
				switch q := x.Name + "." + fun.Sel.Name; q {
				case "log.Fatal", "log.Fatalf", "log.Fatalln", "log.Panic", "log.Panicf", "log.Panicln",
					"os.Exit", "syscall.Exit", "unix.Exit":
					name = q
				}
			}
		}
		if name != "" {
			found = append(found, fset.Position(call.Pos()).String()+": "+name)
		}
		return true
	})
	return found
}

// Errors are returned; only cmd/nfctl (and the tools in scripts) end the process.
func TestNobodyEndsTheProcess(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")
		if !strings.HasPrefix(from, "internal/") || slices.Contains(forTests, from) {
			continue
		}
		recovers := false
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range enders(f, fset) {
				if !hasKey(unwinders, from) || !strings.HasSuffix(e, ": panic") {
					t.Error(e)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				id, ok := n.(*ast.Ident)
				recovers = recovers || ok && id.Name == "recover"
				return true
			})
		}
		if hasKey(unwinders, from) && !recovers {
			t.Errorf("%s panics and does not recover", from)
		}
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "planted.go", `package p
func f() { panic(1); log.Fatalf("x"); os.Exit(1); x.Exit(1); g := 1; _ = g }`, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := enders(f, fset); len(got) != 3 {
		t.Errorf("of three planted calls found %q", got)
	}
}

// files are the repository's, tracked or about to be.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || path == "dist" || path == "bench/bin" || path == "bench/results"):
			return filepath.SkipDir
		case d.Type().IsRegular() && path != "nfctl":
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var home = regexp.MustCompile(`/(home|Users)/[a-z]\w*/`)

// A path of the machine that it was written on helps nobody who reads it elsewhere.
func TestNoMachinePaths(t *testing.T) {
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{root + "/"}
	// The folder around the clone too, where it is not one that every system has.
	if up := filepath.Dir(root) + "/"; !slices.Contains([]string{"//", "/tmp/", "/root/", "/home/", "/srv/", "/src/",
		"/usr/src/", "/opt/", "/var/tmp/"}, up) {
		bad = append(bad, up)
	}
	for _, v := range []string{"GOMODCACHE", "GOCACHE"} {
		if out, err := exec.Command("go", "env", v).Output(); err == nil {
			bad = append(bad, strings.TrimSpace(string(out))+"/")
		}
	}
	// At the start of a path only: cmd/x/ has nothing to do with a clone in /x.
	for i, p := range bad {
		bad[i] = regexp.QuoteMeta(p)
	}
	own := regexp.MustCompile(`(^|[^\w./-])(` + strings.Join(bad, "|") + `)`)
	for _, path := range files(t) {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(b), "\n") {
			if m := own.FindString(line); m != "" {
				t.Errorf("%s:%d: has the path %q", path, n+1, m)
			}
			if m := home.FindString(line); m != "" {
				t.Errorf("%s:%d: has the path %q", path, n+1, m)
			}
		}
	}
}

// Whoever looks for the tests of a command finds them in a file of its name, or of the
// command that it belongs to.
func TestCommandsHaveTests(t *testing.T) {
	names, err := filepath.Glob("cmd/nfctl/*.go")
	if err != nil {
		t.Fatal(err)
	}
	constructor := regexp.MustCompile(`(?m)^func new[A-Z]\w*\(a \*app`)
	seen := 0
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.go") || !constructor.Match(src) {
			continue
		}
		seen++
		name = strings.TrimSuffix(name, ".go")
		parent, _, _ := strings.Cut(name, "_")
		if !slices.ContainsFunc([]string{name, parent}, func(s string) bool {
			return slices.Contains(names, s+"_test.go")
		}) {
			t.Errorf("%s.go has a command, and there is no %[1]s_test.go", name)
		}
	}
	if seen < 15 {
		t.Errorf("saw %d files of commands", seen)
	}
}
