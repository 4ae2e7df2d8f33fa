// Package gentest holds generated files to what generates them, and writes them
// anew for 'make gen'.
//
// A test whose name begins with TestGenerated hands each file that it knows how to
// make to File or Between. scripts/gen.sh finds such tests by themselves.
package gentest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dir is where 'make gen' and 'make check' want the files; "" elsewhere.
var dir = os.Getenv("NFCTL_GEN")

// Writing reports whether files are written, not compared.
func Writing() bool { return dir != "" }

// File compares a file of the repository, named from its root, with what it is to be.
func File(t *testing.T, name string, want []byte) {
	t.Helper()
	if dir != "" {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if os.Getenv("NFCTL_TEST_VM") != "" {
		t.Skip("no generated files in a VM: they are compared where the repository is")
	}
	if got, err := os.ReadFile(filepath.Join(root(t), name)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run make gen (%v); it is to be:\n%.4000s", name, err, want)
	}
}

// Between compares the part of a page that stands between the lines <!-- mark -->
// and <!-- end --> with what it is to be. A page has one such part.
func Between(t *testing.T, name, mark string, want []byte) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), "<!-- "+mark+" -->\n")
	_, tail, ok2 := strings.Cut(rest, "<!-- end -->\n")
	if !ok || !ok2 {
		t.Fatalf("%s: no part %s", name, mark)
	}
	File(t, name, []byte(head+"<!-- "+mark+" -->\n"+string(want)+"<!-- end -->\n"+tail))
}

// root is the repository's, above the package that is tested.
func root(t *testing.T) string {
	t.Helper()
	at, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for ; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
		if at == filepath.Dir(at) {
			t.Fatal("no go.mod above the test's folder")
		}
	}
}
