package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// glue reports whether queued packets bring their connections here. Where they
// don't, what asks for it must end with 6 and say what is missing; the kernels of
// distributions, on which 'make vmtest' runs this, all have it.
func glue(t *testing.T, ns *nstest.NS) bool {
	t.Helper()
	for _, args := range [][]string{{"--conntrack"}, {"--rule", "connmark 7"}, {"--drop-if", "ct.mark == 7"}} {
		_, words, status := ns.Exec(nstest.Build(t), append([]string{"queue", "--num", "9", "--duration", "1ms"},
			args...)...)
		switch {
		case status == 0:
			return true
		case os.Getenv("NFCTL_TEST_VM") != "":
			t.Fatalf("%v: status %d: %s", args, status, words)
		case status != exitNotSupported || !strings.Contains(words, "CONFIG_NETFILTER_NETLINK_GLUE_CT"):
			t.Errorf("%v: status %d: %s", args, status, words)
		}
	}
	return false
}

// tracked makes ns track its connections.
func tracked(t *testing.T, ns *nstest.NS) {
	t.Helper()
	nstest.Need(t, "iptables")
	ns.Run("iptables", "-w", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
}

// TestGlue decides on packets by their connections, and marks these.
func TestGlue(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	if !glue(t, ns) {
		t.Log("this kernel has no conntrack glue: refusals were tested")
		return
	}
	tracked(t, ns)
	ns.UDPEcho("127.0.0.1:7000")
	ns.UDPEcho("127.0.0.1:7001")

	// What comes with a packet is the connection as the table has it.
	p := startQueue(t, ns, "--conntrack", "--attach", "output udp > :7000", "-o", "json", "--rule",
		"connmark 0x2a/0xff")
	c, err := ns.Dial("udp", "127.0.0.1:7000", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(want bool) {
		t.Helper()
		patience := 10 * time.Second
		if !want {
			patience = 500 * time.Millisecond
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 10)); (err == nil) != want {
			t.Errorf("an answer: %v, want %v", err == nil, want)
		}
	}
	exchange(true)
	exchange(true)
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	type packet struct {
		CT *struct {
			Proto string
			Mark  *uint32
			Orig  struct {
				Src          string
				Sport, Dport int
			}
			Status []string
		}
		UDP struct{ Sport, Dport int }
	}
	var pkts []packet
	for line := range strings.Lines(p.Stdout()) {
		var pkt packet
		if err := json.Unmarshal([]byte(line), &pkt); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		pkts = append(pkts, pkt)
	}
	if len(pkts) != 2 {
		t.Fatalf("%d packets:\n%s", len(pkts), p.Stdout())
	}
	for i, pkt := range pkts {
		if pkt.CT == nil || pkt.CT.Proto != "udp" || pkt.CT.Orig.Src != "127.0.0.1" ||
			pkt.CT.Orig.Sport != pkt.UDP.Sport || pkt.CT.Orig.Dport != 7000 {
			t.Errorf("packet %d: %+v", i, pkt)
		} else if pkt.CT.Mark == nil || *pkt.CT.Mark != uint32(i*42) {
			t.Errorf("packet %d: connection's mark %v", i, pkt.CT.Mark)
		}
	}
	if list := ns.Run("conntrack", "-L", "-p", "udp", "--dport", "7000"); !strings.Contains(list, "mark=42") {
		t.Errorf("conntrack -L: %s", list)
	}

	// Rules see it: the connection marked above is dropped, a new one is not.
	p = startQueue(t, ns, "-q", "--attach", "output udp > :7000,7001", "--drop-if",
		`ct.mark == "42/0xff" and ct.orig.dport == 7000`, "--drop-if", `"SEEN_REPLY" in ct.status`)
	exchange(false)
	_ = c.Close()
	if c, err = ns.Dial("udp", "127.0.0.1:7001", time.Second); err != nil {
		t.Fatal(err)
	}
	exchange(true)
	exchange(false) // by then it has seen a reply
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 || counted(p.Stderr(), "packet") == 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}

	// Without a rule that tracks, the kernel says yes and sends nothing.
	bare := nstest.New(t)
	bare.UDPEcho("127.0.0.1:7000")
	p = startQueue(t, bare, "--conntrack", "--attach", "output udp > :7000")
	if _, ok := bare.Ask("127.0.0.1:7000", "x", 10*time.Second); !ok {
		t.Error("no answer")
	}
	p.WaitOutput("hint: packets come without their connections")
}

// TestAttachStatement: --attach takes nft's own queue statement where there is one.
func TestAttachStatement(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	startQueue(t, ns, "--num", "5", "--attach", "output udp > :7000 bypass")
	list := ns.Run("nft", "list", "ruleset")
	has := strings.Contains(list, "queue flags bypass to 5") || strings.Contains(list, "queue to 5 bypass") ||
		strings.Contains(list, "queue num 5 bypass")
	if !has && (os.Getenv("NFCTL_TEST_VM") != "" || !strings.Contains(list, "NFQUEUE")) {
		t.Errorf("nft list ruleset:\n%s", list)
	}
}

// TestFlushOfAZone empties one zone, whatever this kernel does with the filter.
func TestFlushOfAZone(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nfctl := nstest.Build(t)
	for _, zone := range []string{"0", "1", "2"} {
		ns.Run(nfctl, "ct", "create", "udp 10.0.0.1:1 > 10.0.0.2:2 zone "+zone, "--timeout", "600")
	}
	_, words, status := ns.Exec(nfctl, "ct", "flush", "--zone", "1")
	if status != 0 {
		t.Errorf("status %d: %s", status, words)
	}
	left := ns.Run(nfctl, "ct", "list", "-o", "flow")
	if strings.Count(left, "\n") != 2 || strings.Contains(left, "zone 1") || !strings.Contains(left, "zone 2") {
		t.Errorf("left after the flush of zone 1:\n%s", left)
	}
}
