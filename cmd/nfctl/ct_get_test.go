package main

import (
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

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

// TestFlowsByID: flows are chosen by the number that watches and lists show, by every verb.
func TestFlowsByID(t *testing.T) {
	nstest.Enter(t)
	good(t, "ct", "create", "udp 10.0.0.1:1 > 10.0.0.2:1", "--timeout", "600", "--zone", "3")
	good(t, "ct", "create", "udp 10.0.0.1:2 > 10.0.0.2:2", "--timeout", "600")
	id := func(sport string) string {
		return strings.Fields(good(t, "ct", "list", "--sport", sport, "--fields", "id", "-o", "csv"))[1]
	}
	one, two := id("1"), id("2")
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"list --id " + one, 0, "sport=1 "},
		{"count --id " + one + "," + two, 0, "2\n"},
		{"get --id " + one, 0, "zone=3"},
		{"get udp:10.0.0.1:2:>:10.0.0.2:2 --id " + two, 0, "sport=2 "},
		{"get udp:10.0.0.1:2:>:10.0.0.2:2 --id " + one, exitNotFound, "its id is " + two},
		{"get --id 1", exitNotFound, "no flow has the id 1"},
		{"get --id x", exitUsage, "id"},
		{"get --id -1", exitUsage, "id"},
		{"get --zero --id " + one, exitUsage, "ct list --zero --id"},
		{"update --set mark=7 --id " + two, 0, "1 flow updated"},
		{"delete --id " + one, 0, "1 flow deleted"},
		{"list --mark 7", 0, "sport=2 "},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.NewReplacer("udp:", "udp ", ":>:", " > ").Replace(args[i])
		}
		out, errs, status := call(append([]string{"ct"}, args...)...)
		if status != c.status || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: status %d: %s%s", c.args, status, out, errs)
		}
	}
}
