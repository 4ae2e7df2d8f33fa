package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestConntrackSuite runs the test suite that conntrack-tools has for conntrack(8)'s
// command line. NFCTL_CONNTRACK_TOOLS names a checkout of it (git.netfilter.org);
// none of it is here.
func TestConntrackSuite(t *testing.T) {
	checkout := os.Getenv("NFCTL_CONNTRACK_TOOLS")
	if checkout == "" {
		t.Skip("NFCTL_CONNTRACK_TOOLS names no checkout of conntrack-tools")
	}
	nstest.Need(t, "cc", "sed")
	const tests = "tests/conntrack"
	dir := t.TempDir()
	for _, d := range []string{tests, "src"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"src/conntrack": nstest.Build(t),
		tests + "/testsuite": filepath.Join(checkout, tests, "testsuite")} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	runner := filepath.Join(dir, "run")
	if out, err := exec.Command("cc", "-w", "-o", runner,
		filepath.Join(checkout, tests, "test-conntrack.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := exec.Command(runner)
	c.Dir = filepath.Join(dir, tests) // the suite looks for ../../src/conntrack
	p := nstest.New(t).StartCmd(c)
	p.Wait()
	lines := strings.Split(strings.TrimSpace(p.Stdout()), "\n")
	total := lines[len(lines)-1]
	if ok, none := strings.CutSuffix(total, " BAD: 0"); !none || ok == "OK: 0" {
		t.Errorf("%s", total)
	}
	t.Log(total)
}
