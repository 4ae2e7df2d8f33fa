package doctor

import (
	"os"
	"strings"
	"testing"

	"nfctl/internal/mark"
	"nfctl/internal/nft"
	"nfctl/internal/nstest"
	"nfctl/internal/queue"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// find returns the findings of a check.
func find(found []Finding, check string) (out []Finding) {
	for _, f := range found {
		if f.Check == check {
			out = append(out, f)
		}
	}
	return out
}

// want fails the test unless a check was found with a status and a text.
func want(t *testing.T, found []Finding, check, status, text string) {
	t.Helper()
	for _, f := range find(found, check) {
		if f.Status == status && strings.Contains(f.Text, text) {
			return
		}
	}
	t.Errorf("%s: %+v, want %s with %q", check, find(found, check), status, text)
}

func TestFreshNamespace(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	found := Examine()
	for _, f := range found {
		if f.Status == Fail {
			t.Errorf("%+v", f)
		}
		t.Logf("%-8s %s: %s (%s)", f.Status, f.Check, f.Text, f.Hint)
	}
	want(t, found, "privileges", OK, "with CAP_NET_ADMIN")
	want(t, found, "CAP_NET_RAW", OK, "copies")
	want(t, found, "queues", OK, "")
	want(t, found, "tracking table", OK, "")
	tab, err := nft.Attach([]nft.Spec{{Hook: nft.Input}}, nft.Queues{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	want(t, found, "--attach", map[bool]string{true: OK, false: Warn}[tab.Owned], "works by")
	want(t, found, "events", OK, "supported")
	want(t, found, "helpers", OK, "ftp")
	want(t, found, "bound queues", OK, "none")
	want(t, found, "tracking here", Warn, "no entry")
	if !Permitted(found) {
		t.Error("not permitted")
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	set := func(name, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/netfilter/"+name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, value, check, status, text string }{
		{"nf_conntrack_acct", "0", "counters", Warn, "counters are absent: net.netfilter.nf_conntrack_acct=0"},
		{"nf_conntrack_acct", "1", "counters", OK, "nf_conntrack_acct=1"},
		{"nf_conntrack_timestamp", "0", "timestamps", Warn, "absent"},
		{"nf_conntrack_timestamp", "1", "timestamps", OK, "know when they began"},
		{"nf_conntrack_events", "0", "event policy", Warn, "no events"},
		{"nf_conntrack_events", "1", "event policy", OK, "all flows"},
		{"nf_conntrack_events", "2", "event policy", OK, "older ones do not"},
	} {
		if c.name == "nf_conntrack_events" && c.value == "2" && !ns.EventsAuto() {
			t.Log("this kernel has no nf_conntrack_events=2")
			continue
		}
		set(c.name, c.value)
		d := &doctor{}
		d.settings()
		want(t, d.found, c.check, c.status, c.text)
	}
}

func TestRulesAndQueues(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "iptables", "nft")
	ns := nstest.Enter(t)
	ns.Run("iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "9", "-j", "NFQUEUE", "--queue-num", "5")
	ns.Run("iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "10", "-j", "NFQUEUE", "--queue-balance", "6:7",
		"--queue-bypass")
	ns.Run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "ACCEPT")
	for _, n := range []uint16{6, 8} {
		q, err := queue.Open(queue.Config{Num: n})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
	}
	found := Examine()
	want(t, found, "fed queue 5", Warn, "packets are dropped")
	want(t, found, "fed queue 7", OK, "bypass")
	want(t, found, "queue 6", OK, "bound by process")
	for _, f := range find(found, "queue 6") {
		if f.Status != OK {
			t.Errorf("a queue that is bound and fed: %+v", f)
		}
	}
	want(t, found, "queue 8", Warn, "no rule feeds it")
	want(t, found, "tracking here", OK, "")
	if n := len(find(found, "base chains")); n != 1 {
		t.Errorf("%d findings on base chains", n)
	}
}

// TestRefusals: rules that queue what a reject sends back are named, each with
// what mends it; as soon as that is done, and for rules that such packets do not
// meet, nothing is said.
func TestRefusals(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "iptables", "ip6tables", "nft")
	for _, tt := range []struct {
		name  string
		rules [][]string
		hint  string // "": no finding
	}{
		{"iptables", [][]string{{"iptables", "-A", "OUTPUT", "-p", "tcp", "-j", "NFQUEUE"}}, "iptables -t filter -I OUTPUT"},
		{"ip6tables, mangle, later", [][]string{{"ip6tables", "-t", "mangle", "-A", "POSTROUTING", "-j", "NFQUEUE"}}, "ip6tables -t mangle -I POSTROUTING"},
		{"a chain of its own", [][]string{{"iptables", "-N", "Q"}, {"iptables", "-A", "Q", "-j", "NFQUEUE"}, {"iptables", "-A", "OUTPUT", "-j", "Q"}}, "iptables -t filter -I Q "},
		{"a chain that nothing enters", [][]string{{"iptables", "-N", "Q"}, {"iptables", "-A", "Q", "-j", "NFQUEUE"}}, ""},
		{"established", [][]string{{"iptables", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "NFQUEUE"}}, "iptables -t filter"},
		{"new ones", [][]string{{"iptables", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "NFQUEUE"}}, ""},
		{"udp", [][]string{{"iptables", "-A", "OUTPUT", "-p", "udp", "-j", "NFQUEUE"}}, ""},
		{"a port that is connected to", [][]string{{"iptables", "-A", "OUTPUT", "-p", "tcp", "--dport", "22", "-j", "NFQUEUE"}}, ""},
		{"forward", [][]string{{"iptables", "-A", "FORWARD", "-j", "NFQUEUE"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.Enter(t)
			for _, r := range tt.rules {
				ns.Run(r[0], r[1:]...)
			}
			refusals := func() []Finding { return find(Examine(), "refusals") }
			got := refusals()
			if tt.hint == "" {
				if len(got) != 0 {
					t.Errorf("%+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Status != Warn || !strings.Contains(got[0].Hint, tt.hint) {
				t.Fatalf("%+v, want %q", got, tt.hint)
			}
			_, command, _ := strings.Cut(got[0].Hint, ": ")
			ns.Run("sh", "-c", command)
			if got := refusals(); len(got) != 0 {
				t.Errorf("mended by %q: %+v", command, got)
			}
		})
	}
	t.Run("nft", func(t *testing.T) {
		t.Parallel()
		ns := nstest.Enter(t)
		if _, stderr, status := ns.Exec("nft", "add table inet t; add chain inet t c { type filter hook output "+
			"priority 0; }; add rule inet t c queue num 3"); status != 0 {
			t.Skipf("this kernel has no queue statement: %s", stderr)
		}
		got := find(Examine(), "refusals")
		if len(got) != 1 {
			t.Fatalf("%+v", got)
		}
		_, command, _ := strings.Cut(got[0].Hint, ": ")
		ns.Run("sh", "-c", command)
		if got := find(Examine(), "refusals"); len(got) != 0 {
			t.Errorf("mended by %q: %+v", command, got)
		}
	})
	t.Run("nfctl's own", func(t *testing.T) {
		t.Parallel()
		nstest.Enter(t)
		spec, err := nft.Parse("output")
		if err != nil {
			t.Fatal(err)
		}
		table, err := nft.Attach([]nft.Spec{spec}, nft.Queues{First: 3, Last: 3}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		if got := find(Examine(), "refusals"); len(got) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// TestOverwrittenVerdicts: chains whose rules write the bits in which verdicts on flows
// stand are named, and no others.
func TestOverwrittenVerdicts(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "iptables", "nft")
	ns := nstest.Enter(t)
	ns.Run("nft", "add table inet t; add chain inet t out { type filter hook output priority 3; }; add chain "+
		"inet t in { "+
		"type filter hook input priority 3; }")
	overwritten := func() []Finding { return find(Examine(), "verdicts on flows") }
	spec, err := nft.Parse("output udp >")
	if err != nil {
		t.Fatal(err)
	}
	table, err := nft.Attach([]nft.Spec{spec}, nft.Queues{}, &mark.Codes{Mask: 0xf0000000,
		List: []mark.Code{{Verdict: mark.AcceptFlow}}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for _, c := range []struct {
		rule string
		bits string // "": not named
	}{
		{"iptables -t mangle -A POSTROUTING -j CONNMARK --save-mark", "0xffffffff"},
		{"iptables -t mangle -A POSTROUTING -j CONNMARK --save-mark --mask 0xff", ""},
		{"iptables -t mangle -A POSTROUTING -j CONNMARK --restore-mark", ""},
		{"iptables -t mangle -A POSTROUTING -j CONNMARK --set-xmark 0x3/0xc0000003", "0xc0000003"},
		{"nft add rule inet t out ct mark set 5", "0xffffffff"},
		{"nft add rule inet t out ct mark set meta mark", "0xffffffff"},
		{"nft add rule inet t out ct mark set ct mark and 0x00ffffff or 0x3", "0xff000003"},
		{"nft add rule inet t out ct mark set ct mark or 0x3", ""},
		{"nft add rule inet t in ct mark and 0xf == 3 meta mark set ct mark", ""},
	} {
		ns.Run("sh", "-c", c.rule)
		got := overwritten()
		if c.bits == "" && len(got) != 0 || c.bits != "" && (len(got) != 1 || got[0].Status != Warn ||
			!strings.Contains(got[0].Text, "write bits "+c.bits+" ")) {
			t.Errorf("%s: %+v, want bits %q", c.rule, got, c.bits)
		}
		ns.Run("sh", "-c", "iptables -t mangle -F; nft 'flush chain inet t out; flush chain inet t in'")
	}
}

// TestOwnTables: each table of nfctl's own is told of, with its bits of marks, and two that
// use the same.
func TestOwnTables(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	var names []string
	for i, c := range []struct {
		spec  string
		codes *mark.Codes
	}{
		{"output udp >", nil},
		{"forward", &mark.Codes{Mask: 0xf0000000, List: []mark.Code{{Verdict: mark.AcceptFlow, Value: 5, Mask: 0xff}, {Verdict: mark.Reject}}}},
		{"input priority -10", &mark.Codes{Mask: 0x0f000000, List: []mark.Code{{}, {Verdict: mark.Reject}}}},
		{"output ip", &mark.Codes{Mask: 0xff000000, List: []mark.Code{{Verdict: mark.DropFlow}}}},
	} {
		spec, err := nft.Parse(c.spec)
		if err != nil {
			t.Fatal(err)
		}
		table, err := nft.Attach([]nft.Spec{spec}, nft.Queues{First: uint16(i), Last: uint16(i + i%2)}, c.codes)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		names = append(names, table.Name)
	}
	if names[3] != names[0] {
		t.Fatalf("%v: want a name in two families", names)
	}
	found := Examine()
	want(t, found, "table "+names[0], OK, "(inet) at output priority 0, feeds queue 0")
	want(t, found, "table "+names[1], OK, "at forward priority 0, feeds queue 1-2, uses bits 0xf0000000 of packets' "+
		"marks, keeps verdicts on flows in bits 0xc0000000 of connections' marks, sets bits 0xff of connections' marks")
	want(t, found, "table "+names[2], OK, "at input priority -10, feeds queue 2, uses bits 0xf000000 of packets' marks")
	want(t, found, "table "+names[3], Warn, "(ip) at output priority 0, feeds queue 3-4, uses bits 0xff000000 of "+
		"packets' marks, keeps verdicts on flows in bits 0xc0000000 of connections' marks; "+
		"table "+names[1]+" uses bits 0xc0000000 too")
	for name, without := range map[string]string{names[0]: "queue 0, uses", names[2]: "connections'"} {
		for _, f := range find(found, "table "+name) {
			if strings.Contains(f.Text, without) {
				t.Errorf("%+v", f)
			}
		}
	}
}
