package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// sortedTraffic makes flows of several networks, protocols, states and sizes in ns, some
// without counters.
func sortedTraffic(t *testing.T, ns *nstest.NS) {
	t.Helper()
	nf := nstest.Build(t)
	ns.Run("sh", "-c", "echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct")
	ns.Run("nft", "add table inet t; add chain inet t o { type filter hook output priority 0; }; add rule inet t o ct "+
		"state invalid drop")
	for i, addr := range []string{"127.0.0.1:1111", "127.0.1.1:1111", "127.0.1.2:2222", "127.0.2.1:3333",
		"[::1]:1111"} {
		at := ns.UDPEcho(addr)
		for n := range 3 {
			if _, ok := ns.Ask(at, strings.Repeat("x", 10*i+n), nstest.Patience); !ok {
				t.Fatal("no answer")
			}
		}
	}
	ns.Run("sh", "-c", "echo 0 >/proc/sys/net/netfilter/nf_conntrack_acct")
	for i, state := range []string{"SYN_SENT", "ESTABLISHED", "CLOSE_WAIT", "ESTABLISHED"} {
		ns.Run(nf, "ct", "create", fmt.Sprintf("tcp 10.0.%d.%d:4%d > 10.9.0.1:443", i%2, i+1, i), "--state", state,
			"--mark", fmt.Sprint(7*i%5))
		ns.Run(nf, "ct", "create", fmt.Sprintf("tcp [2001:db8:%d::%d]:5%d > [2001:db8:9::1]:443", i%2, i+1, i),
			"--state", state)
	}
}

// jq runs a jq program over the JSON Lines of in.
func jq(t *testing.T, in, program string) string {
	t.Helper()
	c := exec.Command("jq", "-c", "-s", program)
	c.Stdin = strings.NewReader(in)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("jq %s: %v: %s", program, err, out)
	}
	return string(out)
}

// What --sort and --limit list is what jq makes of the whole list, and so are groups.
func TestCtSort(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft", "jq")
	ns := nstest.New(t)
	sortedTraffic(t, ns)
	nf := nstest.Build(t)
	const (
		fields = "proto,state,orig.src,orig.sport,orig.dst,orig.dport,orig.bytes,reply.bytes,orig.packets," +
			"reply.packets,mark,packets,bytes"
		// Addresses are compared as numbers, so only keys that are none are sorted here.
		sum = `map(.s = (if .orig.bytes then .orig.bytes + .reply.bytes else null end) |
			.p = (if .orig.packets then .orig.packets + .reply.packets else null end)) | `
	)
	list := func(args ...string) string {
		return ns.Run(nf, append([]string{"ct", "list", "-o", "json", "--fields", fields}, args...)...)
	}
	all := list()
	if n := strings.Count(all, "\n"); n != 23 {
		t.Fatalf("%d flows:\n%s", n, all)
	}
	if bad := jq(t, all, sum+`map(select(.s != .bytes or .p != .packets)) | length`); bad != "0\n" {
		t.Errorf("sums: %s differ:\n%s", bad, all)
	}
	for _, c := range []struct{ sort, key, keys string }{
		{"bytes", ".s", "sort_by(.s)"},
		{"bytes:desc", ".s", "sort_by(-.s)"},
		{"packets:desc,orig.bytes", "[.p, .orig.bytes]", "sort_by(-.p, .orig.bytes)"},
		{"state", ".state", "sort_by(.state)"},
		{"proto:desc,orig.sport:desc", "[.proto, .orig.sport]", "sort_by(.proto, .orig.sport) | reverse"},
		{"mark,orig.sport", "[.mark, .orig.sport]", "sort_by(.mark, .orig.sport)"},
		{"orig.dport:asc, orig.sport:desc", "[.orig.dport, .orig.sport]", "sort_by(.orig.dport, -.orig.sport)"},
	} {
		// jq puts what is not there first, nfctl last.
		first, _, _ := strings.Cut(strings.Trim(c.key, "[]"), ",")
		program := sum + fmt.Sprintf("(map(select(%s != null)) | %s) + map(select(%[1]s == null)) | ", first, c.keys)
		for _, n := range []int{0, 1, 5, 22, 100} {
			args, cut := []string{"--sort", c.sort}, ""
			if n > 0 {
				args, cut = append(args, "--limit", fmt.Sprint(n)), fmt.Sprintf(".[:%d] | ", n)
			}
			got := jq(t, list(args...), sum+"map("+c.key+")")
			if want := jq(t, all, program+cut+"map("+c.key+")"); got != want {
				t.Errorf("--sort %s --limit %d:\n%swant\n%s", c.sort, n, got, want)
			}
		}
	}
	// Flows that are alike have one order, so that two lists can be compared.
	if a, b := list("--sort", "orig.dport"), list("--sort", "orig.dport"); a != b {
		t.Errorf("two lists:\n%s%s", a, b)
	}
	got := jq(t, list("--sort", "orig.src", "-p", "tcp"), `map(.orig.src)`)
	if want := `["10.0.0.1","10.0.0.3","10.0.1.2","10.0.1.4","2001:db8::1","2001:db8::3","2001:db8:1::2",` +
		`"2001:db8:1::4"]` + "\n"; got != want {
		t.Errorf("addresses: %swant %s", got, want)
	}
	if n := strings.Count(ns.Run(nf, "ct", "list", "--limit", "4"), "\n"); n != 4 {
		t.Errorf("--limit 4: %d flows", n)
	}
	lines := strings.Split(ns.Run(nf, "ct", "list", "-o", "table", "--sort", "bytes:desc", "--limit", "2"), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "PROTO") || !strings.Contains(lines[1], "[::1]") {
		t.Errorf("a table: %q", lines)
	}

	group := func(args ...string) string {
		return jq(t, ns.Run(nf, append([]string{"ct", "list", "-o", "json"}, args...)...), "map(del(.kind))")
	}
	const members = "{count: length, packets: map(.p) | add, bytes: map(.s) | add} | " +
		"with_entries(select(.value != null))"
	byPort := sum + "group_by(.orig.dport) | map({orig: {dport: .[0].orig.dport}} + (" + members + "))"
	if got, want := group("--group-by", "orig.dport", "--sort", "orig.dport"), jq(t, all, byPort); got != want {
		t.Errorf("by port: %swant %s", got, want)
	}
	want := jq(t, all, byPort+" | map(select(.bytes)) | sort_by(-.bytes) | .[:2]")
	if got := group("--group-by", "orig.dport", "--sort", "bytes:desc", "--top", "2"); got != want {
		t.Errorf("the two largest: %swant %s", got, want)
	}
	if got := group("--group-by", "orig.dport", "--sort", "bytes:desc", "--limit", "2"); got != want {
		t.Errorf("the two largest, by --limit: %swant %s", got, want)
	}
	nets := sum + `map(.n = (.orig.dst | if test(":") then . else sub("[0-9]+$"; "0/24") end)) | group_by(.n) |` +
		` map({orig: {dst: .[0].n}} + (` + members + `))`
	if got, want := group("--group-by", "orig.dst/24", "--sort", "orig.dst"), jq(t, all, nets); got != want {
		t.Errorf("networks: %swant %s", got, want)
	}
	both := group("--group-by", "orig.src/16/48,proto", "-p", "tcp", "--sort", "orig.src")
	if want := `[{"orig":{"src":"10.0.0.0/16"},"proto":"tcp","count":4},` +
		`{"orig":{"src":"2001:db8:1::/48"},"proto":"tcp","count":2},` +
		`{"orig":{"src":"2001:db8::/48"},"proto":"tcp","count":2}]` + "\n"; both != want {
		t.Errorf("networks of both families: %swant %s", both, want)
	}
	// The one host that takes most bytes, behind hosts with more flows.
	if got := group("--group-by", "orig.dst", "--top", "1", "--sort", "bytes:desc"); !strings.Contains(got, `"::1"`) {
		t.Errorf("the largest: %s", got)
	}
	for _, c := range [][]string{
		{"orig.sorce", "--sort", "orig.sorce"}, {"bytes:down", "--sort", "bytes:down"}, {`""`, "--sort", "bytes,"},
		{"--zero", "--zero", "--limit", "3"}, {"--top", "--group-by", "proto", "--top", "1", "--limit", "1"},
		{"orig.src/0", "--group-by", "orig.src/0"}, {"proto/24", "--group-by", "proto/24"},
		{"orig.src/24/24/24", "--group-by", "orig.src/24/24/24"}, {"orig.src/129", "--group-by", "orig.src/129"},
		{"orig.src/24", "--group-by", "orig.src,orig.src/24"}, {"mark", "--group-by", "proto", "--sort", "mark"},
	} {
		out, errs, status := ns.Exec(nf, append([]string{"ct", "list"}, c[1:]...)...)
		if status != exitUsage || out != "" || !strings.Contains(errs, c[0]) {
			t.Errorf("%q: status %d: %s%s", c[1:], status, out, errs)
		}
	}
}
