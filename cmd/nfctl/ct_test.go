package main

import (
	"regexp"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

const (
	anyTimeout = `-t \d+ `
	anyLabels  = ` --label-add \S+`
)

// TestCtNotPermitted says that something was done only when it was.
func TestCtNotPermitted(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "unshare")
	ns := nstest.New(t)
	nf := nstest.Build(t)
	ns.Run(nf, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:2")
	for _, args := range [][]string{{"flush", "--all"}, {"flush", "-f", "ipv4"}, {"flush", "--zone", "1"},
		{"delete", "--all"}, {"delete", "--all", "-q"},
		{"create", "tcp 10.0.0.1:3 > 10.0.0.2:2"}, {"update", "--set", "mark=1"}, {"list"}, {"count", "-p", "tcp"}} {
		out, errs, status := ns.Exec("unshare", append([]string{"-U", nf, "ct"}, args...)...)
		if status != exitPermission || out != "" || !strings.Contains(errs, "not permitted") ||
			regexp.MustCompile(`flushed|\b1 flow|made`).MatchString(errs) {
			t.Errorf("%v: status %d: %s%s", args, status, out, errs)
		}
	}
	if n := strings.TrimSpace(ns.Run(nf, "ct", "count")); n != "1" {
		t.Errorf("%s flows, want 1", n)
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
