package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nfctl/internal/nstest"
)

// eventLines are what both programs show the same events by.
var eventLines = []string{
	"-E", "-E -o extended", "-E -o id", "-E -o extended,id", "-E -o timestamp", "-E -o ktimestamp", "-E -o userspace", "-E -o xml", "-E -o xml,extended",
	"-E -o timestamp,id", "-E -o id,ktimestamp,extended", "-E -o xml,timestamp,id", "-E -o save -f ipv6", "-E -o save -p icmp", "-E -b 100000", "-E -b 2000000 -e NEW",
	"-E -e NEW", "-E -e UPDATES", "-E -e DESTROY", "-E -e NEW,DESTROY", "-E -e ALL", "-E -eNEW -p udp", "--event --event-mask=NEW",
	"-E -p tcp", "-E -p udp --dport 53", "-E -s 10.0.0.1", "-E -d 10.0.0.0/8 -p tcp", "-E -f ipv6", "-E -m 5", "-E -n", "-E -w 3", "-E -p tcp --state ESTABLISHED", "-E conntrack -e NEW -o ext",
	"-E expect", "-E exp -o timestamp", "-E expect -o xml", "-E expect -o xml,timestamp,id", "-E expect -o id,extended,ktimestamp", "-E expect -o userspace", "-E expect -o save", "-E expect -o labels",
}

// TestCompatEvents runs conntrack -E and nfctl side by side on the same events, in
// every form of output.
func TestCompatEvents(t *testing.T) {
	nstest.Need(t, "conntrack")
	ns, program := nstest.New(t), asConntrack(t)
	pairs := make([][2]*nstest.Proc, len(eventLines))
	for i, line := range eventLines {
		for k, name := range []string{"conntrack", program} {
			pairs[i][k] = ns.Start(name, strings.Fields(line)...)
		}
	}
	nstest.Until(t, "all listen", func() bool { n, _ := listeners(ns); return n == 2*len(pairs) })
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
	nfctl, master := nstest.Build(t), "tcp 10.0.0.1:9 > 10.0.0.2:21"
	ns.Run(nfctl, "ct", "create", master, "--helper", "ftp")
	ns.Run(nfctl, "expect", "create", "--master", master, "tcp 10.0.0.2 > 10.0.0.1:5001", "--permanent")
	ns.Run(nfctl, "expect", "flush", "--all")
	ns.Run(nfctl, "expect", "create", "--master", master, "tcp 10.0.0.2 > 10.0.0.1:5002")
	ns.Run("conntrack", "-F")

	// What was sent is in the sockets: when these are empty, and both have shown as
	// much, nothing more is to come.
	counts := func() (n []int) {
		for i := range pairs {
			n = append(n, strings.Count(pairs[i][0].Stdout(), "\n"), strings.Count(pairs[i][1].Stdout(), "\n"))
		}
		return n
	}
	var before []int
	nstest.Until(t, "all to have shown everything", func() bool {
		_, waiting := listeners(ns)
		n := counts()
		rest := slices.Equal(n, before) && waiting == 0
		before = n
		for i := 0; i < len(n); i += 2 {
			rest = rest && n[i] == n[i+1] && n[i] > 0
		}
		return rest
	})
	hide := []struct {
		re *regexp.Regexp
		by string
	}{
		{regexp.MustCompile(`(?m)^\[[0-9]+\.[0-9]{1,6} *\]\t`), "[TIME]\t"}, // theirs lose leading zeros
		{regexp.MustCompile(` (progname=[^ \n]*)`), ""},                     // known while the program lives: chance
		{regexp.MustCompile(`</flow> \[USERSPACE\][^\n]*`), "</flow>"},
		{regexp.MustCompile(`(?m)^(-[AUD] .*) \[USERSPACE\].*$`), "$1"}, // see the differences
		{regexp.MustCompile(`<when>.*?</when>`), "<when/>"},
	}
	for i, line := range eventLines {
		var out, errs [2]string
		for k, p := range pairs[i] {
			p.Signal(syscall.SIGTERM)
			if status := p.Wait(); status != 0 {
				t.Errorf("%s: status %d: %s", line, status, p.Stderr())
			}
			out[k], errs[k] = p.Stdout(), steady(p.Stderr())
			for _, h := range hide {
				out[k] = h.re.ReplaceAllString(out[k], h.by)
			}
		}
		if out[0] != out[1] {
			t.Errorf("%s\n--- conntrack(8):\n%s--- nfctl:\n%s", line, out[0], out[1])
		}
		if errs[0] != errs[1] {
			t.Errorf("%s\n--- conntrack(8): %q\n--- nfctl: %q", line, errs[0], errs[1])
		}
	}
}

// listeners counts the netlink sockets of a namespace that are in a group, and
// the bytes that wait in them.
func listeners(ns *nstest.NS) (n, waiting int) {
	out := ns.Run("cat", "/proc/thread-self/net/netlink")
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 4 && f[1] == "12" && f[3] != "00000000" {
			n++
			bytes, _ := strconv.Atoi(f[4])
			waiting += bytes
		}
	}
	return n, waiting
}

func TestCompatEventChoices(t *testing.T) {
	ns, program := nstest.New(t), asConntrack(t)
	nstest.Need(t, "conntrack")
	p := ns.Start(program, "-E", "-u", "ASSURED", "-b", "1000000", "-e", "NEW")
	nstest.Until(t, "it listens", func() bool { n, _ := listeners(ns); return n >= 1 })
	for _, l := range []string{"--sport 1 -u SEEN_REPLY", "--sport 2 -u SEEN_REPLY,ASSURED"} {
		ns.Run("conntrack", strings.Fields("-I -s 10.0.0.1 -d 10.0.0.2 -p udp --dport 9 -t 50 "+l)...)
	}
	p.WaitOutput("sport=2")
	p.Signal(syscall.SIGINT)
	if status := p.Wait(); status != 0 || strings.Contains(p.Stdout(), "sport=1 ") ||
		!strings.Contains(p.Stderr(), "1 flow events have been shown.") {
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
	out, errs, status := run("# flows\n\n  -I "+flow(1, "")+"\t-A "+flow(1, "-m 3")+"-I "+flow(1, "")+"-A "+
		flow(2, "-m 3")+"-U -p udp --sport 2 -m 4\n-D -p udp --sport 1\n-I "+flow(3, ""), "-R", "-")
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

// Who may not ask the kernel gets what /proc has all the same, as with
// conntrack(8).
func TestCompatUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		return // its root is none outside, and nobody is not mapped
	}
	nstest.Need(t, "setpriv")
	ns, program := nstest.New(t), asConntrack(t)
	ns.Run(program, strings.Fields("-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 2 -t 50")...)
	run := func(program string, args ...string) (string, int) {
		p := ns.StartCmd(exec.Command("setpriv", append([]string{"--bounding-set", "-all", "--inh-caps", "-all",
			program}, args...)...))
		status := p.Wait()
		return p.Stdout(), status
	}
	if out, status := run(program, "-C"); status != 0 || out != "1\n" {
		t.Errorf("-C: status %d: %s", status, out)
	}
	nstest.Need(t, "conntrack")
	for _, line := range []string{"-C", "-S", "-S expect", "--stats"} {
		theirs, _ := run("conntrack", strings.Fields(line)...)
		ours, status := run(program, strings.Fields(line)...)
		if status != 0 || ours != theirs || ours == "" {
			t.Errorf("%s: status %d:\n%s--- conntrack(8):\n%s", line, status, ours, theirs)
		}
	}
}

// TestCompatLabels works with labels that have names, by both programs.
func TestCompatLabels(t *testing.T) {
	pair := twins(t)
	nstest.Need(t, "unshare", "iptables")
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "lock"))
	const named = `mount -t tmpfs none /etc && mkdir /etc/xtables && printf '0 first\n1 web\n5 mail\n127 last\n' > /etc/xtables/connlabel.conf && exec "$@"`
	for _, w := range pair {
		// without such a rule there is no room for labels
		w.ns.Run("iptables", "-w", "-A", "OUTPUT", "-m", "connlabel", "--label", "5")
	}
	flow := "-s 10.0.0.1 -d 10.0.0.2 -p udp --dport 9 -t 5000 --sport "
	for _, line := range []string{
		"-I " + flow + "1 --label-add web,last", "-A " + flow + "2 --label-add mail", "-I " + flow + "3", "-I " + flow + "4 -l web",
		"-L -o labels", "-L -o extended,labels,id", "-L -o xml,labels", "-L -l web", "-L -l web,last -o labels", "-L -l mail -o labels", "-L -l nosuch", "-L -o labels -p udp --sport 2",
		"-G -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 9 -o labels", "-G -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 9 -l mail",
		"-U -s 10.0.0.1 -p udp --sport 3 --label-add mail", "-U -s 10.0.0.1 -p udp --sport 2 --label-add mail", "-U -p udp --sport 1 -l web -m 5 -s 10.0.0.1", "-U -p udp --sport 3 -l web -m 5 -s 10.0.0.1", "-U -s 10.0.0.1 --label-add nosuch", "-U -s 10.0.0.1 -p udp --sport 1 --label-del web", "-U -s 10.0.0.1 -p udp --sport 2 --label-del first", "-U -s 10.0.0.1 -p udp --sport 2 --label-del", "-U -s 10.0.0.1 -p udp --sport 2 --label-del",
		"-L -o labels", "-D -l web", "-L -o labels", "-D -l nosuch", "-D",
	} {
		var did [2]string
		for i, w := range pair {
			out, errs, status := w.ns.Exec("unshare",
				append([]string{"-m", "sh", "-c", named, "sh", w.program}, strings.Fields(line)...)...)
			did[i] = fmt.Sprintf("status %d, %s%s", status, sorted(out), steady(errs))
		}
		if did[0] != did[1] {
			t.Errorf("conntrack %s\n--- conntrack(8): %s\n--- nfctl: %s", line, did[0], did[1])
		}
	}
}

// TestCompatExpect makes, shows and deletes an expectation as conntrack(8) does,
// by both programs.
func TestCompatExpect(t *testing.T) {
	pair := twins(t)
	for _, w := range pair {
		w.ns.Run(nstest.Build(t),
			strings.Fields("ct create --helper ftp -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 21 --state "+
				"ESTABLISHED -t 5000")...)
	}
	make := "-I expect -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1000 --dport 21 --tuple-src 10.0.0.1 --tuple-dst " +
		"10.0.0.2 --tuple-port-src 5 --tuple-port-dst 3333 --mask-src 255.255.255.255 --mask-dst 255.255.255.255 " +
		"--mask-port-src 0 --mask-port-dst 65535 -t 60"
	for _, w := range pair {
		if _, errs, status := w.ns.Exec(pair[1].program, strings.Fields(make)...); status != 0 || errs != "" {
			t.Fatalf("status %d: %s", status, errs)
		}
	}
	key := "expect -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 5 --dport 3333 --reply-port-src 1 --reply-port-dst 1"
	for _, line := range []string{"-L expect", "-L expect -o xml", "-L exp -f ipv6", "-C expect", "-G " + key,
		"-L expect -o extended", "-L expect -o id", "-L expect -o timestamp", "-L expect -o save", "-L expect -o labels", "-L expect -o ktimestamp,id,extended", "-L expect -o xml,id,timestamp"} {
		var did [2]outcome
		for i, w := range pair {
			out, errs, status := w.ns.Exec(w.program, strings.Fields(line)...)
			did[i] = outcome{status: status,
				stdout: regexp.MustCompile(`(?m)^(?:\[[0-9.]+ *\](\t))?[56][0-9] `).ReplaceAllString(sorted(out),
					"${1}N "), summary: steady(errs)}
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

// TestCompatExpectGRE shows, finds and deletes what PPTP expects as conntrack(8)
// does: what is expected has keys, its master ports.
func TestCompatExpectGRE(t *testing.T) {
	pair := twins(t)
	const master = "tcp 10.0.0.1:1000 > 10.0.0.2:1723"
	run := func(w *twin, args ...string) {
		t.Helper()
		w.ns.Run(nstest.Build(t), args...)
	}
	for _, w := range pair {
		run(w, "ct", "create", master, "--helper", "pptp", "--timeout", "5000s")
		run(w, "expect", "create", "--master", master, "gre 10.0.0.1:5 > 10.0.0.2:6", "--permanent")
		run(w,
			append(strings.Fields("expect create -p gre --tuple-src 10.0.0.1 --tuple-dst 10.0.0.2 --tuple-port-src "+
				"0x1111 --tuple-key-dst 0x22 --mask-key-src 0xff00 --master"), master)...)
	}
	steady := regexp.MustCompile(`(?m)^[0-9]+ |<timeout>[0-9]+`)
	for _, line := range []string{"-L expect", "-L expect -o xml", "-C expect",
		"-G expect -s 10.0.0.1 -d 10.0.0.2 -p gre --srckey 5 --dstkey 6 --reply-key-src 0 --reply-key-dst 0",
		"-G expect -s 10.0.0.1 -d 10.0.0.2 -p gre --orig-key-src 0x11ff --orig-key-dst 042 --reply-key-src 0 --reply-key-dst 0",
		"-G expect -s 10.0.0.1 -d 10.0.0.2 -p gre --srckey 6 --dstkey 5 --reply-key-src 0 --reply-key-dst 0",
		"-D expect -s 10.0.0.1 -d 10.0.0.2 -p gre --srckey 6 --dstkey 5 --reply-key-src 0 --reply-key-dst 0"} {
		var did [2]outcome
		for i, w := range pair {
			out, _, status := w.ns.Exec(w.program, strings.Fields(line)...)
			did[i] = outcome{status: status, stdout: sorted(steady.ReplaceAllString(out, "N "))}
		}
		if did[0] != did[1] {
			t.Errorf("conntrack %s\n--- conntrack(8): %s\n--- nfctl: %s", line, did[0], did[1])
		}
	}
	const del = "-D expect -s 10.0.0.1 -d 10.0.0.2 -p gre --srckey 0x5 --dstkey 0x6"
	if _, errs, status := pair[1].ns.Exec(pair[1].program, strings.Fields(del)...); status != 0 ||
		!strings.Contains(errs, "1 expectations have been deleted.") {
		t.Errorf("status %d: %s", status, errs)
	}
	if out := pair[1].ns.Run("conntrack", "-L", "expect"); !strings.Contains(out, "srckey=0x1111 dstkey=0x22") ||
		strings.Contains(out, "srckey=0x5 ") {
		t.Errorf("left: %s", out)
	}
}
