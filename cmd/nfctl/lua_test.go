package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestLuaGivesUpPrivileges: a script has CAP_NET_ADMIN alone, with which the
// modules do all that they did, and so have programs that it starts.
func TestLuaGivesUpPrivileges(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	const script = `local h = assert(nfq.open())
assert(nfq.create_queue(h, 4))
assert(nfct.query(assert(nfct.open("conntrack")), "flush", "inet"))
for l in io.lines("/proc/thread-self/status") do if l:find("^CapPrm") or l:find("^NoNew") then print(l) end end
os.execute("grep CapEff /proc/self/status")`
	admin := capabilities(unix.CAP_NET_ADMIN)
	for _, tt := range []struct {
		args []string
		want bool
	}{{[]string{"lua", "-e", script}, true}, {[]string{"lua", "--keep-privileges", "-e", script}, false}} {
		fillFlows(t, ns, 1000)
		ns.Run(nstest.Build(t), "ct", "create", "udp [fd00::1]:7 > [fd00::2]:53", "--timeout", "1h")
		out, words, status := ns.Exec(nstest.Build(t), tt.args...)
		if status != 0 {
			t.Fatalf("status %d: %s", status, words)
		}
		if left := ns.Run(nstest.Build(t), "ct", "list"); strings.Count(left, "\n") != 1 ||
			!strings.Contains(left, "fd00") {
			t.Errorf("left of 1000 flows of IPv4 and one of IPv6: %.500s", left)
		}
		ns.Run(nstest.Build(t), "ct", "flush", "--all")
		has := strings.Contains(out, "CapPrm:\t"+admin+"\n") && strings.Contains(out, "NoNewPrivs:\t1") &&
			strings.Contains(out, "CapEff:\t"+admin+"\n")
		if has != tt.want {
			t.Errorf("%v:\n%s", tt.args[1], out)
		}
	}
}
