package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestWatchExistingExpects: expectations that are there are listed too.
func TestWatchExistingExpects(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nfctl(t, ns, "expect", "create", "--create-master", "--helper", "ftp", "--timeout", "5m",
		"--master", "tcp 10.0.0.1:40000 > 10.0.0.2:21", "tcp 10.0.0.2 > 10.0.0.1:5000")
	for _, command := range []string{"watch", "expect watch", "watch --resync 1h"} {
		args := append(strings.Fields(command), "--with-existing", "--duration", "100ms", "--template", "{{.kind}} {{.tuple.dport}}")
		if out := nfctl(t, ns, args...); !strings.Contains(out, "expect 5000") {
			t.Errorf("%s: %q", command, out)
		}
	}
}

// TestClumsyInput: what comes of a slip of the hand is refused in a few words.
func TestClumsyInput(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	dir := t.TempDir()
	file := func(name string, length int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Repeat("x", length)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--netns", "", "ct", "list"}, "--netns: \"\" is not a valid network namespace: want a name"},
		{[]string{"queue", "--rules", file("long", 1<<19)}, "long:1: \"xxxxxxxx"},
		{[]string{"queue", "--rules", file("longer", 1<<21)}, "longer: read: a line is longer than 1048576 bytes"},
		{[]string{"queue", "--attach", "output bypass bypass"}, "\"bypass\" is not a valid word to attach by: want"},
		{[]string{"ct", "list", "--state", "FOO"}, "\"FOO\" is not a valid state: want a name, as "},
	} {
		out, stderr, status := ns.Exec(nstest.Build(t), test.args...)
		if status != exitUsage || out != "" || !strings.Contains(stderr, test.want) || len(stderr) > 1000 {
			t.Errorf("%q: status %d, %q, %.1000q", test.args, status, out, stderr)
		}
	}
}
