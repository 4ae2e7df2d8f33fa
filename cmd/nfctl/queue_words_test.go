package main

import (
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
	ns.Run("nft", "add table inet t; add chain inet t c { type filter hook output priority 10; }; add rule inet t c udp dport 667 meta mark & 0xff == 0x30 drop")
	p := startQueue(t, ns, "--attach", "output udp >", "--rule", "repeat mark 0x30/0x30 udp > :666", "--rule", "repeat mark 0x30/0x30 udp > :667", "--rule", "mark 0x10/0x10 repeat")
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
	if status := p.Wait(); status != 0 || strings.Contains(p.Stdout(), "accept") || strings.Count(p.Stdout(), "repeat rule") != 5 {
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
		{"queue --rule reject", `nfctl: --rule: rule 'reject': "reject" is not a valid action: want one of accept, `},
		{"queue --rule deny", `nfctl: --rule: rule 'deny': "deny" is not a valid action (did you mean "drop"?): `},
		{"queue --rule repeat", "repeat mark 0x10/0x10\n"},
	} {
		var out, words strings.Builder
		if status := run(append([]string{"nfctl"}, strings.Fields(tt.args)...), strings.NewReader(""), &out, &words); status != exitUsage || !strings.Contains(words.String(), tt.want) {
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
			p := startQueue(t, ns, "-o", form, "--attach", "output", "--rule", `replace "evil" "excellent"`, "--accept-port", "80")
			c, err := ns.Dial("tcp", addr, nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("evil")); err != nil {
				t.Fatal(err)
			}
			nstest.Until(t, "the first is told", func() bool { return strings.Contains(p.Stderr(), "rule 1 could not edit packet ") })
			p.Signal(unix.SIGTERM)
			p.Wait()
			want := "drop rule 1 (" + why + ")\n"
			if form == "json" {
				want = `"verdict":"drop","rule":1,"why":"` + why + `"}`
			}
			if !strings.Contains(p.Stdout(), want) || strings.Count(p.Stderr(), why) != 1 || strings.Contains(p.Stdout(), "dry") {
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
		if status := run(append([]string{"nfctl", "queue"}, args...), strings.NewReader(""), &out, &words); status != exitUsage || !strings.Contains(words.String(), "can never be done on ") {
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
