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

// What a list says of flows must be so, and what is not known must not be said.

// TestCtIdle: no flow is said to be idle for longer than it exists, and what is
// deleted by idle is told what that rests on.
func TestCtIdle(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	good(t, "ct", "create", "tcp 1.1.1.1:1 > 2.2.2.2:2", "--timeout", "1h", "-q")
	for _, verb := range []string{"delete", "update --set mark=1"} {
		out, errs, status := call(append(append([]string{"ct"}, strings.Fields(verb)...), "--filter", "idle > 3600")...)
		if status != 0 || out != "" || !strings.Contains(errs, "0 flows") || !strings.Contains(errs, "idle rests on") {
			t.Errorf("%s: status %d: %s%s", verb, status, out, errs)
		}
	}
	if out := good(t, "ct", "list", "--fields", "idle,timeout", "-o", "json"); strings.Contains(out, "idle") ||
		!strings.Contains(out, `"timeout":3`) {
		t.Errorf("idle is told: %s", out)
	}
	if out := good(t, "ct", "get", "tcp 1.1.1.1:1 > 2.2.2.2:2", "--fields", "idle,timeout", "-o",
		"json"); strings.Contains(out, "idle") {
		t.Errorf("idle is told: %s", out)
	}
	_, errs, _ := call("ct", "delete", "--mark", "5")
	if strings.Contains(errs, "idle") {
		t.Errorf("idle, unasked: %s", errs)
	}
	if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_timestamp", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	good(t, "ct", "create", "tcp 1.1.1.1:1 > 2.2.2.2:3", "--timeout", "3d", "-q")
	if out := good(t, "ct", "list", "--dport", "3", "--fields", "idle,age", "-o",
		"json"); strings.Contains(out, "idle") || !strings.Contains(out, "age") {
		t.Errorf("idle for longer than it exists: %s", out)
	}
	if out := good(t, "ct", "get", "tcp 1.1.1.1:1 > 2.2.2.2:3", "--fields", "age", "-o", "json"); !strings.Contains(out,
		"age") {
		t.Errorf("get tells no age: %s", out)
	}
	good(t, "ct", "create", "tcp 1.1.1.1:1 > 2.2.2.2:4", "--timeout", "5d", "-q")
	if out := good(t, "ct", "list", "--dport", "4", "--fields", "idle", "-o", "json"); !strings.Contains(out,
		`"idle":0`) {
		t.Errorf("a flow with its whole timeout: %s", out)
	}
	if out := good(t, "help", "timeouts"); !strings.Contains(out, "cannot be known") {
		t.Error("there is no help on timeouts")
	}
}

// TestCtWatchTimeouts: flags that mean something else for a list are told.
func TestCtWatchTimeouts(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	_, errs, status := call("ct", "watch", "--timeout", "3s", "--duration", "10ms")
	if status != 0 || !strings.Contains(errs, "--duration") {
		t.Errorf("--timeout: status %d: %s", status, errs)
	}
	_, errs, status = call("ct", "watch", "--filter", "idle > 3", "--duration", "10ms")
	if status != exitUsage || !strings.Contains(errs, "idle") {
		t.Errorf("idle: status %d: %s", status, errs)
	}
}

// TestCtNATPorts: both ends of a translated end are told, also what was kept.
func TestCtNATPorts(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	good(t, "ct", "create", "udp 10.0.0.1:4000 > 10.0.0.2:53", "--set", "snat-ipv4=192.0.2.1")
	good(t, "ct", "create", "udp 10.0.0.1:4001 > 10.0.0.2:53", "--set", "dnat-port=5353")
	for _, c := range [][2]string{
		{"4000", `"nat":{"src":"192.0.2.1","sport":4000}`}, {"4001", `"nat":{"dst":"10.0.0.2","dport":5353}`},
	} {
		if out := good(t, "ct", "list", "--sport", c[0], "-o", "json"); !strings.Contains(out, c[1]) {
			t.Errorf("%s: no %s in %s", c[0], c[1], out)
		}
	}
	if out := good(t, "ct", "list", "--filter", "nat.sport == 4000", "-o", "flow"); !strings.Contains(out,
		"10.0.0.1:4000") {
		t.Errorf("nat.sport == 4000 finds %q", out)
	}
	// What was kept is not asked for again.
	if out := good(t, "ct", "save", "--sport", "4000"); strings.Contains(out, "snat-port") {
		t.Errorf("saved as %s", out)
	}
}

// TestCtFiguresOfProc: what any user may read, any user is told.
func TestCtFiguresOfProc(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "unshare")
	ns := nstest.New(t)
	nf := nstest.Build(t)
	ns.Run(nf, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:2", "-q")
	for args, want := range map[string]string{"ct count": "1\n", "ct count -o json": `"count":1,"max":`,
		"ct stats -o json": `"insert_failed":0`, "expect stats -o json": `"create":0`,
		"compat conntrack -C": "1\n", "compat conntrack -S": "insert_failed=0"} {
		out, errs, status := ns.Exec("unshare", append([]string{"-U", nf}, strings.Fields(args)...)...)
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: status %d: no %q in %s%s", args, status, want, out, errs)
		}
	}
}

// TestCtSaveICMP: two pings of one identifier behind one address come back as they
// were, from lines and from JSON.
func TestCtSaveICMP(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	for _, c := range [][2]string{{"icmp 10.0.0.1 > 10.0.0.9 type 8 code 0 id 7", "7"},
		{"icmp 10.0.0.2 > 10.0.0.9 type 8 code 0 id 7", "9001"}} {
		good(t, "ct", "create", c[0], "--timeout", "1h", "--set", "snat-ipv4=192.0.2.1", "--set", "snat-port="+c[1])
	}
	good(t, "ct", "create", "icmpv6 fd00::1 > fd00::9 type 128 code 0 id 7", "--timeout", "1h", "--set",
		"snat-ipv6=fd01::1", "--set", "snat-port=5000")
	before := sortedLines(good(t, "ct", "list"), `icmp(v6)? +\d+ \d+ `, "")
	if all := strings.Join(before, "\n"); !strings.Contains(all, "id=9001") || !strings.Contains(all, "id=5000") {
		t.Fatalf("not translated: %s", all)
	}
	for _, form := range []string{"save", "json"} {
		saved := good(t, "ct", "save", "-o", form)
		good(t, "ct", "flush", "--all")
		loaded(t, saved)
		differ(t, form, sortedLines(good(t, "ct", "list"), `icmp(v6)? +\d+ \d+ `, ""), before)
	}
	if out := good(t, "ct", "list", "--filter", "nat.sport == 9001", "-o", "flow"); !strings.Contains(out, "10.0.0.2") {
		t.Errorf("nat.sport == 9001 finds %q", out)
	}
}

// TestCtLoadWithoutState: of a flow whose state was not told the windows are not
// known either.
func TestCtLoadWithoutState(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	loaded(t,
		"-A -u SEEN_REPLY,ASSURED -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1 --dport 5001 "+
			"--reply-port-src 5001 --reply-port-dst 1\n"+
			`{"family":"ipv4","proto":"tcp","orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":2,"dport":5001},"status":["SEEN_REPLY","ASSURED","CONFIRMED","OFFLOAD"]}`+"\n"+
			"-A -u SEEN_REPLY,ASSURED -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 3 --dport 5001 --state ESTABLISHED\n"+
			"-A -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 4 --dport 5001\n")
	out := good(t, "ct", "list", "--fields", "orig.sport,state,tcp.flags_orig,tcp.flags_reply", "-o", "tsv")
	got := sortedLines(out)
	want := []string{"1\tESTABLISHED\tBE_LIBERAL\tBE_LIBERAL", "2\tESTABLISHED\tBE_LIBERAL\tBE_LIBERAL",
		"3\tESTABLISHED", "4\tESTABLISHED"}
	for i, w := range want {
		if i >= len(got) || strings.TrimSpace(got[i]) != w {
			t.Fatalf("got %q, want %q in front", out, w)
		}
	}
}

// TestCtZones: flows with a zone of one direction are told apart, found and left
// alone by what is about both.
func TestCtZones(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	for _, f := range []string{
		"udp 10.0.0.1:1 > 10.0.0.9:1 orig-zone 7", "udp 10.0.0.1:1 > 10.0.0.8:1 orig-zone 3", "udp 10.0.0.1:2 > 10.0.0.2:2 reply-zone 8",
		"udp 10.0.0.1:3 > 10.0.0.2:3 zone 5", "udp 10.0.0.1:4 > 10.0.0.2:4",
	} {
		good(t, "ct", "create", f, "-q")
		if out := good(t, "ct", "list", f, "-o", "flow"); out != f+"\n" {
			t.Errorf("%s is listed as %q", f, out)
		}
		if out := good(t, "ct", "get", f, "-o", "flow"); out != f+"\n" {
			t.Errorf("get of %s: %q", f, out)
		}
	}
	find := func(args ...string) string {
		return strings.Join(sortedLines(good(t, append([]string{"ct", "list", "--fields", "orig.sport,orig.dst", "-o",
			"tsv"}, args...)...), "10.0.0.", ""), " ")
	}
	for _, c := range [][2]string{
		{"--zone 0", "4\t2"}, {"--zone 5", "3\t2"}, {"--zone 7", ""}, {"--orig-zone 7", "1\t9"}, {"--reply-zone 8", "2\t2"},
		{"--reply-zone 0", "1\t8 1\t9 3\t2 4\t2"}, {"--orig-zone 0", "2\t2 3\t2 4\t2"}, {"--orig-zone !7", "1\t8 2\t2 3\t2 4\t2"}, {"--orig-zone !0", "1\t8 1\t9"},
	} {
		if got := find(strings.Fields(c[0])...); strings.TrimSpace(strings.ReplaceAll(got, "orig.sport\torig.dst",
			"")) != c[1] {
			t.Errorf("%s: %q, want %q", c[0], got, c[1])
		}
	}
	if out := good(t, "ct", "list", "--orig-zone", "3", "-o", "json"); strings.Contains(out, `"zone":0`) ||
		!strings.Contains(out, `"zone":3`) {
		t.Errorf("of orig-zone 3: %s", out)
	}
	// The other direction's tuple finds it too, where the zone is said.
	if out := good(t, "ct", "get", "udp 10.0.0.2:2 > 10.0.0.1:2", "--reply-zone", "8", "-o",
		"flow"); out != "udp 10.0.0.1:2 > 10.0.0.2:2 reply-zone 8\n" {
		t.Errorf("by the reply: %q", out)
	}
	for _, not := range [][]string{{"udp 10.0.0.2:2 > 10.0.0.1:2"}, {"udp 10.0.0.1:1 > 10.0.0.9:1"},
		{"udp 10.0.0.1:4 > 10.0.0.2:4", "--reply-zone", "9"}, {"udp 10.0.0.1:1 > 10.0.0.9:1 orig-zone 6"}} {
		if out, errs, status := call(append([]string{"ct", "get"}, not...)...); status != exitNotFound {
			t.Errorf("%v: status %d: %s%s", not, status, out, errs)
		}
	}
	before := sortedLines(good(t, "ct", "list", "-o", "flow"))
	for _, form := range []string{"save", "json"} {
		saved := good(t, "ct", "save", "-o", form)
		good(t, "ct", "flush", "--all")
		loaded(t, saved)
		differ(t, form, sortedLines(good(t, "ct", "list", "-o", "flow")), before)
	}
	if _, errs, _ := call("ct", "delete", "--zone", "0"); !strings.Contains(errs, "1 flow deleted") {
		t.Errorf("--zone 0: %s", errs)
	}
	if _, errs, _ := call("ct", "delete", "udp > orig-zone 7"); !strings.Contains(errs, "1 flow deleted") {
		t.Errorf("orig-zone 7: %s", errs)
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

// TestCtSmallThings are texts that were refused.
func TestCtSmallThings(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	loaded(t, "\ufeff-A -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 2 -t 60 -u SEEN_REPLY\n")
	good(t, "ct", "create", "udp 10.0.0.1:3 > 10.0.0.2:4", "-q")
	good(t, "ct", "create", "udp 10.0.0.1:5 > 10.0.0.2:6", "--status", "ASSURED", "-q")
	for _, args := range [][]string{{"--status", "!SEEN_REPLY,!ASSURED"}, {"--status", "!SEEN_REPLY,ASSURED"},
		{"--dport", "!2,!6"}} {
		if out := good(t, append([]string{"ct", "list", "-o", "flow"},
			args...)...); out != "udp 10.0.0.1:3 > 10.0.0.2:4\n" {
			t.Errorf("%v: %s", args, out)
		}
	}
}

// TestStreamOfGoneNamespace: what follows a namespace ends with its name, and does
// not keep it alive.
func TestStreamOfGoneNamespace(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "ip")
	if os.Geteuid() != 0 || os.Getenv("NFCTL_TEST_INNER") != "" {
		t.Skip("names of network namespaces need root")
	}
	ns := nstest.New(t)
	nf := nstest.Build(t)
	for _, again := range []bool{false, true} {
		name := fmt.Sprintf("nfctl-test-%d-%v", os.Getpid(), again)
		ns.Run("ip", "netns", "add", name)
		t.Cleanup(func() { ns.Exec("ip", "netns", "del", name) })
		var procs []*nstest.Proc
		for i, args := range []string{"ct watch", "expect watch", "watch", "queue --num 0"} {
			ready := filepath.Join(t.TempDir(), fmt.Sprint(i))
			procs = append(procs, ns.Start(nf, append(append([]string{"--netns", name}, strings.Fields(args)...),
				"--ready-file", ready)...))
			nstest.WaitFile(t, ready)
		}
		procs = append(procs, ns.Start(nf, "--netns", name, "ct", "stats", "--interval", "1h"))
		procs[4].WaitOutput("insert")
		for _, p := range procs {
			if p.Ended() {
				t.Errorf("ended at once: %s", p.Stderr())
			}
		}
		ns.Run("ip", "netns", "del", name)
		if again {
			ns.Run("ip", "netns", "add", name)
		}
		for _, p := range procs {
			if status := p.Wait(); status != exitFailed || !strings.Contains(p.Stderr(), "namespace is gone") {
				t.Errorf("status %d: %s", status, p.Stderr())
			}
		}
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
