package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// onScreen runs nfctl in ns with a terminal of width columns as standard output. It
// returns the lines on the screen, and what standard error says.
func onScreen(t *testing.T, ns *nstest.NS, width uint16, args ...string) (lines []string, said string) {
	t.Helper()
	master, slave := pty(t)
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: width}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nstest.Build(t), args...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = slave, &stderr
	var err error
	ns.Do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	_ = slave.Close() // so that reading ends with nfctl
	var text bytes.Buffer
	_, _ = text.ReadFrom(master)
	_ = cmd.Wait()
	for line := range strings.Lines(text.String()) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	return lines, stderr.String()
}

// fits reports lines that a terminal of width columns would break.
func fits(t *testing.T, width uint16, lines []string) {
	t.Helper()
	for _, l := range lines {
		if n := utf8.RuneCountInString(l); n > int(width) {
			t.Errorf("%d of %d columns: %s", n, width, l)
		}
	}
	if t.Failed() {
		t.Logf("at %d:\n%s", width, strings.Join(lines, "\n"))
	}
}

// Tables fit a terminal; elsewhere, and where all of them is asked for, they are whole.
func TestTablesFit(t *testing.T) {
	t.Parallel()
	nf := nstest.Build(t)
	ns := nstest.New(t)
	const a, b = "2001:db8:1111:2222:3333:4444:5555:aaaa", "2001:db8:1111:2222:3333:4444:5555:bbbb"
	for _, flow := range [][]string{
		{"tcp [" + a + "]:50123 > [" + b + "]:61443", "--state", "ESTABLISHED"},
		{"tcp 192.168.100.101:50123 > 198.51.100.207:61443"},
		{"udp 10.0.0.1:1 > 10.0.0.2:53"},
	} {
		ns.Run(nf, append([]string{"ct", "create"}, flow...)...)
	}
	whole := ns.Run(nf, "ct", "list", "-o", "table")
	for _, want := range []string{"[" + a + "]:50123", "[" + b + "]:61443", "TRANSLATED", "MARK", "ZONE"} {
		if !strings.Contains(whole, want) {
			t.Errorf("no %s in a pipe:\n%s", want, whole)
		}
	}
	for _, width := range []uint16{60, 80, 120} {
		lines, _ := onScreen(t, ns, width, "ct", "list")
		fits(t, width, lines)
		all := strings.Join(lines, "\n")
		for _, want := range []string{"SOURCE", "DESTINATION", "…", ":50123", ":61443", "10.0.0.2:53", "[2001:db8"} {
			if !strings.Contains(all, want) {
				t.Errorf("%d columns: no %s", width, want)
			}
		}
		for _, not := range []string{"MARK", "ZONE", "TRANSLATED", "BYTES"} {
			if strings.Contains(all, not) {
				t.Errorf("%d columns: %s, where nothing is", width, not)
			}
		}
		if width >= 80 && !strings.Contains(all, "192.168.100.101:50123") {
			t.Errorf("%d columns: an IPv4 address is cut:\n%s", width, all)
		}
		lines, _ = onScreen(t, ns, width, "ct", "list", "-o", "wide")
		if got := strings.Join(lines, "\n") + "\n"; timeless(got) != timeless(whole) {
			t.Errorf("%d columns, wide:\n%s", width, got)
		}
		lines, _ = onScreen(t, ns, width, "ct", "list", "--fields", "proto,orig.src,mark,zone,orig.packets")
		fits(t, width, lines)
		if len(lines) == 0 || !strings.Contains(lines[0], "MARK") || !strings.Contains(lines[0], "ORIG.PACKETS") {
			t.Errorf("%d columns: fields that were asked for are left out: %q", width, lines)
		}
		for _, args := range [][]string{{"ct", "stats"}, {"expect", "stats"}, {"ct", "count"}, {"expect", "list"},
			{"doctor"}, {"attr", "list"}} {
			if args[0] == "doctor" && width != 80 {
				continue // it takes a while
			}
			lines, _ := onScreen(t, ns, width, args...)
			fits(t, width, lines)
			if args[0] == "doctor" && (len(lines) == 0 || !strings.HasPrefix(lines[0], "ok  ")) {
				t.Errorf("doctor: %q", lines)
			}
		}
		q := ns.Start(nf, "queue", "--num", "4242", "--ready-file", t.TempDir()+"/ready", "-q")
		nstest.Until(t, "the queue is bound", func() bool {
			return strings.Contains(ns.Run(nf, "queue", "list"), "4242")
		})
		lines, _ = onScreen(t, ns, width, "queue", "list")
		fits(t, width, lines)
		if len(lines) != 2 || !strings.Contains(lines[0], "QUEUE_DROPPED") || strings.Contains(lines[0], "RATE") {
			t.Errorf("%d columns: %q", width, lines)
		}
		q.Signal(unix.SIGINT)
		q.Wait()
	}
	// Counters stand one a line where they do not fit, all processors' sum first.
	lines, _ := onScreen(t, ns, 80, "ct", "stats")
	if len(lines) < 5 || !strings.HasPrefix(lines[0], "CPU ") || !strings.Contains(lines[0], "ALL") ||
		!strings.HasPrefix(lines[1], "found ") {
		t.Errorf("%q", lines)
	}
}

// timeless is a table without the widths of its columns and the time left.
func timeless(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	for i := range lines { // the time left may have gone down meanwhile
		if f := strings.Fields(lines[i]); len(f) > 2 {
			f[2] = "-"
			lines[i] = strings.Join(f, " ")
		}
	}
	return sorted(strings.Join(lines, "\n"))
}

// Where a terminal would show nothing, a line says why; in a pipe nothing does.
func TestNothingSaysWhy(t *testing.T) {
	t.Parallel()
	nf := nstest.Build(t)
	ns := nstest.New(t)
	for _, c := range [][]string{
		{"no flows: the kernel fills the table only where a rule uses conntrack", "ct", "list"},
		{"no flow matches", "ct", "list", "tcp > :443"},
		{"no flows\n", "ct", "list", "--dying"},
		{"no expectations: a helper makes them", "expect", "list"},
		{"no expectation matches", "expect", "list", "--helper", "ftp"},
		{"no queue is bound", "queue", "list"},
	} {
		lines, said := onScreen(t, ns, 80, c[1:]...)
		if len(lines) > 0 || !strings.Contains(said, c[0]) {
			t.Errorf("%v: %q, %q", c[1:], lines, said)
		}
		if out, said, _ := ns.Exec(nf, c[1:]...); out != "" || said != "" {
			t.Errorf("%v in a pipe: %q, %q", c[1:], out, said)
		}
		if _, said = onScreen(t, ns, 80, append(c[1:], "-q")...); strings.Contains(said, c[0]) {
			t.Errorf("%v -q: %q", c[1:], said)
		}
	}
}
