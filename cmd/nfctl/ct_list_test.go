package main

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

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
