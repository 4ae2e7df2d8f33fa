package nft

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// retransmit is less than the time after which TCP sends again what was lost.
const retransmit = 900 * time.Millisecond

// refused connects, or for UDP asks, from a namespace and returns how long it took
// to be refused.
func refused(t *testing.T, from *nstest.NS, network, addr string) (time.Duration, bool) {
	t.Helper()
	const limit = 3 * time.Second
	began := time.Now()
	c, err := from.Dial(network, addr, limit)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(began.Add(limit))
		if _, err = c.Write([]byte("x")); err == nil {
			_, err = c.Read(make([]byte, 10))
		}
	}
	return time.Since(began), errors.Is(err, unix.ECONNREFUSED)
}

// TestRefusals rejects at a host that queues what it sends: each refusal arrives,
// by each form of table, at each hook that it passes, though the kernel drops
// packets of the kind instead of queueing them. What the rule leaves out is that and
// no more: a closed port's own reset and ICMP are queued.
func TestRefusals(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	specs := []string{"output", "postrouting", "output raw", "output ip tcp >", "output ip6 icmpv6 >", "output tcp >"}
	if testing.Short() {
		specs = specs[:2]
	}
	for _, w := range ways[:4] {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			a, b := nstest.New(t), nstest.Enter(t)
			w.owned = owners(t)
			loadTarget(t)
			nstest.Veth(t, a, b)
			b.Run("nft", `add table inet t; add chain inet t c { type filter hook input priority 0; };
				add rule inet t c ct state invalid drop; add rule inet t c tcp dport 81 reject with tcp reset;
				add rule inet t c tcp dport 82 reject with icmpx port-unreachable; add rule inet t c udp dport 83 reject`)
			b.Run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/icmp_ratemask") // or ICMP is held back
			for _, host := range []string{"10.0.0.2", "[fd00::2]"} {      // who is where is known then
				if _, ok := refused(t, a, "tcp", host+":81"); !ok {
					t.Fatalf("%s: not refused without a queue", host)
				}
			}
			q := consume(t, 0, accept)
			for _, spec := range specs {
				tab, err := attach([]Spec{parse(t, spec)}, Queues{0, 0}, nil, []way{w})
				if err != nil && !w.compat && errors.Is(err, unix.EOPNOTSUPP) {
					t.Skipf("this kernel has no queue statement: %v", err)
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, host := range []string{"10.0.0.2", "[fd00::2]"} {
					for _, k := range []struct{ network, port, what string }{
						{"tcp", "81", "reset"}, {"tcp", "82", "port unreachable"}, {"udp", "83", "port unreachable"},
					} {
						// A connecting socket heeds ICMPv6 only when it sends again.
						slow := k.port == "82" && host != "10.0.0.2"
						if took, ok := refused(t, a, k.network, host+":"+k.port); !ok || took > retransmit && !slow {
							t.Errorf("%s, %s %s: refused %v by a %s, after %v", spec, host, k.network, ok, k.what, took)
						}
					}
				}
				if !strings.Contains(spec, "icmpv6") {
					before := q.segments(84) // neighbours are asked for meanwhile, too
					if _, ok := refused(t, a, "tcp", "10.0.0.2:84"); !ok || q.segments(84) != before+1 {
						t.Errorf("%s: a closed port: refused %v, %d resets queued", spec, ok, q.segments(84)-before)
					}
				}
				if err := tab.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestOwnRefusals rejects at output what a host sends: the refusals come in by the
// loopback and pass prerouting and input too.
func TestOwnRefusals(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	for _, spec := range []string{"prerouting", "prerouting raw", "input", "output", "postrouting"} {
		t.Run(spec, func(t *testing.T) {
			t.Parallel()
			ns := nstest.Enter(t)
			ns.Run("nft", `add table inet t; add chain inet t c { type filter hook output priority 10; };
				add rule inet t c ct state invalid drop; add rule inet t c tcp dport 81 reject with tcp reset`)
			mustAttach(t, Queues{0, 0}, ways, spec)
			consume(t, 0, accept)
			for _, host := range []string{"127.0.0.1", "[::1]"} {
				if took, ok := refused(t, ns, "tcp", host+":81"); !ok || took > retransmit {
					t.Errorf("%s: refused %v, after %v", host, ok, took)
				}
			}
		})
	}
}

// TestUntracked: a rule that no refusal can meet does not make the kernel track
// connections, which a host may have good reasons not to.
func TestUntracked(t *testing.T) {
	t.Parallel()
	for spec, tracks := range map[string]bool{
		"output": true, "input tcp > :22": true, "output icmp >": true, "output icmpv6 > type 1": true,
		"forward": false, "output udp > :53": false, "output icmp > type 8": false, "input ip6 icmpv6 > type 128": false,
	} {
		s := parse(t, spec)
		if got := s.meetsRefusals(); got != tracks {
			t.Errorf("%s: %v", spec, got)
		}
	}
}
