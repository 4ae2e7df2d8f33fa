package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/say"
	"nfctl/internal/table"
)

// stalledPipe is a pipe that nobody reads from and that is full.
func stalledPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	fd := int(w.Fd()) // makes it block, each time
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); ; {
		if _, err := unix.Write(fd, b); err != nil {
			break
		}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	return r, w
}

// startInto starts a program inside ns with these outputs; nil: gathered.
func startInto(t *testing.T, ns *nstest.NS, stdout, stderr *os.File,
	args ...string) (c *exec.Cmd, said *bytes.Buffer, ended chan struct{}) {
	t.Helper()
	c, said, ended = exec.Command(args[0], args[1:]...), &bytes.Buffer{}, make(chan struct{})
	c.Stdout, c.Stderr = stdout, stderr
	if stderr == nil {
		c.Stderr = said
	}
	if stdout == nil {
		c.Stdout = said
	}
	var err error
	ns.Do(func() { err = c.Start() })
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.Wait(); close(ended) }()
	t.Cleanup(func() { _ = c.Process.Kill(); <-ended })
	return c, said, ended
}

// blocked waits until a process does not run: all its threads sleep, as when its
// output is not taken.
func blocked(t *testing.T, pid int) {
	t.Helper()
	nstest.Until(t, "nfctl waits for its reader", func() bool {
		stacks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
		for _, s := range stacks {
			if b, _ := os.ReadFile(s); bytes.HasPrefix(b, fmt.Appendf(nil, "%d 0x1 ", unix.SYS_WRITE)) {
				return true
			}
		}
		return false
	})
}

// TestSignalsWithStalledReader sends signals to commands whose output nobody takes:
// what only reads ends at the first, what changes at the second and says what it did.
func TestSignalsWithStalledReader(t *testing.T) {
	t.Parallel()
	nfctl := nstest.Build(t)
	for _, tt := range []struct {
		name    string
		signals int
		said    string
		args    []string
	}{
		{"list", 1, "", []string{"ct", "list"}},
		{"json", 1, "", []string{"ct", "list", "-o", "json"}},
		{"table", 1, "", []string{"ct", "list", "-o", "table"}},
		{"save", 1, "", []string{"ct", "save"}},
		{"groups", 1, "", []string{"ct", "list", "--group-by", "orig.src", "-o", "json"}},
		{"conntrack", 1, "", []string{"compat", "conntrack", "-L"}},
		{"watch", 1, "events in", []string{"ct", "watch", "--with-existing"}},
		{"stats", 1, "", []string{"ct", "stats", "-o", "json", "--interval", "1ms"}},
		{"delete", 2, "flows deleted so far", []string{"ct", "delete", "--all", "-o", "json"}},
		{"update", 2, "flows updated so far", []string{"ct", "update", "--set", "mark=1", "-o", "json"}},
		{"conntrack -D", 2, "flows deleted so far", []string{"compat", "conntrack", "-D", "-p", "udp"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := nstest.New(t)
			var saved strings.Builder
			for i := range 3000 {
				fmt.Fprintf(&saved, "-A -t 600 -u SEEN_REPLY,ASSURED -s 10.1.%d.%d -d 10.2.0.1 -r 10.2.0.1 -q "+
					"10.1.%[1]d.%[2]d -p udp --sport 1000 --dport 53 --reply-port-src 53 --reply-port-dst 1000\n",
					i/250, i%250)
			}
			load := exec.Command(nfctl, "ct", "load")
			load.Stdin = strings.NewReader(saved.String())
			ns.Do(func() { _ = load.Run() })
			for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
				_, w := stalledPipe(t)
				c, said, ended := startInto(t, ns, w, nil, append([]string{nfctl}, tt.args...)...)
				blocked(t, c.Process.Pid)
				_ = c.Process.Signal(sig)
				other := unix.SIGINT + unix.SIGTERM - sig // two of a kind at once are one
				if tt.signals > 1 {
					_ = c.Process.Signal(other)
				}
				select {
				case <-ended:
				case <-time.After(10 * time.Second):
					t.Fatalf("%v: %d signals do not end it", sig, tt.signals)
				}
				if code := c.ProcessState.ExitCode(); code != 128+int(sig) &&
					(tt.signals == 1 || code != 128+int(other)) || !strings.Contains(said.String(), tt.said) {
					t.Errorf("%v: status %d: %s", sig, code, said)
				}
			}
		})
	}
}

// TestSignalsEndLoad ends a load whose input goes on: what it says it did is what the
// table has.
func TestSignalsEndLoad(t *testing.T) {
	t.Parallel()
	nfctl := nstest.Build(t)
	const flow = "-A -t 600 -s 10.%d.%d.%d -d 10.9.0.1 -p udp --sport 1000 --dport 53\n"
	const expect = "-A -t 600 -s 10.%d.%d.%d -d 10.9.0.1 -p tcp --sport 1000 --dport 21 --set helper=ftp\n" +
		"-A expect --master 'tcp 10.%[1]d.%[2]d.%[3]d:1000 > 10.9.0.1:21' --helper ftp 'tcp 10.%[1]d.%[2]d.%[3]d > " +
		"10.9.0.1:5000'\n"
	for _, tt := range []struct {
		args []string
		line string
		said string // with the number of what was loaded; "": nothing is
	}{
		{[]string{"ct", "load"}, flow, `nfctl: (\d+) flow`},
		{[]string{"expect", "load"}, expect, `nfctl: \d+ flows? and (\d+) expectation`},
		{[]string{"compat", "conntrack", "-R", "-"}, flow, ""},
	} {
		args := tt.args
		ns := nstest.New(t)
		count := func() (n int) {
			n, _ = strconv.Atoi(strings.TrimSpace(ns.Run(nfctl, args[0], "count")))
			return n
		}
		in, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(nfctl, args...)
		var said bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = in, &said, &said
		ns.Do(func() { err = c.Start() })
		if err != nil {
			t.Fatal(err)
		}
		_ = in.Close()
		stop := make(chan struct{})
		fed := make(chan struct{})
		go func() { // until told to stop: then half of the table's limit is far away
			defer close(fed)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := fmt.Fprintf(w, tt.line, i>>16&255, i>>8&255, i&255); err != nil {
					return
				}
				if i > 200 {
					time.Sleep(time.Millisecond)
				}
			}
		}()
		if tt.said != "" { // conntrack -R reads all before it loads
			nstest.Until(t, "some is loaded", func() bool { return count() > 0 })
		}
		_ = c.Process.Signal(unix.SIGINT)
		_ = c.Process.Signal(unix.SIGTERM)
		ended := make(chan struct{})
		go func() { _ = c.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = c.Process.Kill()
			t.Fatalf("%v: two signals do not end it", args)
		}
		close(stop)
		_ = w.Close()
		<-fed
		if tt.said == "" {
			continue
		}
		var told int
		if m := regexp.MustCompile(tt.said).FindStringSubmatch(said.String()); m != nil {
			told, _ = strconv.Atoi(m[1])
		}
		// What the last send did may not have been read.
		if there := count(); told == 0 || told > there || told < there-table.BatchSize {
			t.Errorf("%v: %d in the table, and it says: %s", args, there, said.String())
		}
	}
}

// TestSignalsEndTemplate ends a template that does not end.
func TestSignalsEndTemplate(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nfctl := nstest.Build(t)
	ns.Run(nfctl, "ct", "create", "udp 10.0.0.1:1 > 10.0.0.2:2", "--timeout", "600")
	c, _, ended := startInto(t, ns, nil, nil, nfctl, "ct", "list", "--template", "{{range 10000000000}}{{end}}")
	nstest.Until(t, "the template is at work", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
		words := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // state, …; the 12th is the user time
		ticks := 0
		if len(words) > 11 {
			ticks, _ = strconv.Atoi(words[11])
		}
		return ticks >= 20 // of a hundredth of a second
	})
	_ = c.Process.Signal(unix.SIGINT)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("SIGINT does not end it")
	}
}

// TestVerdictsBesideStalledStderr has a rule complain about each packet to a reader
// that takes nothing: verdicts go on all the same.
func TestVerdictsBesideStalledStderr(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nfctl := nstest.Build(t)
	dir := t.TempDir()
	script, ready := filepath.Join(dir, "bad.lua"), filepath.Join(dir, "ready")
	if err := os.WriteFile(script,
		[]byte("return function(p) print(string.rep('x', 60000)) error(string.rep('y', 1000000)) end"),
		0o644); err != nil {
		t.Fatal(err)
	}
	echo := ns.UDPEcho("127.0.0.1:0")
	_, w := stalledPipe(t)
	c, _, ended := startInto(t, ns, nil, w, nfctl, "queue", "-q", "-v", "--attach", "output udp >", "--rule",
		"lua "+script, "--ready-file", ready)
	nstest.WaitFile(t, ready)
	begun := time.Now()
	for i := range 50 {
		if _, ok := ns.Ask(echo, fmt.Sprint(i), 5*time.Second); !ok {
			t.Fatalf("datagram %d is not answered", i)
		}
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("50 questions took %v", took)
	}
	_ = c.Process.Signal(unix.SIGTERM)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
	}
	if code := c.ProcessState.ExitCode(); code != 0 {
		t.Errorf("status %d", code)
	}
}

// TestMessagesAreHarmless puts payloads, names and arguments that would steer a
// terminal or look like lines of nfctl's own into what it says.
func TestMessagesAreHarmless(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nfctl := nstest.Build(t)
	const nasty = "\x1b[2J\x9b31m\xc2\x9b\u202e\r\nnfctl: rules reloaded: 1"
	clean := func(what, said string) {
		t.Helper()
		for line := range strings.Lines(said) {
			if strings.HasPrefix(line, "nfctl: rules reloaded") {
				t.Errorf("%s: a forged line: %q", what, said)
			}
			if len(line) > 3000 {
				t.Errorf("%s: a line of %d bytes", what, len(line))
			}
			if s := strings.TrimSuffix(line, "\n"); s != say.Harmless(s, false) {
				t.Errorf("%s: %q", what, line)
			}
		}
	}
	for _, args := range [][]string{
		{"ct", "list", "--" + nasty}, {"ct", "list", nasty}, {nasty}, {"ct", nasty}, {"ct", "list", "--filter", nasty}, {"queue", "--rule", nasty},
		{"ct", "get", nasty + " > 1"}, {"ct", "list", "--status", nasty}, {"--netns", nasty, "ct", "list"}, {"ct", "load", nasty}, {"lua", nasty},
		{"compat", "conntrack", "-L", "-s", nasty}, {"ct", "list", "--src", strings.Repeat("x\n", 60_000)}, {"attr", "set", nasty},
	} {
		out, errs, status := ns.Exec(nfctl, args...)
		if status == 0 {
			t.Errorf("%.100q: status 0: %s", args, out)
		}
		clean(fmt.Sprintf("%.100q", args), errs)
	}
	dir := t.TempDir()
	script, ready := filepath.Join(dir, "bad.lua"), filepath.Join(dir, "ready")
	if err := os.WriteFile(script,
		[]byte("return function(p) error(p.payload .. string.rep('x', 1000000)) end, {'payload'}"), 0o644); err != nil {
		t.Fatal(err)
	}
	echo := ns.UDPEcho("127.0.0.1:0")
	p := ns.Start(nfctl, "queue", "-q", "--attach", "output udp >", "--rule", "lua "+script, "--ready-file", ready)
	nstest.WaitFile(t, ready)
	ns.Ask(echo, nasty, 5*time.Second)
	p.WaitOutput("lua:")
	p.Signal(unix.SIGTERM)
	p.Wait()
	clean("a Lua error", p.Stderr())
}

// TestNetnsVariable has somebody's environment say that nfctl is inside already.
func TestNetnsVariable(t *testing.T) {
	t.Parallel()
	here, there := nstest.New(t), nstest.New(t)
	nfctl := nstest.Build(t)
	here.Run(nfctl, "ct", "create", "udp 10.0.0.1:1 > 10.0.0.2:2", "--timeout", "600")
	var st unix.Stat_t
	if err := unix.Stat(here.Path(), &st); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(nfctl, "--netns", there.Path(), "ct", "flush", "--all")
	c.Env = append(os.Environ(), fmt.Sprintf("NFCTL_NETNS=%d:%d %s", st.Dev, st.Ino, there.Path()))
	if status := here.StartCmd(c).Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if n := strings.TrimSpace(here.Run(nfctl, "ct", "count")); n != "1" {
		t.Errorf("the caller's own namespace was emptied: %s flows", n)
	}
}

// TestReadyFile looks at files that say that nfctl is ready.
func TestReadyFile(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nfctl := nstest.Build(t)
	dir := t.TempDir()
	precious, link, fifo := filepath.Join(dir, "precious"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(precious, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := ns.Start(nfctl, "ct", "watch", "--ready-file", link)
	nstest.Until(t, "the file is made anew", func() bool {
		st, err := os.Lstat(link)
		return err == nil && st.Mode().IsRegular()
	})
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, err := os.Lstat(link); err == nil {
		t.Error("the file is still there after the end")
	}
	if b, _ := os.ReadFile(precious); string(b) != "text" {
		t.Errorf("what the link led to holds %q", b)
	}
	// One from an earlier run does not say ready while nfctl cannot start.
	if _, _, status := ns.Exec(nfctl, "queue", "--ready-file", precious, "--num", "1", "--conntrack", "--uid-gid",
		"--attach", "postrouting priority nonsense"); status == 0 {
		t.Error("started")
	}
	for _, path := range []string{fifo, dir, "/dev/null"} {
		if _, errs, status := ns.Exec("timeout", "5", nfctl, "queue", "--ready-file", path); status != exitUsage ||
			!strings.Contains(errs, path) {
			t.Errorf("%s: status %d: %s", path, status, errs)
		}
	}
}

// TestCutShort closes the output of what deletes and updates, in the midst of it.
func TestCutShort(t *testing.T) {
	t.Parallel()
	nfctl := nstest.Build(t)
	for _, args := range []string{"ct delete --dport 53", "ct update --dport 53 --set mark=1",
		"compat conntrack -D -p udp",
		"ct list --zero --filter 'orig.dport == 53'", "ct list --zero"} {
		ns := nstest.New(t)
		var saved strings.Builder
		for i := range 3000 {
			fmt.Fprintf(&saved, "-A -t 600 -u SEEN_REPLY,ASSURED -s 10.1.%d.%d -d 10.2.0.1 -r 10.2.0.1 -q "+
				"10.1.%[1]d.%[2]d -p udp --sport 1000 --dport 53 --reply-port-src 53 --reply-port-dst 1000\n", i/250,
				i%250)
		}
		load := exec.Command(nfctl, "ct", "load")
		load.Stdin = strings.NewReader(saved.String())
		ns.Do(func() { _ = load.Run() })
		out, errs, _ := ns.Exec("bash", "-c", nfctl+" "+args+" | head -n 5 >/dev/null; echo ${PIPESTATUS[0]}")
		if strings.TrimSpace(out) != "1" {
			t.Errorf("%s | head: status %s: %s", args, out, errs)
		}
	}
}

// TestQueueAtHangup sends SIGHUP to a queue without files of rules, that systemd
// cannot be told about.
func TestQueueAtHangup(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ready := filepath.Join(t.TempDir(), "ready")
	c := exec.Command(nstest.Build(t), "queue", "--attach", "output", "--drop-port", "22", "--ready-file", ready)
	c.Env = append(os.Environ(), "NOTIFY_SOCKET=/nowhere/at/all")
	p := ns.StartCmd(c)
	nstest.WaitFile(t, ready)
	p.Signal(unix.SIGHUP)
	p.WaitOutput("SIGHUP: there is no file of rules")
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 || !strings.Contains(p.Stderr(), "systemd is not told") {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
}

// TestFewDescriptors starts with too few open files for anything.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	nfctl := nstest.Build(t)
	for n := 4; n < 16; n++ {
		c := exec.Command("bash", "-c", fmt.Sprintf("ulimit -n %d; exec %s version", n, nfctl))
		out, _ := c.CombinedOutput()
		if status := c.ProcessState.ExitCode(); strings.Contains(string(out), "goroutine") ||
			status != 0 && status != exitFailed {
			t.Errorf("ulimit -n %d: status %d: %.300s", n, status, out)
		}
		c = exec.Command("bash", "-c", fmt.Sprintf("ulimit -n %d; exec %s ct count", n, nfctl))
		out, _ = c.CombinedOutput()
		if status := c.ProcessState.ExitCode(); strings.Contains(string(out), "goroutine") || status == exitUsage {
			t.Errorf("ulimit -n %d: status %d: %.300s", n, status, out)
		}
	}
}
