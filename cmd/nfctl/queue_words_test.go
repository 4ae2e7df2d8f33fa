package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestQueueRepeatsByTwoMarks has two rules repeat with marks of which one bit is
// the same: --attach's rule leaves both out, and a later chain tells them apart.
func TestQueueRepeatsByTwoMarks(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	ns.Run("nft", "add table inet t; add chain inet t c { type filter hook output priority 10; }; add rule inet t c "+
		"udp dport 667 meta mark & 0xff == 0x30 drop")
	p := startQueue(t, ns, "--attach", "output udp >", "--rule", "repeat mark 0x30/0x30 udp > :666", "--rule",
		"repeat mark 0x30/0x30 udp > :667", "--rule", "mark 0x10/0x10 repeat")
	for addr, want := range map[string]bool{"127.0.0.1:666": true, "127.0.0.1:667": false, "127.0.0.1:668": true} {
		patience := nstest.Patience
		if !want {
			patience = 300 * time.Millisecond
		}
		if _, ok := ns.Ask(ns.UDPEcho(addr), "x", patience); ok != want {
			t.Errorf("%s: answered %v, want %v", addr, ok, want)
		}
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 || strings.Contains(p.Stdout(), "accept") ||
		strings.Count(p.Stdout(), "repeat rule") != 5 {
		t.Errorf("status %d:\n%s%s", status, p.Stdout(), p.Stderr())
	}
}

// TestQueueSuggests types what other programs call by other names.
func TestQueueSuggests(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"queue --reject-port 80", "nfctl: unknown flag --reject-port; see 'nfctl queue --help'\n"},
		{"queue --drop-host ::1", "nfctl: unknown flag --drop-host: did you mean --drop-src or --drop-dst?\n"},
		{"queue --deny-port 80", "nfctl: unknown flag --deny-port: did you mean --drop-port?\n"},
		{"queue --allow udp", "nfctl: unknown flag --allow: did you mean --accept?\n"},
		{"queue --format json", "nfctl: unknown flag --format: did you mean --output?\n"},
		{"ct watch --format json", "nfctl: unknown flag --format: did you mean --output?\n"},
		{"queue --timeout 5s", "nfctl: unknown flag --timeout: did you mean --duration?\n"},
		{"ct list --utc", "nfctl: unknown flag --utc; see 'nfctl conntrack list --help'\n"},
		{"ct count --warn 80", "nfctl: unknown flag --warn; see 'nfctl conntrack count --help'\n"},
		{"queue --rule deny", `nfctl: --rule: rule 'deny': "deny" is not a valid action (did you mean "drop"?): `},
		{"queue --rule repeat", "repeat mark 0x10/0x10\n"},
	} {
		var out, words strings.Builder
		if status := run(append([]string{"nfctl"}, strings.Fields(tt.args)...), strings.NewReader(""), &out,
			&words); status != exitUsage || !strings.Contains(words.String(), tt.want) {
			t.Errorf("nfctl %s: status %d: %s", tt.args, status, words.String())
		}
	}
}

// TestQueueSaysWhy has rules that cannot do their edits: the reason stands in the
// record, the first is told at once, and what could never be done is refused.
func TestQueueSaysWhy(t *testing.T) {
	t.Parallel()
	const why = "another length of TCP's payload, which only resize allows"
	for _, form := range []string{"text", "json"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			addr := ns.TCPEcho("127.0.0.1:80")
			p := startQueue(t, ns, "-o", form, "--attach", "output", "--rule", `replace "evil" "excellent"`,
				"--accept-port", "80")
			c, err := ns.Dial("tcp", addr, nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("evil")); err != nil {
				t.Fatal(err)
			}
			nstest.Until(t, "the first is told", func() bool {
				return strings.Contains(p.Stderr(), "rule 1 could not edit packet ")
			})
			p.Signal(unix.SIGTERM)
			p.Wait()
			want := "drop rule 1 (" + why + ")\n"
			if form == "json" {
				want = `"verdict":"drop","rule":1,"why":"` + why + `"}`
			}
			if !strings.Contains(p.Stdout(), want) || strings.Count(p.Stderr(), why) != 1 ||
				strings.Contains(p.Stdout(), "dry") {
				t.Errorf("want %s in\n%s%s", want, p.Stdout(), p.Stderr())
			}
		})
	}
	for _, args := range [][]string{
		{"--rule", `replace "evil" "excellent" tcp > :80`},
		{"--rule", `drop tcp > :80`, "--rule", `replace "evil" "excellent" if tcp.dport == 80`, "--attach", "output tcp > :80"},
		{"--rule", `replace "a" "b" esp >`}, {"--rule", "set udp.dport=53 tcp > :80"},
	} {
		var out, words strings.Builder
		if status := run(append([]string{"nfctl", "queue"}, args...), strings.NewReader(""), &out,
			&words); status != exitUsage || !strings.Contains(words.String(), "can never be done on ") {
			t.Errorf("%q: status %d: %s", args, status, words.String())
		}
	}
}

// TestQueueDryRunSaysSo looks for the words in both forms.
func TestQueueDryRunSaysSo(t *testing.T) {
	t.Parallel()
	for form, want := range map[string][]string{
		"text": {"drop rule 1 (dry run)\n", "accept (dry run)\n"},
		"json": {`"verdict":"drop","rule":1,"dry_run":true}`, `"verdict":"accept","dry_run":true}`},
	} {
		ns := nstest.New(t)
		p := startQueue(t, ns, "--dry-run", "-o", form, "--attach", "output udp >", "--drop", "udp > :7000")
		if got, ok := ns.Ask(ns.UDPEcho("127.0.0.1:7000"), "abc", nstest.Patience); got != "abc" || !ok {
			t.Errorf("answer %q, %v", got, ok)
		}
		p.Signal(unix.SIGTERM)
		p.Wait()
		for _, w := range want {
			if !strings.Contains(p.Stdout(), w) {
				t.Errorf("want %s in\n%s", w, p.Stdout())
			}
		}
	}
}

// TestQueueTotalsStayShort has more rules than anybody reads, and one with a long text.
func TestQueueTotalsStayShort(t *testing.T) {
	t.Parallel()
	long := "drop udp > :1"
	for port := 1000; port < 6000; port++ {
		long += fmt.Sprintf(",%d", port)
	}
	many := long
	for port := 6000; port < 7000; port++ {
		many += fmt.Sprintf("\naccept udp > :%d", port)
	}
	for _, tt := range []struct {
		name        string
		rules       string
		args        []string
		first, last int // ports that are asked
		want        []string
		lines       int
	}{
		{"one long", long, nil, 7000, 7000, []string{"rule 1 (FILE:2: drop udp > :1,1000,", "…): 0 packets, 0 bytes"}, 4},
		{"many", many, nil, 6001, 6001, []string{"rule 3 (FILE:4: accept udp > :6001): 1 packet", "1000 rules met nothing\n"}, 5},
		{"quiet", many, []string{"-q"}, 6000, 6054, []string{"rule 2 (FILE:3: accept udp > :6000): 1 packet", "other rules: 5 packets", "946 rules met nothing\n"}, 55},
		{"few and quiet", "drop udp > :1\naccept udp > :7000", []string{"-q"}, 7000, 7000, []string{"rule 2 (FILE:3: accept udp > :7000): 1 packet", "1 rule met nothing\n"}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "rules")
			if err := os.WriteFile(file, []byte("# rules\n"+tt.rules), 0o644); err != nil {
				t.Fatal(err)
			}
			ns := nstest.New(t)
			p := startQueue(t, ns, append(tt.args, "--rules", file, "--attach", "input udp > :6000-7000")...)
			for port := tt.first; port <= tt.last; port++ {
				if _, ok := ns.Ask(ns.UDPEcho(fmt.Sprintf("127.0.0.1:%d", port)), "x", nstest.Patience); !ok {
					t.Errorf("port %d: no answer", port)
				}
			}
			p.Signal(unix.SIGTERM)
			p.Wait()
			for _, w := range tt.want {
				if w = strings.Replace(w, "FILE", file, 1); !strings.Contains(p.Stderr(), w) {
					t.Errorf("want %s in\n%s", w, p.Stderr())
				}
			}
			if n := strings.Count(p.Stderr(), "\n"); n > tt.lines || len(p.Stderr()) > 300*tt.lines {
				t.Errorf("%d lines, %d bytes:\n%s", n, len(p.Stderr()), p.Stderr())
			}
		})
	}
}

// TestQueueNumbersAgree reads a file of rules again in which rules have moved: what
// totals count under a number was printed under it.
func TestQueueNumbersAgree(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	addr := ns.UDPEcho("127.0.0.1:7000")
	file := filepath.Join(t.TempDir(), "rules")
	rules := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(n int) {
		for range n {
			if _, ok := ns.Ask(addr, "x", nstest.Patience); !ok {
				t.Error("no answer")
			}
		}
	}
	rules("accept udp > :7000\nlog\n")
	p := startQueue(t, ns, "--attach", "input udp > :7000", "--rules", file)
	ask(2)
	rules("log tcp >\n# moved\naccept udp > :7000\n")
	p.Signal(unix.SIGHUP)
	p.WaitOutput("rules reloaded: 2")
	ask(3)
	rules("accept udp > :7000\nlog tcp >\n")
	p.Signal(unix.SIGHUP)
	nstest.Until(t, "the rules are read again", func() bool {
		return strings.Count(p.Stderr(), "rules reloaded: 2") == 2
	})
	ask(1)
	p.Signal(unix.SIGTERM)
	p.Wait()
	for _, want := range []string{
		": rule 1 (" + file + ":1: accept udp > :7000): 3 packets", ": rule 2 (" + file + ":2: log tcp >): 0 packets",
		": former rule 2 (" + file + ":3: accept udp > :7000): 3 packets",
	} {
		if !strings.Contains(p.Stderr(), want) {
			t.Errorf("want %s in\n%s", want, p.Stderr())
		}
	}
}

// TestQueueWarnsOfSSH has rules meet the connection by which the user is logged in.
func TestQueueWarnsOfSSH(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	addr := ns.TCPEcho("127.0.0.1:22")
	for _, tt := range []struct {
		conn string
		args []string
		want string
	}{
		{"127.0.0.1 50000 127.0.0.1 22", []string{"--attach", "output", "--drop-port", "22"},
			"nfctl: rule 1 (drop-port 22) drops your own SSH connection, tcp 127.0.0.1:50000 > 127.0.0.1:22, at output: "},
		{"::ffff:127.0.0.1 50000 ::ffff:127.0.0.1 22", []string{"--attach", "input tcp > :22", "--accept-dport", "80", "--default", "drop"},
			"nfctl: --default drop drops your own SSH connection, tcp 127.0.0.1:50000 > 127.0.0.1:22, at input: "},
		{"::1 50000 ::1 22", []string{"--attach", "output ip", "--attach", "prerouting ip6", "--drop", "tcp ::1 >"}, "rule 1 (drop tcp ::1 >) drops your own"},
		{"127.0.0.1 50000 127.0.0.1 22", []string{"--attach", "input", "--rule", "mark 7", "--rule", "drop if mark == 7"}, "rule 2 (drop if mark == 7) drops your own"},
		{"127.0.0.1 50000 127.0.0.1 22", []string{"--attach", "output", "--accept-sport", "22", "--drop-port", "22"}, ""},
		{"127.0.0.1 50000 127.0.0.1 22", []string{"--attach", "output tcp > :23,80", "--drop-dport", "23", "--default", "drop"}, ""},
		{"127.0.0.1 50000 127.0.0.1 22", []string{"--attach", "forward", "--drop-port", "22"}, ""},
		{"127.0.0.1 50000 127.0.0.1 22", []string{"--attach", "output", "--drop-port", "22", "--dry-run"}, ""},
		{"192.0.2.1 50000 192.0.2.2 22", []string{"--attach", "output", "--drop-port", "22"}, ""}, // ends in another namespace
		{"", []string{"--attach", "output", "--drop-port", "22"}, ""},
		{"a b c d", []string{"--attach", "output", "--drop-port", "22"}, ""},
	} {
		file := filepath.Join(t.TempDir(), "ready")
		c := exec.Command(nstest.Build(t), append([]string{"queue", "--ready-file", file}, tt.args...)...)
		c.Env = append(os.Environ(), "SSH_CONNECTION="+tt.conn)
		p := ns.StartCmd(c)
		nstest.Until(t, "nfctl is ready", func() bool {
			_, err := os.Stat(file)
			return err == nil || p.Ended()
		})
		if tt.want != "" && strings.Contains(tt.want, "127.0.0.1") && opens(ns, addr, 300*time.Millisecond) {
			t.Errorf("%q: port 22 is open", tt.args)
		}
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 || !strings.Contains(p.Stderr(), tt.want) ||
			tt.want == "" && strings.Contains(p.Stderr(), "SSH") {
			t.Errorf("%q: status %d: want %q in\n%s", tt.args, status, tt.want, p.Stderr())
		}
	}
	// As with sudo: a process in between still has the variable.
	file := filepath.Join(t.TempDir(), "ready")
	c := exec.Command("sh", "-c", `env -u SSH_CONNECTION "$0" "$@"; exit $?`, nstest.Build(t), "queue", "--ready-file",
		file, "--attach", "output", "--drop-port", "22", "--duration", "100ms")
	c.Env = append(os.Environ(), "SSH_CONNECTION=127.0.0.1 50000 127.0.0.1 22")
	p := ns.StartCmd(c)
	if status := p.Wait(); status != 0 || !strings.Contains(p.Stderr(), "your own SSH connection") {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
}

// TestQueueListRepeats ends by --count and --duration.
func TestQueueListRepeats(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	startQueue(t, ns, "--num", "5", "-q")
	for _, tt := range []struct {
		args   string
		status int
		lines  int // -1: some
	}{
		{"queue list --interval 20ms --count 3 -o json", 0, 3},
		{"queue list --interval 20ms --duration 300ms -o json", 0, -1},
		{"queue list --interval 1m --count 2 --duration 300ms -o json", 3, 1},
		{"queue list --count 3", 2, 0}, {"queue list --duration 1s", 2, 0}, {"ct stats --count 3", 2, 0},
	} {
		out, words, status := ns.Exec(nstest.Build(t), strings.Fields(tt.args)...)
		if n := strings.Count(out, "\n"); status != tt.status || n != tt.lines && (tt.lines >= 0 || n < 2) {
			t.Errorf("%s: status %d, %d lines:\n%s%s", tt.args, status, n, out, words)
		}
	}
}

// TestQueueLuaPrints looks where a Lua rule's print goes: not among the records.
func TestQueueLuaPrints(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	file := filepath.Join(t.TempDir(), "rule.lua")
	if err := os.WriteFile(file, []byte(`return function(packet) print("met", packet.udp.dport) return "accept" end`),
		0o644); err != nil {
		t.Fatal(err)
	}
	for _, quiet := range [][]string{nil, {"-q"}} {
		p := startQueue(t, ns, append(quiet, "--attach", "input udp > :7000", "-o", "json", "--rule", "lua "+file)...)
		if _, ok := ns.Ask(ns.UDPEcho("127.0.0.1:7000"), "x", nstest.Patience); !ok {
			t.Error("no answer")
		}
		p.Signal(unix.SIGTERM)
		p.Wait()
		if !strings.Contains(p.Stderr(), "met\t7000\n") || strings.Contains(p.Stdout(), "met") ||
			quiet != nil && p.Stdout() != "" {
			t.Errorf("%s%s", p.Stdout(), p.Stderr())
		}
		ns = nstest.New(t)
	}
}

// TestQueueChecks reads rules without a queue and without privileges.
func TestQueueChecks(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "rules")
	text := "# a\ndrop tcp > :23\nrepeat mark 0x10/0x10 udp > :53\nrepeat mark 0x30/0x30\nset ip.ttl=3 udp > " +
		":54\nreplace \"a\" \"b\"\ndrop if ct.mark == 3\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) (string, string, int) {
		var out, words strings.Builder
		status := run(append([]string{"nfctl", "queue", "--check"}, args...), strings.NewReader(""), &out, &words)
		return out.String(), words.String(), status
	}
	out, words, status := call("--rules", file)
	for _, want := range []string{
		"rules: 6\n", "copy: 65531 bytes of each packet: rule 4 (" + file + ":5: set ip.ttl=3 udp > :54)\n",
		"conntrack data: needs CONFIG_NETFILTER_NETLINK_GLUE_CT: rule 6 (" + file + ":7: drop if ct.mark == 3)\n", "segments: ",
		"edits: packets go back changed: rule 4 (", "\nprivileges: CAP_NET_ADMIN\n",
		"repeat: packets come again with mark 0x10/0x10: the rule that queues must leave it out (nft: meta mark & 0x10 != 0x10): rule 2 (",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if status != 0 || words != "" {
		t.Errorf("status %d: %s", status, words)
	}
	out, words, status = call("-q", "-o", "json", "--attach", "output udp >", "--fail-open", "--no-gso", "--rule",
		"drop if uid == 0", "--rule", "mark 1 repeat")
	for _, want := range []string{
		`{"kind":"need","need":"copy","text":"nothing of the packets, only what comes with them"}` + "\n",
		`{"kind":"need","need":"user and group","text":"needs Linux 3.14","rule":1,"where":"drop if uid == 0"}` + "\n",
		`{"kind":"need","need":"fail-open","text":"needs Linux 3.6"}` + "\n", "large ones are cut", "--attach's rule leaves it out", `"need":"attach","text":"output udp >: `,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if status != 0 || words != "" {
		t.Errorf("status %d: %s", status, words)
	}
	out, words, status = call("--attach", "output tcp > first 4", "--flow-mark", "0x0f000000", "--rule",
		"drop tcp > :9", "--rule", "connmark 0x1/0xf accept flow if dport == 25", "--rule", "reject")
	for _, want := range []string{
		"attach: output tcp > first 4: a chain at output in a table of nfctl's own, and packets counted (net.netfilter.nf_conntrack_acct)\n",
		"marks: 2 bits of packets' marks, of the 4 of --flow-mark 0xf000000, between the queue and the chain behind it: 3 ends to tell apart: rule 2 (",
		"connmarks: bits 0xc000000 of connections' marks, for verdicts on flows: rule 2 (",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if status != 0 || words != "" {
		t.Errorf("status %d: %s", status, words)
	}
	if out, _, _ = call("--attach", "output tcp >", "--rule", "reject"); !strings.Contains(out,
		"marks: 1 bit of packets' marks") || strings.Contains(out, "connmarks") {
		t.Errorf("%s", out)
	}
	for _, args := range [][]string{
		{"--rule", "drip"}, {"--rule", "queue 0"}, {"--rule", "repeat mark 1/1", "--rule", "repeat mark 2/2"}, {"--rules", file + "x"}, {"-o", "xml"},
		{"--rule", `replace "a" "bc" tcp >`},
	} {
		if out, words, status := call(args...); status != exitUsage || words == "" || out != "" {
			t.Errorf("%q: status %d: %s%s", args, status, out, words)
		}
	}
}
