package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nfctl/internal/attrs"
	"nfctl/internal/nstest"
)

// pages are what users read: name and text.
func pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range append(files, "../../README.md", "../../CHANGELOG.md", "../../CONTRIBUTING.md") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(f, "../../")] = string(b)
	}
	return out
}

// spoken are the command lines of nfctl in a page: in blocks, and in `…`.
var (
	inBlock = regexp.MustCompile("(?ms)^```[a-z ]*\n(.*?)^```")
	inLine  = regexp.MustCompile("`([^`\n]+)`")
)

func spoken(text string) (lines []string) {
	for _, m := range inBlock.FindAllStringSubmatch(text, -1) {
		lines = append(lines, strings.Split(strings.ReplaceAll(m[1], "\\\n", " "), "\n")...)
	}
	for _, m := range inLine.FindAllStringSubmatch(inBlock.ReplaceAllString(text, ""), -1) {
		lines = append(lines, m[1])
	}
	return lines
}

// quoted is one word that is neither a command nor a flag.
var quoted = regexp.MustCompile(`'[^']*'|"[^"]*"`)

// check says what is wrong with a command line that begins with nfctl, or "".
func check(root *cobra.Command, line string) string {
	line = quoted.ReplaceAllString(line, "X")
	line, _, _ = strings.Cut(line, "|")
	line, _, _ = strings.Cut(line, "#")
	line, _, _ = strings.Cut(line, "&&")
	at := root
	arguments := false
	words := strings.Fields(line)
	for i := 1; i < len(words); i++ {
		word := strings.TrimRight(words[i], ",;)\"")
		switch {
		case strings.HasPrefix(word, "--"):
			name, _, hasValue := strings.Cut(strings.TrimPrefix(word, "--"), "=")
			f := at.Flag(name)
			if f == nil {
				f = at.InheritedFlags().Lookup(name)
			}
			if name == "help" {
				return ""
			}
			if f == nil {
				return fmt.Sprintf("'%s' has no flag --%s", at.CommandPath(), name)
			}
			if f.NoOptDefVal == "" && !hasValue {
				i++
			}
		case strings.HasPrefix(word, "-") && len(word) == 2 && word != "--":
			f := at.Flags().ShorthandLookup(word[1:])
			if f == nil {
				f = at.InheritedFlags().ShorthandLookup(word[1:])
			}
			if f == nil {
				return fmt.Sprintf("'%s' has no flag %s", at.CommandPath(), word)
			}
			if f.NoOptDefVal == "" {
				i++
			}
		case word == "help" && at == root, word == "…", word == "...":
			return ""
		case !arguments && at.HasSubCommands():
			var next *cobra.Command
			for s := range strings.SplitSeq(word, "|") {
				for _, c := range at.Commands() {
					if c.Name() == s || c.HasAlias(s) {
						next = c
					}
				}
			}
			if next == nil {
				if at.Runnable() && at.Name() == "queue" || strings.ToUpper(word) == word {
					arguments = true
					continue
				}
				return fmt.Sprintf("'%s' has no command %s", at.CommandPath(), word)
			}
			at = next
			if at.DisableFlagParsing {
				return ""
			}
		}
	}
	return ""
}

// What the documents say to type exists.
func TestDocumentedCommandsExist(t *testing.T) {
	t.Parallel()
	root := newRoot(&app{})
	root.InitDefaultHelpFlag()
	n := 0
	for name, text := range pages(t) {
		for _, line := range spoken(text) {
			line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "# "))
			if !strings.HasPrefix(line, "nfctl ") && !strings.Contains(line, "$(nfctl ") {
				continue
			}
			if i := strings.Index(line, "$(nfctl "); i >= 0 {
				line = strings.TrimSuffix(line[i+2:], ")")
			}
			n++
			if why := check(root, line); why != "" {
				t.Errorf("%s: %s: %s", name, line, why)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d command lines found", n)
	}
	for _, bad := range []string{"nfctl queue --nonsense", "nfctl ct lst", "nfctl ct list -y",
		"nfctl frobnicate 'tcp > :22'"} {
		if check(root, bad) == "" {
			t.Errorf("%s: nothing wrong is found", bad)
		}
	}
}

// What the commands' own examples say to type exists.
func TestExamplesExist(t *testing.T) {
	t.Parallel()
	root := newRoot(&app{})
	for _, c := range everyCommand(root) {
		if c.Example == "" {
			t.Errorf("'%s' has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			for part := range strings.SplitSeq(strings.TrimSpace(line), "| ") {
				if part = strings.TrimSpace(part); strings.HasPrefix(part, "nfctl ") {
					if why := check(root, part); why != "" {
						t.Errorf("'%s': %s: %s", c.CommandPath(), part, why)
					}
				}
			}
		}
	}
}

// section returns the part of a page under a heading.
func section(text, heading string) string {
	_, rest, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		return ""
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

var firstCell = regexp.MustCompile("(?m)^\\| `?([^`|\n]+?)`? \\|")

func cells(table string) (out []string) {
	for _, m := range firstCell.FindAllStringSubmatch(table, -1) {
		out = append(out, strings.TrimSpace(m[1]))
	}
	return out
}

// Commands, flags, exit statuses and attributes are in docs/reference.md, and
// nothing else is. It is generated; this reads it as a user does.
func TestReferenceBothWays(t *testing.T) {
	t.Parallel()
	text := pages(t)["docs/reference.md"]
	root := newRoot(&app{})
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (nfctl.*)$`).FindAllStringSubmatch(text, -1) {
		documented[m[1]] = true
	}
	for _, c := range everyCommand(root) {
		if !documented[c.CommandPath()] {
			t.Errorf("%s is not documented", c.CommandPath())
		}
		delete(documented, c.CommandPath())
		var have, want []string
		for _, f := range cells(section(text, "## "+c.CommandPath())) {
			if i := strings.Index(f, "--"); i >= 0 && !strings.HasPrefix(f, "---") {
				name, _, _ := strings.Cut(f[i+2:], " ")
				have = append(have, name)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" {
				want = append(want, f.Name)
			}
		})
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("flags of %s: documented %v, there are %v", c.CommandPath(), have, want)
		}
	}
	for c := range documented {
		t.Errorf("%s is documented and does not exist", c)
	}
	var codes []string
	for _, e := range exitCodes {
		codes = append(codes, fmt.Sprint(e.code))
	}
	if got := cells(section(text, "## Exit statuses")); len(got) == 0 || !slices.Equal(got[1:], codes) {
		t.Errorf("exit statuses: documented %v, there are %v", got, codes)
	}
	var names []string
	for _, r := range attrs.Table() {
		names = append(names, r.Name)
	}
	if got := cells(section(text, "## Attributes")); len(got) == 0 || !slices.Equal(got[1:], names) {
		t.Errorf("attributes: documented %v, there are %v", got, names)
	}
}

// Links between the documents lead somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	all := pages(t)
	n := 0
	for name, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := name
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(name), m[1])
			}
			if _, err := os.Stat(filepath.Join("../..", to)); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
			if m[2] == "" {
				continue
			}
			n++
			if page, ok := all[to]; !ok || !slices.Contains(anchors(page), m[2]) {
				t.Errorf("%s: no heading #%s in %s", name, m[2], to)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d links to headings", n)
	}
}

// anchors are what a page's headings are called in links, as GitHub makes them.
func anchors(page string) (list []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		word := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 127:
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		list = append(list, word)
	}
	return list
}

// Every exit status that the code names is explained, once, and in order.
func TestExitCodesBothWays(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("exit.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^\texit[A-Za-z]+ += (\d+)$`).FindAllStringSubmatch(string(src), -1) {
		want = append(want, m[1])
	}
	var have []string
	for _, e := range exitCodes {
		have = append(have, fmt.Sprint(e.code))
	}
	if len(want) < 7 || !slices.Equal(have, want) {
		t.Errorf("there are %v, explained %v", want, have)
	}
}

// The manual pages are set without a warning.
func TestManualPages(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "man")
	files, err := filepath.Glob("../../docs/man/*.1")
	if err != nil || len(files) < 40 {
		t.Fatal(len(files), err)
	}
	for _, f := range files {
		c := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", f)
		c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=", "MANWIDTH=80")
		var said strings.Builder
		c.Stderr = &said
		if err := c.Run(); err != nil || said.Len() > 0 {
			t.Errorf("%s: %v: %s", f, err, said.String())
		}
	}
}

// The picture of README is of the demo as it runs today.
func TestPicture(t *testing.T) {
	t.Parallel()
	if os.Getenv("NFCTL_TEST_VM") != "" {
		t.Skip("a VM has no Go to run the demo: it is drawn where the repository is")
	}
	drawn, err := os.ReadFile("../../docs/demo.svg")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "demo.svg")
	if said, err := exec.Command("../../scripts/picture.sh", nstest.Build(t), out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	now, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	numbers := regexp.MustCompile(`[0-9.]+`) // times, ports, counts
	same := func(b []byte) string { return numbers.ReplaceAllString(string(b), "N") }
	if same(now) != same(drawn) {
		t.Errorf("docs/demo.svg is stale: make picture. It is to be\n%s", now)
	}
}
