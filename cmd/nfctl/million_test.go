package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// maxFlows raises the machine's limit of flows to twice want, under a lock, and
// sets it back after the test. Where it may not be raised it returns how many of
// want it lets the test make.
func maxFlows(t *testing.T, want int) int {
	t.Helper()
	const setting = "/proc/sys/net/netfilter/nf_conntrack_max"
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "nfctl-conntrack-max.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(setting)
	if err != nil { // a namespace of an older kernel: the limit cannot be seen, and the usual one is this
		t.Logf("%v: 40,000 flows, not %d", err, want)
		return 40_000
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(old)))
	if n >= 2*want {
		return want
	}
	if err := os.WriteFile(setting, []byte(strconv.Itoa(2*want)), 0); err != nil {
		t.Logf("%d flows, not %d: the machine's limit is %d and cannot be raised here: %v", min(want, n*3/4), want, n,
			err)
		return min(want, n*3/4)
	}
	t.Cleanup(func() { _ = os.WriteFile(setting, old, 0) })
	return want
}

// memoryGroup makes a control group that lets its processes have so many bytes,
// and returns the file that a process joins it by; "" where the test may not make
// one.
func memoryGroup(t *testing.T, limit int) string {
	t.Helper()
	parent, file := "", "memory.max"
	own, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for m := range strings.Lines(string(mounts)) {
		w := strings.Fields(m)
		switch {
		case len(w) < 4 || !strings.HasPrefix(w[2], "cgroup"):
		case w[2] == "cgroup2":
			if b, _ := os.ReadFile(w[1] + "/cgroup.subtree_control"); strings.Contains(string(b), "memory") {
				parent = w[1]
			}
		case strings.Contains(","+w[3]+",", ",memory,"): // version 1: below the group that the test is in
			for line := range strings.Lines(string(own)) {
				if p := strings.SplitN(strings.TrimSpace(line), ":", 3); len(p) == 3 && p[1] == "memory" {
					parent, file = w[1]+p[2], "memory.limit_in_bytes"
				}
			}
		}
	}
	if parent == "" {
		t.Log("no control group limits memory here: a resource limit alone does")
		return ""
	}
	dir := filepath.Join(parent, fmt.Sprintf("nfctl-test-%d", os.Getpid()))
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		t.Cleanup(func() {
			nstest.Until(t, "the control group is removed", func() bool { return os.Remove(dir) == nil })
		})
		err = os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0)
	}
	if err != nil {
		t.Logf("no control group may be made here, a resource limit alone bounds memory: %v", err)
		return ""
	}
	return filepath.Join(dir, "cgroup.procs")
}

// TestCtMillion makes, lists and saves a million flows with no more than 64 MiB to
// be had: by a limit on what a process may write to (RLIMIT_DATA), and in a control
// group that has no more for code, data and kernel together.
func TestCtMillion(t *testing.T) {
	const memory = 64 << 20
	flows := maxFlows(t, 1_000_000)
	group := memoryGroup(t, memory)
	ns := nstest.New(t)
	nf := nstest.Build(t)
	// bounded runs nfctl and counts the lines that it prints, if told to.
	bounded := func(count bool, args ...string) *exec.Cmd {
		script := fmt.Sprintf("ulimit -d %d; ", memory>>10)
		if group != "" {
			script += "echo $$ >" + group + "; "
		}
		if count {
			script += `exec "$@" > >(wc -l)`
		} else {
			script += `exec "$@"`
		}
		return exec.Command("bash", append([]string{"-c", script, "bash", nf}, args...)...)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := bufio.NewWriterSize(w, 1<<20)
		line := []byte("-A -p udp -d 10.200.0.1 -t 900 --dport 53 --sport ")
		var buf []byte
		for i := range flows {
			buf = strconv.AppendInt(append(buf[:0], line...), int64(1+i%50000), 10)
			buf = strconv.AppendInt(append(buf, " -s 10.0.0."...), int64(1+i/50000), 10)
			_, _ = b.Write(append(buf, '\n'))
		}
		_ = b.Flush()
		_ = w.Close()
	}()
	load := bounded(false, "ct", "load")
	load.Stdin = r
	p := ns.StartCmd(load)
	_ = r.Close()
	most := waitLong(t, p)
	if !strings.Contains(p.Stderr(), fmt.Sprintf("%d flows made", flows)) {
		t.Fatalf("load: %d MiB: %s", most, p.Stderr())
	}
	t.Logf("load: %v of processor time, %d MiB", p.Cmd.ProcessState.UserTime()+p.Cmd.ProcessState.SystemTime(), most)
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"ct", "list"}, flows},
		{[]string{"ct", "list", "-o", "json"}, flows},
		{[]string{"ct", "save"}, flows},
		{[]string{"ct", "list", "-p", "udp", "--sport", "7", "-o", "json"}, (flows + 50000 - 7) / 50000},
	} {
		p := ns.StartCmd(bounded(true, c.args...))
		most := waitLong(t, p)
		nstest.Until(t, "the lines are counted", func() bool { return p.Stdout() != "" })
		if n := strings.TrimSpace(p.Stdout()); n != strconv.Itoa(c.want) {
			t.Errorf("%v: %s lines, want %d", c.args, n, c.want)
		}
		if most > 40 {
			t.Errorf("%v took %d MiB", c.args, most)
		}
		t.Logf("%v: %v of processor time, %d MiB", c.args,
			p.Cmd.ProcessState.UserTime()+p.Cmd.ProcessState.SystemTime(), most)
	}
	ns.Run(nf, "ct", "flush", "--all")
}

// waitLong waits for a program that may take longer than others, and returns
// the most memory that it was seen to have, in MiB.
func waitLong(t *testing.T, p *nstest.Proc) (most int) {
	t.Helper()
	status := fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid)
	for end := time.Now().Add(5 * time.Minute); !p.Ended(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still running: %s", strings.Join(p.Cmd.Args, " "))
		}
		b, _ := os.ReadFile(status)
		if _, rest, ok := strings.Cut(string(b), "VmHWM:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			most = max(most, n>>10)
		}
	}
	if status := p.Wait(); status != 0 {
		t.Fatalf("%s: status %d: %s", strings.Join(p.Cmd.Args, " "), status, p.Stderr())
	}
	return most
}
