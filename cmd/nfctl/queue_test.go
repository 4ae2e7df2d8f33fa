package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

func TestQueueDropsAPort(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		setUp func(*nstest.NS)
		args  []string
	}{
		{"a rule of iptables", func(ns *nstest.NS) {
			nstest.Need(t, "iptables", "ip6tables")
			for _, ipt := range []string{"iptables", "ip6tables"} {
				ns.Run(ipt, "-w", "-A", "OUTPUT", "-p", "tcp", "-j", "NFQUEUE", "--queue-num", "0")
			}
		}, []string{"--num", "0", "--drop-port", "22"}},
		{"its own rule", func(*nstest.NS) {}, []string{"--attach", "output", "--drop-port", "22"}},
		{"its own rules, one for each family", func(*nstest.NS) {}, []string{"--attach", "output ip", "--attach", "output ip6", "--drop-port", "22"}},
		{"an expression", func(*nstest.NS) {}, []string{"--attach", "output tcp >", "--drop-if", "tcp.dport == 22"}},
		{"a flow", func(*nstest.NS) {}, []string{"--attach", "input", "--drop", "tcp > :ssh"}},
		{"the default", func(*nstest.NS) {}, []string{"--attach", "output", "--default", "drop", "--accept-port", "80"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			tt.setUp(ns)
			for _, addr := range []string{"127.0.0.1:22", "127.0.0.1:80", "[::1]:22", "[::1]:80"} {
				ns.TCPEcho(addr)
			}
			p := startQueue(t, ns, tt.args...)
			for _, host := range []string{"127.0.0.1", "::1"} {
				if !opens(ns, net.JoinHostPort(host, "80"), 10*time.Second) {
					t.Errorf("%s: port 80 is closed", host)
				}
				if opens(ns, net.JoinHostPort(host, "22"), 300*time.Millisecond) {
					t.Errorf("%s: port 22 is open", host)
				}
			}
			p.Signal(unix.SIGTERM)
			if status := p.Wait(); status != 0 {
				t.Errorf("status %d: %s", status, p.Stderr())
			}
			if !strings.Contains(p.Stdout(), "drop") || !strings.Contains(p.Stderr(), "packets") {
				t.Errorf("output:\n%s%s", p.Stdout(), p.Stderr())
			}
			if tt.args[0] == "--attach" && !opens(ns, "127.0.0.1:22", 10*time.Second) {
				t.Error("port 22 is closed after nfctl ended")
			}
		})
	}
}

// TestQueueAccounts sends 100,000 packets to ports that rules treat differently
// and compares what arrived with what nfctl says.
func TestQueueAccounts(t *testing.T) {
	t.Parallel()
	const packets, ports = 100_000, 10
	ns := nstest.New(t)
	p := startQueue(t, ns, "-q", "--attach", "output udp >", "--max-len", "200000", "--buffer", "256MiB",
		"--drop-dport", "5000-5002", "--accept-dport", "5003", "--drop-if", "udp.dport == 5004 && family == \"ipv4\"",
		"--drop", "udp > :5009")
	want := map[int]bool{5003: true, 5005: true, 5006: true, 5007: true, 5008: true}
	got := make([]int, ports)
	var rest [ports]func()
	for i := range ports {
		in := ns.ListenUDP(fmt.Sprintf("127.0.0.1:%d", 5000+i))
		roomy(t, in)
		rest[i] = receive(in, func([]byte) { got[i]++ })
	}
	out := ns.ListenUDP("127.0.0.1:0").(*net.UDPConn)
	for n := range packets {
		to := net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5000 + n%ports}
		for {
			if _, err := out.WriteTo([]byte("some bytes"), &to); err == nil {
				break
			}
			time.Sleep(time.Millisecond) // the send buffer is full of packets that wait
		}
	}
	p.Signal(unix.SIGTERM) // answers what still waits
	if status := p.Wait(); status != 0 {
		t.Fatalf("status %d: %s", status, p.Stderr())
	}
	for _, end := range rest {
		end()
	}
	for i, n := range got {
		if w := packets / ports; want[5000+i] && n != w || !want[5000+i] && n != 0 {
			t.Errorf("port %d: %d packets arrived, want %v x %d", 5000+i, n, want[5000+i], w)
		}
	}
	for _, line := range []string{"100000 packets", "drop 50000", "accept 50000",
		"rule 1 (drop-dport 5000-5002): 30000", "rule 2 (accept-dport 5003): 10000",
		"rule 4 (drop udp > :5009): 10000", "default accept: 40000"} {
		if !strings.Contains(p.Stderr(), line) {
			t.Errorf("totals lack %q:\n%s", line, p.Stderr())
		}
	}
	for _, word := range []string{"lost", "vanished", "refused"} {
		if strings.Contains(p.Stderr(), word) {
			t.Errorf("totals tell of losses:\n%s", p.Stderr())
		}
	}
}

// TestQueueEndsUnderLoad ends nfctl while packets come fast: none is lost.
func TestQueueEndsUnderLoad(t *testing.T) {
	t.Parallel()
	for run := range 20 {
		t.Run(strconv.Itoa(run), func(t *testing.T) {
			ns := nstest.New(t)
			in := ns.ListenUDP("127.0.0.1:7000")
			roomy(t, in)
			rest := collect(in)
			p := startQueue(t, ns, "-q", "--attach", "output udp > :7000", "--drop-port", "22")
			out, err := ns.Dial("udp", "127.0.0.1:7000", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			sent := make(chan uint32, 1)
			go func() { sent <- sendNumbers(t, out, 20_000, stop) }()
			time.Sleep(200 * time.Millisecond)
			p.Signal(unix.SIGTERM)
			status := p.Wait()
			time.Sleep(2 * time.Second) // the sender goes on
			close(stop)
			n := <-sent
			seen := rest()
			if status != 0 || len(seen) != int(n) {
				t.Errorf("status %d, sent %d, arrived %d\n%s", status, n, len(seen), p.Stderr())
			}
			for _, word := range []string{"lost", "vanished"} {
				if strings.Contains(p.Stderr(), word) {
					t.Errorf("totals tell of losses:\n%s", p.Stderr())
				}
			}
		})
	}
}

// TestQueueKilled kills nfctl: its rule goes with it, every time.
func TestQueueKilled(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.TCPEcho("127.0.0.1:22")
	for run := range 100 {
		p := startQueue(t, ns, "--attach", "output", "--drop-port", "22")
		if run%25 == 0 && opens(ns, "127.0.0.1:22", 200*time.Millisecond) {
			t.Fatal("port 22 is open under nfctl")
		}
		p.Signal(unix.SIGKILL)
		p.Wait()
		// The socket is closed by then, but the table goes by a worker of the kernel.
		nstest.Until(t, fmt.Sprintf("run %d: port 22 opens", run), func() bool {
			return opens(ns, "127.0.0.1:22", 200*time.Millisecond)
		})
	}
}

// TestQueueBeside ends a second nfctl beside a first one: what the first had
// queued may go, and is counted.
func TestQueueBeside(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	in := ns.ListenUDP("127.0.0.1:7000")
	roomy(t, in)
	rest := collect(in)
	first := startQueue(t, ns, "-q", "--attach", "output udp > :7000")
	out, err := ns.Dial("udp", "127.0.0.1:7000", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	stop, sent := make(chan struct{}), make(chan uint32, 1)
	go func() { sent <- sendNumbers(t, out, 20_000, stop) }()
	for range 5 {
		second := startQueue(t, ns, "-q", "--attach", "output tcp > :80")
		second.Signal(unix.SIGTERM)
		if status := second.Wait(); status != 0 {
			t.Errorf("the second: status %d: %s", status, second.Stderr())
		}
	}
	close(stop)
	n := int(<-sent)
	first.Signal(unix.SIGTERM) // answers what still waits
	if status := first.Wait(); status != 0 {
		t.Errorf("the first: status %d: %s", status, first.Stderr())
	}
	seen := len(rest())
	vanished, more := counted(first.Stderr(), "vanished:"), counted(first.Stderr(), "may also have vanished")
	if gone := n - seen; gone < vanished || gone > vanished+more {
		t.Errorf("%d of %d packets did not arrive; vanished: %d, perhaps %d more\n%s", gone, n, vanished, more,
			first.Stderr())
	}
}

func TestQueueRefusals(t *testing.T) {
	t.Parallel()
	nfctl := nstest.Build(t)
	t.Run("held", func(t *testing.T) {
		ns := nstest.New(t)
		p := startQueue(t, ns, "--num", "3")
		_, words, status := ns.Exec(nfctl, "queue", "--num", "3")
		if status != exitExists || !strings.Contains(words, "queue 3") || !strings.Contains(words, "nfctl") {
			t.Errorf("status %d: %s", status, words)
		}
		list, _, _ := ns.Exec(nfctl, "queue", "list", "-o", "json")
		var info struct {
			Kind  string
			Queue int
			Owner struct {
				PID  int
				Comm string
			}
		}
		if err := json.Unmarshal([]byte(list), &info); err != nil || info.Kind != "queue" || info.Queue != 3 ||
			info.Owner.Comm != filepath.Base(nfctl) || info.Owner.PID == 0 {
			t.Errorf("list %s: %v", list, err)
		}
		p.Signal(unix.SIGINT)
		if status := p.Wait(); status != 0 {
			t.Errorf("after SIGINT: status %d", status)
		}
	})
	t.Run("no privilege", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root to give root up")
		}
		ns := nstest.New(t)
		dir := t.TempDir()
		for d := dir; len(d) > 4; d = filepath.Dir(d) {
			_ = os.Chmod(d, 0o755)
		}
		copied := filepath.Join(dir, "nfctl")
		ns.Run("cp", nfctl, copied)
		c := exec.Command(copied, "queue", "--num", "3")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		p := ns.StartCmd(c)
		if status := p.Wait(); status != exitPermission || !strings.Contains(p.Stderr(), "hint: needs CAP_NET_ADMIN") {
			t.Errorf("status %d: %s", status, p.Stderr())
		}
	})
	t.Run("closed output", func(t *testing.T) {
		ns := nstest.New(t)
		ns.TCPEcho("127.0.0.1:80")
		file := filepath.Join(t.TempDir(), "ready")
		p := ns.Start("sh", "-c", "exec "+nfctl+" queue --attach output --ready-file "+file+" >/dev/full")
		nstest.WaitFile(t, file)
		if !opens(ns, "127.0.0.1:80", 10*time.Second) {
			t.Error("a packet whose line could not be written had no verdict")
		}
		if status := p.Wait(); status != exitFailed || !strings.Contains(p.Stderr(), "standard output") {
			t.Errorf("status %d: %s", status, p.Stderr())
		}
	})
}

// TestQueueUsage gives wrong values: each is refused by name before anything is
// done.
func TestQueueUsage(t *testing.T) {
	t.Parallel()
	tests := []struct{ args, names string }{
		{"5", "--num 5"}, {"lst", "list"}, {"tcp", "tcp"},
		{"--num 65536", "65536"}, {"--num -1", "-1"}, {"--num a", `"a"`}, {"--num 3-1", "3-1"}, {"--num 1,,2", "1,,2"},
		{"--drop-port 65536", "65536"}, {"--drop-port http-x", "x"}, {"--drop-port 22-x", "x"}, {"--drop-sport 9-1", "9-1"}, {"--accept-dport sshh", "ssh"},
		{"--accept-port 1e3", "1e3"}, {"--drop-proto tpc", "tcp"}, {"--drop-proto 256", "256"},
		{"--drop-src 10.0.0", "10.0.0"}, {"--drop-src 10.0.0.0/33", "10.0.0.0/33"}, {"--drop-dst host", "host"}, {"--accept-src fe80::1%lo", "fe80::1%lo"},
		{"--drop tcp", "quotes"}, {"--drop|tcp 10.0.0.300 >", "10.0.0.300"}, {"--accept|tcp > :70000", "70000"},
		{"--drop-if tcp.dprt==22", "tcp.dport"}, {"--drop-if tcp.dport==70000", "70000"}, {"--drop-if tcp.dport==", "column"}, {"--drop-if verdict=='drop'", "not known"},
		{"--drop-if ip.src=='x'", "x"}, {"--rule drp", "drop"}, {"--rule|drop accept", "second verdict"}, {"--rule repeat", "mark"}, {"--rule|mark x", "x"}, {"--rule|set ip.tll=3", "ip.ttl"},
		{"--rule|set ip.ttl=300", "300"}, {"--rule|queue 70000", "70000"}, {"--rule|drop if", "if"}, {"--rules /nonexistent", "/nonexistent"},
		{"--rule|drop chance 20", "20%"}, {"--rule|drop chance 80% burst 2", "at least 4"}, {"--rule|drop every 0", `"0"`}, {"--rule|drop limit 10", "10/s"}, {"--rule|drop limit 9/s per ip.scr", "ip.src"},
		{"--rule|drop first 0", `"0"`}, {"--rule|drop udp > :53 every 10", "in front of the flow"}, {"--seed x", `"x"`}, {"--seed -1", "-1"}, {"--max-flows 0", `"0"`}, {"--max-flows 99999999", "99999999"},
		{"--attach outpt", "output"}, {"--attach|output priority x", "x"}, {"--attach|output tcp > :x1", "x1"},
		{"--default maybe", "maybe"}, {"--on-uneditable x", "x"}, {"--snaplen 0", `"0"`}, {"--snaplen 70000", "70000"}, {"--max-len x", `"x"`},
		{"--buffer 8XB", "8XB"}, {"--buffer 0", `"0"`}, {"--duration 5x", "5x"}, {"--idle -1", "-1"}, {"--count x", `"x"`}, {"--until x", `"x"`}, {"--fail-if x", `"x"`},
		{"--print-payload b", `"b"`}, {"-o jsn", "json"}, {"-o xml", "xml"}, {"-o text,json", "json"}, {"--fields ip.scr", "ip.src"}, {"--template {{.ip.scr}}", "ip"},
		{"--template {{", "template"}, {"--color x", `"x"`}, {"--meta --snaplen 9", "--meta"}, {"--lua-timeout x", `"x"`}, {"--lua-timeout 0", "more than nothing"}, {"--rule|drop tcp", `(did you mean "tcp >"?)`}, {"--bogus", "--bogus"}, {"--nm 3", "--num"},
		{"--num 0,5 --attach output", "range"},
	}
	for _, tt := range tests {
		args := strings.Fields(tt.args)
		if flag, text, ok := strings.Cut(tt.args, "|"); ok {
			args = []string{flag, text}
		}
		var out, words strings.Builder
		status := run(append([]string{"nfctl", "queue"}, args...), strings.NewReader(""), &out, &words)
		if status != exitUsage || !strings.Contains(words.String(), tt.names) ||
			!strings.HasPrefix(words.String(), "nfctl: ") {
			t.Errorf("nfctl queue %s: status %d: %s", tt.args, status, words.String())
		}
	}
}

// TestQueueEndsByItself looks at --count, --until, --duration, --idle and the
// status of each.
func TestQueueEndsByItself(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.UDPEcho("127.0.0.1:7000")
	tests := []struct {
		args   []string
		send   int
		status int
		lines  int
	}{
		{[]string{"--count", "3"}, 5, 0, 3},
		{[]string{"--count", "3", "--duration", "300ms"}, 1, exitNotFound, 1},
		{[]string{"--until", "udp.sport != nil && id == 2"}, 4, 0, 2},
		{[]string{"--until", "id == 9", "--idle", "200ms"}, 1, exitNotFound, 1},
		{[]string{"--fail-if", "id == 2"}, 4, exitFailed, 2},
		{[]string{"--fail-if", "id == 2", "--count", "2"}, 4, exitFailed, 2},
		{[]string{"--fail-if", "id == 9", "--count", "2"}, 4, 0, 2},
		{[]string{"--duration", "300ms"}, 1, 0, 1},
		{[]string{"--idle", "200ms"}, 1, 0, 1},
	}
	for _, tt := range tests {
		p := startQueue(t, ns, append(tt.args, "--attach", "output udp > :7000", "-o", "json")...)
		for range tt.send {
			ns.Ask("127.0.0.1:7000", "x", 5*time.Second)
		}
		if status := p.Wait(); status != tt.status || strings.Count(p.Stdout(), "\n") != tt.lines {
			t.Errorf("%v: status %d, want %d, %d lines:\n%s%s", tt.args, status, tt.status, tt.lines, p.Stdout(),
				p.Stderr())
		}
		for line := range strings.Lines(p.Stdout()) {
			var pkt struct {
				Kind, Verdict string
				UDP           struct{ Dport int }
			}
			if err := json.Unmarshal([]byte(line), &pkt); err != nil || pkt.Kind != "packet" ||
				pkt.Verdict != "accept" || pkt.UDP.Dport != 7000 {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}

func TestQueueReloadsRules(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.UDPEcho("127.0.0.1:7000")
	file := filepath.Join(t.TempDir(), "rules")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("# all pass\naccept udp > :9\n")
	p := startQueue(t, ns, "--attach", "output udp > :7000", "--rules", file)
	if _, ok := ns.Ask("127.0.0.1:7000", "x", 5*time.Second); !ok {
		t.Fatal("no answer under the first rules")
	}
	write("drop if payload == \"x\"\n")
	p.Signal(unix.SIGHUP)
	p.WaitOutput("rules reloaded")
	if _, ok := ns.Ask("127.0.0.1:7000", "x", 300*time.Millisecond); ok {
		t.Error("an answer though the new rules drop")
	}
	write("drip\n")
	p.Signal(unix.SIGHUP)
	p.WaitOutput("not reloaded")
	if _, ok := ns.Ask("127.0.0.1:7000", "x", 300*time.Millisecond); ok {
		t.Error("a file that does not parse changed the rules")
	}
	if _, ok := ns.Ask("127.0.0.1:7000", "y", 5*time.Second); !ok {
		t.Error("the rules drop too much")
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
}

// TestQueueReloadsNoPipe: rules that came through a pipe, as shells make them of
// <(…), stay in force at SIGHUP, and no pipe keeps later ones waiting.
func TestQueueReloadsNoPipe(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.UDPEcho("127.0.0.1:7000")
	c := exec.Command(nstest.Build(t), "queue", "--attach", "output udp > :7000", "--rules", "/dev/stdin", "-v")
	c.Stdin = strings.NewReader("drop if payload == \"x\"\n")
	p := ns.StartCmd(c)
	p.WaitOutput("bound")
	drops := func(when string) {
		t.Helper()
		if _, ok := ns.Ask("127.0.0.1:7000", "y", 5*time.Second); !ok {
			t.Errorf("%s: no verdict", when)
		}
		if _, ok := ns.Ask("127.0.0.1:7000", "x", 300*time.Millisecond); ok {
			t.Errorf("%s: the rules are gone", when)
		}
	}
	drops("at first")
	p.Signal(unix.SIGHUP)
	p.WaitOutput("rules not reloaded, the old ones stay in force: --rules: /dev/stdin: not a regular file")
	drops("after SIGHUP")
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}

	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte("accept udp > :9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = startQueue(t, ns, "--attach", "output udp > :7000", "--rules", file)
	if err := errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	p.Signal(unix.SIGHUP)
	p.WaitOutput("rules not reloaded")
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("drop if payload == \"x\"\n"),
		0o600)); err != nil {
		t.Fatal(err)
	}
	p.Signal(unix.SIGHUP)
	p.WaitOutput("rules reloaded: 1")
	drops("a file again")
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
}

func TestQueueDryRun(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.UDPEcho("127.0.0.1:7000")
	p := startQueue(t, ns, "--dry-run", "--attach", "output udp > :7000", "--rule", `replace "abc" "xyz"`, "--drop",
		"udp >")
	if got, ok := ns.Ask("127.0.0.1:7000", "abc", 5*time.Second); got != "abc" {
		t.Errorf("answer %q, %v", got, ok)
	}
	p.Signal(unix.SIGTERM)
	if p.Wait(); !strings.Contains(p.Stdout(), "drop rule 2") {
		t.Errorf("output %s", p.Stdout())
	}
}

// TestQueueNotifies looks for the message to systemd.
func TestQueueNotifies(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := exec.Command(nstest.Build(t), "queue", "--num", "1")
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	p := ns.StartCmd(c)
	b := make([]byte, 100)
	_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := l.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("%q, %v", b[:n], err)
	}
	p.WaitOutput("hint: no packet has come")
	p.Signal(unix.SIGUSR1)
	p.WaitOutput("queue 1: 0 packets")
	p.Signal(unix.SIGTERM)
	p.Wait()
}

// TestWatchdog: systemd is told as long as the loop goes on that gives verdicts or reads
// events, and no longer: a reader that stalls stops it.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"queue", "--num", "1-2", "-q"}, {"ct", "watch", "-q"},
		{"queue", "--num", "1", "--attach", "input udp > :7", "--rule", "delay 1s"}, {"expect", "watch"},
		{"sh", "-c", `"$0" ct watch -o json 2>/dev/null | sleep 60 >/dev/null 2>&1`, nstest.Build(t)}} {
		ns := nstest.New(t)
		path := filepath.Join(t.TempDir(), "notify")
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := exec.Command(nstest.Build(t), args...)
		if args[0] == "sh" {
			c = exec.Command(args[0], args[1:]...)
		}
		c.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=400000")
		p := ns.StartCmd(c)
		next := func(within time.Duration) string {
			b := make([]byte, 100)
			_ = l.SetReadDeadline(time.Now().Add(within))
			n, _ := l.Read(b)
			return string(b[:n])
		}
		if got := next(nstest.Patience); got != "READY=1" {
			t.Errorf("%v: %q", args, got)
		}
		for range 5 {
			if got := next(nstest.Patience); got != "WATCHDOG=1" {
				t.Errorf("%v: %q", args, got)
			}
		}
		if stalls := args[0] == "sh"; stalls {
			makeFlows(t, ns, 1000, 3000) // more than the pipe takes
			nstest.Until(t, "nothing more is said", func() bool { return next(time.Second) == "" })
			continue
		}
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("%v: status %d: %s", args, status, p.Stderr())
		}
	}
}

// TestQueueLog prints only what a rule logs; without a copy there is no length to
// add up.
func TestQueueLog(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	for _, c := range []struct {
		args            []string
		prints          bool
		totals, notThat string
	}{
		{[]string{"--rule", "log udp > :5001"}, true, "1 packet, 29 bytes", "rule 2"},
		{[]string{"-q"}, false, "2 packets in", "bytes"},
		{[]string{"--rule", "log udp > :5002", "--until", "udp.dport == 5001"}, true, "rule 1 (log udp > :5002): 0 packets", "rule 2"},
	} {
		p := startQueue(t, ns, append([]string{"--attach", "output udp > *", "--count", "2"}, c.args...)...)
		for _, port := range []string{"5000", "5001"} {
			conn, err := ns.Dial("udp", "127.0.0.1:"+port, nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
		if status := p.Wait(); status != 0 {
			t.Errorf("status %d: %s", status, p.Stderr())
		}
		out := p.Stdout()
		if strings.Contains(out, ":5001") != c.prints || strings.Contains(out, ":5000") ||
			!strings.Contains(p.Stderr(), c.totals) || strings.Contains(p.Stderr(), c.notThat) {
			t.Errorf("%q:\n%s%s", c.args, out, p.Stderr())
		}
	}
}
