package nfctl_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// mostColumns is how long a line of Go may be, a tab being four columns.
const mostColumns = 120

func columns(line string) int {
	return utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    "))
}

// mayBeLong are the lines that may be longer: the rows of tables, which are read
// below each other, and texts in back quotes, which cannot be broken.
func mayBeLong(f *ast.File, fset *token.FileSet) map[int]bool {
	const mostOfRow = 3 // lines
	lines := map[int]bool{}
	line := func(p token.Pos) int { return fset.Position(p).Line }
	add := func(n ast.Node) {
		for l := line(n.Pos()); l <= line(n.End()); l++ {
			lines[l] = true
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if n.Kind == token.STRING && n.Value[0] == '`' &&
				(columns(n.Value) > 80 || strings.Contains(n.Value, "\n")) {
				add(n)
			}
		case *ast.CompositeLit:
			switch n.Type.(type) {
			case *ast.ArrayType, *ast.MapType:
				for _, row := range n.Elts {
					if line(n.Lbrace) < line(row.Pos()) && line(row.End())-line(row.Pos()) < mostOfRow {
						add(row)
					}
				}
			}
		}
		return true
	})
	return lines
}

// tooLong returns the numbers of the lines of a file that are too long.
func tooLong(t *testing.T, name string, src []byte) (found []int) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if ast.IsGenerated(f) {
		return nil
	}
	may := mayBeLong(f, fset)
	for i, line := range strings.Split(string(src), "\n") {
		if columns(line) > mostColumns && !may[i+1] {
			found = append(found, i+1)
		}
	}
	return found
}

func TestLinesAreNotLong(t *testing.T) {
	seen := 0
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		seen++
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range tooLong(t, name, src) {
			t.Errorf("%s:%d: more than %d columns", name, line, mostColumns)
		}
	}
	if seen < 200 {
		t.Errorf("saw %d files", seen)
	}
	long := strings.Repeat("x", mostColumns)
	planted := "package p\n\n// " + long + "\nvar (\n\tx = " + long + "\n\ty = []string{\n\t\t\"" + long +
		"\",\n\t}\n\tz = `" +
		long + "`\n)\n"
	if got := tooLong(t, "planted.go", []byte(planted)); len(got) != 2 || got[0] != 3 || got[1] != 5 {
		t.Errorf("of the planted lines 3 and 5 found %v", got)
	}
}
