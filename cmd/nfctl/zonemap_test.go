package main

import (
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// Flows and expectations go from one zone to another, saved or loaded with --zone-map.
func TestZoneMap(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	bin := nstest.Build(t)
	ns.Run(bin, "ct", "create", "-q", "udp 10.0.0.1:1 > 10.0.0.2:53", "--zone", "11", "--mark", "7")
	ns.Run(bin, "ct", "create", "-q", "udp 10.0.0.3:1 > 10.0.0.2:53")
	ns.Run(bin, "ct", "create", "-q", "udp 10.0.0.4:1 > 10.0.0.2:53", "--orig-zone", "11")
	ns.Run(bin, "expect", "create", "-q", "--create-master", "--helper", "ftp", "--zone", "11", "--master",
		"tcp 10.0.0.1:1 > 10.0.0.2:21", "tcp > 10.0.0.2:5000")
	for _, form := range []string{"save", "json"} {
		out, stderr, status := ns.Exec("sh", "-c", bin+" ct save -o "+form+
			" --zone 11 --zone-map 11:12,5:6 | "+bin+" ct load -q - && "+bin+
			" expect save -o "+form+" --zone 11 --zone-map 11:12 | "+bin+" expect load -q -")
		if status != 0 {
			t.Fatalf("%s: status %d: %s%s", form, status, out, stderr)
		}
		if got := ns.Run(bin, "ct", "list", "--zone", "12", "-o", "flow"); strings.Count(got, "10.0.0.1:1 > ") != 2 ||
			!strings.Contains(ns.Run(bin, "ct", "list", "--zone", "12", "-o", "json"), `"mark":7`) {
			t.Errorf("%s: %s", form, got)
		}
		if got := ns.Run(bin, "expect", "list", "--zone", "12", "-o", "json"); strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %s", form, got)
		}
		ns.Run(bin, "ct", "delete", "-q", "--zone", "12")
	}
	// The same while loading; zone 0 counts as well, and what has no pair stays.
	out, stderr, status := ns.Exec("sh", "-c", bin+" ct save | "+bin+" ct load -q --zone-map 11:0,0:13 -")
	if status != 0 {
		t.Fatalf("status %d: %s%s", status, out, stderr)
	}
	if got := ns.Run(bin, "ct", "list", "--zone", "13", "-o", "flow"); !strings.Contains(got, "10.0.0.3:1") {
		t.Errorf("from zone 0: %s", got)
	}
	got := ns.Run(bin, "ct", "list", "--zone", "0", "-o", "flow", "-p", "udp")
	if !strings.Contains(got, "10.0.0.1:1") {
		t.Errorf("to zone 0: %s", got)
	}
	for _, bad := range []string{"11", "11:x", "70000:1", "1:2,1:3", ""} {
		if _, stderr, status := ns.Exec(bin, "ct", "save", "--zone-map", bad); status != exitUsage {
			t.Errorf("%q: status %d: %s", bad, status, stderr)
		}
	}
}
