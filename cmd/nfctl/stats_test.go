package main

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/process"
)

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

// TestRepeatsGiveUpPrivileges: what prints again and again goes on with what its
// look at the kernel takes.
func TestRepeatsGiveUpPrivileges(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	q := startQueue(t, ns, "--num", "3")
	for _, tt := range []struct {
		args  []string
		caps  []int
		holds string
	}{
		{[]string{"queue", "list", "--interval", "50ms", "-o", "json"}, process.SeeOwners, fmt.Sprintf(`"pid":%d`, q.Cmd.Process.Pid)},
		{[]string{"ct", "stats", "--interval", "50ms", "-o", "json"}, []int{unix.CAP_NET_ADMIN}, `"rate":`},
		{[]string{"expect", "stats", "--interval", "50ms", "-o", "json"}, []int{unix.CAP_NET_ADMIN}, `"rate":`},
	} {
		p := ns.Start(nstest.Build(t), tt.args...)
		want := capabilities(tt.caps...)
		nstest.Until(t, fmt.Sprintf("%v: threads have %s only", tt.args, want), func() bool {
			got := threadStatus(t, p.Cmd.Process.Pid, "CapPrm")
			return len(got) == 1 && got[want] > 0
		})
		n := len(p.Stdout())
		nstest.Until(t, fmt.Sprintf("%v: goes on to print %s", tt.args, tt.holds), func() bool {
			return strings.Contains(p.Stdout()[n:], tt.holds)
		})
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("%v: status %d: %s", tt.args, status, p.Stderr())
		}
	}
}
