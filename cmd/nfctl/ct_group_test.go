package main

import (
	"regexp"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

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
