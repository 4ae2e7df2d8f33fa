package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// A display is nfctl with a terminal of its own, and what that terminal shows.
type display struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	before unix.Termios
	cmd    *exec.Cmd
	said   strings.Builder
	over   chan struct{} // closed at its end

	mu    sync.Mutex
	cells [][]rune
	raw   strings.Builder
	at    [2]int
}

// newDisplay starts nfctl in ns on a terminal of a size.
func newDisplay(t *testing.T, ns *nstest.NS, width, height int, args ...string) *display {
	t.Helper()
	master, slave := pty(t)
	d := &display{t: t, master: master, slave: slave, over: make(chan struct{})}
	d.resize(width, height)
	mode, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	d.before = *mode
	c := exec.Command(nstest.Build(t), args...)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, &d.said
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ns.Do(func() { err = c.Start() })
	if err != nil {
		t.Fatal(err)
	}
	d.cmd = c
	go func() {
		_ = c.Wait()
		close(d.over)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-d.over
	})
	go d.read()
	return d
}

func (d *display) resize(width, height int) {
	d.mu.Lock()
	d.cells = nil
	for range height {
		d.cells = append(d.cells, []rune(strings.Repeat(" ", width)))
	}
	d.mu.Unlock()
	if err := unix.IoctlSetWinsize(int(d.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height),
		Col: uint16(width)}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *display) read() {
	b, left := make([]byte, 64<<10), ""
	for {
		n, err := d.master.Read(b)
		if err != nil {
			return
		}
		d.mu.Lock()
		d.raw.Write(b[:n])
		left = d.show(left + string(b[:n]))
		d.mu.Unlock()
	}
}

// show does what a terminal does with the few sequences that are sent, and returns what
// is not whole yet.
func (d *display) show(s string) string {
	for s != "" {
		if s[0] == 0x1b {
			end := strings.IndexFunc(s[1:], func(r rune) bool { return r >= '@' && r <= '~' && r != '[' })
			if end < 0 {
				return s
			}
			seq := s[2 : end+1]
			switch s[end+1] {
			case 'J':
				for i := range d.cells {
					d.clear(i, 0)
				}
			case 'H':
				if _, err := fmt.Sscanf(seq, "%d;%d", &d.at[0], &d.at[1]); err != nil {
					d.t.Errorf("cursor to %q", seq)
				}
				d.at[0]--
				d.at[1]--
			case 'K':
				d.clear(d.at[0], d.at[1])
			case 'm', 'h', 'l':
			default:
				d.t.Errorf("sequence %q", s[:end+2])
			}
			s = s[end+2:]
			continue
		}
		if !utf8.FullRuneInString(s) {
			return s
		}
		r, n := utf8.DecodeRuneInString(s)
		if d.at[0] < len(d.cells) && d.at[1] < len(d.cells[d.at[0]]) {
			d.cells[d.at[0]][d.at[1]] = r
		}
		d.at[1]++
		s = s[n:]
	}
	return ""
}

func (d *display) clear(line, from int) {
	if line < len(d.cells) {
		for i := from; i < len(d.cells[line]); i++ {
			d.cells[line][i] = ' '
		}
	}
}

func (d *display) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for _, line := range d.cells {
		b.WriteString(strings.TrimRight(string(line), " ") + "\n")
	}
	return b.String()
}

func (d *display) press(keys string) {
	d.t.Helper()
	if _, err := d.master.WriteString(keys); err != nil {
		d.t.Fatal(err)
	}
}

// waitFor waits until the screen shows all of the texts.
func (d *display) waitFor(texts ...string) string {
	d.t.Helper()
	for end := time.Now().Add(nstest.Patience); ; time.Sleep(5 * time.Millisecond) {
		text, missing := d.text(), ""
		for _, want := range texts {
			if !strings.Contains(text, want) {
				missing = want
			}
		}
		switch {
		case missing == "":
			return text
		case time.Now().After(end) || d.isOver():
			d.t.Fatalf("no %q on the screen\n%s", missing, text)
		}
	}
}

func (d *display) isOver() bool {
	select {
	case <-d.over:
		return true
	default:
		return false
	}
}

// ended waits for the end, and reports a terminal that is not as it was.
func (d *display) ended(status int) {
	d.t.Helper()
	nstest.Until(d.t, "it ends", d.isOver)
	if got := d.cmd.ProcessState.ExitCode(); got != status {
		d.t.Errorf("status %d, want %d: %s", got, status, d.said.String())
	}
	mode, err := unix.IoctlGetTermios(int(d.slave.Fd()), unix.TCGETS)
	if err != nil {
		d.t.Fatal(err)
	}
	if *mode != d.before {
		d.t.Errorf("the terminal is not as it was: %+v, want %+v", *mode, d.before)
	}
	nstest.Until(d.t, "the other screen is left", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return strings.HasSuffix(d.raw.String(), "\x1b[?25h\x1b[?1049l")
	})
}

// topTraffic makes flows with a server that answers, and returns one that goes on
// sending until the test ends.
func topTraffic(t *testing.T, ns *nstest.NS) {
	t.Helper()
	ns.Run("sh", "-c", "cd /proc/sys/net/netfilter; echo 1 >nf_conntrack_acct; echo 600 >nf_conntrack_udp_timeout")
	ns.Run("nft", "add table inet t; add chain inet t o { type filter hook output priority 0; }; add rule inet t o ct "+
		"state invalid drop")
	for _, addr := range []string{"127.0.0.1:2222", "[::1]:3333"} {
		if _, ok := ns.Ask(ns.UDPEcho(addr), "once", nstest.Patience); !ok {
			t.Fatal("no answer")
		}
	}
	conn, err := ns.Dial("udp", ns.UDPEcho("127.0.0.1:1111"), nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				_, _ = conn.Write(make([]byte, 972))
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped; _ = conn.Close() })
}

func TestCtTop(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	nf := nstest.Build(t)
	topTraffic(t, ns)
	for _, size := range [][2]int{{60, 15}, {80, 24}, {120, 40}} {
		d := newDisplay(t, ns, size[0], size[1], "ct", "top")
		text := d.waitFor("nfctl ct top", "3 flows of", "BYTES/S", "traffic: ", "? help")
		nstest.Until(t, "the busiest flow is first", func() bool {
			lines := strings.Split(d.text(), "\n")
			return strings.Contains(lines[3], "BYTES/S") && strings.Contains(lines[4], ":1111") &&
				!strings.HasSuffix(lines[4], "-")
		})
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(line) - 1; n > size[0] {
				t.Errorf("%v: %d wide: %s", size, n, line)
			}
		}
		d.press("?")
		if text := d.waitFor("sort by the field before or behind", "any key goes back"); strings.Contains(text,
			"BYTES/S") {
			t.Errorf("help over a table:\n%s", text)
		}
		d.press(" ")
		d.waitFor("BYTES/S")
		d.press("t")
		d.waitFor("grouped by orig.src", "ORIG.SRC", "COUNT")
		d.press("tttt")
		d.waitFor("PROTO", ":1111")
		d.press("<")
		d.waitFor("by port, smallest first")
		d.press("I")
		d.waitFor("by port, largest first")
		nstest.Until(t, "the largest port is first", func() bool {
			return strings.Contains(strings.Split(d.text(), "\n")[4], "3333")
		})
		d.press("q")
		d.ended(0)
	}

	d := newDisplay(t, ns, 80, 24, "ct", "top", "udp > :2222")
	text := d.waitFor("1 chosen by udp > :2222", ":2222")
	if strings.Contains(text, ":3333") {
		t.Errorf("flows that were not chosen:\n%s", text)
	}
	d.resize(120, 30)
	d.waitFor("TIMEOUT", "PACKETS  BYTES  ")
	d.resize(60, 10)
	d.waitFor("BYTES/S", "? help")
	d.resize(30, 5)
	d.waitFor("30x5: too small")
	d.resize(80, 24)
	d.waitFor("BYTES/S")
	d.press("p")
	d.waitFor("PAUSED")
	d.press("p\r")
	d.waitFor("orig.dport           2222", "status ")
	d.press("\x1b")
	d.waitFor("BYTES/S")
	d.press("d")
	d.waitFor("Delete? [y/N] udp 127.0.0.1:")
	d.press("n")
	d.waitFor("nothing was deleted")
	if n := strings.TrimSpace(ns.Run(nf, "ct", "count", "udp > :2222")); n != "1" {
		t.Errorf("%s flows after no", n)
	}
	d.press("\x1b[3~")
	d.waitFor("Delete? [y/N] udp")
	d.press("y")
	d.waitFor("deleted udp")
	if n := strings.TrimSpace(ns.Run(nf, "ct", "count", "udp > :2222")); n != "0" {
		t.Errorf("%s flows after yes", n)
	}
	d.press("\x03") // Ctrl-C
	d.ended(0)
}

// However it ends, the terminal is as it was before.
func TestCtTopEnds(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	topTraffic(t, ns)
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT} {
		d := newDisplay(t, ns, 80, 24, "ct", "top")
		d.waitFor("BYTES/S")
		if err := d.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		d.ended(0)
	}
	// A terminal that goes away ends it.
	d := newDisplay(t, ns, 80, 24, "ct", "top")
	d.waitFor("BYTES/S")
	_ = d.slave.Close()
	_ = d.master.Close()
	nstest.Until(t, "it ends with its terminal", d.isOver)

	nf := nstest.Build(t)
	out, errs, status := ns.Exec(nf, "ct", "top")
	if status != exitUsage || out != "" || !strings.Contains(errs, "ct list --interval") {
		t.Errorf("without a terminal: status %d: %s%s", status, out, errs)
	}
	if _, errs, status := ns.Exec(nf, "ct", "top", "tcp > :x"); status != exitUsage || !strings.Contains(errs, ":x") {
		t.Errorf("a wrong flow: status %d: %s", status, errs)
	}
}

// In tmux, which draws as terminals do, the screen is what is meant.
func TestCtTopTmux(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft", "tmux")
	ns := nstest.New(t)
	topTraffic(t, ns)
	socket := t.TempDir() + "/tmux"
	tmux := func(args ...string) string { return ns.Run("tmux", append([]string{"-S", socket}, args...)...) }
	tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh")
	defer tmux("kill-server")
	tmux("set", "-g", "status", "off")
	tmux("resize-window", "-x", "80", "-y", "24")
	shows := func(texts ...string) {
		t.Helper()
		nstest.Until(t, strings.Join(texts, ", "), func() bool {
			text := tmux("capture-pane", "-p")
			for _, want := range texts {
				if !strings.Contains(text, want) {
					return false
				}
			}
			return true
		})
	}
	tmux("send-keys", "echo be''fore; "+nstest.Build(t)+" ct top", "Enter")
	shows("nfctl ct top", "BYTES/S", ":1111", "? help")
	lines := strings.Split(tmux("capture-pane", "-p"), "\n")
	if len(lines) < 24 || !strings.HasPrefix(lines[0], "nfctl ct top") || !strings.HasPrefix(lines[3], "PROTO") ||
		!strings.HasPrefix(lines[23], "? help") {
		t.Errorf("%q", lines)
	}
	tmux("send-keys", "F1")
	shows("Ctrl-L")
	tmux("send-keys", "q")
	tmux("resize-window", "-x", "100", "-y", "20")
	shows("BYTES/S")
	tmux("send-keys", "C-c")
	shows("before")
	if text := tmux("capture-pane", "-p"); strings.Contains(text, "BYTES/S") {
		t.Errorf("the screen is not given back:\n%s", text)
	}
}
