package main

import (
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// recipeStages are those of docs/recipes.md.
var recipeStages = map[string]stage{
	"Try a rule without harm": {before: echo9000, during: func(t *try) {
		if n := t.answered("127.0.0.1:9000", 10, false); n != 10 {
			t.Errorf("%d of 10 answered", n)
		}
	}, after: func(t *try, out string) {
		if !strings.Contains(out, "drop rule 1") {
			t.Errorf("%s", out)
		}
	}},
	"Mark packets and route them": {before: func(t *try) {
		echo9000(t)
		t.ns.Run("iptables", "-A", "INPUT", "-m", "mark", "--mark", "0x1/0xff", "-p", "udp", "--dport", "9000",
			"-j", "ACCEPT")
		t.ns.Run("iptables", "-A", "INPUT", "-p", "udp", "--dport", "9000", "-j", "DROP")
	}, during: func(t *try) {
		if n := t.answered("127.0.0.1:9000", 10, false); n != 10 {
			t.Errorf("%d of 10 marked", n)
		}
	}},
	"Set DSCP": {during: func(t *try) {
		to := t.ns.ListenUDP("127.0.0.1:9000").(*net.UDPConn)
		raw, err := to.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if e := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		}); e != nil || err != nil {
			t.Fatal(e, err)
		}
		from, err := t.ns.Dial("udp", "127.0.0.1:9000", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		if _, err := from.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b, oob := make([]byte, 16), make([]byte, 64)
		n, m, _, _, err := to.ReadMsgUDP(b, oob)
		if err != nil || string(b[:n]) != "hello" {
			t.Fatalf("%q: %v", b[:n], err)
		}
		list, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil || len(list) != 1 || len(list[0].Data) == 0 || list[0].Data[0] != 46<<2 {
			t.Errorf("%+v: %v", list, err)
		}
	}},
	"Log the names that are asked for": {before: func(t *try) {
		nameServer(t.ns, "127.0.0.1:53")
	}, during: func(t *try) {
		if !asks(t.ns, "127.0.0.1", "www.example") {
			t.Error("no answer")
		}
	}, after: func(t *try, out string) {
		if !strings.HasPrefix(out, "ip.src\tdns.name\tdns.type\n") ||
			!strings.Contains(out, "127.0.0.1\twww.example\tA\n") {
			t.Errorf("%q", out)
		}
	}},
	"Log what NAT translates, and rotate the log": {events: true, during: func(t *try) {
		t.do("ct", "create", "udp 10.0.0.5:1234 > 198.51.100.9:53", "--src-nat", "192.0.2.1:4000", "--timeout", "1m")
		t.do("ct", "create", "udp 10.0.0.6:1234 > 198.51.100.9:53", "--timeout", "1m")
		t.do("ct", "delete", "--host", "198.51.100.9")
	}, after: func(t *try, _ string) {
		b, err := os.ReadFile(t.dir + "/nat.json")
		if err != nil {
			t.Fatal(err)
		}
		if log := string(b); strings.Count(log, "10.0.0.5") != 2 || strings.Count(log, "\n") != 2 ||
			!strings.Contains(log, "192.0.2.1") || strings.Contains(log, "10.0.0.6") {
			t.Errorf("%s", log)
		}
	}},
	"Alarm when the table is nearly full": {after: func(t *try, out string) {
		if out != "" {
			t.Errorf("%s", out)
		}
	}},
	"Metrics for Prometheus": {suffix: "cat nfctl.prom", after: func(t *try, out string) {
		for _, want := range []string{"nfctl_flows 0\n", "nfctl_flows_max ", "nfctl_drops_total 0\n",
			"nfctl_early_drops_total 0\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %s in:\n%s", want, out)
			}
		}
	}},
	"Look into every namespace": {
		prefix: "ip netns add one; ip netns add two\n" +
			"nfctl --netns two ct create 'tcp 10.0.0.1:1 > 10.0.0.2:2' >/dev/null",
		after: func(t *try, out string) {
			if sorted(out) != sorted("one 0\ntwo 1\n") {
				t.Errorf("%q", out)
			}
		}},
	"Watch a number change": {
		prefix: "nfctl queue --num 3 -q & until nfctl queue list | grep -q queue=3; do sleep 0.1; done",
		suffix: "kill -INT $!; wait",
		after: func(t *try, out string) {
			if strings.Count(out, `"queue":3`) != 3 || strings.Count(out, `"rate":`) != 2 {
				t.Errorf("%s", out)
			}
		}},
	"Every tenth packet": {before: echo9000, during: func(t *try) {
		if n := t.answered("127.0.0.1:9000", 100, false); n != 90 {
			t.Errorf("%d of 100 answered", n)
		}
	}},
	"Run nfctl without root": {after: func(t *try, out string) {
		if !strings.Contains(out, "cap_net_admin=ep") && !strings.Contains(out, "cap_net_admin+ep") {
			t.Errorf("%q", out)
		}
	}},
}

func echo9000(t *try) { t.ns.UDPEcho("127.0.0.1:9000") }

// Each recipe does what it says, run as it is written.
func TestRecipes(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "bash", "jq", "dig", "iptables", "ip", "unshare", "setcap")
	playAll(t, "recipes.md", recipeStages)
}

// The index of docs names every page.
func TestIndex(t *testing.T) {
	t.Parallel()
	index, err := os.ReadFile("../../docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range pages(t) {
		page := strings.TrimPrefix(name, "docs/")
		if page == name {
			page = "../" + name
		}
		if page != "README.md" && !strings.Contains(string(index), "]("+page+")") {
			t.Errorf("docs/README.md does not name %s", page)
		}
	}
}
