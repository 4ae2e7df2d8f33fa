package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestExpectLoad saves expectations of many kinds, deletes them with their masters,
// loads them again in each form, and finds the same.
func TestExpectLoad(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	create := func(helper, master string, args ...string) {
		t.Helper()
		nfctl(t, ns, append([]string{"expect", "create", "-q", "--create-master", "--helper", helper, "--timeout",
			"1000s", "--master", master}, args...)...)
	}
	m, m5, m6, sip := "tcp 10.0.0.1:1000 > 10.0.0.2:21", "tcp 10.0.0.1:1000 > 10.0.0.2:21 zone 5",
		"tcp [fd00::1]:1000 > [fd00::2]:21", "udp 10.0.0.1:1000 > 10.0.0.2:5060"
	create("irc", m, "udp 10.0.0.1 > 10.0.0.2:5000")
	create("irc", m, "tcp 10.0.0.0/24:1024-2047 > 10.0.0.2:5001", "--permanent")
	create("sip", sip, "udp 0.0.0.0/0 > 10.0.0.2:5002", "--class", "1", "--inactive")
	create("irc", m, "udp :77 > 10.0.0.2:5003", "--nat", "10.0.0.9:77", "--nat-dir", "orig")
	create("irc", m, "tcp 10.0.0.4 > 10.0.0.2:5004", "--mask-src", "255.0.255.0", "--mask-port-src", "15")
	create("irc", m, "gre 10.0.0.1:0x5 > 10.0.0.2:0x6")
	create("irc", m, "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 7")
	create("irc", m, "icmp > 10.0.0.3 type 8 code 0")
	create("irc", m, "esp 10.0.0.1 > 10.0.0.2")
	create("irc", m5, "udp 10.0.0.1 > 10.0.0.2:5000")
	create("ftp", m6, "udp [fd00::1] > [fd00::2]:5000")
	const fields = "tuple,mask,master,helper,class,flags,zone,nat,fn"
	list := func(args ...string) string {
		return sorted(nfctl(t, ns, append([]string{"expect", "list", "-o", "json", "--fields", fields}, args...)...))
	}
	before := list()
	if n := strings.Count(before, "\n"); n != 11 {
		t.Fatalf("%d expectations\n%s", n, before)
	}
	flows := nfctl(t, ns, "ct", "save")
	dir := t.TempDir()
	for _, tt := range []struct{ form, load, with, says string }{
		{"save", "expect", flows, "4 flows and 11 expectations made"},
		{"json", "expect", flows, "4 flows and 11 expectations made"},
		{"save", "ct", flows, "4 flows and 11 expectations made"},
		{"save", "expect", "", "4 masters made for expectations"},
		{"json", "expect", "", "4 masters made for expectations"},
	} {
		saved := nfctl(t, ns, "expect", "save", "-o", tt.form)
		nfctl(t, ns, "ct", "flush", "--all")
		if out := nfctl(t, ns, "expect", "count"); out != "0\n" {
			t.Fatalf("%s after the flush", out)
		}
		file := filepath.Join(dir, "saved")
		if err := os.WriteFile(file, []byte(saved+tt.with), 0o600); err != nil { // masters behind
			t.Fatal(err)
		}
		args := []string{tt.load, "load", file}
		if tt.with == "" {
			_, stderr, status := ns.Exec(nstest.Build(t), args...)
			if status != 1 || !strings.Contains(stderr, "line 1: ") ||
				!strings.Contains(stderr, "its master is not in the table") ||
				!strings.Contains(stderr, "11 of 11 lines failed") {
				t.Errorf("without masters: status %d: %s", status, stderr)
			}
			args = append(args, "--create-master")
		}
		out, stderr, status := ns.Exec(nstest.Build(t), args...)
		if status != 0 || !strings.Contains(stderr, tt.says) {
			t.Errorf("%q: status %d, want %q\n%s%s\n%s", args, status, tt.says, out, stderr, saved)
		}
		if after := list(); after != before {
			t.Errorf("%s by %s: before\n%safter\n%s", tt.form, tt.load, before, after)
		}
		if timeout := nfctl(t, ns, "expect", "list", "--timeout", "0-900"); timeout != "" {
			t.Errorf("timeouts: %s", timeout)
		}
		if _, stderr, status := ns.Exec(nstest.Build(t), args...); status != 0 ||
			!strings.Contains(stderr, "already there") {
			t.Errorf("again: status %d, %s", status, stderr)
		}
	}
	// Zones are listed, filtered and selected.
	if out := nfctl(t, ns, "expect", "list", "--zone", "5"); strings.Count(out, "\n") != 1 ||
		!strings.Contains(out, " zone=5 ") {
		t.Errorf("zone 5: %s", out)
	}
	for args, n := range map[string]int{
		"--zone|0": 10, "--filter|zone == 5": 1, "udp > zone 5": 1, "--master|" + m5: 1, "--master|" + m: 9,
		"--dport|5000": 3, "--orig-port-dst|5060": 1, "--src|10.0.0.4": 1, "--orig-src|10.0.0.1": 10, "-d|10.0.0.3": 1,
	} {
		if out := nfctl(t, ns, append([]string{"expect", "list"}, strings.Split(args, "|")...)...); strings.Count(out,
			"\n") != n {
			t.Errorf("%s: want %d\n%s", args, n, out)
		}
	}
	nfctl(t, ns, "expect", "delete", "udp > :5000 zone 5")
	if got, want := list(),
		sorted(strings.Join(slices.DeleteFunc(strings.SplitAfter(before, "\n"), func(line string) bool {
			return strings.Contains(line, `"zone":5`)
		}), "")); got != want {
		t.Errorf("after deleting in zone 5:\n%swant\n%s", got, want)
	}
	for _, tt := range []struct {
		in, args string
		status   int
		says     string
	}{
		{`-A expect --master 'tcp 1.1.1.1:1 > 2.2.2.2:2' --nosuch 1 'tcp > 2.2.2.2:5'`, "", 1, `"--nosuch" is not a valid flag`},
		{`-A expect --master 'tcp 1.1.1.1:1 > 2.2.2.2:2'`, "", 1, "what to expect is missing"},
		{`-A expect 'tcp > 2.2.2.2:5' --helper`, "", 1, "--helper with a value"},
		{`{"kind":"expect","tuple":{"dts":"1.1.1.1"}}`, "", 1, "tuple.dts"},
		{`{"kind":"expect","tuple":{"dst":"1.1.1.1"}}`, "", 1, "a protocol and a destination"},
		{`{"kind":"expect","event":"destroy","tuple":{"proto":"udp","dst":"10.0.0.2","dport":5000,"src":"10.0.0.1"}}`, "", 1, "it has ended"},
		{`{"kind":"expect","event":"destroy","tuple":{"proto":"udp","dst":"10.0.0.2","dport":5000,"src":"10.0.0.1"}}`, "--or-update", 0, "1 deleted"},
		{`{"kind":"expect","event":"destroy","tuple":{"proto":"udp","dst":"10.0.0.2","dport":5000,"src":"10.0.0.1"}}`, "--or-update", 0, "1 gone already"},
		{strings.SplitAfter(nfctl(t, ns, "expect", "save", "tcp > :5001"), "\n")[0], "--dry-run", 0, "1 expectation read"},
		{strings.Replace(nfctl(t, ns, "expect", "save", "tcp > :5001"), "-t ", "-t 3", 1), "--or-update", 0, "1 expectation made or changed"},
	} {
		cmd := exec.Command(nstest.Build(t), append([]string{"expect", "load"}, strings.Fields(tt.args)...)...)
		cmd.Stdin = strings.NewReader(tt.in)
		p := ns.StartCmd(cmd)
		if status := p.Wait(); status != tt.status || !strings.Contains(p.Stderr(), tt.says) {
			t.Errorf("%s %s: status %d, want %d and %q\n%s", tt.in, tt.args, status, tt.status, tt.says, p.Stderr())
		}
	}
}

// TestExpectRelay: expectations that a watch tells of are made and end elsewhere, and
// let the connection in there.
func TestExpectRelay(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, "ftp")
	startWatch(t, g.server, "expect", "watch") // what nobody watches from its birth has no events
	g.server.TCPEcho("10.0.0.2:2000")
	g.server.TCPEcho("10.0.0.2:5000")
	c, err := g.client.Dial("tcp", "10.0.0.2:2000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	master := fmt.Sprintf("tcp %s > 10.0.0.2:2000", c.LocalAddr())
	nfctl(t, g.server, "expect", "create", "--master", master, "tcp 10.0.0.1 > 10.0.0.2:5000")
	saved := nfctl(t, g.server, "expect", "save")
	nfctl(t, g.server, "expect", "flush", "--all")
	if g.meets("tcp", "10.0.0.2:5000", short) {
		t.Error("let in without expectation")
	}
	load := exec.Command(nstest.Build(t), "expect", "load")
	load.Stdin = strings.NewReader(saved)
	if p := g.server.StartCmd(load); p.Wait() != 0 {
		t.Fatal(p.Stderr())
	}
	if !g.meets("tcp", "10.0.0.2:5000", nstest.Patience) {
		t.Error("the loaded expectation did not let the connection in")
	}

	// From one namespace to another, by events.
	other := nstest.New(t)
	nfctl(t, g.server, "expect", "create", "--master", master, "tcp 10.0.0.1 > 10.0.0.2:5000")
	w := startWatch(t, g.server, "watch", "--with-existing", "-o", "json")
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer wr.Close()
	follow := exec.Command(nstest.Build(t), "expect", "load", "--or-update")
	follow.Stdin = r
	other.StartCmd(follow)
	sent := 0
	relay := func() {
		out := w.Stdout()
		out = out[:strings.LastIndex(out, "\n")+1]
		_, _ = wr.WriteString(out[sent:])
		sent = len(out)
	}
	until := func(what, count string) {
		t.Helper()
		nstest.Until(t, what, func() bool { relay(); return nfctl(t, other, "expect", "count") == count+"\n" })
	}
	until("the expectation is there", "1")
	nfctl(t, g.server, "expect", "delete", "tcp > :5000")
	until("the expectation is gone", "0")
	nfctl(t, g.server, "expect", "create", "--master", master, "tcp 10.0.0.1 > 10.0.0.2:5001")
	until("another expectation is there", "1")
}

// TestExpectListEnds: --fail-empty, and what an interrupted or failing list ends with, as of flows.
func TestExpectListEnds(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	for _, cmd := range []string{"list", "save"} {
		for _, of := range []string{"ct", "expect"} {
			if out, _, status := ns.Exec(nstest.Build(t), of, cmd, "--fail-empty"); status != exitNotFound ||
				out != "" {
				t.Errorf("%s %s --fail-empty: status %d, %q", of, cmd, status, out)
			}
			if _, stderr, status := ns.Exec("sh", "-c",
				"exec "+nstest.Build(t)+" "+of+" "+cmd+" -o json --fields nosuch"); status != exitUsage ||
				!strings.Contains(stderr, "nosuch") {
				t.Errorf("%s %s: status %d, %s", of, cmd, status, stderr)
			}
		}
	}
	if _, stderr, status := ns.Exec(nstest.Build(t), "expect", "watch", "--zone", "5"); status != exitUsage ||
		!strings.Contains(stderr, "events of expectations do not tell it") {
		t.Errorf("expect watch --zone: status %d, %s", status, stderr)
	}
}
