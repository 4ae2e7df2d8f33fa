package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestStart bounds what packages of ours do before main, at every start of every
// command: tables are to be made when they are first asked. The runtime itself
// counts (GODEBUG=inittrace=1, package runtime).
func TestStart(t *testing.T) {
	t.Parallel()
	c := exec.Command(nstest.Build(t), "version")
	c.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bytes, allocs, lines := 0, 0, 0
	for line := range strings.Lines(string(out)) {
		var pkg string
		var at, clock float64
		var b, n int
		if _, err := fmt.Sscanf(line, "init %s @%g ms, %g ms clock, %d bytes, %d allocs", &pkg, &at, &clock, &b,
			&n); err != nil {
			continue
		}
		lines++
		if pkg == "main" || strings.HasPrefix(pkg, "nfctl/") {
			t.Logf("%s: %d bytes, %d allocations", pkg, b, n)
			bytes, allocs = bytes+b, allocs+n
		}
	}
	if lines == 0 {
		t.Fatalf("no trace:\n%s", out)
	}
	if bytes > 4096 || allocs > 80 {
		t.Errorf("%d bytes in %d allocations before main", bytes, allocs)
	}
}
