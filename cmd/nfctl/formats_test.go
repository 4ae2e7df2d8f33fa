package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nfctl/internal/format"
	"nfctl/internal/nstest"
)

const (
	someFlow  = "tcp 10.0.0.1:1000 > 10.0.0.2:21"
	otherFlow = "udp 10.0.0.1:53 > 10.0.0.3:53"
)

// inFormats are the words that TestEveryFormat gives to commands that want some, or
// that would not end by themselves.
var inFormats = map[string][]string{
	"attr build":    {"orig-l3proto=ipv4", "orig-l4proto=udp", "orig-ipv4-src=10.0.0.1", "orig-ipv4-dst=10.0.0.2", "orig-port-src=1", "orig-port-dst=2"},
	"attr decode":   {"mark", "00000005"},
	"attr encode":   {"mark", "5"},
	"attr get":      {someFlow, "mark"},
	"attr set":      {someFlow, "mark=1"},
	"attr show":     {"mark"},
	"attr values":   {"status"},
	"completion":    {"bash"},
	"ct create":     {otherFlow, "--dry-run"},
	"ct delete":     {someFlow, "--dry-run"},
	"ct flush":      {"--zone", "77"},
	"ct get":        {someFlow},
	"ct update":     {someFlow, "--set", "mark=7"},
	"ct watch":      {"--with-existing", "--duration", "20ms"},
	"ct who":        {"tcp", "203.0.113.1:40000", "testdata/nat.log", "--at", "2026-12-01T05:00:02Z"},
	"expect create": {"--dry-run", "--master", someFlow, "tcp 10.0.0.1 > 10.0.0.2:5000"},
	"expect delete": {"--all", "--dry-run"},
	"expect flush":  {"--all"},
	"expect get":    {"tcp 10.0.0.1 > 10.0.0.2:5000"},
	"expect update": {"--set", "timeout=1m"},
	"expect watch":  {"--with-existing", "--duration", "20ms"},
	"lua":           {"-e", "print(1)"},
	"queue":         {"--duration", "20ms"},
	"watch":         {"--with-existing", "--duration", "20ms"},
}

// TestEveryFormat runs every command in every format: it takes those that its
// constructor says, and refuses all others with words.
func TestEveryFormat(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	a := &app{}
	tried := map[string]bool{}
	for _, c := range everyCommand(newRoot(a)) {
		if c.HasSubCommands() && !runs(c) || c.DisableFlagParsing {
			continue // groups, and conntrack(8)'s command line
		}
		name := commandName(c)
		if name == "" || name == "ct top" {
			continue // help, and what wants a terminal, see TestCtTop
		}
		tried[name] = true
		good(t, "ct", "create", someFlow, "--helper", "ftp", "--if-missing")
		good(t, "expect", "create", "--master", someFlow, "tcp 10.0.0.1 > 10.0.0.2:5000", "--timeout", "10m",
			"--if-missing")
		words := append(strings.Fields(name), inFormats[name]...)
		everyFormat(t, a.printing[c].formats, words, call)
	}
	for name := range maps.Keys(inFormats) {
		if !tried[name] {
			t.Errorf("there is no %q", name)
		}
	}
}

// everyFormat runs one command in every format, of which it knows some.
func everyFormat(t *testing.T, known []format.Format, words []string, call func(...string) (string, string, int)) {
	t.Helper()
	line := strings.Join(words, " ")
	plain, errs, status := call(words...)
	if status != 0 {
		t.Errorf("%s: status %d: %s", line, status, errs)
		return
	}
	for f := format.Text; f <= format.Template; f++ {
		with := append(slices.Clone(words), "-o", f.String())
		if f == format.Template {
			with = append(slices.Clone(words), "--template", "{{.}}")
		}
		out, errs, status := call(with...)
		switch {
		case len(known) == 0:
			if status != 2 || !strings.Contains(errs, "prints no objects") {
				t.Errorf("%s in %s: status %d: %s", line, f, status, errs)
			}
		case !slices.Contains(known, f):
			if status != 2 || !strings.Contains(errs, "want "+known[0].String()) || out != "" {
				t.Errorf("%s in %s: status %d: %s", line, f, status, errs)
			}
		case status != 0 || out == "" && plain != "":
			t.Errorf("%s in %s: status %d, prints %q: %s", line, f, status, out, errs)
		case f == format.JSON && !json.Valid([]byte("["+strings.ReplaceAll(strings.TrimSpace(out), "\n", ",")+"]")):
			t.Errorf("%s in json: %s", line, out)
		case f == format.XML:
			d := xml.NewDecoder(strings.NewReader(out))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Errorf("%s in xml: %v in %s", line, err, out)
					break
				}
			}
		}
	}
}

// TestContributing adds the command that CONTRIBUTING.md shows, as that page says,
// and runs it in every format. The source is left as it is: the build sees it with
// the command's file and the one changed line laid over.
func TestContributing(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	page, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(page), "```go\n")
	code, _, ok2 := strings.Cut(code, "```\n")
	parent, err := os.ReadFile("ct.go")
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok3 := strings.Cut(string(parent), `{"count", newCtCount},`)
	if !ok || !ok2 || !ok3 {
		t.Fatal("CONTRIBUTING.md shows no command, or ct.go no list of them")
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(here, "ct_full.go"): write("ct_full.go", code),
		filepath.Join(here, "ct.go"):      write("ct.go", before+`{"count", newCtCount}, {"full", newCtFull},`+after),
	}})
	if err != nil {
		t.Fatal(err)
	}
	nfctl := filepath.Join(dir, "nfctl")
	build := exec.Command("go", "build", "-overlay", write("overlay.json", string(overlay)), "-o", nfctl, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ns.Run(nfctl, "ct", "create", someFlow)
	everyFormat(t, format.Generic, []string{"ct", "full"}, func(args ...string) (string, string, int) {
		return ns.Exec(nfctl, args...)
	})
	for _, want := range [][]string{
		{"1", "ct", "full", "--template", "{{.count}}"}, {"full", "ct", "--help"}, {"ct full  ", "help", "output"},
		{"count", "__complete", "ct", "full", "--fields", ""}, {"csv", "__complete", "ct", "full", "-o", "c"},
	} {
		if out := ns.Run(nfctl, want[1:]...); !strings.Contains(out, want[0]) {
			t.Errorf("nfctl %v: no %q in %s", want[1:], want[0], out)
		}
	}
}
