package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// What a command line is told, and its status.
func TestAnswers(t *testing.T) {
	t.Parallel()
	nf := nstest.Build(t)
	ns := nstest.New(t)
	marked := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(marked, []byte("\ufeffdrop tcp > :23\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(object, []byte(`{"orig":null}`), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(rule string) []string { return []string{"queue", "--check", "--rule", rule} }
	for _, c := range []struct {
		args   []string
		status int
		said   string // with what standard error ends, but the newline and a hint
	}{
		{[]string{"ct", "load", "/nosuch"}, exitUsage, "open /nosuch: no such file or directory"},
		{[]string{"queue", "--rules", "/nosuch"}, exitUsage, "open /nosuch: no such file or directory"},
		{check(`set ip.ttl="ip.ttl / 0"`), exitUsage, `ip.ttl to set: column 10: "0" is no divisor`},
		{check(`set ip.ttl=3 ip.ttl=4`), exitUsage, `change "ip.ttl=4": the rule sets ip.ttl already`},
		{check(`set ip.ttl=3 set ip.ttl=ip.ttl+1`), exitUsage, `the rule sets ip.ttl already`},
		{check(`set ip.ttl=3 tcp.mss=1200`), exitOK, ""},
		{check(`replace "abc" "d" pad "x"`), exitOK, ""},
		{check("option strip 256"), exitUsage, "or a number from 2 to 255"},
		{[]string{"queue", "--check", "--rules", marked}, exitOK, ""},
		{[]string{"ct", "get", "tcp 10.0.0.1:1 > 10.0.0.2:2"}, exitNotFound,
			"nfctl: flow tcp 10.0.0.1:1 > 10.0.0.2:2: get: no such flow"},
		{[]string{"ct", "load", object}, exitFailed, `it is an object, as {"src": …}`},
		{[]string{"ct", "list", "--fields", "src"}, exitUsage,
			`(did you mean "orig.src"?): want a name from 'nfctl help fields'`},
		{[]string{"ct", "update", "--set", "id=5", "--mark", "1"}, exitUsage,
			`--set id=5: attribute "id": it cannot be set: the kernel ignores it`},
		{[]string{"ct", "list", "tcp"}, exitUsage, `want -p tcp, or a flow in quotes: 'tcp >'`},
		{[]string{"ct", "list", "10.1.0.2"}, exitUsage, "want --host 10.1.0.2, or a flow in quotes: '10.1.0.2 >'"},
		{[]string{"ct", "save", "flows.txt"}, exitUsage, "it writes to standard output: nfctl ct save >flows.txt"},
		{[]string{"ct", "ls"}, exitOK, ""},
		{[]string{"expect", "show"}, exitOK, ""},
		{[]string{"queue", "ls"}, exitOK, ""},
		{[]string{"--version"}, exitOK, ""},
		{[]string{"-V"}, exitOK, ""},
		{[]string{"ct", "list", "--state", "ESTAB"}, exitUsage, "ESTABLISHED"},
	} {
		_, said, status := ns.Exec(nf, c.args...)
		if status != c.status || !strings.Contains(said, c.said) {
			t.Errorf("%q: status %d: %s", c.args, status, said)
		}
	}
}
