package nfctl_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page on how nfctl is built shows the arrows that are held here.
func TestArrowsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(internal/[a-z]+)` \\|[^|]*\\|([^|]*)\\|$").FindAllStringSubmatch(
		string(b), -1) {
		imports := strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(imports)
		documented[m[1]] = imports
	}
	for pkg, may := range arrows {
		if !strings.HasPrefix(pkg, "internal/") {
			continue
		}
		want := strings.Fields(may)
		slices.Sort(want)
		if got, ok := documented[pkg]; !ok || !slices.Equal(got, want) {
			t.Errorf("%s: documented %v, held %v", pkg, got, want)
		}
		delete(documented, pkg)
	}
	for pkg := range documented {
		if !slices.Contains(forTests, pkg) {
			t.Errorf("%s is documented and is not there", pkg)
		}
	}
}

// So does its picture, in which every package has a place that leads to others.
func TestArrowsAreDrawn(t *testing.T) {
	b, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) --> ([a-z& ]+)$`).FindAllStringSubmatch(string(b), -1) {
		from := "internal/" + m[1]
		if m[1] == "cmd" {
			from = "cmd/nfctl"
		}
		may, ok := arrows[from]
		for _, to := range strings.Split(m[2], " & ") {
			if !ok || may != "*" && !slices.Contains(strings.Fields(may), to) ||
				arrows["internal/"+to] == "" && to != "nl" && to != "rotate" {
				t.Errorf("%s --> %s is drawn, and may not be", m[1], to)
			}
			drawn[from], drawn["internal/"+to] = true, true
		}
	}
	for pkg, may := range arrows {
		if strings.HasPrefix(pkg, "internal/") && may != "" && !drawn[pkg] {
			t.Errorf("%s is not drawn", pkg)
		}
	}
}
