package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nstest"
)

// threadStatus returns the values of one line of /proc/PID/task/*/status.
func threadStatus(t *testing.T, pid int, name string) map[string]int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("process %d has no threads: %v", pid, err)
	}
	out := map[string]int{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // that thread has ended
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, name+":"); ok {
				out[strings.TrimSpace(v)]++
			}
		}
	}
	return out
}

// TestQueueGivesUpPrivileges: every thread keeps what verdicts need, and nfctl
// does all it did with that: verdicts, new rules, its own rule's end.
func TestQueueGivesUpPrivileges(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.TCPEcho("127.0.0.1:22")
	ns.TCPEcho("127.0.0.1:80")
	rules := filepath.Join(t.TempDir(), "rules")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(rules, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("drop tcp > :22\n")
	p := startQueue(t, ns, "-q", "--attach", "output", "--rules", rules)
	pid := p.Cmd.Process.Pid
	only := func(name, want string) func() bool {
		return func() bool { got := threadStatus(t, pid, name); return len(got) == 1 && got[want] > 0 }
	}
	nstest.Until(t, "all threads have the one capability", only("CapPrm", capabilities(unix.CAP_NET_ADMIN)))
	nstest.Until(t, "no_new_privs is set", only("NoNewPrivs", "1"))
	if !opens(ns, "127.0.0.1:80", 10*time.Second) || opens(ns, "127.0.0.1:22", 300*time.Millisecond) {
		t.Error("the verdicts are wrong")
	}
	write("drop tcp > :80\n")
	p.Signal(unix.SIGHUP)
	nstest.Until(t, "the new rules are in force", func() bool {
		return opens(ns, "127.0.0.1:22", 200*time.Millisecond)
	})
	if opens(ns, "127.0.0.1:80", 300*time.Millisecond) {
		t.Error("port 80 is open under the new rules")
	}
	if got := threadStatus(t, pid, "CapEff"); len(got) != 1 || got[capabilities(unix.CAP_NET_ADMIN)] == 0 {
		t.Errorf("effective capabilities of threads: %v", got)
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	if !opens(ns, "127.0.0.1:80", 10*time.Second) {
		t.Error("port 80 is closed after nfctl ended")
	}

	p = startQueue(t, ns, "--num", "1", "--keep-privileges")
	pid = p.Cmd.Process.Pid
	p.WaitOutput("hint: no packet") // two seconds later
	if got := threadStatus(t, pid, "NoNewPrivs"); got["1"] != 0 {
		t.Errorf("with --keep-privileges, no_new_privs: %v", got)
	}
	if got := threadStatus(t, pid, "CapPrm"); got[capabilities(unix.CAP_NET_ADMIN)] != 0 {
		t.Errorf("with --keep-privileges, capabilities: %v", got)
	}
}

// TestWatchGivesUpPrivileges: a watch goes on with none, or with those that
// listing and naming take, and does all it did.
func TestWatchGivesUpPrivileges(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	var c *ct.Conn // stays open: else who looks for its holder finds nobody
	var err error
	ns.Do(func() { c, err = ct.Dial() })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	admin, names := []int{unix.CAP_NET_ADMIN}, []int{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}
	tests := []struct {
		args []string
		caps []int
		root bool // all
	}{
		{args: []string{"ct", "watch", "-q"}},
		{args: []string{"ct", "watch", "-o", "json"}, caps: names},
		{args: []string{"watch", "-o", "json"}, caps: names},
		{args: []string{"expect", "watch", "-q"}},
		{args: []string{"ct", "watch", "-o", "json", "--with-existing"}, caps: append(admin, names...)},
		{args: []string{"ct", "watch", "-q", "--resync", "1s"}, caps: admin},
		{args: []string{"ct", "watch", "--keep-privileges"}, root: true},
	}
	for _, tt := range tests {
		p := startReady(t, ns, tt.args...)
		if !tt.root {
			want := capabilities(tt.caps...)
			nstest.Until(t, fmt.Sprintf("%v: threads have %s only", tt.args, want), func() bool {
				got := threadStatus(t, p.Cmd.Process.Pid, "CapPrm")
				return len(got) == 1 && got[want] > 0
			})
		}
		if err := c.Create(udpFlow(netip.MustParseAddr("10.0.0.9"), 53, 600), false); err != nil {
			t.Fatal(err)
		}
		if tt.root {
			p.WaitOutput("10.0.0.9")
		}
		if strings.Contains(strings.Join(tt.args, " "), "json") {
			// This process made them, with all privileges.
			p.WaitOutput(fmt.Sprintf(`"pid":%d`, os.Getpid()))
		}
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("%v: status %d: %s", tt.args, status, p.Stderr())
		}
		if err := c.Flush(0, ct.KernelFilter{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOrdinaryUser runs nfctl as nobody with CAP_NET_ADMIN alone: what the kernel
// gives to that works, what it does not give is null, with a hint.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.TCPEcho("127.0.0.1:22")
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o777)
	}
	admin := []uintptr{unix.CAP_NET_ADMIN}
	ready := filepath.Join(dir, "ready")
	p := ns.StartCmd(ordinaryUser(t, admin, "queue", "--num", "5", "--attach", "output", "--drop-port", "22",
		"--ready-file", ready))
	nstest.WaitFile(t, ready)
	if opens(ns, "127.0.0.1:22", 300*time.Millisecond) {
		t.Error("port 22 is open")
	}

	list := ns.StartCmd(ordinaryUser(t, admin, "queue", "list", "-o", "json"))
	if status := list.Wait(); status != exitPermission || !strings.Contains(list.Stderr(), "CAP_DAC_READ_SEARCH") {
		// The kernel shows its list to uid 0 and CAP_DAC_READ_SEARCH only.
		t.Errorf("queue list: status %d: %s%s", status, list.Stdout(), list.Stderr())
	}
	list = ns.StartCmd(ordinaryUser(t, append(admin, unix.CAP_DAC_READ_SEARCH), "queue", "list", "-o", "json"))
	if status := list.Wait(); status != 0 || !strings.Contains(list.Stdout(), `"queue":5`) {
		t.Errorf("queue list with CAP_DAC_READ_SEARCH: status %d: %s%s", status, list.Stdout(), list.Stderr())
	}
	for _, tt := range []struct {
		args   string
		status int
		words  string
	}{
		{"ct create --timeout 60|tcp 10.0.0.1:1 > 10.0.0.2:2", 0, ""},
		{"ct list -o flow", 0, "10.0.0.2:2"},
		{"ct count", 0, "1"},
		{"ct delete|tcp > :2", 0, ""},
		{"queue --num 5", exitExists, "queue 5"},
		{"doctor", 0, ""},
	} {
		head, flow, _ := strings.Cut(tt.args, "|")
		args := strings.Fields(head)
		if flow != "" {
			args = append(args, flow)
		}
		p := ns.StartCmd(ordinaryUser(t, admin, args...))
		if status := p.Wait(); status != tt.status || !strings.Contains(p.Stdout()+p.Stderr(), tt.words) {
			t.Errorf("%s: status %d, want %d: %s%s", tt.args, status, tt.status, p.Stdout(), p.Stderr())
		}
	}
	none := ns.StartCmd(ordinaryUser(t, admin, "--netns", strconv.Itoa(os.Getpid()), "ct", "list"))
	if status := none.Wait(); status != exitPermission || !strings.Contains(none.Stderr(), "CAP_SYS_ADMIN") {
		t.Errorf("--netns: status %d: %s", status, none.Stderr())
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	if !opens(ns, "127.0.0.1:22", 10*time.Second) {
		t.Error("port 22 is closed after nfctl ended")
	}
}
