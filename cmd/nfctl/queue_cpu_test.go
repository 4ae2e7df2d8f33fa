package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestQueueUser: once the queue is bound nfctl is another user on all threads, keeps what
// verdicts take, and does all it did.
func TestQueueUser(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	name, uid := "nobody", "65534"
	if asSelf(t) != nil { // only one user can be had
		name, uid = "0", "0"
	}
	ns.TCPEcho("127.0.0.1:22")
	ns.TCPEcho("127.0.0.1:80")
	p := startQueue(t, ns, "-q", "--attach", "output", "--drop", "tcp > :22", "--user", name)
	pid := p.Cmd.Process.Pid
	one := capabilities(unix.CAP_NET_ADMIN)
	nstest.Until(t, "all threads are that user, with one capability", func() bool {
		ids := strings.Join([]string{uid, uid, uid, uid}, "\t")
		for field, want := range map[string]string{"Uid": ids, "CapEff": one, "CapPrm": one, "NoNewPrivs": "1"} {
			if got := threadStatus(t, pid, field); len(got) != 1 || got[want] == 0 {
				return false
			}
		}
		return true
	})
	if !opens(ns, "127.0.0.1:80", 10*time.Second) || opens(ns, "127.0.0.1:22", 300*time.Millisecond) {
		t.Error("the verdicts are wrong")
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	if !opens(ns, "127.0.0.1:22", 10*time.Second) {
		t.Error("port 22 is closed after nfctl ended")
	}
	for _, args := range [][]string{{"--user", "no-such-user"}, {"--user", "nobody", "--keep-privileges"}} {
		if _, stderr, status := ns.Exec(nstest.Build(t), append([]string{"queue"}, args...)...); status != exitUsage {
			t.Errorf("%q: status %d: %s", args, status, stderr)
		}
	}
}

// TestQueueFanout: a packet comes to the queue of the processor that it was sent on, and
// that queue's thread is where --cpu says.
func TestQueueFanout(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "taskset", "bash")
	if runtime.NumCPU() < 2 {
		t.Skip("one processor")
	}
	ns := nstest.New(t)
	ns.ListenUDP("127.0.0.1:7000")
	p := startQueue(t, ns, "--attach", "output udp > :7000 fanout", "-o", "json", "--cpu", "1,0")
	for cpu := range 2 {
		for range 5 {
			ns.Run("taskset", "-c", fmt.Sprint(cpu), "bash", "-c", fmt.Sprintf("echo %d >/dev/udp/127.0.0.1/7000", cpu))
		}
		nstest.Until(t, "the packets came", func() bool { return strings.Count(p.Stdout(), "\n") == 5*(cpu+1) })
	}
	var queues []int
	for line := range strings.Lines(p.Stdout()) {
		var pkt struct{ Queue int }
		if err := json.Unmarshal([]byte(line), &pkt); err != nil {
			t.Fatal(err)
		}
		queues = append(queues, pkt.Queue)
	}
	first := 0x10000 - runtime.NumCPU()
	for i, q := range queues {
		if want := first + i/5; q != want {
			t.Errorf("packet %d came to queue %d, want %d", i, q, want)
		}
	}
	pinned := map[string]bool{}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Cmd.Process.Pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for line := range strings.Lines(string(b)) {
			if cpus, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
				pinned[strings.TrimSpace(cpus)] = true
			}
		}
	}
	if !pinned["0"] || !pinned["1"] || len(pinned) < 3 {
		t.Errorf("threads run on %v", pinned)
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	if _, stderr, status := ns.Exec(nstest.Build(t), "queue", "--cpu", "4095"); status != exitUsage {
		t.Errorf("status %d: %s", status, stderr)
	}
}
