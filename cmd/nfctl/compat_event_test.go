package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nfctl/internal/nstest"
)

// TestCompatEvents runs conntrack -E and nfctl side by side on the same events, in
// every form of output.
func TestCompatEvents(t *testing.T) {
	nstest.Need(t, "conntrack")
	ns, program := nstest.New(t), asConntrack(t)
	times := regexp.MustCompile(`(?m)^\[[0-9]+\.[0-9]{6}\]\t`)
	who := regexp.MustCompile(` (progname=[^ \n]*)`) // known while the program lives: chance
	for _, line := range []string{
		"-E", "-E -o extended", "-E -o id", "-E -o extended,id", "-E -o timestamp", "-E -o ktimestamp", "-E -o userspace", "-E -o xml", "-E -o xml,extended",
		"-E -e NEW", "-E -e UPDATES", "-E -e DESTROY", "-E -e NEW,DESTROY", "-E -e ALL", "-E -eNEW -p udp", "--event --event-mask=NEW",
		"-E -p tcp", "-E -p udp --dport 53", "-E -s 10.0.0.1", "-E -d 10.0.0.0/8 -p tcp", "-E -f ipv6", "-E -m 5", "-E -n", "-E -w 3", "-E -p tcp --state ESTABLISHED", "-E conntrack -e NEW -o ext",
	} {
		t.Run(line, func(t *testing.T) {
			var procs [2]*nstest.Proc
			for i, name := range []string{"conntrack", program} {
				procs[i] = ns.Start(name, strings.Fields(line)...)
			}
			nstest.Until(t, "both listen", func() bool { return listeners(ns) >= 2 })
			file := filepath.Join(t.TempDir(), "lines")
			lines := `-I -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1 --dport 80 --state ESTABLISHED -t 1000 -u SEEN_REPLY,ASSURED -m 5
-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 2 --dport 53 -t 1000 -n 192.0.2.1 -m 5
-I -s fd00::1 -d fd00::2 -p udp --sport 3 --dport 53 -t 1000
-I -s 10.0.0.4 -d 10.0.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 4 -t 1000 -w 3
`
			if err := os.WriteFile(file, []byte(lines), 0o644); err != nil {
				t.Fatal(err)
			}
			ns.Run("conntrack", "-R", file)
			ns.Run("conntrack", "-U", "-s", "10.0.0.1", "-p", "tcp", "-m", "7")
			ns.Run("conntrack", "-U", "-s", "10.0.0.1", "-p", "udp", "-t", "2000")
			ns.Run("conntrack", "-D", "-s", "10.0.0.1")
			ns.Run("conntrack", "-F")
			var out, errs [2]string
			seen, same := -1, 0 // how many lines, and how often so
			nstest.Until(t, "both to have shown all", func() bool {
				n := strings.Count(procs[0].Stdout(), "\n")
				if n == 0 || n != strings.Count(procs[1].Stdout(), "\n") || n != seen {
					seen, same = n, 0
					return false
				}
				same++
				return same > 10
			})
			for i, p := range procs {
				p.Signal(syscall.SIGTERM)
				if status := p.Wait(); status != 0 {
					t.Errorf("status %d: %s", status, p.Stderr())
				}
				s := times.ReplaceAllString(p.Stdout(), "[TIME]\t")
				if strings.Contains(line, "xml") { // see the differences
					s = regexp.MustCompile(`</flow> \[USERSPACE\][^\n]*`).ReplaceAllString(s, "</flow>")
				}
				out[i] = regexp.MustCompile(`<when>.*?</when>`).ReplaceAllString(who.ReplaceAllString(s, ""), "")
				errs[i] = steady(p.Stderr())
			}
			if out[0] != out[1] {
				t.Errorf("--- conntrack(8):\n%s--- nfctl:\n%s", out[0], out[1])
			}
			if out[0] == "" {
				t.Error("nothing was shown")
			}
			if errs[0] != errs[1] {
				t.Errorf("--- conntrack(8): %q\n--- nfctl: %q", errs[0], errs[1])
			}
		})
	}
}

// listeners counts the netlink sockets of a namespace that are in a group.
func listeners(ns *nstest.NS) (n int) {
	out := ns.Run("cat", "/proc/thread-self/net/netlink")
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == "12" && f[3] != "00000000" {
			n++
		}
	}
	return n
}

func TestCompatEventChoices(t *testing.T) {
	ns, program := nstest.New(t), asConntrack(t)
	nstest.Need(t, "conntrack")
	p := ns.Start(program, "-E", "-u", "ASSURED", "-b", "1000000", "-e", "NEW")
	nstest.Until(t, "it listens", func() bool { return listeners(ns) >= 1 })
	for _, l := range []string{"--sport 1 -u SEEN_REPLY", "--sport 2 -u SEEN_REPLY,ASSURED"} {
		ns.Run("conntrack", strings.Fields("-I -s 10.0.0.1 -d 10.0.0.2 -p udp --dport 9 -t 50 "+l)...)
	}
	p.WaitOutput("sport=2")
	p.Signal(syscall.SIGINT)
	if status := p.Wait(); status != 0 || strings.Contains(p.Stdout(), "sport=1 ") || !strings.Contains(p.Stderr(), "1 flow events have been shown.") {
		t.Errorf("status %d\n%s%s", status, p.Stdout(), p.Stderr())
	}
}

func TestCompatLoad(t *testing.T) {
	nstest.Need(t, "conntrack")
	ns, program := nstest.New(t), asConntrack(t)
	run := func(in string, args ...string) (string, string, int) {
		t.Helper()
		c := exec.Command(program, args...)
		c.Stdin = strings.NewReader(in)
		p := ns.StartCmd(c)
		status := p.Wait()
		return p.Stdout(), p.Stderr(), status
	}
	flow := func(sport int, more string) string {
		return fmt.Sprintf("-s 10.0.0.1 -d \"10.0.0.2\" -p udp --sport %d --dport 9 -t 5000 %s\n", sport, more)
	}
	// Lines that fail do not keep the next from being done.
	out, errs, status := run("# flows\n\n  -I "+flow(1, "")+"\t-A "+flow(1, "-m 3")+"-I "+flow(1, "")+"-A "+flow(2, "-m 3")+"-U -p udp --sport 2 -m 4\n-D -p udp --sport 1\n-I "+flow(3, ""), "-R", "-")
	if status != 1 || !strings.Contains(errs, "line 5: Operation failed: Such conntrack exists, try -U to update") {
		t.Errorf("status %d: %s", status, errs)
	}
	if strings.Count(out, "\n") != 2 { // what was changed, and what was deleted
		t.Errorf("printed:\n%s", out)
	}
	table := ns.Run("conntrack", "-L")
	got := numbersIn(table)
	slices.Sort(got)
	if !slices.Equal(got, []string{"2", "3"}) || !strings.Contains(table, "mark=4") {
		t.Errorf("table:\n%s", table)
	}
	// A file that cannot be read to its end changes nothing.
	for _, bad := range []string{"-L\n", "-I -s 10.0.0.1\n", "-D exp\n", "-I \"\n", "junk\n"} {
		_, errs, status := run("-F\n"+bad, "--load-file", "-")
		if status != 2 || !strings.Contains(errs, "line 2: ") {
			t.Errorf("%q: status %d: %s", bad, status, errs)
		}
	}
	if n := len(numbersIn(ns.Run("conntrack", "-L"))); n != 2 {
		t.Errorf("%d flows left", n)
	}
	if _, errs, status := run("", "-R", "/nonexistent"); status != 2 || !strings.Contains(errs, "Failed to open file") {
		t.Errorf("status %d: %s", status, errs)
	}
	// What -o save writes makes the same table again.
	saved, _, _ := run("", "-L", "-o", "save")
	before := sorted(ns.Run("conntrack", "-L"))
	ns.Run("conntrack", "-F")
	if _, errs, status := run(saved, "-R", "-"); status != 0 || errs != "" {
		t.Errorf("status %d: %s", status, errs)
	}
	if after := sorted(ns.Run("conntrack", "-L")); after != before {
		t.Errorf("saved:\n%s\nloaded:\n%s", before, after)
	}
}

func TestCompatFullDisk(t *testing.T) {
	ns, program := nstest.New(t), asConntrack(t)
	ns.Run(program, strings.Fields("-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 2 -t 50")...)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, line := range []string{"-L", "-C", "-S", "-h", "-V", "-D"} {
		c := exec.Command(program, line)
		c.Stdout = full
		var exit *exec.ExitError
		ns.Do(func() { err = c.Run() })
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// Who may not ask the kernel can count all the same, as with conntrack(8).
func TestCompatCountUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		return // its root is none outside, and nobody is not mapped
	}
	nstest.Need(t, "setpriv")
	ns, program := nstest.New(t), asConntrack(t)
	ns.Run(program, strings.Fields("-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 2 -t 50")...)
	c := exec.Command("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", program, "-C")
	p := ns.StartCmd(c)
	if status := p.Wait(); status != 0 || p.Stdout() != "1\n" {
		t.Errorf("status %d: %s%s", status, p.Stdout(), p.Stderr())
	}
}

// TestCompatExpect makes, shows and deletes an expectation as conntrack(8) does,
// by both programs.
func TestCompatExpect(t *testing.T) {
	pair := twins(t)
	for _, w := range pair {
		w.ns.Run(nstest.Build(t), strings.Fields("ct create --helper ftp -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 21 --state ESTABLISHED -t 5000")...)
	}
	make := "-I expect -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1000 --dport 21 --tuple-src 10.0.0.1 --tuple-dst 10.0.0.2 --tuple-port-src 5 --tuple-port-dst 3333 --mask-src 255.255.255.255 --mask-dst 255.255.255.255 --mask-port-src 0 --mask-port-dst 65535 -t 60"
	for _, w := range pair {
		if _, errs, status := w.ns.Exec(pair[1].program, strings.Fields(make)...); status != 0 || errs != "" {
			t.Fatalf("status %d: %s", status, errs)
		}
	}
	key := "expect -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 5 --dport 3333 --reply-port-src 1 --reply-port-dst 1"
	for _, line := range []string{"-L expect", "-L expect -o xml", "-L exp -f ipv6", "-C expect", "-G " + key} {
		var did [2]outcome
		for i, w := range pair {
			out, errs, status := w.ns.Exec(w.program, strings.Fields(line)...)
			did[i] = outcome{status: status, stdout: regexp.MustCompile(`(?m)^[56][0-9] `).ReplaceAllString(sorted(out), "N "), summary: steady(errs)}
		}
		if did[0] != did[1] {
			t.Errorf("conntrack %s\n--- conntrack(8): %s\n--- nfctl: %s", line, did[0], did[1])
		}
	}
	out, errs, status := pair[1].ns.Exec(pair[1].program, strings.Fields("-D "+key)...)
	if status != 0 || out != "" || !strings.Contains(errs, "1 expectations have been deleted.") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	if out, _, _ := pair[1].ns.Exec("conntrack", "-C", "expect"); out != "0\n" {
		t.Errorf("%s left", out)
	}
}
