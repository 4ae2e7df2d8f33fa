package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/nstest"
)

// forgeEnv makes the test binary a forger: see forge.
const forgeEnv = "NFCTL_TEST_FORGE"

// forgeries are messages that nobody but the kernel ought to send, all with the
// sequence number and port id of who gets them.
func forgeries(seq, port uint32) (out [][]byte) {
	add := func(b []byte) {
		binary.NativeEndian.PutUint32(b, uint32(len(b)))
		binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_MULTI) // no request: the kernel is sent it too
		nl.PutSeq(b, seq)
		binary.NativeEndian.PutUint32(b[12:], port)
		out = append(out, b)
	}
	bare := func(typ uint16, data ...byte) {
		add(append(binary.NativeEndian.AppendUint16(make([]byte, 4, 64), typ), append(make([]byte, 10), data...)...))
	}
	bare(unix.NLMSG_NOOP)
	bare(unix.NLMSG_DONE, 0, 0, 0, 0)
	bare(unix.NLMSG_ERROR, make([]byte, 20)...)
	bare(unix.NLMSG_ERROR, append(binary.NativeEndian.AppendUint32(nil, ^uint32(unix.EPERM)+1), make([]byte, 16)...)...)
	for _, msg := range []uint8{0, 2} { // new, delete
		b := nl.AppendHeader(nil, nl.Type(nl.SubsysCt, msg), 0, unix.AF_INET, 0)
		for typ, dir := range [2][2]byte{{66, 67}, {67, 66}} {
			var t, i int
			b, t = nl.Begin(b, uint16(typ+1))
			b, i = nl.Begin(b, 1)
			b = nl.AppendAttr(b, 1, []byte{203, 0, 113, dir[0]})
			b = nl.AppendAttr(b, 2, []byte{203, 0, 113, dir[1]})
			b = nl.End(b, i)
			b, i = nl.Begin(b, 2)
			b = nl.AppendU8(b, 1, unix.IPPROTO_UDP)
			b = nl.AppendU16(b, 2, 666)
			b = nl.AppendU16(b, 3, 666)
			b = nl.End(b, i)
			b = nl.End(b, t)
		}
		b = nl.AppendU32(b, 12, 0x666) // id
		add(nl.AppendU32(b, 3, 0xe))   // status
	}
	for _, id := range []uint32{1, 2, 1000, 1 << 20, 1 << 31, ^uint32(0)} { // packets of queue 7
		b := nl.AppendHeader(nil, nl.Type(nl.SubsysQueue, 0), 0, unix.AF_INET, 7)
		b = nl.AppendAttr(b, 1, append(binary.BigEndian.AppendUint32(nil, id), 0x08, 0x00, 3))
		add(nl.AppendAttr(b, 10, []byte{0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 203, 0, 113, 66, 203, 0, 113, 67, 2,
			154, 2, 154, 0, 8, 0, 0}))
	}
	return out
}

// forge sends forgeries to all netfilter sockets of its namespace until its input
// ends, and then prints how many.
func forge() int {
	f, err := nstest.NewForger()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("forging")
	end := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	for sent, refused, seq := 0, 0, uint32(0); ; seq++ {
		select {
		case <-end:
			fmt.Printf("sent %d refused %d\n", sent, refused)
			return 0
		default:
		}
		for _, port := range f.Ports() {
			for _, b := range forgeries(seq, port) {
				switch f.Send(port, b) {
				case nil:
					sent++
				case unix.ECONNREFUSED:
					refused++
				}
			}
		}
		for _, b := range forgeries(seq, 0) {
			for group := range uint(6) {
				if f.Multicast(group+1, b) == nil {
					sent++
				}
			}
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// A forger is a process that forges.
type forger struct {
	t   *testing.T
	ns  *nstest.NS
	in  io.Closer
	out *bufio.Reader
	cmd *exec.Cmd
}

// startForger forges inside ns; nil: in a namespace that an ordinary user made.
func startForger(t *testing.T, ns *nstest.NS) *forger {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), forgeEnv+"=1", "GORACE=atexit_sleep_ms=0")
	c.Stderr = os.Stderr
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	var err error
	if ns != nil {
		ns.Do(func() { err = c.Start() })
	} else {
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
			Credential:  &syscall.Credential{NoSetGroups: true},
		}
		if uid := os.Getuid(); os.Getenv("NFCTL_TEST_INNER") != "" {
			c.SysProcAttr.UidMappings[0].HostID, c.SysProcAttr.GidMappings[0].HostID = uid, os.Getgid()
		}
		if err = c.Start(); err != nil {
			nstest.Lack(t, fmt.Errorf("no user namespace: %w", err))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	f := &forger{t: t, ns: ns, in: in, out: bufio.NewReader(out), cmd: c}
	if line, _ := f.out.ReadString('\n'); line != "forging\n" {
		t.Fatalf("forger: %q", line)
	}
	if ns == nil {
		f.ns = nstest.At(t, fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid))
		f.ns.Run("ip", "link", "set", "lo", "up")
	}
	return f
}

// end stops the forger and returns how many messages it sent, and how many more the
// kernel refused.
func (f *forger) end() (sent, refused int) {
	f.t.Helper()
	_ = f.in.Close()
	line, _ := f.out.ReadString('\n')
	if _, err := fmt.Sscanf(line, "sent %d refused %d", &sent, &refused); err != nil {
		f.t.Fatalf("forger: %q", line)
	}
	return sent, refused
}

// TestForgedMessages has somebody else than the kernel send ends, errors,
// acknowledgements, events, flows and packets to all sockets of each command. None
// is believed, whoever sends: root in the namespace, or an ordinary user whose
// namespace nfctl enters.
func TestForgedMessages(t *testing.T) {
	nstest.Need(t, "ip")
	for _, who := range []string{"root", "user"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			var ns *nstest.NS
			if who == "root" {
				ns = nstest.New(t)
			}
			f := startForger(t, ns)
			forgedCommands(t, f.ns)
			forgedWatch(t, f.ns)
			forgedQueue(t, f.ns)
			sent, refused := f.end()
			t.Logf("%d forged messages sent, %d more refused by the kernel", sent, refused)
			if sent < 1000 || refused < 1000 {
				t.Errorf("only %d forged messages sent, %d refused", sent, refused)
			}
		})
	}
}

const forgedFlows = 2000

func forgedCommands(t *testing.T, ns *nstest.NS) {
	nfctl := nstest.Build(t)
	var saved strings.Builder
	for i := range forgedFlows {
		fmt.Fprintf(&saved, "-A -t 600 -u SEEN_REPLY,ASSURED -s 10.1.%d.%d -d 10.2.0.1 -r 10.2.0.1 -q "+
			"10.1.%[1]d.%[2]d -p udp --sport 1000 --dport 53 --reply-port-src 53 --reply-port-dst 1000\n", i/250, i%250)
	}
	dir := t.TempDir()
	file, script := filepath.Join(dir, "flows"), filepath.Join(dir, "script.lua")
	if err := os.WriteFile(file, []byte(saved.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("print('ran')"), 0o644); err != nil {
		t.Fatal(err)
	}
	const here, absent = "udp 10.1.0.1:1000 > 10.2.0.1:53", "udp 10.9.0.1:1000 > 10.2.0.1:53"
	lines := func(n int) func(string) bool {
		return func(out string) bool { return strings.Count(out, "\n") == n }
	}
	any := func(string) bool { return true }
	for round := range 5 {
		for _, c := range []struct {
			status int
			ok     func(out string) bool
			args   []string
		}{
			{0, any, []string{"ct", "load", file}},
			{0, lines(forgedFlows), []string{"ct", "list", "-o", "json"}},
			{0, lines(forgedFlows + 1), []string{"ct", "list", "-o", "table"}},
			{0, lines(forgedFlows), []string{"ct", "save"}},
			{0, lines(forgedFlows), []string{"compat", "conntrack", "-L"}},
			{0, lines(2), []string{"ct", "list", "--group-by", "orig.dst", "-o", "table"}},
			{0, any, []string{"ct", "count"}},
			{0, lines(1), []string{"ct", "get", here}},
			{3, lines(0), []string{"ct", "get", absent}},
			{4, any, []string{"ct", "create", here}},
			{0, any, []string{"ct", "create", absent, "--timeout", "60"}},
			{0, lines(1), []string{"ct", "update", here, "--set", "mark=1"}},
			{0, any, []string{"ct", "stats"}},
			{0, any, []string{"expect", "list"}},
			{0, any, []string{"expect", "stats"}},
			{0, lines(1), []string{"ct", "delete", absent}},
			{0, lines(forgedFlows), []string{"ct", "delete", "-p", "udp"}},
			{0, lines(1), []string{"lua", script}},
			{0, any, []string{"doctor", "-o", "json"}},
		} {
			var stdout, stderr strings.Builder
			cmd := exec.Command("timeout", append([]string{"20", nfctl}, c.args...)...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			ns.Do(func() { _ = cmd.Run() })
			out, errs, status := stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
			if status != c.status || !c.ok(out) || strings.Contains(out+errs, "203.0.113") {
				t.Errorf("round %d: nfctl %s: status %d, %d lines\n%.300s%.300s", round, strings.Join(c.args, " "),
					status, strings.Count(out, "\n"), out, errs)
			}
		}
		if t.Failed() {
			return
		}
	}
}

func forgedWatch(t *testing.T, ns *nstest.NS) {
	nfctl := nstest.Build(t)
	dir := t.TempDir()
	for i, args := range [][]string{{"ct", "watch"}, {"watch", "--with-existing"}, {"compat", "conntrack", "-E"}} {
		ready := filepath.Join(dir, fmt.Sprint("ready", i))
		if args[0] != "compat" {
			args = append(args, "-v", "--ready-file", ready)
		}
		p := ns.Start(nfctl, args...)
		if args[0] != "compat" {
			nstest.WaitFile(t, ready)
		} else {
			nstest.Until(t, "conntrack -E listens", func() bool {
				return strings.Contains(ns.Run("cat", "/proc/thread-self/net/netlink"), "00000007")
			})
		}
		for range 20 {
			ns.Run(nfctl, "ct", "create", "-q", "udp 10.5.0.1:1 > 10.5.0.2:2", "--timeout", "60")
			ns.Run(nfctl, "ct", "delete", "-q", "udp 10.5.0.1:1 > 10.5.0.2:2")
		}
		nstest.Until(t, "40 events", func() bool { return strings.Count(p.Stdout(), "10.5.0.1") >= 40 })
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 || strings.Contains(p.Stdout(), "203.0.113") {
			t.Errorf("nfctl %s: status %d\n%.500s", strings.Join(args, " "), status, p.Stdout())
		}
		if args[0] != "compat" && !strings.Contains(p.Stderr(), "from other senders than the kernel passed over") {
			t.Errorf("nfctl %s -v says nothing of them:\n%s", strings.Join(args, " "), p.Stderr())
		}
	}
}

func forgedQueue(t *testing.T, ns *nstest.NS) {
	nfctl := nstest.Build(t)
	dropped, passed := ns.ListenUDP("127.0.0.1:7001"), ns.ListenUDP("127.0.0.1:7000")
	roomy(t, dropped)
	roomy(t, passed)
	drops, passes := collect(dropped), collect(passed)
	ready := filepath.Join(t.TempDir(), "ready")
	p := ns.Start(nfctl, "queue", "--num", "7", "--attach", "output udp >", "--drop-port", "7001", "-o", "json",
		"--ready-file", ready)
	nstest.WaitFile(t, ready)
	const each = 5000
	send := func(addr string) {
		c, err := ns.Dial("udp", addr, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint32(each) {
			if _, err := c.Write(binary.BigEndian.AppendUint32(nil, i)); err != nil && !isTransient(err) {
				t.Fatal(err)
			}
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); send("127.0.0.1:7001") }()
	send("127.0.0.1:7000")
	<-done
	nstest.Until(t, "all packets are decided", func() bool { return strings.Count(p.Stdout(), "\n") >= 2*each })
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if d, n := drops(), passes(); len(d) != 0 || len(n) != each {
		t.Errorf("%d of %d packets passed that are to be dropped, %d of %[2]d others", len(d), each, len(n))
	}
	if !strings.Contains(p.Stderr(), fmt.Sprintf("accept %d", each)) &&
		!strings.Contains(p.Stderr(), fmt.Sprintf("drop %d, accept %[1]d", each)) ||
		strings.Contains(p.Stderr(), "lost") || strings.Contains(p.Stdout(), "203.0.113") {
		t.Errorf("totals:\n%s", p.Stderr())
	}
}
