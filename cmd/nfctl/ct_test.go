package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nstest"
)

// sortedLines splits output, sorted, and each changed by the expressions and
// what to put in their place.
func sortedLines(out string, replace ...string) []string {
	for i := 0; i < len(replace); i += 2 {
		out = regexp.MustCompile(replace[i]).ReplaceAllString(out, replace[i+1])
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	return lines
}

// differ says which lines only one of two sorted lists has.
func differ(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	n := 0
	for i, list := range [][]string{got, want} {
		other := [][]string{want, got}[i]
		for _, l := range list {
			if _, ok := slices.BinarySearch(other, l); !ok && n < 10 {
				t.Errorf("%s: only %s: %s", what, []string{"got", "wanted"}[i], l)
				n++
			}
		}
	}
	t.Fatalf("%s: %d lines, want %d", what, len(got), len(want))
}

const (
	anyTimeout = `-t \d+ `
	anyLabels  = ` --label-add \S+`
)

func TestCtSaveLoad(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	r := rand.New(rand.NewPCG(4, 4))
	want := variedLines(r, 10000, true, true)
	ns := nstest.Here(t)
	useLabels(t, ns)
	loaded(t, strings.Join(want, "\n"))
	begin := time.Now()
	first := good(t, "ct", "save")
	json := good(t, "ct", "save", "-o", "json")
	before := sortedLines(first, anyTimeout, "")
	if len(before) != 10000 {
		t.Fatalf("%d flows were saved", len(before))
	}
	for _, form := range []struct{ name, text string }{{"save", first}, {"json", json}} {
		good(t, "ct", "flush", "--all")
		nstest.Until(t, "the table is empty", func() bool { return strings.TrimSpace(good(t, "ct", "count")) == "0" })
		loaded(t, form.text)
		second := good(t, "ct", "save")
		differ(t, form.name, sortedLines(second, anyTimeout, ""), before)
		gone := uint64(time.Since(begin)/time.Second) + 2
		old, now := timeouts(t, first), timeouts(t, second)
		for line, had := range old {
			if has := now[line]; has > had || had-has > gone {
				t.Fatalf("%s: timeout %d, was %d, %d s at most went by: %s", form.name, has, had, gone, line)
			}
		}
	}
	// A namespace without a rule that uses labels: all but those, and a warning.
	t.Run("without labels", func(t *testing.T) {
		nstest.Enter(t)
		_, errs, status := callWith(first, "ct", "load")
		if status != 0 || !strings.Contains(errs, "labels were not stored") {
			t.Errorf("status %d: %s", status, errs)
		}
		differ(t, "without labels", sortedLines(good(t, "ct", "save"), anyTimeout, ""),
			sortedLines(first, anyTimeout, "", anyLabels, ""))
	})
}

// timeouts returns the timeout of each saved line.
func timeouts(t *testing.T, saved string) map[string]uint64 {
	out := map[string]uint64{}
	re := regexp.MustCompile(`^-A -t (\d+) (.*)`)
	for line := range strings.SplitSeq(strings.TrimSpace(saved), "\n") {
		m := re.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("line %q", line)
		}
		out[m[2]], _ = strconv.ParseUint(m[1], 10, 64)
	}
	return out
}

// TestCtSaveKeeps has a line keep what conntrack(8) loses.
func TestCtSaveKeeps(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	useLabels(t, ns)
	const what = "udp 10.0.0.1:1000 > 10.0.0.2:53"
	good(t, "ct", "create", "tcp 10.0.0.1:1000 > 10.0.0.2:21", "--mark", "7", "--label", "3,127", "--helper", "ftp",
		"--set", "tcp.wscale_orig=7", "--set", "tcp.wscale_reply=2",
		"--set", "tcp.flags_orig=WINDOW_SCALE,SACK_PERM", "--set", "tcp.flags_reply=WINDOW_SCALE",
		"--set", "orig-nat-seq-correction-pos=1", "--set", "orig-nat-seq-offset-before=2", "--set",
		"orig-nat-seq-offset-after=3")
	good(t, "ct", "create", what, "--timeout", "10m", "--status", "ASSURED", "--set", "master-ipv4-src=10.0.0.1",
		"--set", "master-ipv4-dst=10.0.0.2", "--set", "master-l4proto=tcp",
		"--set", "master-port-src=1000", "--set", "master-port-dst=21")
	good(t, "ct", "create", "udp 10.0.0.1:900 > 10.0.0.2:54", "--timeout", "10m", "--set", "master-ipv4-src=10.0.0.1",
		"--set", "master-ipv4-dst=10.0.0.2", "--set", "master-l4proto=udp",
		"--set", "master-port-src=1000", "--set", "master-port-dst=53")
	saved := good(t, "ct", "save")
	for _, word := range []string{"--mark 7 ", "--label-add 3,127", "helper-name=ftp", "=10.0.0.1", "tcp.wscale_orig=7",
		"=3"} {
		if !strings.Contains(saved, word) && !strings.Contains(saved,
			strings.Replace(word, "tcp.wscale_orig", "tcp-wscale-orig", 1)) {
			t.Errorf("no %q in %s", word, saved)
		}
	}
	lines := sortedLines(saved)
	back := slices.Clone(lines)
	slices.Reverse(back)
	// Masters are made before their children, whichever stand first.
	for _, order := range [][]string{lines, back} {
		good(t, "ct", "flush", "--all")
		loaded(t, strings.Join(order, "\n"))
		differ(t, "restored", sortedLines(good(t, "ct", "save"), anyTimeout, ""), sortedLines(saved, anyTimeout, ""))
	}
	// A child whose master is nowhere is a bad line, the rest is loaded.
	good(t, "ct", "flush", "--all")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "udp") })
	_, errs, status := callWith("# one\n"+lines[i]+"\n-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 9 --dport 9\n", "ct",
		"load")
	if status != exitFailed || !strings.Contains(errs, "line 2") || !strings.Contains(errs, "master") {
		t.Errorf("status %d: %s", status, errs)
	}
	if n := strings.TrimSpace(good(t, "ct", "count")); n != "1" {
		t.Errorf("%s flows, want 1", n)
	}
}

// TestCtLoadGoesOn has one bad line cost nothing but itself.
func TestCtLoadGoesOn(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	var b strings.Builder
	bad := map[int]string{}
	for i := 1; i <= 500; i++ {
		switch i {
		case 7:
			bad[i] = "rubbish"
		case 150:
			bad[i] = "-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 99999 --dport 1"
		case 151:
			// the kernel refuses it
			bad[i] = "-A -p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 3 --icmp-code 0 --icmp-id 1"
		case 152:
			bad[i] = "-I -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 1" // is there already
		case 400:
			bad[i] = `{"kind":"flow","proto":"udp"}`
		}
		if bad[i] != "" {
			fmt.Fprintln(&b, bad[i])
		} else {
			fmt.Fprintf(&b, "-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport %d --dport 1 -t 600\n", i)
		}
	}
	file := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	_, errs, status := call("ct", "load", file, "--dry-run")
	if status != exitFailed || strings.TrimSpace(good(t, "ct", "count")) != "0" {
		t.Errorf("dry run: status %d: %s", status, errs)
	}
	_, errs, status = call("ct", "load", file)
	if status != exitFailed {
		t.Errorf("status %d: %s", status, errs)
	}
	last := -1
	for i := range 501 {
		at := strings.Index(errs, fmt.Sprintf("line %d:", i))
		if (bad[i] != "") != (at >= 0) {
			t.Errorf("line %d is told: %v; it is bad: %v", i, at >= 0, bad[i] != "")
		}
		if at >= 0 && at < last {
			t.Errorf("line %d is told out of order", i)
		}
		last = max(last, at)
	}
	if !strings.Contains(errs, "495 flows made, 5 lines failed") {
		t.Errorf("totals: %s", errs)
	}
	// Again: all are there, and left alone.
	_, errs, _ = call("ct", "load", file)
	if !strings.Contains(errs, "0 flows made, 495 already there, 5 lines failed") {
		t.Errorf("totals: %s", errs)
	}
	good(t, "ct", "flush", "--all")
	_, errs, status = call("ct", "load", file, "--strict")
	if n := strings.TrimSpace(good(t, "ct", "count")); status != exitFailed || n != "6" ||
		!strings.Contains(errs, "line 7") {
		t.Errorf("strict: status %d, %s flows: %s", status, n, errs)
	}
}

// TestCtLoadedNAT restores a translated flow in a fresh namespace, where it
// translates packets as soon as there is a NAT chain.
func TestCtLoadedNAT(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	for _, c := range []struct {
		name, ask, local, from, family string
	}{
		{"ipv4", "127.0.0.1:5353", "127.0.0.1:0", "127.0.0.1:40000", "ip"},
		{"ipv6", "[::1]:5353", "[::1]:0", "[::1]:40000", "ip6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			made, fresh := nstest.New(t), nstest.New(t)
			server := fresh.UDPEcho(c.local)
			nf := nstest.Build(t)
			made.Run(nf, "ct", "create", "udp "+c.from+" > "+c.ask, "--dst-nat", server, "-t", "10m")
			saved := made.Run(nf, "ct", "save")
			_, errs, status := pipeTo(fresh, saved, nf, "ct", "load")
			if status != 0 || !strings.Contains(errs, "no NAT chain") {
				t.Errorf("without a chain: status %d: %s", status, errs)
			}
			if answered(t, fresh, c.from, c.ask) {
				t.Fatal("translated without a NAT chain: the test shows nothing")
			}
			fresh.Run(nf, "ct", "flush", "--all")
			fresh.Run("nft", "add table "+c.family+" n; add chain "+c.family+
				" n out { type nat hook output priority -100; }; add rule "+c.family+" n out ct state invalid drop")
			_, errs, status = pipeTo(fresh, saved, nf, "ct", "load")
			if status != 0 || strings.Contains(errs, "no NAT chain") {
				t.Errorf("with a chain: status %d: %s", status, errs)
			}
			if !answered(t, fresh, c.from, c.ask) {
				t.Error("no answer through the restored translation")
			}
		})
	}
}

// pipeTo runs a program inside ns with standard input.
func pipeTo(ns *nstest.NS, in, name string, args ...string) (stdout, stderr string, status int) {
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(in)
	p := ns.StartCmd(c)
	status = p.Wait()
	return p.Stdout(), p.Stderr(), status
}

// answered reports whether a datagram from an address to another is echoed; a
// port that nobody listens on refuses it.
func answered(t *testing.T, ns *nstest.NS, from, to string) (ok bool) {
	t.Helper()
	ns.Do(func() {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)),
			net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for end := time.Now().Add(nstest.Patience); time.Now().Before(end); {
			_, _ = c.Write([]byte("hello"))
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			buf := make([]byte, 64)
			n, err := c.Read(buf)
			if err == nil && string(buf[:n]) == "hello" {
				ok = true
				return
			}
			if errors.Is(err, unix.ECONNREFUSED) {
				return
			}
		}
	})
	return ok
}

func TestCtCopiesNamespaces(t *testing.T) {
	t.Parallel()
	a, b := nstest.New(t), nstest.New(t)
	nf := nstest.Build(t)
	lines := variedLines(rand.New(rand.NewPCG(5, 5)), 1000, true, false)
	if _, errs, status := pipeTo(a, strings.Join(lines, "\n"), nf, "ct", "load"); status != 0 {
		t.Fatal(errs)
	}
	host := nstest.Here(t)
	out, errs, status := host.Exec("sh", "-c", nf+" --netns "+a.Path()+" ct save | "+nf+" --netns "+b.Path()+" ct load")
	if status != 0 || out != "" {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	differ(t, "copied", sortedLines(b.Run(nf, "ct", "save"), anyTimeout, ""),
		sortedLines(a.Run(nf, "ct", "save"), anyTimeout, ""))
	if n := strings.Count(b.Run(nf, "ct", "save"), "\n"); n != 1000 {
		t.Errorf("%d flows", n)
	}
}

// TestCtBeside deletes and lists while somebody else adds and removes: what the
// filter does not match stays, and the counts are right.
func TestCtBeside(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	const mine = 2000
	var b strings.Builder
	for i := range mine {
		fmt.Fprintf(&b, "-A -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport %d --dport 80 --mark %d\n", 1000+i, i%2)
	}
	loaded(t, b.String())
	var stop atomic.Bool
	ended := make(chan error, 1)
	go ns.Do(func() {
		ended <- func() error {
			c, err := ct.Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			for n := uint16(0); !stop.Load(); n++ {
				f := &ct.Flow{Present: ct.HasTimeout, Timeout: 600}
				f.Orig = ct.Tuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
					Family: ct.IPv4, Proto: ct.UDP, Sport: n % 500, Dport: 53,
					Present: ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport}
				f.Reply = f.Orig.Reverse()
				if err := c.Create(f, false); err != nil {
					return err
				}
				if err := c.Delete(f); err != nil { // somebody else deleted it
					return err
				}
			}
			return nil
		}()
	})
	for range 20 {
		out := good(t, "ct", "list", "-p", "tcp", "-o", "flow")
		if n := len(slices.Compact(sortedLines(out))); n != mine || strings.Count(out, "\n") != mine {
			t.Fatalf("%d flows, %d different ones, want %d", strings.Count(out, "\n"), n, mine)
		}
	}
	for i, c := range []struct {
		args, total string
	}{{"update|-p|tcp|--set|mark=0/0x2", "2000 flows updated"}, {"delete|-p|tcp|--mark|1", "1000 flows deleted"},
		{"delete|-p|tcp", "1000 flows deleted"}} {
		out, errs, status := call(append([]string{"ct"}, strings.Split(c.args, "|")...)...)
		if status != 0 || !strings.Contains(errs, c.total) || strings.Count(out, "\n") != []int{2000, 1000, 1000}[i] {
			t.Errorf("%s: status %d, %d lines, %s", c.args, status, strings.Count(out, "\n"), errs)
		}
	}
	stop.Store(true)
	if err := <-ended; err != nil {
		t.Errorf("the other process: %v", err)
	}
	if n := strings.TrimSpace(good(t, "ct", "count")); n != "0" {
		t.Errorf("%s flows are left", n)
	}
}

// TestCtFailedWrites has no output get lost unnoticed.
func TestCtFailedWrites(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nf := nstest.Build(t)
	if _, errs, status := pipeTo(ns, strings.Join(variedLines(rand.New(rand.NewPCG(6, 6)), 300, false, false), "\n"),
		nf, "ct", "load"); status != 0 {
		t.Fatal(errs)
	}
	ns.Run(nf, "ct", "create", "tcp 10.0.0.9:1 > 10.0.0.9:2")
	for _, args := range []string{"list", "list -o table", "list -o json", "list -o csv", "list -o xml",
		"list --group-by proto", "list --zero -p tcp", "save", "count", "stats",
		"get 'tcp 10.0.0.9:1 > 10.0.0.9:2'", "create 'tcp 10.0.0.9:1 > 10.0.0.9:3'", "update -p tcp --set mark=1", "delete -p udp"} {
		_, errs, status := ns.Exec("sh", "-c", nf+" ct "+args+" >/dev/full")
		if status != exitFailed || !strings.Contains(errs, "no space left on device") {
			t.Errorf("%s: status %d: %s", args, status, errs)
		}
		// A reader that goes away is none.
		if out, errs, status := ns.Exec("bash", "-c", "set -o pipefail; "+nf+" ct "+args+" | true"); status != 0 &&
			!strings.Contains(args, "create") {
			t.Errorf("%s into a closed pipe: status %d: %s%s", args, status, out, errs)
		}
	}
}

// TestCtNarrow has each request change just what was asked for, where
// conntrack(8) was seen to change more, or to refuse.
func TestCtNarrow(t *testing.T) {
	t.Parallel()
	table := `-A -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 80 --mark 4
-A -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 2 --dport 22 -w 7
-A -p tcp -s fd00::1 -d fd00::2 --sport 1 --dport 80 --src-nat fd00::9
-A -p tcp -s fd00::1 -d fd00::2 --sport 2 --dport 80 --src-nat fd00::8
-A -p udp -s fd00::1 -d fd00::2 --sport 2 --dport 80 --mark 4
`
	for _, c := range []struct {
		name string
		args string // separated by '|'
		left int    // flows
		mark int    // flows with mark 9
	}{
		{"an IPv6 translation that no flow has", "delete|--src-nat|fd00::1234", 5, 0},
		{"an IPv6 translation", "delete|--src-nat|fd00::9", 4, 0},
		{"a family", "flush|--family|ipv6", 2, 0},
		{"the other family", "flush|-f|ipv4", 3, 0},
		{"a zone", "flush|--zone|7", 4, 0},
		{"zone 0", "flush|--zone|0", 1, 0},
		{"a mark", "flush|--mark|4", 3, 0},
		{"a zone, quietly", "delete|--zone|7|-q", 4, 0},
		{"a mark and a family, quietly", "delete|--mark|4|-f|ipv6|-q", 4, 0},
		{"no flow, quietly", "delete|--mark|4|-f|ipv6|--status|ASSURED|--zone|3|-q", 5, 0},
		{"a port, quietly", "delete|--dport|22|-q", 4, 0},
		{"two marks, quietly", "delete|--mark|0/1|--mark|4/4|-q", 3, 0},
		{"update by mark alone", "update|-m|4|--set|mark=9", 5, 2},
		{"update by port alone", "update|-p|tcp|--dport|80|--set|mark=9", 5, 3},
		{"update by zone alone", "update|-w|7|--set|mark=9", 5, 1},
		{"update under a mask", "update|--mark|4|--set|mark=9/0xf", 5, 2},
		{"update nothing", "update|--mark|77|--set|mark=9", 5, 0},
		{"all", "delete|--all", 0, 0},
		{"try", "delete|-p|tcp|--dry-run", 5, 0},
		{"try all", "flush|--dry-run", 5, 0},
		{"try to update", "update|--set|mark=9|--dry-run", 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			nstest.Enter(t)
			loaded(t, table)
			good(t, append([]string{"ct"}, strings.Split(c.args, "|")...)...)
			var left, mark int
			nstest.Until(t, "the flows are gone", func() bool { // a flush goes on a moment
				out := good(t, "ct", "list", "-o", "json")
				left, mark = strings.Count(out, "\n"), strings.Count(out, `"mark":9,`)
				return left <= c.left
			})
			if left != c.left || mark != c.mark {
				t.Errorf("%d flows are left, want %d; %d have mark 9, want %d", left, c.left, mark, c.mark)
			}
		})
	}
}

// TestCtNotPermitted says that something was done only when it was.
func TestCtNotPermitted(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "unshare")
	ns := nstest.New(t)
	nf := nstest.Build(t)
	ns.Run(nf, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:2")
	for _, args := range [][]string{{"flush", "--all"}, {"flush", "-f", "ipv4"}, {"flush", "--zone", "1"},
		{"delete", "--all"}, {"delete", "--all", "-q"},
		{"create", "tcp 10.0.0.1:3 > 10.0.0.2:2"}, {"update", "--set", "mark=1"}, {"list"}, {"count", "-p", "tcp"}} {
		out, errs, status := ns.Exec("unshare", append([]string{"-U", nf, "ct"}, args...)...)
		if status != exitPermission || out != "" || !strings.Contains(errs, "not permitted") ||
			regexp.MustCompile(`flushed|\b1 flow|made`).MatchString(errs) {
			t.Errorf("%v: status %d: %s%s", args, status, out, errs)
		}
	}
	if n := strings.TrimSpace(ns.Run(nf, "ct", "count")); n != "1" {
		t.Errorf("%s flows, want 1", n)
	}
}

// TestCtLoadAsLinesCome: what comes slowly by a pipe is made when its line is whole,
// and what is wrong with it is said then.
func TestCtLoadAsLinesCome(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c := exec.Command(nstest.Build(t), "ct", "load")
	c.Stdin = r
	p := ns.StartCmd(c)
	_ = r.Close()
	line := func(sport int) string {
		return fmt.Sprintf("-A -t 600 -p udp -s 10.0.0.1 -d 10.0.0.2 --sport %d --dport 1\n", sport)
	}
	for i, text := range []string{line(1) + line(2), line(3)[:20], line(3)[20:] + "nonsense\n", line(4)} {
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		want := []string{"2", "2", "3", "4"}[i]
		nstest.Until(t, want+" flows", func() bool {
			return strings.TrimSpace(ns.Run(nstest.Build(t), "ct", "count")) == want
		})
		if i == 2 {
			p.WaitOutput("nonsense")
		}
	}
	_ = w.Close()
	if p.Wait() != exitFailed || !strings.Contains(p.Stderr(), "4 flows made, 1 line failed") {
		t.Error(p.Stderr())
	}
}

// pty opens a pseudo terminal.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		nstest.Lack(t, fmt.Errorf("no pseudo terminals: %w", err))
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		nstest.Lack(t, fmt.Errorf("no pseudo terminals: %w", err))
	}
	t.Cleanup(func() { _, _ = master.Close(), slave.Close() })
	return master, slave
}

// TestCtLoadProgress: a load that takes long shows on a terminal how far it is,
// and takes that away; one that is short shows nothing, and neither does -q.
func TestCtLoadProgress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		read, size int64
		want       string
	}{
		{5 << 10, 0, "5 KiB"}, {0, 100, "[" + strings.Repeat(" ", 30) + "] 0%"}, {50, 100, "[" + strings.Repeat("=", 15) + strings.Repeat(" ", 15) + "] 50%"},
		{120, 100, "[" + strings.Repeat("=", 30) + "] 100%"},
	} {
		if got := progress(c.read, c.size); got != c.want {
			t.Errorf("%d of %d: %q", c.read, c.size, got)
		}
	}
	nf := nstest.Build(t)
	const line = "-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 900\n"
	for _, c := range []struct {
		args        []string
		slow, shows bool
	}{{[]string{"ct", "load"}, true, true}, {[]string{"ct", "load"}, false, false},
		{[]string{"ct", "load", "-q"}, true, false}} {
		ns := nstest.New(t)
		master, slave := pty(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(nf, c.args...)
		cmd.Stdin, cmd.Stderr = r, slave
		ns.Do(func() { err = cmd.Start() })
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		_ = slave.Close() // so that reading ends with nfctl
		var said strings.Builder
		shown, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			buf := make([]byte, 4096)
			for {
				n, err := master.Read(buf)
				if err != nil {
					return
				}
				before := said.Len() > 0
				if said.Write(buf[:n]); !before {
					close(shown)
				}
			}
		}()
		if _, err := w.WriteString(line); err != nil {
			t.Fatal(err)
		}
		switch {
		case c.shows:
			select {
			case <-shown:
			case <-time.After(nstest.Patience):
				t.Error("nothing is shown")
			}
		case c.slow:
			time.Sleep(1500 * time.Millisecond) // longer than what shows a bar
		}
		_ = w.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		<-ended
		if text := said.String(); strings.Contains(text, "standard input: 0 KiB\r\x1b[K") != c.shows ||
			!strings.Contains(text, "1 flow made") && c.args[len(c.args)-1] != "-q" {
			t.Errorf("%v: %q", c.args, text)
		}
	}
}

// TestCtAsks has a terminal's user asked before everything is deleted.
func TestCtAsks(t *testing.T) {
	t.Parallel()
	nf := nstest.Build(t)
	for _, c := range []struct {
		args, answer string
		status, left int
	}{
		{"flush", "n\n", exitFailed, 1}, {"flush", "\n", exitFailed, 1}, {"flush", "yes\n", 0, 0},
		{"delete", "n\n", exitFailed, 1}, {"delete", "y\n", 0, 0},
	} {
		ns := nstest.New(t)
		ns.Run(nf, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:2")
		master, slave := pty(t)
		cmd := exec.Command(nf, "ct", c.args)
		cmd.Stdin, cmd.Stderr = slave, slave
		if _, err := master.WriteString(c.answer); err != nil {
			t.Fatal(err)
		}
		var err error
		ns.Do(func() { err = cmd.Run() })
		said, buf := "", make([]byte, 4096)
		fd := int(master.Fd())
		_ = unix.SetNonblock(fd, true) // what was written is there
		for {
			n, err := unix.Read(fd, buf)
			if err != nil || n == 0 {
				break
			}
			said += string(buf[:n])
		}
		if cmd.ProcessState.ExitCode() != c.status || !strings.Contains(said, "[y/N]") {
			t.Errorf("%s, answer %q: %v: %s", c.args, c.answer, err, said)
		}
		nstest.Until(t, "the table is as it should be", func() bool {
			return strings.TrimSpace(ns.Run(nf, "ct", "count")) == strconv.Itoa(c.left)
		})
	}
}

func TestCtCreate(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	useLabels(t, ns)
	for _, c := range []struct {
		args string // separated by '|'
		want string // a part of the line, or more with '|' between
	}{
		{"tcp 10.0.0.1:1 > 10.0.0.2:2", "tcp      6 |ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 [ASSURED]"},
		{"tcp 10.0.0.1:2 > 10.0.0.2:2|--state|SYN_SENT", "SYN_SENT src=|[UNREPLIED]"},
		{"udp 10.0.0.1:1 > 10.0.0.2:2", "udp      17 |[UNREPLIED]"},
		{"udp 10.0.0.1:2 > 10.0.0.2:2|--status|SEEN_REPLY,ASSURED|-t|7209s", "udp      17 720|[ASSURED]"},
		{"icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 7", "icmp     1 |type=8 code=0 id=7 |type=0 code=0 id=7"},
		{"gre 10.0.0.1:1 > 10.0.0.2:2", "srckey=0x1 dstkey=0x2"},
		{"sctp 10.0.0.1:1 > 10.0.0.2:2", "sctp     132 "},
		{"sctp 10.0.0.1:2 > 10.0.0.2:2|--orig-vtag|1|--reply-vtag|2", "ESTABLISHED|[ASSURED]"},
		{"50 10.0.0.1 > 10.0.0.2 zone 9", "unknown  50 |zone=9"},
		{"tcp 10.0.0.1:3 > 10.0.0.2:2|--src-nat|192.0.2.1-192.0.2.4:5000-5010", "dst=192.0.2.|dport=50"},
		{"tcp [fd00::1]:3 > [fd00::2]:2|--dst-nat|[fd00::9]:99", "src=fd00::9 dst=fd00::1 sport=99"},
		{"tcp 10.0.0.1:4 > 10.0.0.2:21|--helper|ftp|-m|7|-l|3|-l|9", "mark=7|helper=ftp|labels=3,9"},
		{"udp 10.0.0.1:4 > 10.0.0.2:2|--zone|3", "zone=3"},
		{"udp 10.0.0.1:5 > 10.0.0.2:2|--orig-zone|3", "zone-orig=3"}, {"udp 10.0.0.1:6 > 10.0.0.2:2|--reply-zone|4", "zone-reply=4"},
		{"tcp 10.0.0.1:6 > 10.0.0.2:2|--reply-src|10.0.0.7|--reply-port-src|8", "src=10.0.0.7 dst=10.0.0.1 sport=8"},
		{"-t|109|-u|SEEN_REPLY|-s|10.0.0.1|-d|10.0.0.3|-r|10.0.0.3|-q|10.0.0.1|-p|tcp|--sport|1|--dport|2|--state|SYN_RECV", "6 10|SYN_RECV src=10.0.0.1 dst=10.0.0.3"},
		{"-p|udp|-s|10.0.0.1|-d|10.0.0.3|--sport|1|--dport|2|-g|10.0.0.4|-n|10.0.0.5", "src=10.0.0.4 dst=10.0.0.5"},
	} {
		args := append([]string{"ct", "create", "-o", "labels"}, strings.Split(c.args, "|")...)
		dry := good(t, append(args, "--dry-run")...)
		out := good(t, args...)
		for _, want := range strings.Split(c.want, "|") {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in %s", c.args, want, out)
			}
		}
		if proto, _, _ := strings.Cut(out, " "); !strings.HasPrefix(dry, proto) {
			t.Errorf("%s: a try prints %s", c.args, dry)
		}
		_, errs, status := call(args...)
		if status != exitExists || !strings.Contains(errs, "is there already") {
			t.Errorf("%s again: status %d: %s", c.args, status, errs)
		}
		good(t, append(args, "--if-missing")...)
	}
	if dry := good(t, "ct", "create", "50 10.0.0.1 > 10.0.0.2 zone 8", "--dry-run"); !strings.Contains(dry,
		"unknown  50 600 ") {
		t.Errorf("a protocol without timeouts: %s", dry)
	}
	good(t, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:2", "--or-update", "--mark", "5", "-t", "60")
	if out := good(t, "ct", "get", "tcp 10.0.0.2:2 > 10.0.0.1:1"); !strings.Contains(out, "mark=5") ||
		!strings.Contains(out, "sport=1 dport=2 src=10.0.0.2") {
		t.Errorf("by the reply, changed: %s", out)
	}
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"create|tcp 10.0.0.1:9 > 10.0.0.2:2|--helper|nosuch", exitNotSupported, "no such helper"},
		{"create|icmp 10.0.0.1 > 10.0.0.2 type 3 code 0 id 1", exitFailed, "no answer"},
		{"create|sctp 10.0.0.1:9 > 10.0.0.2:2|--state|ESTABLISHED", exitFailed, "verification tags"},
		{"get|tcp 10.0.0.1:99 > 10.0.0.2:2", exitNotFound, "no such entry"},
		{"get|tcp 10.0.0.1:1 > 10.0.0.2:2 zone 44", exitNotFound, "zone 44"},
		{"list|--dport|4444|--fail-empty", exitNotFound, ""},
		{"update|--dport|4444|--set|mark=1|--fail-empty", exitNotFound, "0 flows updated"},
		{"delete|--dport|4444|--fail-empty", exitNotFound, "0 flows deleted"},
		{"update|-p|tcp|--dport|2|--set|helper=sip", exitNotSupported, "helper"},
		{"update|-p|udp|--set|state=ESTABLISHED", exitFailed, "state"},
		{"create|udp 10.0.0.1:9 > 10.0.0.2:2|--set|tcp.state=ESTABLISHED", exitUsage, `--set tcp.state: "tcp.state" is not a valid attribute to set: want one that the flow's protocol has`},
		{"create|udp 10.0.0.1:9 > 10.0.0.2:2|--orig-vtag|3", exitUsage, `--orig-vtag: "sctp-vtag-orig" is not`},
		{"create|tcp 10.0.0.1:9 > 10.0.0.2:2|--set|seqadj_orig.pos=5", exitFailed, "needs pos, before and after"},
		{"create|tcp 10.0.0.1:9 > 10.0.0.2:2|--mark|1|--set|mark=2", exitUsage, "mark is set twice: mark=1 and mark=2"},
		{"create|tcp 10.0.0.1:9 > 10.0.0.2:2 zone 3|--zone|3", exitUsage, "says that already"},
		{"update|-p|udp|--set|tcp.wscale_orig=3", exitFailed, "one that the flow's protocol has"},
		{"create|tcp 10.0.0.1:9 > 10.0.0.2:2|--status|SEEN_REPLY,EXPECTED,DYING", exitUsage, `--status: "EXPECTED,DYING" is not a valid status to set: want SEEN_REPLY`},
		{"create|tcp 10.0.0.1:9 > 10.0.0.2:2|--set|status=OFFLOAD", exitUsage, `--set status: "OFFLOAD"`},
		{"update|-p|tcp|--set|status=ASSURED,TEMPLATE", exitUsage, `"TEMPLATE" is not a valid status to set`},
		{"update|-p|tcp|--set|status=0x10000", exitUsage, `"0x10000" is not a valid status to set`},
	} {
		out, errs, status := call(append([]string{"ct"}, strings.Split(c.args, "|")...)...)
		if status != c.status || !strings.Contains(errs, c.says) {
			t.Errorf("%s: status %d, want %d: %s%s", c.args, status, c.status, out, errs)
		}
	}
	out, errs, status := call("ct", "create", "tcp 10.0.0.1:9 > 10.0.0.2:2", "--set", "tcp.wscale_orig=15")
	if status == exitOK {
		t.Log("this kernel takes any window scale, as 5.10 does")
		if !strings.Contains(good(t, "ct", "get", "tcp 10.0.0.1:9 > 10.0.0.2:2", "-o", "json"), `"wscale_orig":15`) {
			t.Errorf("a window scale of 15: %s", out)
		}
	} else if status != exitFailed || !strings.Contains(errs, "a window scale is 14 at most") {
		t.Errorf("a window scale of 15: status %d: %s%s", status, out, errs)
	}
	t.Run("labels that nothing stores", func(t *testing.T) {
		nstest.Enter(t)
		out, errs, status := call("ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:2", "--label", "3")
		if status != exitFailed || !strings.Contains(errs, "not stored") || !strings.Contains(errs, "hint:") ||
			out == "" {
			t.Errorf("status %d: %s%s", status, out, errs)
		}
		_, errs, status = call("ct", "update", "--label-add", "3")
		if status != exitFailed || !strings.Contains(errs, "a rule in this namespace that uses them") ||
			strings.Contains(errs, "it has") {
			t.Errorf("status %d: %s", status, errs)
		}
		// The kernel takes labels last, and leaves what came before.
		_, errs, status = call("ct", "update", "--label-add", "3", "--set", "mark=5/0xf", "--set", "timeout=900")
		if status != exitFailed || !strings.Contains(errs, "; of what was asked it has: timeout, mark\n") {
			t.Errorf("status %d: %s", status, errs)
		}
		_, errs, status = call("ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:2", "--label", "3", "--or-update", "--mark",
			"6", "-t", "800")
		if status != exitFailed || !strings.Contains(errs,
			"; of what was asked it has: timeout, state, status, mark\n") {
			t.Errorf("status %d: %s", status, errs)
		}
	})
}

func TestCtUpdate(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	useLabels(t, ns)
	good(t, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:21", "--helper", "ftp", "--mark", "0xff", "--label", "3")
	for _, c := range []struct{ args, want string }{
		{"--set|mark=0", "mark=0"}, {"--set|mark=0x55", "mark=85"}, {"--set|mark=0x2/0xf", "mark=82"}, {"--set|mark^=0x3", "mark=81"}, {"--set|mark^=0x13/0xf", "mark=67"},
		{"--set|timeout=7209s", "tcp      6 720"}, {"--set|state=CLOSE_WAIT", "CLOSE_WAIT"}, {"--set|status=FIXED_TIMEOUT", "[ASSURED]"},
		{"--label-add|5,9", "labels=3,5,9"}, {"--label-del|3", "labels=5,9"}, {"--label-add|1|--label-del|5", "labels=1,9"}, {"--label-del|all", "[ASSURED]"},
	} {
		out := good(t, append([]string{"ct", "update", "-o", "labels", "tcp >"}, strings.Split(c.args, "|")...)...)
		if !strings.Contains(out, c.want) {
			t.Errorf("%s: no %q in %s", c.args, c.want, out)
		}
	}
	_, errs, status := call("ct", "update", "tcp >", "--set", "helper=")
	kept := status == exitNotSupported && strings.Contains(errs, "takes a helper from no entry") &&
		nstest.Since(t, 7, 0)
	if kept {
		t.Log("this kernel takes a helper from no entry")
	} else if status != exitOK {
		t.Errorf("status %d: %s", status, errs)
	}
	if out := good(t, "ct", "list", "-o", "labels"); strings.Contains(out, "helper") != kept ||
		strings.Contains(out, "labels=") {
		t.Errorf("helper and labels were to go: %s", out)
	}
}

// TestCtWindowScale: the kernel takes the scales of both directions together, and
// only with a flag of both; what is not said is as it was.
func TestCtWindowScale(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	const flow, scales = "tcp 10.0.0.1:1 > " +
		"10.0.0.2:2", "tcp.wscale_orig,tcp.wscale_reply,tcp.flags_orig,tcp.flags_reply"
	for _, c := range []struct{ args, want string }{
		{"create|" + flow + "|--set|tcp.wscale_reply=4", "0\t4\tWINDOW_SCALE\tWINDOW_SCALE"},
		{"update|tcp >|--set|tcp.wscale_orig=7", "7\t4\tWINDOW_SCALE\tWINDOW_SCALE"},
		{"update|tcp >|--set|tcp-wscale-repl=2|--set|tcp.flags_orig=SACK_PERM", "7\t2\tWINDOW_SCALE,SACK_PERM\tWINDOW_SCALE"},
	} {
		if out := good(t, append(append([]string{"ct"}, strings.Split(c.args, "|")...), "--fields",
			scales)...); !strings.HasSuffix(out, "\n"+c.want+"\n") {
			t.Errorf("%s: %q, want %q", c.args, out, c.want)
		}
	}
	good(t, "attr", "set", flow, "tcp-wscale-orig=9")
	good(t, "attr", "set", flow, "tcp-flags-repl=BE_LIBERAL")
	if out, want := good(t, "ct", "list", "--fields", scales),
		"9\t2\tWINDOW_SCALE,SACK_PERM\tWINDOW_SCALE,BE_LIBERAL\n"; !strings.HasSuffix(out, "\n"+want) {
		t.Errorf("attr set: %q, want %q", out, want)
	}
	// A saved flow, of which one direction does not scale, is made as it was.
	line := "-t|60|-s|10.0.0.1|-d|10.0.0.2|-p|tcp|--sport|3|--dport|2|--state|SYN_SENT|--set|tcp-wscale-orig=7|" +
		"--set|tcp-wscale-repl=0|--set|tcp-flags-orig=WINDOW_SCALE|--set|tcp-flags-repl=0"
	if out := good(t, append(strings.Split("ct|create|--fields|"+scales, "|"),
		strings.Split(line, "|")...)...); !strings.HasSuffix(out, "\n0\t0\tWINDOW_SCALE\t\n") {
		t.Errorf("a saved flow: %q", out)
	}
}

// TestCtCounters zeroes the counters of what matches alone, counts by group, and
// prints what the kernel counts.
func TestCtCounters(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.Enter(t)
	ns.Run("sh", "-c", "echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct")
	ns.Run("nft", "add table inet t; add chain inet t o { type filter hook output priority 0; }; add rule inet t o ct "+
		"state invalid drop")
	a, b := ns.UDPEcho("127.0.0.1:1111"), ns.UDPEcho("127.0.0.1:2222")
	for _, addr := range []string{a, a, a, b} {
		if _, ok := ns.Ask(addr, "four", nstest.Patience); !ok {
			t.Fatal("no answer")
		}
	}
	if out := good(t, "ct", "list", "--group-by", "orig.dport,proto", "-o",
		"csv"); out != "orig.dport,proto,count,packets,bytes\n1111,udp,3,6,192\n2222,udp,1,2,64\n" {
		t.Errorf("groups: %s", out)
	}
	if out := good(t, "ct", "list", "--group-by", "orig.dport", "--top", "1", "-o",
		"json"); out != `{"kind":"group","orig":{"dport":1111},"count":3,"packets":6,"bytes":192}`+"\n" {
		t.Errorf("the first group: %s", out)
	}
	if out := good(t, "ct", "list", "--zero", "--dport", "1111"); strings.Count(out, "packets=1 bytes=32") != 6 {
		t.Errorf("zeroed: %s", out)
	}
	out := good(t, "ct", "list")
	if strings.Count(out, "packets=0 bytes=0") != 6 || strings.Count(out, "packets=1 bytes=32") != 2 {
		t.Errorf("after zeroing some: %s", out)
	}
	good(t, "ct", "list", "--zero")
	if out := good(t, "ct", "list"); strings.Count(out, "packets=0 bytes=0") != 8 {
		t.Errorf("after zeroing all: %s", out)
	}
	if out := good(t, "ct", "stats"); !strings.Contains(out, "total") || !strings.Contains(out, "insert_failed=0") {
		t.Errorf("statistics: %s", out)
	}
	out = good(t, "ct", "stats", "--interval", "50ms", "--count", "2", "-o", "json")
	if !strings.Contains(out, `"rate":`) {
		t.Errorf("rates: %s", out)
	}
	out = good(t, "ct", "count", "-o", "json")
	if !regexp.MustCompile(`^{"kind":"count","of":"flows","count":4,"max":[1-9]\d*,"percent":\d+}\n$`).MatchString(
		out) {
		t.Errorf("count: %s", out)
	}
}

// TestCtCreateAgain changes flows that are there already to be as wanted, with the
// translation that they have, and says why others cannot be.
func TestCtCreateAgain(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	const what = "udp 10.9.0.1:1 > 192.0.2.9:53"
	good(t, "ct", "create", what, "--dst-nat", "10.9.0.2:5353", "--timeout", "1h")
	if out := good(t, "ct", "create", what, "--dst-nat", "10.9.0.2:5353", "--or-update", "--mark",
		"5"); !strings.Contains(out, "mark=5") || !strings.Contains(out, "src=10.9.0.2") {
		t.Error(out)
	}
	for _, format := range []string{"save", "json"} {
		saved := good(t, "ct", "list", "-o", format)
		good(t, "ct", "update", "udp > :53", "--set", "mark=6")
		if _, errs, status := callWith(saved, "ct", "load", "--or-update"); status != 0 ||
			!strings.Contains(errs, "1 flow made or changed") {
			t.Errorf("%s: status %d: %s", format, status, errs)
		}
		if out := good(t, "ct", "list"); !strings.Contains(out, "mark=5") {
			t.Errorf("%s: %s", format, out)
		}
	}
	good(t, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:80", "--set", "status=FIXED_TIMEOUT", "--timeout", "1h")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"ct", "create", what, "--dst-nat", "10.9.0.3:5353", "--or-update"}, 1, "another address translation"},
		{[]string{"ct", "create", what, "--dst-nat", "10.9.0.2:5354", "--or-update"}, 1, "another address translation"},
		{[]string{"ct", "update", "tcp > :80", "--set", "timeout=2h"}, 1, "its timeout is fixed"},
		{[]string{"ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:80", "--or-update", "--timeout", "2h"}, 1, "its timeout is fixed"},
		{[]string{"ct", "create", "-p", "tcp", "-s", "10.7.0.1", "-d", "10.7.0.9", "--sport", "1"}, 2, "want a destination port"},
	} {
		if _, errs, status := call(c.args...); status != c.status || !strings.Contains(errs, c.says) {
			t.Errorf("%q: status %d: %s", c.args, status, errs)
		}
	}
}
