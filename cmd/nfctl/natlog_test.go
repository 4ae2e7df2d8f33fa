package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// stampNow is now, as --at reads it.
func stampNow() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// Real translations of the kernel, and who had the port at which time.
func TestNatLog(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "iptables", "ip")
	for _, f := range []string{"json", "csv", "text"} {
		ns := nstest.New(t)
		ns.Run("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-p", "udp", "--dport", "7000:7009", "-j", "SNAT",
			"--to-source", "127.0.0.9:40000")
		ns.Run("iptables", "-w", "-t", "nat", "-A", "OUTPUT", "-p", "udp", "--dport", "8000", "-j", "DNAT",
			"--to-destination", "127.0.0.7:7100")
		send := func(from, to string) {
			t.Helper()
			var err error
			ns.Do(func() {
				var c net.PacketConn
				if c, err = net.ListenPacket("udp", from); err != nil {
					return
				}
				defer c.Close()
				at, _ := net.ResolveUDPAddr("udp", to)
				_, err = c.WriteTo([]byte("x"), at)
			})
			if err != nil && !isTransient(err) {
				t.Fatal(err)
			}
		}
		send("127.0.0.2:1000", "127.0.0.1:7000") // before the log
		log := filepath.Join(t.TempDir(), "nat.log")
		w := startWatch(t, ns, "ct", "watch", "--nat-log", "-o", f, "--output-file", log, "--rotate", "128KiB")
		has := func(word string, n int) {
			t.Helper()
			nstest.Until(t, word, func() bool { b, _ := os.ReadFile(log); return strings.Count(string(b), word) >= n })
		}
		has("synced", 1)
		send("127.0.0.3:1001", "127.0.0.1:7001")
		send("127.0.0.4:1002", "127.0.0.1:8000")
		send("127.0.0.5:1003", "127.0.0.1:7200") // not translated
		has("127.0.0.7", 1)
		both := stampNow()
		ns.Run(nstest.Build(t), "ct", "delete", "udp 127.0.0.3 >")
		has("127.0.0.3", 2)
		one := stampNow()
		send("127.0.0.6:1004", "127.0.0.1:7002") // what comes behind is known of
		has("127.0.0.6", 1)
		if words := endQueue(t, w); !strings.Contains(words, " 0 lost") {
			t.Error(words)
		}
		ask := func(status int, args ...string) string {
			t.Helper()
			out, words, got := ns.Exec(nstest.Build(t), append([]string{"ct", "who"}, args...)...)
			if got != status {
				t.Errorf("%s %q: status %d, want %d: %s%s", f, args, got, status, out, words)
			}
			return out
		}
		const fields = "event,of,inside.addr,inside.port,to.addr,to.port"
		if got := ask(0, "udp", "127.0.0.9:40000", "--at", both, log, "--fields", fields, "-o",
			"tsv"); strings.Count(got, "\n") != 3 ||
			!strings.Contains(got, "alive\tsrc\t127.0.0.2\t1000\t127.0.0.1\t7000\n") || !strings.Contains(got,
			"end\tsrc\t127.0.0.3\t1001\t127.0.0.1\t7001\n") {
			t.Errorf("%s: %s", f, got)
		}
		if got := ask(0, "udp", "127.0.0.9:40000", "--at", one, log, "--fields", "inside.addr", "-o",
			"tsv"); got != "inside.addr\n127.0.0.2\n" {
			t.Errorf("%s: %s", f, got)
		}
		// An hour before there was no log.
		if got := ask(exitFailed, "udp", "127.0.0.9:40000", "--to", "127.0.0.1:7000", "--at", one+"±1h", log,
			"-o", "json"); strings.Count(got, "127.0.0.2") != 1 || strings.Contains(got, "127.0.0.3") {
			t.Errorf("%s: %s", f, got)
		}
		if got := ask(0, "udp", "127.0.0.1:8000", "--at", one, log, "--fields", "of,inside.addr,inside.port", "-o",
			"tsv"); got != "of\tinside.addr\tinside.port\ndst\t127.0.0.7\t7100\n" {
			t.Errorf("%s: %s", f, got)
		}
		ask(exitNotFound, "udp", "127.0.0.9:40001", "--at", one, log)
		ask(exitNotFound, "tcp", "127.0.0.9:40000", "--at", one, log)
		if got := ask(exitFailed, "udp", "127.0.0.9:40000", "--at", "2020-01-01T00:00:00Z", log, "-o",
			"json"); !strings.Contains(got, `"event":"gap"`) {
			t.Error(got)
		}
	}
}

// What was lost is a gap, and nobody is named across it without a word.
func TestNatLogLosses(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	log := filepath.Join(t.TempDir(), "nat.log")
	w := startWatch(t, ns, "ct", "watch", "--nat-log", "-o", "json", "--output-file", log, "--buffer", "4KiB")
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, "-A -s 10.1.%d.%d -d 10.2.0.1 -r 10.2.0.1 -q 203.0.113.1 -p udp --sport %d --dport 53 "+
			"--reply-port-src 53 --reply-port-dst %d --timeout 600\n",
			i>>8, i&255, 1000+i, 1000+i)
	}
	file := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Signal(unix.SIGSTOP)
	ns.Run(nstest.Build(t), "ct", "load", file)
	during := stampNow()
	w.Signal(unix.SIGCONT)
	nstest.Until(t, "all are known again", func() bool {
		b, _ := os.ReadFile(log)
		_, behind, ok := strings.Cut(string(b), `"event":"lost"`)
		return ok && strings.Contains(behind, `"event":"synced"`)
	})
	after := stampNow()
	makeFlows(t, ns, 30000, 1)
	ns.Run(nstest.Build(t), "ct", "create", "udp 10.9.0.1:5 > 10.2.0.1:53", "--reply-src", "10.2.0.1", "--reply-dst",
		"203.0.113.1", "--reply-port-src", "53",
		"--reply-port-dst", "999", "--timeout", "60")
	nstest.Until(t, "the log goes on", func() bool {
		b, _ := os.ReadFile(log)
		return strings.Contains(string(b),
			"10.9.0.1")
	})
	endQueue(t, w)
	// 10.1.78.31 is the last of them.
	out, words, status := ns.Exec(nstest.Build(t), "ct", "who", "udp", "203.0.113.1:20999", "--at", during, log, "-o",
		"json")
	if status != exitFailed || !strings.Contains(out, `"event":"gap"`) || !strings.Contains(words,
		"there may have been others") {
		t.Errorf("status %d: %s%s", status, out, words)
	}
	out, words, status = ns.Exec(nstest.Build(t), "ct", "who", "udp", "203.0.113.1:20999", "--at", after, log, "-o",
		"json")
	if b, _ := os.ReadFile(log); status != 0 {
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, `"alive"`) || strings.Contains(line, `"port":20999}`) {
				t.Log(line)
			}
		}
	}
	if status != 0 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "10.1.78.31") {
		t.Errorf("status %d: %s%s", status, out, words)
	}
}

func TestNatLogUsage(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"watch", "--nat-log", "--events", "new"}, "--events does not go with --nat-log"},
		{[]string{"watch", "--nat-log", "-o", "xml"}, "text, json or csv"},
		{[]string{"watch", "--nat-log", "--fields", "time"}, "--fields does not go with --nat-log"},
		{[]string{"who", "tcp", "203.0.113.1:1"}, "want a protocol, an address with a port, and one log"},
		{[]string{"who", "tcp", "203.0.113.1", "log"}, "203.0.113.1"},
		{[]string{"who", "tpc", "203.0.113.1:1", "log"}, "tpc"},
		{[]string{"who", "tcp", "203.0.113.1:1", "log", "--at", "yesterday"}, "yesterday"},
		{[]string{"who", "tcp", "203.0.113.1:1", "log", "--to", "somewhere"}, "somewhere"},
	} {
		if _, words, status := ns.Exec(nstest.Build(t), append([]string{"ct"}, c.args...)...); status != exitUsage ||
			!strings.Contains(words, c.says) {
			t.Errorf("%q: status %d: %s", c.args, status, words)
		}
	}
	if _, words, status := ns.Exec(nstest.Build(t), "ct", "who", "tcp", "203.0.113.1:1",
		"/none"); status != exitFailed || !strings.Contains(words, "/none") {
		t.Error(status, words)
	}
}
