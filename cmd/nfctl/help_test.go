package main

import (
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

func TestHelpTopics(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   string
		status int
		out    string // a part of standard output
		err    string
	}{
		{"help exit-codes", 0, "5  not permitted", ""},
		{"help fields", 0, "tcp.dport", ""},
		{"help expressions", 0, `orig.src in "10.0.0.0/8"`, ""},
		{"help output", 0, "ct list", ""},
		{"help ct list", 0, "nfctl ct list 'tcp > :443'", ""},
		{"help q list", 0, "Show every queue", ""},
		{"help", 0, "exit-codes", ""},
		{"help expresions", 2, "", `did you mean 'nfctl help expressions'`},
		{"help ct lst", 2, "", `did you mean`},
		{"version", 0, "nfctl ", ""},
		{"version x", 2, "", `"x"`},
	} {
		out, err, status := call(strings.Fields(c.args)...)
		if status != c.status || !strings.Contains(out, c.out) || !strings.Contains(err, c.err) {
			t.Errorf("%s: %d\n%s%s", c.args, status, out, err)
		}
	}
	// Examples come first in the help of a command.
	out, _, _ := call("queue", "--help")
	if ex, usage := strings.Index(out, "Examples:"), strings.Index(out, "Usage:"); ex < 0 || ex > 200 || usage < ex {
		t.Errorf("examples at %d, usage at %d", ex, usage)
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
