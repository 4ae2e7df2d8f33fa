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
		args := append(strings.Fields(command), "--with-existing", "--duration", "2s", "--template",
			"{{.kind}} {{.tuple.dport}}")
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

// TestHelpOutput: help that cannot be written is an error, and a pager that ends
// early is none.
func TestHelpOutput(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	bin := nstest.Build(t)
	for _, test := range []struct {
		script, want string
		status       int
	}{
		{bin + " help queue >/dev/full", "nfctl: standard output: ", exitFailed},
		{bin + " queue --help >/dev/full", "nfctl: standard output: ", exitFailed},
		{"{ sleep 0.2; " + bin + " help queue; echo status $? >&2; } | true", "status 0\n", 0},
	} {
		_, stderr, status := ns.Exec("sh", "-c", test.script)
		if status != test.status || !strings.HasPrefix(stderr, test.want) {
			t.Errorf("%s: status %d, %q", test.script, status, stderr)
		}
	}
}

// TestShortCopies: rules that cannot see what they ask for are told of.
func TestShortCopies(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	for args, want := range map[string]bool{"--meta": true, "--snaplen 20": true, "--snaplen 60": false, "": false} {
		words := append([]string{"queue", "--drop-port", "22", "--duration", "10ms"}, strings.Fields(args)...)
		_, stderr, status := ns.Exec(nstest.Build(t), words...)
		if status != 0 || strings.Contains(stderr, "rules look at more") != want {
			t.Errorf("%q: status %d, %q", words, status, stderr)
		}
	}
}
