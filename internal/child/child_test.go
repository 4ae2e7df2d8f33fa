package child

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test's own binary be a launcher, and the program of which a test
// ends the launcher's parent.
func TestMain(m *testing.M) {
	if Called(os.Args) {
		Serve()
		os.Exit(0)
	}
	if os.Getenv("NFCTL_TEST_PARENT") != "" {
		l, err := Start(sameUser())
		if err == nil {
			var p *Program
			if p, err = l.Run([]string{"sleep", "1000"}, nil, nil, nil); err == nil {
				fmt.Println(p.PID)
				select {}
			}
		}
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// sameUser is whom programs can become where only one user can be had.
func sameUser() string {
	if os.Geteuid() != 0 || mapped(nobodyID) {
		return ""
	}
	return "0"
}

// mapped reports whether the user namespace has a user.
func mapped(uid int) bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var first, outer, n int
	_, err = fmt.Sscan(string(b), &first, &outer, &n)
	return err == nil && uid >= first && uid-first < n
}

func start(t *testing.T) *Launcher {
	t.Helper()
	l, err := Start(sameUser())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// said runs a shell script and returns what it wrote.
func said(t *testing.T, l *Launcher, script string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := l.Run([]string{"sh", "-c", script}, nil, w, w)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, b)
	}
	return string(b)
}

// What a program can do, seen from inside it.
func TestPrivileges(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/x")
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("WATCHDOG_USEC", "1")
	t.Setenv("NFCTL_ANYTHING", "1")
	t.Setenv("KEPT", "yes")
	stray, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	signal.Ignore(unix.SIGPIPE) // as main does
	defer signal.Reset(unix.SIGPIPE)
	l := start(t)
	status := said(t, l, "cat /proc/self/status")
	field := func(name string) string {
		for line := range strings.Lines(status) {
			if rest, ok := strings.CutPrefix(line, name+":"); ok {
				return strings.TrimSpace(rest)
			}
		}
		return "none"
	}
	for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		if field(name) != "0000000000000000" {
			t.Errorf("%s is %s", name, field(name))
		}
	}
	if os.Geteuid() == 0 && field("CapBnd") != "0000000000000000" {
		t.Errorf("CapBnd is %s", field("CapBnd"))
	}
	for _, name := range []string{"SigIgn", "SigBlk"} {
		const ends = 1<<(unix.SIGPIPE-1) | 1<<(unix.SIGTERM-1)
		if m, err := strconv.ParseUint(field(name), 16, 64); err != nil || m&ends != 0 {
			t.Errorf("%s is %s", name, field(name))
		}
	}
	if field("NoNewPrivs") != "1" {
		t.Errorf("NoNewPrivs is %s", field("NoNewPrivs"))
	}
	if os.Geteuid() == 0 && sameUser() == "" {
		if uid := strings.Fields(field("Uid")); len(uid) != 4 || slices.Contains(uid, "0") {
			t.Errorf("Uid is %s", uid)
		}
		if gid := strings.Fields(field("Gid") + " " + field("Groups")); slices.Contains(gid, "0") {
			t.Errorf("Gid and Groups are %s", gid)
		}
	}
	// ls has the folder open too.
	if fds := strings.Fields(said(t, l, "ls /proc/self/fd")); !slices.Equal(fds, []string{"0", "1", "2", "3"}) {
		t.Errorf("descriptors %s", fds)
	}
	env := said(t, l, "env")
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "NFCTL_ANYTHING"} {
		if strings.Contains(env, name) {
			t.Errorf("the environment has %s", name)
		}
	}
	if !strings.Contains(env, "KEPT=yes\n") {
		t.Errorf("the environment lacks KEPT:\n%s", env)
	}
	if out := strings.Fields(said(t, l, "echo $$; cut -d' ' -f5 /proc/self/stat")); len(out) != 2 || out[0] != out[1] {
		t.Errorf("process and process group: %s", out)
	}
	// This process has kept what it had.
	if b, err := os.ReadFile("/proc/self/status"); err != nil || !strings.Contains(string(b), "NoNewPrivs:\t0") {
		t.Errorf("this process: %v\n%s", err, b)
	}
}

func TestEnds(t *testing.T) {
	l := start(t)
	for _, c := range []struct{ script, end string }{
		{"exit 0", ""}, {"exit 7", "exit status 7"}, {"kill -9 $$", "ended by SIGKILL"},
	} {
		p, err := l.Run([]string{"sh", "-c", c.script}, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := p.Wait(); err != nil {
			got = err.Error()
		}
		if got != c.end {
			t.Errorf("%s: %q, want %q", c.script, got, c.end)
		}
	}
	if _, err := l.Run([]string{"no-such-program"}, nil, nil, nil); err == nil ||
		!strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}
	if _, err := l.Run([]string{"/etc/passwd"}, nil, nil, nil); err == nil {
		t.Error("a file that is no program began")
	}
}

// A program that heeds SIGTERM ends by it, one that does not by SIGKILL; what they have
// started goes with them.
func TestEnd(t *testing.T) {
	l := start(t)
	for _, c := range []struct{ script, end string }{
		{"trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done", "exit status 5"},
		{"trap '' TERM; sleep 1000 & echo $!; echo up; wait; sleep 1000", "ended by SIGKILL"},
		{"sleep 1000 & echo $!; echo up; exit 0", ""},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.Run([]string{"sh", "-c", c.script}, nil, w, nil)
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(r)
		other := 0
		for in.Scan() && in.Text() != "up" {
			if other, err = strconv.Atoi(in.Text()); err != nil {
				t.Fatal(err)
			}
		}
		p.End()
		got := ""
		if err := p.Wait(); err != nil {
			got = err.Error()
		}
		if got != c.end && c.end != "" {
			t.Errorf("%s: %q, want %q", c.script, got, c.end)
		}
		if in.Scan() { // all who had the pipe are gone
			t.Errorf("%s: %q", c.script, in.Text())
		}
		if other > 0 {
			gone(t, other)
		}
		r.Close()
	}
}

// gone waits for the end of a process.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d runs on: %s", pid, b)
		}
	}
}

func TestClose(t *testing.T) {
	l, err := Start(sameUser())
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Run([]string{"sleep", "1000"}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	<-p.Ended()
	gone(t, p.PID)
	if _, err := l.Run([]string{"true"}, nil, nil, nil); !errors.Is(err, ErrLauncher) {
		t.Errorf("after Close: %v", err)
	}
	l.Close()
}

// A program killed without notice takes along what it has started.
func TestParentKilled(t *testing.T) {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "NFCTL_TEST_PARENT=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("it says %q", line)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	gone(t, pid)
}

func TestUserRefused(t *testing.T) {
	if _, err := Start("no-such-user"); err == nil || !strings.Contains(err.Error(), "no-such-user") {
		t.Errorf("%v", err)
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"a", []string{"a"}},
		{"  a\tb  c ", []string{"a", "b", "c"}},
		{`a 'b c' "d e" f\ g`, []string{"a", "b c", "d e", "f g"}},
		{`a "" ''`, []string{"a", "", ""}},
		{`a "it's" 'say "x"' '\'`, []string{"a", "it's", `say "x"`, `\`}},
		{`a "\"" \\ $HOME *`, []string{"a", `"`, `\`, "$HOME", "*"}},
		{"a 'é", nil}, {`a "b`, nil}, {`a \`, nil}, {"", nil}, {"  ", nil}, {`""`, nil}, {"a\x00b", nil},
	} {
		got, err := Split(c.text)
		if !slices.Equal(got, c.want) || (err != nil) != (c.want == nil) {
			t.Errorf("%q: %q, %v", c.text, got, err)
		}
	}
}
