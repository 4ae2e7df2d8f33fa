package main

import (
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestCtNarrow has each request change just what was asked for, where
// conntrack(8) was seen to change more, or to refuse.
func TestCtNarrow(t *testing.T) {
	t.Parallel()
	table := `-A -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 80 --mark 4
-A -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 2 --dport 22 -w 7
-A -p tcp -s fd00::1 -d fd00::2 --sport 1 --dport 80 --src-nat fd00::9
-A -p tcp -s fd00::1 -d fd00::2 --sport 2 --dport 80 --src-nat fd00::8
-A -p udp -s fd00::1 -d fd00::2 --sport 2 --dport 80 --mark 4
`
	for _, c := range []struct {
		name string
		args string // separated by '|'
		left int    // flows
		mark int    // flows with mark 9
	}{
		{"an IPv6 translation that no flow has", "delete|--src-nat|fd00::1234", 5, 0},
		{"an IPv6 translation", "delete|--src-nat|fd00::9", 4, 0},
		{"a family", "flush|--family|ipv6", 2, 0},
		{"the other family", "flush|-f|ipv4", 3, 0},
		{"a zone", "flush|--zone|7", 4, 0},
		{"zone 0", "flush|--zone|0", 1, 0},
		{"a mark", "flush|--mark|4", 3, 0},
		{"a zone, quietly", "delete|--zone|7|-q", 4, 0},
		{"a mark and a family, quietly", "delete|--mark|4|-f|ipv6|-q", 4, 0},
		{"no flow, quietly", "delete|--mark|4|-f|ipv6|--status|ASSURED|--zone|3|-q", 5, 0},
		{"a port, quietly", "delete|--dport|22|-q", 4, 0},
		{"two marks, quietly", "delete|--mark|0/1|--mark|4/4|-q", 3, 0},
		{"update by mark alone", "update|-m|4|--set|mark=9", 5, 2},
		{"update by port alone", "update|-p|tcp|--dport|80|--set|mark=9", 5, 3},
		{"update by zone alone", "update|-w|7|--set|mark=9", 5, 1},
		{"update under a mask", "update|--mark|4|--set|mark=9/0xf", 5, 2},
		{"update nothing", "update|--mark|77|--set|mark=9", 5, 0},
		{"all", "delete|--all", 0, 0},
		{"try", "delete|-p|tcp|--dry-run", 5, 0},
		{"try all", "flush|--dry-run", 5, 0},
		{"try to update", "update|--set|mark=9|--dry-run", 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			nstest.Enter(t)
			loaded(t, table)
			good(t, append([]string{"ct"}, strings.Split(c.args, "|")...)...)
			var left, mark int
			nstest.Until(t, "the flows are gone", func() bool { // a flush goes on a moment
				out := good(t, "ct", "list", "-o", "json")
				left, mark = strings.Count(out, "\n"), strings.Count(out, `"mark":9,`)
				return left <= c.left
			})
			if left != c.left || mark != c.mark {
				t.Errorf("%d flows are left, want %d; %d have mark 9, want %d", left, c.left, mark, c.mark)
			}
		})
	}
}

func TestCtUpdate(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	useLabels(t, ns)
	good(t, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:21", "--helper", "ftp", "--mark", "0xff", "--label", "3")
	for _, c := range []struct{ args, want string }{
		{"--set|mark=0", "mark=0"}, {"--set|mark=0x55", "mark=85"}, {"--set|mark=0x2/0xf", "mark=82"}, {"--set|mark^=0x3", "mark=81"}, {"--set|mark^=0x13/0xf", "mark=67"},
		{"--set|timeout=7209s", "tcp      6 720"}, {"--set|state=CLOSE_WAIT", "CLOSE_WAIT"}, {"--set|status=FIXED_TIMEOUT", "[ASSURED]"},
		{"--label-add|5,9", "labels=3,5,9"}, {"--label-del|3", "labels=5,9"}, {"--label-add|1|--label-del|5", "labels=1,9"}, {"--label-del|all", "[ASSURED]"},
	} {
		out := good(t, append([]string{"ct", "update", "-o", "labels", "tcp >"}, strings.Split(c.args, "|")...)...)
		if !strings.Contains(out, c.want) {
			t.Errorf("%s: no %q in %s", c.args, c.want, out)
		}
	}
	_, errs, status := call("ct", "update", "tcp >", "--set", "helper=")
	kept := status == exitNotSupported && strings.Contains(errs, "takes a helper from no entry") &&
		nstest.Since(t, 7, 0)
	if kept {
		t.Log("this kernel takes a helper from no entry")
	} else if status != exitOK {
		t.Errorf("status %d: %s", status, errs)
	}
	if out := good(t, "ct", "list", "-o", "labels"); strings.Contains(out, "helper") != kept ||
		strings.Contains(out, "labels=") {
		t.Errorf("helper and labels were to go: %s", out)
	}
}

// TestCtWindowScale: the kernel takes the scales of both directions together, and
// only with a flag of both; what is not said is as it was.
func TestCtWindowScale(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	const flow, scales = "tcp 10.0.0.1:1 > " +
		"10.0.0.2:2", "tcp.wscale_orig,tcp.wscale_reply,tcp.flags_orig,tcp.flags_reply"
	for _, c := range []struct{ args, want string }{
		{"create|" + flow + "|--set|tcp.wscale_reply=4", "0\t4\tWINDOW_SCALE\tWINDOW_SCALE"},
		{"update|tcp >|--set|tcp.wscale_orig=7", "7\t4\tWINDOW_SCALE\tWINDOW_SCALE"},
		{"update|tcp >|--set|tcp-wscale-repl=2|--set|tcp.flags_orig=SACK_PERM", "7\t2\tWINDOW_SCALE,SACK_PERM\tWINDOW_SCALE"},
	} {
		if out := good(t, append(append([]string{"ct"}, strings.Split(c.args, "|")...), "--fields",
			scales)...); !strings.HasSuffix(out, "\n"+c.want+"\n") {
			t.Errorf("%s: %q, want %q", c.args, out, c.want)
		}
	}
	good(t, "attr", "set", flow, "tcp-wscale-orig=9")
	good(t, "attr", "set", flow, "tcp-flags-repl=BE_LIBERAL")
	if out, want := good(t, "ct", "list", "--fields", scales),
		"9\t2\tWINDOW_SCALE,SACK_PERM\tWINDOW_SCALE,BE_LIBERAL\n"; !strings.HasSuffix(out, "\n"+want) {
		t.Errorf("attr set: %q, want %q", out, want)
	}
	// A saved flow, of which one direction does not scale, is made as it was.
	line := "-t|60|-s|10.0.0.1|-d|10.0.0.2|-p|tcp|--sport|3|--dport|2|--state|SYN_SENT|--set|tcp-wscale-orig=7|" +
		"--set|tcp-wscale-repl=0|--set|tcp-flags-orig=WINDOW_SCALE|--set|tcp-flags-repl=0"
	if out := good(t, append(strings.Split("ct|create|--fields|"+scales, "|"),
		strings.Split(line, "|")...)...); !strings.HasSuffix(out, "\n0\t0\tWINDOW_SCALE\t\n") {
		t.Errorf("a saved flow: %q", out)
	}
}
