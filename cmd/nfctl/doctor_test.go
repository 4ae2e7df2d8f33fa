package main

import (
	"encoding/json"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

func TestDoctor(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "setpriv", "nft")
	ns := nstest.Enter(t)
	out, errText, status := call("doctor", "-o", "json")
	if status != 0 || errText != "" {
		t.Fatalf("%d %s", status, errText)
	}
	seen := map[string]string{}
	for line := range strings.Lines(out) {
		var f struct{ Kind, Status, Check, Text string }
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Kind != "doctor" || f.Text == "" {
			t.Errorf("%v: %s", err, line)
		}
		seen[f.Check] = f.Status
	}
	attach := "ok"
	if ns.Start("nft", "add table ip probe { flags owner; }").Wait() != 0 { // before Linux 5.12
		t.Log("this kernel has no tables with an owner")
		attach = "warn"
	}
	for check, want := range map[string]string{"privileges": "ok", "queues": "ok", "--attach": attach,
		"tracking table": "ok", "tracking here": "warn", "bound queues": "ok"} {
		if seen[check] != want {
			t.Errorf("%s: %q, want %s", check, seen[check], want)
		}
	}
	problems, _, status := call("doctor", "--problems")
	if status != 0 || strings.Contains(problems, "ok      ") || !strings.Contains(problems, "tracking here") {
		t.Errorf("--problems: %d\n%s", status, problems)
	}
	if _, errText, status := call("doctor", "-o", "save"); status != exitUsage || !strings.Contains(errText, "save") {
		t.Errorf("-o save: %d %s", status, errText)
	}

	// Root without capabilities.
	nfctl := nstest.Build(t)
	out, _, status = ns.Exec("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", nfctl, "doctor")
	if status != exitPermission || !strings.Contains(out, "fail    privileges") {
		t.Errorf("without capabilities: %d\n%s", status, out)
	}
	// With just the one that nfctl's main work takes.
	out, _, status = ns.Exec("setpriv", "--bounding-set", "-all,+net_admin", "--inh-caps", "-all", nfctl, "doctor")
	if status != exitOK || !strings.Contains(out, "ok      queues: a queue can be bound") ||
		!strings.Contains(out, "ok      tracking table") || !strings.Contains(out, "unknown kernel options") {
		t.Errorf("with CAP_NET_ADMIN alone: %d\n%s", status, out)
	}
}
