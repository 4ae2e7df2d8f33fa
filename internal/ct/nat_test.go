package ct

import (
	"context"
	"testing"

	"nfctl/internal/nstest"
)

// TestNAT: translations asked for are made, in a namespace with a chain for them
// and without; and what was read can be asked for elsewhere.
func TestNAT(t *testing.T) {
	t.Parallel()
	for _, chain := range []bool{true, false} {
		name := "without a chain"
		if chain {
			name = "with a chain"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.Enter(t)
			if chain {
				nstest.Need(t, "iptables", "ip6tables")
				ns.Run("iptables", "-t", "nat", "-A", "POSTROUTING", "-j", "ACCEPT")
				ns.Run("ip6tables", "-t", "nat", "-A", "POSTROUTING", "-j", "ACCEPT")
			}
			c := dial(t)
			for _, tt := range []struct {
				f    *Flow
				want map[string]string
			}{
				{flow(t, "10.0.0.1:1111", "10.0.0.2:80", TCP, "state=ESTABLISHED", "snat-ipv4=1.2.3.4", "snat-port=5555"),
					map[string]string{"nat.src": "1.2.3.4", "nat.sport": "5555", "nat.dst": "", "nat.dport": ""}},
				{flow(t, "10.0.0.1:1112", "10.0.0.2:80", TCP, "state=ESTABLISHED", "dnat-ipv4=1.2.3.4", "dnat-port=8080"),
					map[string]string{"nat.dst": "1.2.3.4", "nat.dport": "8080", "nat.src": "", "nat.sport": ""}},
				{flow(t, "10.0.0.1:1113", "10.0.0.2:53", UDP, "snat-ipv4=1.2.3.7-1.2.3.7", "snat-port=6000-6000"),
					map[string]string{"nat.src": "1.2.3.7", "nat.sport": "6000"}},
				{flow(t, "[fd00::1]:1114", "[fd00::2]:53", UDP, "snat-ipv6=fd00::9", "dnat-ipv6=fd00::8", "dnat-port=5353"),
					map[string]string{"nat.src": "fd00::9", "nat.dst": "fd00::8", "nat.dport": "5353", "nat.sport": "1114"}},
				{flow(t, "10.0.0.1:1115", "10.0.0.2:53", UDP), map[string]string{"nat.src": "", "nat.dst": ""}},
			} {
				if err := c.Create(tt.f, false); err != nil {
					t.Errorf("%s: %v", flowName(tt.f), err)
					continue
				}
				var got Flow
				if err := c.Get(tt.f, &got, false); err != nil {
					t.Fatal(err)
				}
				for path, want := range tt.want {
					if x := string(Find(FlowAttrs(), path).AppendText(nil, &got)); x != want {
						t.Errorf("%s: %s is %q, want %q", flowName(tt.f), path, x, want)
					}
				}
				// The same once more, from what was read.
				if err := c.Delete(&got); err != nil {
					t.Fatal(err)
				}
				again := got
				again.AskNAT()
				if err := c.Create(&again, false); err != nil {
					t.Errorf("again: %v", err)
					continue
				}
				var twice Flow
				if err := c.Get(&got, &twice, false); err != nil || twice.Reply != got.Reply {
					t.Errorf("again: %+v, %v\nwas %+v", twice.Reply, err, got.Reply)
				}
			}
		})
	}
}

// TestZero: counters are set to zero after they were read, of one flow or of all.
// The other tables can be listed.
func TestZero(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	ns.Run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
	sysctl(t, "nf_conntrack_acct", "1")
	udp := ns.UDPEcho("127.0.0.1:0")
	if _, ok := ns.Ask(udp, "hello", nstest.Patience); !ok {
		t.Fatal("no echo")
	}
	c := dial(t)
	read := func(o DumpOptions) (f *Flow) {
		if _, err := Dump(context.Background(), o, func(x *Flow) error { f = x.Clone(); return nil }); err != nil ||
			f == nil {
			t.Fatal("no flow", err)
		}
		return f
	}
	if f := read(DumpOptions{Zero: true}); f.OrigCounters != (Counters{1, 33}) || f.ReplyCounters != (Counters{1, 33}) {
		t.Errorf("counters %v %v", f.OrigCounters, f.ReplyCounters)
	}
	f := read(DumpOptions{})
	if f.OrigCounters != (Counters{}) || !f.Has(HasOrigCounters|HasReplyCounters) {
		t.Errorf("counters %v, want zero", f.OrigCounters)
	}
	if _, ok := ns.Ask(udp, "hello", nstest.Patience); !ok { // another flow, from another port
		t.Fatal("no echo")
	}
	zeroed := 0
	b := c.NewBatch(10, nil)
	b.Reply(func(f *Flow) { zeroed += int(f.OrigCounters.Packets) })
	if _, err := Dump(context.Background(), DumpOptions{}, func(f *Flow) error { return b.Get(f, true) }); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil || zeroed != 1 {
		t.Errorf("%d packets counted before, %v", zeroed, err)
	}
	for _, table := range []Table{Dying, Unconfirmed} {
		if _, err := Dump(context.Background(), DumpOptions{Table: table}, func(*Flow) error {
			return nil
		}); err != nil {
			t.Errorf("table %d: %v", table, err)
		}
	}
}
