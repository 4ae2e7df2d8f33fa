package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

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
		{[]string{"queue", "--attach", "output udp"}, `(did you mean "output udp >"?): want a flow with its '>': HOOK `},
		{[]string{"queue", "--attach", "output tcp dport 22"}, `"tcp" is not a valid word to attach by: want HOOK [priority`},
		{[]string{"queue", "--attach", "udp output"}, "postrouting first, as in 'input tcp > :22 bypass'"},
		{[]string{"queue", "--attach", "output bypass bypass"}, "\"bypass\" is not a valid word to attach by: want"},
		{[]string{"queue", "--num", "3", "--rule", "queue 3 bypass tcp >"}, "rule 'queue 3 bypass tcp >': packets would come to queue 3 again"},
		{[]string{"ct", "list", "--state", "FOO"}, "\"FOO\" is not a valid state: want a name, as "},
	} {
		out, stderr, status := ns.Exec(nstest.Build(t), test.args...)
		if status != exitUsage || out != "" || !strings.Contains(stderr, test.want) || len(stderr) > 1000 {
			t.Errorf("%q: status %d, %q, %.1000q", test.args, status, out, stderr)
		}
	}
}
