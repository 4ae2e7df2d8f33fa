package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// asSelf names who programs run as where only one user can be had.
func asSelf(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(b)); os.Geteuid() == 0 && len(f) == 3 && f[2] == "1" {
		return []string{"--exec-user", "0"}
	}
	return nil
}

// A program gets each event that matches as a line of JSON, has no privileges, and is
// waited for.
func TestWatchExec(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	w := startWatch(t, ns, append([]string{"ct", "watch", "-q", "--events", "new", "--count", "3", "--parallel", "2",
		"--exec", `sh -c 'read x; sleep 0.1; grep -h "^CapBnd\|^NoNewPrivs" /proc/self/status >&2; echo "$x"'`,
		"udp > :53"}, asSelf(t)...)...)
	do(t, ns, entries(t, 5), make1)
	if code := w.Wait(); code != 0 {
		t.Fatalf("status %d: %s", code, w.Stderr())
	}
	lines := strings.Split(strings.TrimSpace(w.Stdout()), "\n")
	seen := map[string]bool{}
	for _, line := range lines {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Event != "new" || r.Orig.Dport != 53 {
			t.Errorf("%v: %s", err, line)
		}
		seen[r.Orig.Src] = true
	}
	if len(lines) != 3 || !seen["10.1.0.0"] || !seen["10.1.0.1"] || !seen["10.1.0.2"] {
		t.Errorf("%q", lines)
	}
	for _, says := range []string{"--exec: 3 programs run\n", "sh: NoNewPrivs:\\t1\n"} {
		if !strings.Contains(w.Stderr(), says) {
			t.Errorf("it lacks %q: %s", says, w.Stderr())
		}
	}
	if os.Geteuid() == 0 && strings.Count(w.Stderr(), "CapBnd:\\t0000000000000000\n") != 3 {
		t.Errorf("capabilities: %s", w.Stderr())
	}
}

// Programs that hang or fail do not hold up the watch; what waits too long is counted.
func TestWatchExecLate(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	const n = execRoom + 100
	w := startWatch(t, ns, append([]string{"ct", "watch", "--events", "new", "-o", "flow", "--exec", "sleep 1000",
		"--exec-timeout", "20s"}, asSelf(t)...)...)
	do(t, ns, entries(t, n), make1)
	w.WaitOutput("udp 10.1.4.99:1000 > ") // the last: nobody waited for a program
	w.Signal(unix.SIGUSR1)
	w.WaitOutput("events for which none was run, see --parallel")
	nstest.Until(t, "a second SIGTERM ends it at once", func() bool { // two that come together are one
		_ = w.Cmd.Process.Signal(unix.SIGTERM)
		return w.Ended()
	})
	if code := w.Wait(); code != 128+int(unix.SIGTERM) && code != 0 {
		t.Errorf("status %d: %s", code, w.Stderr())
	}
	f := startWatch(t, ns, append([]string{"ct", "watch", "-q", "--events", "destroy", "--count", "3", "--exec",
		"false"}, asSelf(t)...)...)
	do(t, ns, entries(t, 3), end1)
	if code := f.Wait(); code != 0 || !strings.Contains(f.Stderr(), "3 programs run, 3 failed") ||
		strings.Count(f.Stderr(), "exit status 1") == 0 {
		t.Errorf("status %d: %s", code, f.Stderr())
	}
	for _, args := range [][]string{{"--exec", "no-such-program"}, {"--exec", "sh 'x"}, {"--exec", ""},
		{"--parallel", "2"}, {"--exec", "true", "--parallel", "0"}} {
		out, stderr, code := ns.Exec(nstest.Build(t), append([]string{"ct", "watch"}, args...)...)
		if code != exitUsage {
			t.Errorf("%q: status %d, %s%s", args, code, out, stderr)
		}
	}
}

// Where standard error is the journal, lines have levels.
func TestJournalLevels(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	f := filepath.Join(t.TempDir(), "journal")
	run := func(env, args string) string {
		t.Helper()
		ns.Exec("sh", "-c", ": >"+f+"; "+env+" "+nstest.Build(t)+" "+args+" 2>"+f)
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	journal := "JOURNAL_STREAM=$(stat -c %d:%i " + f + ")"
	if got := run(journal, "ct get 'tcp 10.0.0.1:1 > 10.0.0.2:2'"); !strings.HasPrefix(got, "<3>nfctl: ") {
		t.Errorf("a failure: %q", got)
	}
	if got := run(journal, "ct watch --duration 100ms -v"); !strings.Contains(got, "<6>nfctl: 0 events") ||
		!strings.Contains(got, "<4>nfctl: receive buffer") {
		t.Errorf("totals and a warning: %q", got)
	}
	if got := run("JOURNAL_STREAM=1:1", "ct watch --duration 100ms -v"); strings.Contains(got, "<") {
		t.Errorf("no journal: %q", got)
	}
}
