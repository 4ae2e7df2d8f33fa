package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestCtDCCP makes a flow of a protocol that some kernels track and newer ones
// don't: with its ports, its state and the role that belongs to it, or not at all.
func TestCtDCCP(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nf := nstest.Build(t)
	out, words, status := ns.Exec(nf, "ct", "create", "dccp 10.0.0.1:1 > 10.0.0.2:2", "--state", "OPEN", "--timeout",
		"1h")
	list := ns.Run(nf, "ct", "list")
	if status == exitNotSupported {
		if !strings.Contains(words, "does not track") || list != "" {
			t.Errorf("refused: %s%s", words, list)
		}
		load := ns.Start("sh", "-c", "echo '-A -s 10.0.0.1 -d 10.0.0.2 -p dccp --sport 1 --dport 2 -t 100' | "+nf+
			" ct load")
		if status := load.Wait(); status != exitFailed || !strings.Contains(load.Stderr(), "line 1: ") ||
			ns.Run(nf, "ct", "list") != "" {
			t.Errorf("loaded: status %d: %s", status, load.Stderr())
		}
		t.Log("this kernel does not track DCCP: refusals were tested")
		return
	}
	for _, want := range []string{"OPEN", "sport=1 dport=2"} {
		if status != 0 || !strings.Contains(out, want) || !strings.Contains(list, want) {
			t.Errorf("status %d, want %s: %s%s%s", status, want, out, words, list)
		}
	}
	ns.Run(nf, "ct", "create", "dccp 10.0.0.1:2 > 10.0.0.2:2", "--state", "REQUEST", "--set", "dccp.role=server",
		"--set", "dccp.handshake_seq=9", "--timeout", "1h")
	ns.Run(nf, "ct", "update", "dccp 10.0.0.1:2 >", "--set", "state=OPEN")
	saved := t.TempDir() + "/saved"
	restore := ns.Start("sh", "-c", nf+" ct save >"+saved+"; "+nf+" ct flush --all; "+nf+" ct load "+saved)
	if status := restore.Wait(); status != 0 {
		t.Errorf("saved and loaded: status %d: %s", status, restore.Stderr())
	}
	if json := ns.Run(nf, "ct", "list", "--sport", "2", "-o", "json"); !strings.Contains(json, `"state":"OPEN"`) ||
		!strings.Contains(json, `"dccp":{"role":"server","handshake_seq":9}`) {
		t.Errorf("%s", json)
	}
	if json := ns.Run(nf, "ct", "list", "--sport", "1", "-o", "json"); !strings.Contains(json, `"role":"client"`) {
		t.Errorf("%s", json)
	}
}

// TestCtUDPLite: as TestCtDCCP, of a protocol that kernels track up to some 7.2; an
// expectation of it must not lose its port either.
func TestCtUDPLite(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nf := nstest.Build(t)
	const m = "tcp 10.0.0.1:1000 > 10.0.0.2:6667"
	out, words, status := ns.Exec(nf, "ct", "create", "udplite 10.0.0.1:1 > 10.0.0.2:2", "--timeout", "1h")
	list := ns.Run(nf, "ct", "list", "-p", "udplite")
	expected, why, result := ns.Exec(nf, "expect", "create", "--create-master", "--helper", "irc", "--master", m,
		"udplite > 10.0.0.2:5000")
	if status == exitNotSupported {
		t.Log("this kernel does not track UDP-Lite: refusals are tested")
		if !strings.Contains(words, "does not track") || list != "" {
			t.Errorf("refused: %s%s", words, list)
		}
		if result != exitNotSupported || !strings.Contains(why, "does not track") ||
			ns.Run(nf, "expect", "count") != "0\n" || ns.Run(nf, "ct", "count") != "0\n" {
			t.Errorf("an expectation: status %d: %s%s", result, expected, why)
		}
		load := ns.Start("sh", "-c", "echo '-A -s 10.0.0.1 -d 10.0.0.2 -p udplite --sport 1 --dport 2 -t 100' | "+nf+
			" ct load")
		if status := load.Wait(); status != exitFailed || !strings.Contains(load.Stderr(), "line 1: ") ||
			ns.Run(nf, "ct", "list") != "" {
			t.Errorf("loaded: status %d: %s", status, load.Stderr())
		}
		return
	}
	if status != 0 || !strings.Contains(out, "sport=1 dport=2") || !strings.Contains(list, "sport=1 dport=2") {
		t.Errorf("status %d: %s%s%s", status, out, words, list)
	}
	if result != 0 || !strings.Contains(expected, "dport=5000") {
		t.Errorf("an expectation: status %d: %s%s", result, expected, why)
	}
}

// TestCtTwoZones: the kernel's refusal has its reason.
func TestCtTwoZones(t *testing.T) {
	t.Parallel()
	_, words, status := nstest.New(t).Exec(nstest.Build(t), "ct", "create", "udp 10.0.0.1:5 > 10.0.0.2:2",
		"--orig-zone", "3", "--reply-zone", "4")
	if status != exitFailed || !strings.Contains(words, "or of one of them, not two") {
		t.Errorf("status %d: %s", status, words)
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
		{"get|tcp 10.0.0.1:99 > 10.0.0.2:2", exitNotFound, "no such flow"},
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

// TestCtProtocolNames: what /etc/protocols calls a protocol is taken and said.
func TestCtProtocolNames(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	for _, c := range [][2]string{{"vrrp", "vrrp"}, {"ospf", "ospf"}, {"112", "vrrp"}, {"esp", "esp"}} {
		good(t, "ct", "flush", "--all")
		good(t, "ct", "create", c[0]+" 10.0.0.1 > 10.0.0.2", "-q")
		if out := good(t, "ct", "list", "-p", c[0], "-o", "json"); !strings.Contains(out, `"proto":"`+c[1]+`"`) {
			t.Errorf("%s: %s", c[0], out)
		}
		saved := good(t, "ct", "save")
		good(t, "ct", "flush", "--all")
		loaded(t, saved)
		if out := good(t, "ct", "list", "-o", "flow"); out != c[1]+" 10.0.0.1 > 10.0.0.2\n" {
			t.Errorf("%s: %s", c[0], out)
		}
	}
	good(t, "ct", "create", "ipv6-icmp fd00::1 > fd00::2 type 128 code 0 id 1", "-q")
	if out := good(t, "ct", "list", "-p", "ipv6-icmp", "-o", "json"); !strings.Contains(out, `"proto":"icmpv6"`) {
		t.Errorf("ipv6-icmp: %s", out)
	}
}

// TestCtVtags: verification tags are those of packets with create, list, JSON and --set;
// conntrack(8)'s numbers in lines of -o save and by its name, both ways.
func TestCtVtags(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	same := func(when string) {
		t.Helper()
		out := nfctl(t, ns, "ct", "list", "--orig-vtag", "0x1234", "--reply-vtag", "22136", "-o", "json")
		if !strings.Contains(out, `"vtag_orig":4660,"vtag_reply":22136`) {
			t.Errorf("%s: %q of %s", when, out, nfctl(t, ns, "ct", "list", "-o", "json"))
		}
	}
	create := []string{"ct", "create", "-q", "sctp 10.0.0.1:1 > 10.0.0.2:2", "-t", "1000s"}
	nfctl(t, ns, append(create, "--orig-vtag", "4660", "--reply-vtag", "0x5678")...)
	same("create")
	swapped := func(n uint32) string {
		b := binary.BigEndian.AppendUint32(nil, n)
		return fmt.Sprint(binary.NativeEndian.Uint32(b))
	}
	words := "--orig-vtag " + swapped(0x1234) + " --reply-vtag " + swapped(0x5678)
	line := nfctl(t, ns, "ct", "save")
	if !strings.Contains(line, " "+words) {
		t.Errorf("save: %s", line)
	}
	flush := func() { t.Helper(); nfctl(t, ns, "ct", "flush", "--all", "-q") }
	flush()
	file := filepath.Join(t.TempDir(), "saved")
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	nfctl(t, ns, "ct", "load", file)
	same("load")
	args := append(strings.Fields("-I -p sctp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 --state ESTABLISHED -t 1000"),
		strings.Fields(words)...)
	flush()
	nfctl(t, ns, append([]string{"compat", "conntrack"}, args...)...)
	same("the conntrack name")
	if _, err := exec.LookPath("conntrack"); err == nil {
		flush()
		ns.Run("conntrack", args...)
		same("conntrack(8)")
	}
	flush()
	if _, stderr, status := ns.Exec(nstest.Build(t), append(create, "--orig-vtag", "1")...); status == 0 ||
		!strings.Contains(stderr, "both verification tags") {
		t.Errorf("a lone tag: status %d, %s", status, stderr)
	}
}
