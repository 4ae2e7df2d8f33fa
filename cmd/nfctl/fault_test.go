package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nstest"
)

// numbersTo sends numbered datagrams to a socket at addr inside ns, rate a
// second. rest stops and returns how many were sent and which arrived.
func numbersTo(t *testing.T, ns *nstest.NS, addr string, rate int) (rest func() (sent int, seen map[uint32]bool)) {
	t.Helper()
	in := ns.ListenUDP(addr)
	roomy(t, in)
	arrived := collect(in)
	out, err := ns.Dial("udp", addr, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	stop, sent := make(chan struct{}), make(chan uint32, 1)
	go func() { sent <- sendNumbers(t, out, rate, stop) }()
	return func() (int, map[uint32]bool) {
		close(stop)
		n := int(<-sent)
		return n, arrived()
	}
}

// TestFaultKilled kills nfctl at any moment of its start and work, under traffic.
// A second later at the latest no rule and no queue of it is left.
func TestFaultKilled(t *testing.T) {
	t.Parallel()
	if os.Getenv("NFCTL_TEST_INNER") != "" {
		t.Skip("the kernel's list of queues needs root")
	}
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	nfctl := nstest.Build(t)
	ns.UDPEcho("127.0.0.1:7001")
	rest := numbersTo(t, ns, "127.0.0.1:7000", 2000)
	worst := time.Duration(0)
	for run := range 60 {
		delay := time.Duration(rand.IntN(40_000)) * time.Microsecond
		p := ns.Start(nfctl, "queue", "-q", "--attach", "output udp >", "--drop-port", "7001")
		time.Sleep(delay)
		p.Signal(unix.SIGKILL)
		p.Wait()
		begun := time.Now()
		nstest.Until(t, fmt.Sprintf("run %d, killed after %v: rule and queue are gone", run, delay), func() bool {
			return !bound(ns) && strings.TrimSpace(ns.Run("nft", "list", "tables")) == ""
		})
		worst = max(worst, time.Since(begun))
		if run%10 == 0 {
			if _, ok := ns.Ask("127.0.0.1:7001", "x", 5*time.Second); !ok {
				t.Errorf("run %d, killed after %v: nothing passes", run, delay)
			}
		}
	}
	sent, seen := rest()
	if worst > 2*time.Second {
		t.Errorf("what was left was gone after %v", worst)
	}
	t.Logf("gone after %v at the latest; %d of %d packets arrived meanwhile", worst, len(seen), sent)
}

// TestFaultStopped stops nfctl for 5 s while packets come: what did not fit is
// counted, and verdicts go on at once afterwards.
func TestFaultStopped(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.UDPEcho("127.0.0.1:7001")
	p := startQueue(t, ns, "-q", "--attach", "input udp > :7000", "--attach", "input udp > :7001")
	rest := numbersTo(t, ns, "127.0.0.1:7000", 10_000)
	nstest.Until(t, "packets pass", func() bool { _, ok := ns.Ask("127.0.0.1:7001", "x", time.Second); return ok })
	p.Signal(unix.SIGSTOP)
	time.Sleep(5 * time.Second)
	p.Signal(unix.SIGCONT)
	begun := time.Now()
	nstest.Until(t, "packets pass again", func() bool {
		_, ok := ns.Ask("127.0.0.1:7001", "x", 100*time.Millisecond)
		return ok
	})
	again := time.Since(begun)
	sent, seen := rest()
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	// The questions that were asked when the queue was full are among the lost.
	least, most := losses(p.Stderr())
	if gone := sent - len(seen); least == 0 || gone > most || gone < least-100 {
		t.Errorf("%d sent, %d arrived, %d lost (at most %d)", sent, len(seen), least, most)
	}
	if again > 5*time.Second {
		t.Errorf("passing again after %v", again)
	}
	t.Logf("%d sent, %d arrived, %d counted as lost; passing again after %v", sent, len(seen), least, again)
}

// TestFaultSmallBuffer has no more than 4 KiB for what comes: every loss is
// counted, in a queue and in a watch.
func TestFaultSmallBuffer(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	p := startQueue(t, ns, "-q", "--attach", "input udp > :7000", "--buffer", "4KiB")
	rest := numbersTo(t, ns, "127.0.0.1:7000", 20_000)
	time.Sleep(500 * time.Millisecond)
	p.Signal(unix.SIGSTOP) // long enough for any buffer of that size
	time.Sleep(100 * time.Millisecond)
	p.Signal(unix.SIGCONT)
	time.Sleep(500 * time.Millisecond)
	sent, seen := rest()
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if least, most := losses(p.Stderr()); least == 0 || sent-len(seen) < least || sent-len(seen) > most {
		t.Errorf("%d sent, %d arrived, %d lost (at most %d)", sent, len(seen), least, most)
	}

	const flows = 20_000
	watch := startReady(t, ns, "ct", "watch", "--events", "new", "--buffer", "4KiB", "-o", "flow")
	watch.Signal(unix.SIGSTOP)
	fillFlows(t, ns, flows/2)
	watch.Signal(unix.SIGCONT)
	ns.Do(func() {
		c, err := ct.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Flush(0, ct.KernelFilter{}); err != nil {
			t.Fatal(err)
		}
	})
	fillFlows(t, ns, flows/2)
	nstest.Until(t, "the watch has read what came", func() bool {
		before := len(watch.Stdout())
		time.Sleep(300 * time.Millisecond)
		return len(watch.Stdout()) == before
	})
	watch.Signal(unix.SIGTERM)
	if status := watch.Wait(); status != 0 {
		t.Errorf("watch: status %d", status)
	}
	seenFlows := strings.Count(watch.Stdout(), ">")
	if lost := totalLost(watch.Stderr()); lost == 0 || seenFlows+lost != flows {
		t.Errorf("%d flows made, %d shown, %d lost", flows, seenFlows, lost)
	}
}

// totalLost reads "… shown, N lost" of a watch's totals.
func totalLost(totals string) int {
	head, _, ok := strings.Cut(totals, " lost")
	if !ok {
		return 0
	}
	n, _ := strconv.Atoi(head[strings.LastIndexByte(head, ' ')+1:])
	return n
}

// TestFaultMemory lists many flows to a reader that is slow at first: nfctl waits
// for the reader, and stays far below 64 MiB.
func TestFaultMemory(t *testing.T) {
	t.Parallel()
	flows := 200_000
	if testing.Short() {
		flows = 20_000
	}
	if b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max"); err == nil { // small machines allow less
		most, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		flows = min(flows, most*3/4)
	}
	ns := nstest.New(t)
	fillFlows(t, ns, flows)
	for _, args := range [][]string{{"ct", "list", "-o", "json"}, {"ct", "save"}} {
		lines, most := 0, 0
		var pid atomic.Int64
		p, end := startPiped(t, ns, func(string) {
			if lines++; lines%1000 == 1 {
				if lines < 20_000 {
					time.Sleep(10 * time.Millisecond)
				}
				if pid.Load() != 0 {
					most = max(most, peak(int(pid.Load())))
				}
			}
		}, args...)
		pid.Store(int64(p.Cmd.Process.Pid))
		status := p.Wait()
		end()
		if status != 0 || lines != flows || most == 0 || most > 64<<10 {
			t.Errorf("%v: status %d, %d lines, want %d, at most %d KiB", args, status, lines, flows, most)
		}
		t.Logf("%v: %d flows, at most %d KiB", args, flows, most)
	}
}

// TestFaultOutput: output that is full, closed or read by nobody.
func TestFaultOutput(t *testing.T) {
	t.Parallel()
	nfctl := nstest.Build(t)
	ns := nstest.New(t)
	fillFlows(t, ns, 20_000)
	tests := []struct {
		name, script string
		status       int
		words        string
	}{
		{"full", "ct list >/dev/full", exitFailed, "standard output"},
		{"full, a table", "ct list -o table >/dev/full", exitFailed, "standard output"},
		{"full, a save", "ct save >/dev/full", exitFailed, "standard output"},
		{"full, a count", "ct count >/dev/full", exitFailed, "standard output"},
		{"full, a watch", "ct watch --with-existing >/dev/full", exitFailed, "standard output"},
		{"no reader", "ct list | head -n 1", 0, "10.8.0.1"},
		{"no reader, a watch", "ct watch --with-existing | head -n 1", 0, "10.8.0.1"},
		// The Go runtime opens /dev/null in its place before nfctl begins.
		{"closed", "ct list >&-", 0, ""},
	}
	for _, tt := range tests {
		p := ns.Start("bash", "-c", "set -o pipefail; "+nfctl+" "+tt.script)
		if status := p.Wait(); status != tt.status || !strings.Contains(p.Stdout()+p.Stderr(), tt.words) {
			t.Errorf("%s: status %d, want %d: %.300s%s", tt.name, status, tt.status, p.Stdout(), p.Stderr())
		}
	}
}

// TestFaultSlowOutput: who reads slowly slows the verdicts, and what the full
// queue then loses is counted. A reader that goes away ends nfctl in order.
func TestFaultSlowOutput(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ready := t.TempDir() + "/ready"
	printed := 0
	var fast atomic.Bool
	p, end := startPiped(t, ns, func(string) {
		if printed++; printed%100 == 0 && !fast.Load() {
			time.Sleep(50 * time.Millisecond) // 2,000 lines a second
		}
	}, "queue", "--attach", "input udp > :7000", "-o", "json", "--ready-file", ready, "--fields", "id,verdict")
	nstest.WaitFile(t, ready)
	rest := numbersTo(t, ns, "127.0.0.1:7000", 10_000)
	time.Sleep(3 * time.Second)
	sent, seen := rest()
	fast.Store(true)
	p.Signal(unix.SIGTERM)
	status := p.Wait()
	end()
	// What waits for its verdict while the reader sleeps comes behind the last
	// look at the socket.
	least, most := losses(p.Stderr())
	decided := counted(p.Stderr(), "packet")
	if status != 0 || least == 0 || decided+least > sent || decided+most < sent || len(seen) > decided {
		t.Errorf("status %d: %d sent, %d decided, %d arrived, %d lost (at most %d)", status, sent, decided, len(seen),
			least, most)
	}
	if lines := printed - strings.Count(p.Stderr(), "\n"); printed < decided {
		t.Errorf("%d packets, %d lines (%d)", decided, printed, lines)
	}
	t.Logf("%d sent, %d decided and printed, %d counted as lost", sent, decided, least)
}

// TestFaultNamespaceName removes the last name of the namespace that nfctl works
// in, or gives it to another namespace: nfctl says so, ends with status 1, and takes
// its rules away.
func TestFaultNamespaceName(t *testing.T) {
	t.Parallel()
	if os.Getenv("NFCTL_TEST_INNER") != "" {
		t.Skip("ip netns needs root")
	}
	nstest.Need(t, "ip", "unshare", "nsenter")
	for i, after := range []string{"true", "ip netns add %s"} {
		ns := nstest.New(t)
		nfctl, file := nstest.Build(t), t.TempDir()+"/ready"
		name := fmt.Sprintf("nfctl-test-%d-%d", os.Getpid(), i)
		p := ns.Start("unshare", "-m", "sh", "-c", fmt.Sprintf(
			"ip netns add %[1]s && ip -n %[1]s link set lo up && exec %[2]s --netns %[1]s queue --attach output "+
				"--drop-port 22 --ready-file %[3]s",
			name, nfctl, file))
		nstest.WaitFile(t, file)
		pid := strconv.Itoa(p.Cmd.Process.Pid)
		// What keeps the namespace when nfctl has left it.
		keep := ns.Start("nsenter", "-n", "-t", pid, "sh", "-c", "echo in; exec sleep 60")
		keep.WaitOutput("in")
		connect := func(port string) int {
			_, _, status := ns.Exec("nsenter", "-n", "-t", strconv.Itoa(keep.Cmd.Process.Pid),
				"timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/"+port)
			return status
		}
		// Nobody listens: refused is 1; 124 is a time that ran out.
		if open, dropped := connect("80"), connect("22"); open != 1 || dropped != 124 {
			t.Errorf("port 80: %d, port 22: %d", open, dropped)
		}
		ns.Run("nsenter", "-m", "-t", pid, "sh", "-c",
			fmt.Sprintf("ip netns del %[1]s && "+strings.ReplaceAll(after, "%s", "%[1]s"), name))
		status := p.Wait()
		for _, says := range []string{"the network namespace is gone", "rule 1 (drop-port 22)"} {
			if status != 1 || !strings.Contains(p.Stderr(), says) {
				t.Errorf("%s: status %d, without %q: %s", after, status, says, p.Stderr())
			}
		}
		if left := connect("22"); left != 1 {
			t.Errorf("%s: port 22 afterwards: %d", after, left)
		}
		keep.Signal(unix.SIGTERM)
		keep.Wait()
	}
}

// TestFaultInterfaces renames and removes the interface that packets come by.
func TestFaultInterfaces(t *testing.T) {
	t.Parallel()
	a, b := nstest.New(t), nstest.New(t)
	nstest.Veth(t, a, b)
	b.UDPEcho("10.0.0.2:7000")
	b.UDPEcho("127.0.0.1:7000")
	p := startQueue(t, b, "--attach", "input udp > :7000", "--drop-if", `indev == "veth0" and payload == "no"`, "-o",
		"json")
	ask := func(text string, want bool) {
		t.Helper()
		patience := 5 * time.Second
		if !want {
			patience = 300 * time.Millisecond
		}
		if _, ok := a.Ask("10.0.0.2:7000", text, patience); ok != want {
			t.Errorf("%q: answered %v", text, ok)
		}
	}
	ask("yes", true)
	ask("no", false)
	b.Run("ip", "link", "set", "veth0", "down")
	b.Run("ip", "link", "set", "veth0", "name", "lan0")
	b.Run("ip", "link", "set", "lan0", "up")
	// A name is known for a second.
	nstest.Until(t, "the new name is in force", func() bool {
		_, ok := a.Ask("10.0.0.2:7000", "no", 100*time.Millisecond)
		return ok
	})
	if !strings.Contains(p.Stdout(), `"indev":"veth0"`) {
		t.Errorf("no packet by veth0")
	}
	p.WaitOutput(`"indev":"lan0"`)
	b.Run("ip", "link", "del", "lan0")
	if _, ok := b.Ask("127.0.0.1:7000", "yes", 5*time.Second); !ok {
		t.Error("nothing passes when an interface is gone")
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
}

// TestFaultFlushed: another program empties the table while nfctl lists, saves
// and deletes.
func TestFaultFlushed(t *testing.T) {
	t.Parallel()
	const flows = 30_000
	ns := nstest.New(t)
	for _, args := range [][]string{{"ct", "list", "-o", "flow"}, {"ct", "list", "-o", "json"}, {"ct", "save"},
		{"ct", "delete", "-o", "flow", "udp 10.0.0.0/8 >"}} {
		fillFlows(t, ns, flows)
		flushed := make(chan struct{})
		start := make(chan struct{})
		go func() {
			defer close(flushed)
			<-start
			ns.Do(func() {
				c, err := ct.Dial()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if err := c.Flush(0, ct.KernelFilter{}); err != nil {
					t.Error(err)
				}
			})
		}()
		lines, twice := map[string]bool{}, 0
		n := 0
		p, end := startPiped(t, ns, func(line string) {
			if n++; n == 2 {
				close(start)
			}
			if args[1] == "delete" || n < 10 {
				return
			}
			if lines[line] {
				twice++
			}
			lines[line] = true
		}, args...)
		status := p.Wait()
		end()
		if n < 2 {
			close(start)
		}
		<-flushed
		if status != 0 || twice > 0 || n == 0 || n > flows {
			t.Errorf("%v: status %d, %d lines, %d twice: %s", args, status, n, twice, p.Stderr())
		}
		t.Logf("%v: %d of %d flows before the flush", args, n, flows)
		ns.Do(func() {
			c, err := ct.Dial()
			if err == nil {
				err = c.Flush(0, ct.KernelFilter{})
				_ = c.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}
