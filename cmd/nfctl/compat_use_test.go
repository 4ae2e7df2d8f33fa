package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// useTable is a table like those that the software below works on. Each flow has
// a source port, or an ICMP id, of its own: 1 to 20.
const useTable = `
-I -s 10.244.1.5 -d 10.96.0.10 -p udp --sport 1 --dport 53 -t 50000 -g 10.244.2.7
-I -s 10.244.1.6 -d 10.96.0.10 -p udp --sport 2 --dport 53 -t 50000 -g 10.244.2.8
-I -s 10.244.1.5 -d 10.96.0.11 -p udp --sport 3 --dport 53 -t 50000
-I -s 192.0.2.1 -d 192.0.2.2 -p udp --sport 4 --dport 30053 -t 50000 -g 10.244.2.7:53
-I -s fd10::1 -d fd96::a -p udp --sport 5 --dport 53 -t 50000 -g fd10::7
-I -s 203.0.113.9 -d 192.0.2.2 -p tcp --sport 6 --dport 22 --state ESTABLISHED -t 100000 -u SEEN_REPLY,ASSURED
-I -s 203.0.113.9 -d 192.0.2.2 -p tcp --sport 7 --dport 443 --state ESTABLISHED -t 100000 -u SEEN_REPLY,ASSURED -m 0x100
-I -s 203.0.113.10 -d 192.0.2.2 -p tcp --sport 8 --dport 443 --state TIME_WAIT -t 100000 -m 0x200
-I -s 192.168.1.20 -d 198.51.100.7 -p tcp --sport 9 --dport 443 --state ESTABLISHED -t 100000 -u SEEN_REPLY,ASSURED -n 192.0.2.2 -m 0x120000
-I -s 192.168.1.21 -d 198.51.100.7 -p udp --sport 10 --dport 500 -t 50000 -n 192.0.2.2:4500
-I -s 192.168.1.21 -d 198.51.100.7 -p udp --sport 11 --dport 4500 -t 50000
-I -s 10.0.0.5 -d 10.0.0.6 -p tcp --sport 12 --dport 22 --state ESTABLISHED -t 100000 -w 10
-I -s 10.0.0.5 -d 10.0.0.6 -p udp --sport 13 --dport 53 -t 50000 -w 10
-I -s 10.0.0.5 -d 10.0.0.6 -p tcp --sport 14 --dport 22 --state ESTABLISHED -t 100000 -w 11
-I -s 10.0.0.5 -d 10.0.0.6 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 15 -t 50000 -w 10
-I -s fd00::5 -d fd00::6 -p tcp --sport 16 --dport 22 --state ESTABLISHED -t 100000
-I -s 10.0.0.7 -d 10.0.0.8 -p sctp --sport 17 --dport 3868 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2 -t 50000
-I -s 203.0.113.11 -d 192.0.2.2 -p tcp --sport 18 --dport 80 --state CLOSE_WAIT -t 100000
-I -s 203.0.113.12 -d 192.0.2.2 -p tcp --sport 19 --dport 80 --state SYN_SENT -t 100000
-I -s 192.168.1.22 -d 198.51.100.8 -p udp --sport 20 --dport 5060 -t 50000 -m 0x100
`

// uses are command lines that software issues, and what they are issued for.
var uses = []struct {
	who, line string
	status    int
	gone      string // which flows end
	shown     int    // how many lines are printed, when none end
	becomes   string // a part of the table that is there afterwards
}{
	// kube-proxy, when endpoints of UDP services go: the last is what it reads from
	// standard error when there was nothing.
	{"kube-proxy: cluster IP", "-D --orig-dst 10.96.0.10 -p udp", 0, "1 2", 0, ""},
	{"kube-proxy: endpoint", "-D --orig-dst 10.96.0.10 --dst-nat 10.244.2.7 -p udp", 0, "1", 0, ""},
	{"kube-proxy: node port", "-D -p udp --dport 30053 --dst-nat 10.244.2.7", 0, "4", 0, ""},
	{"kube-proxy: port", "-D -p udp --dport 30053", 0, "4", 0, ""},
	{"kube-proxy: IPv6", "-D --orig-dst fd96::a -p udp -f ipv6", 0, "5", 0, ""},
	{"kube-proxy: IPv6 endpoint", "-D --orig-dst fd96::a --dst-nat fd10::7 -p udp -f ipv6", 0, "5", 0, ""},
	{"kube-proxy: SCTP", "-D --orig-dst 10.0.0.8 -p sctp", 0, "17", 0, ""},
	{"kube-proxy: nothing", "-D --orig-dst 10.96.0.99 -p udp", 1, "", 0, ""},
	{"service balancer", "-D --reply-src 10.244.2.8", 0, "2", 0, ""},
	// neutron: security groups and firewalls, by zone and family.
	{"neutron: port", "-D -f ipv4 -d 10.0.0.6 -w 10", 0, "12 13 15", 0, ""},
	{"neutron: rule", "-D -f ipv4 -p tcp -s 10.0.0.5 -w 10", 0, "12", 0, ""},
	{"neutron: remote", "-D -f ipv4 -p udp -d 10.0.0.6 -w 10 -s 10.0.0.5", 0, "13", 0, ""},
	{"neutron: icmp", "-D -p icmp -f ipv4 -s 10.0.0.5 -w 10", 0, "15", 0, ""},
	{"neutron: nothing in zone", "-D -f ipv4 -d 10.0.0.6 -w 12", 1, "", 0, ""},
	{"neutron: firewall", "-D -p tcp -f ipv4 --dport 22", 0, "6 12 14", 0, ""},
	{"neutron: IPv6", "-D -f ipv6 -s fd00::5", 0, "16", 0, ""},
	{"neutron: floating address", "-D -d 192.0.2.2", 0, "4 6 7 8 18 19", 0, ""},
	{"neutron: state", "-D -q 192.0.2.2", 0, "9 10", 0, ""},
	{"ovs: all of a zone", "-D -w 11", 0, "14", 0, ""},
	// Those that ban.
	{"fail2ban, ufw: source", "-D -s 203.0.113.9", 0, "6 7", 0, ""},
	{"ban: destination", "-D -d 203.0.113.9", 1, "", 0, ""},
	{"ban: family", "-D -f ipv4 -s 203.0.113.10", 0, "8", 0, ""},
	{"ban: port of a source", "-D -p tcp --dport 443 --src 203.0.113.9", 0, "7", 0, ""},
	{"ban: network", "-D -s 203.0.113.0/24", 0, "6 7 8 18 19", 0, ""},
	{"ban: IPv6", "-D -f ipv6 -s fd00::5", 0, "16", 0, ""},
	// Policy routing over several links.
	{"mwan3: mark", "-D --mark 0x100/0xff00", 0, "7 20", 0, ""},
	{"mwan3: flush", "-F", 0, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", 0, ""},
	{"policy router: mark", "-D -f ipv4 --mark 1179648/16711680", 0, "9", 0, ""},
	{"policy router: mark of no IPv6 flow", "-D -f ipv6 --mark 1179648/16711680", 1, "", 0, ""},
	{"openvpn: server", "-D -p UDP -d 198.51.100.8", 0, "20", 0, ""},
	{"ipsec: IKE", "-D -s 192.168.1.21 -p udp --dport 500", 0, "10", 0, ""},
	{"ipsec: NAT-T", "-D -s 192.168.1.21 -p udp --dport 4500", 0, "11", 0, ""},
	{"mesh: peer", "-D -s 10.0.0.5 -d 10.0.0.6", 0, "12 13 14 15", 0, ""},
	{"clean-up: TIME_WAIT", "-D -p tcp --state TIME_WAIT", 0, "8", 0, ""},
	{"clean-up: CLOSE_WAIT", "-D -p tcp --state CLOSE_WAIT", 0, "18", 0, ""},
	{"clean-up: UDP", "-D -p udp", 0, "1 2 3 4 5 10 11 13 20", 0, ""},
	{"clean-up: SIP after a new address", "-D -p udp --dport 5060", 0, "20", 0, ""},
	{"dial-up: old address", "-D --src-nat 192.0.2.2", 0, "9 10", 0, ""},
	{"keepalived: notify", "--flush", 0, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", 0, ""},
	// calico's spelling.
	{"calico: workload", "--family ipv4 --delete --orig-src 10.244.1.5", 0, "1 3", 0, ""},
	{"calico: destination", "--family ipv4 --delete --orig-dst 10.96.0.11", 0, "3", 0, ""},
	{"calico: reply source", "--family ipv4 --delete --reply-src 10.244.2.7", 0, "1 4", 0, ""},
	{"calico: reply destination", "--family ipv6 --delete --reply-dst fd00::5", 0, "16", 0, ""},
	{"calico: gone already", "--family ipv4 --delete --orig-src 10.244.1.99", 1, "", 0, ""},
	// VyOS and vyatta.
	{"VyOS: show", "--dump --family ipv4 --output xml", 0, "", 21, ""},
	{"VyOS: translations", "--dump --family ipv4 --src-nat -o xml", 0, "", 5, ""},
	{"VyOS: IPv6", "-L -f ipv6 -o extended", 0, "", 2, ""},
	{"vyatta: delete one", "-D -p tcp --orig-src 203.0.113.9 --orig-port-src 6 --orig-dst 192.0.2.2 --orig-port-dst 22", 0, "6", 0, ""},
	{"SONiC: dump translations", "-L -j", 0, "", 6, ""},
	{"SONiC: age", "-U -s 203.0.113.9 -d 192.0.2.2 -p tcp --sport 6 --dport 22 -t 86400 -u ASSURED", 0, "", 1, "tcp 6 86400 ESTABLISHED"},
	{"SONiC: restore", "-I -n 192.0.2.2:99 -g 198.51.100.9:80 --protonum tcp --src 192.168.1.30 --dst 192.0.2.3 --sport 98 --dport 8080 --state ESTABLISHED -t 86400 -u ASSURED", 0, "", 0, "src=198.51.100.9 dst=192.0.2.2 sport=80 dport=99 [ASSURED]"},
	{"shaper: mark a client's flows", "-U -s 192.168.1.21 -p udp --mark 7", 0, "", 2, "sport=11 dport=4500 [UNREPLIED] src=198.51.100.7 dst=192.168.1.21 sport=4500 dport=11 mark=7"},
	// Monitors.
	{"monitor: count", "-C", 0, "", 1, ""},
	{"monitor: all", "-L", 0, "", 20, ""},
	{"monitor: established", "-L -p tcp --state ESTABLISHED", 0, "", 6, ""},
	{"monitor: new", "-L -p tcp --state SYN_SENT -o id", 0, "", 1, ""},
	{"monitor: unreplied", "-L -p udp -u UNREPLIED", 0, "", 9, ""},
	{"monitor: port", "-L -p udp --dport 53", 0, "", 5, ""},
	{"monitor: zone", "-L --zone 10 -f ipv4", 0, "", 3, ""},
	{"monitor: translated", "-L -n -o extended", 0, "", 2, ""},
	{"monitor: IPv6", "-L -f ipv6", 0, "", 2, ""},
}

// flowNumber finds a flow's number in a line of the table.
var flowNumber = regexp.MustCompile(`(?:sport|id)=([0-9]+) `)

func numbersIn(table string) (list []string) {
	for line := range strings.Lines(table) {
		if m := flowNumber.FindStringSubmatch(line); m != nil {
			list = append(list, m[1])
		}
	}
	return list
}

func TestCompatUses(t *testing.T) {
	if len(uses) < 40 {
		t.Fatalf("only %d command lines", len(uses))
	}
	pair := twins(t)
	w, flows := pair[1], flowsOf(t, useTable)
	for _, u := range uses {
		w.reset(t, flows)
		before := w.table(t)
		out, errOut, status := w.ns.Exec(w.program, strings.Fields(u.line)...)
		after := w.table(t)
		if status != u.status {
			t.Errorf("%s: conntrack %s: status %d, not %d: %s", u.who, u.line, status, u.status, errOut)
		}
		left := numbersIn(after)
		var gone []string
		for _, n := range numbersIn(before) {
			if !slices.Contains(left, n) {
				gone = append(gone, n)
			}
		}
		want := strings.Fields(u.gone)
		slices.Sort(gone)
		slices.Sort(want)
		if !slices.Equal(gone, want) {
			t.Errorf("%s: conntrack %s: flows %v ended, not %v", u.who, u.line, gone, want)
		}
		lines := strings.Count(out, "\n")
		switch {
		case strings.Contains(u.line, "xml"):
			lines -= 3 // head and end
			if want := u.shown - 3; lines != want {
				t.Errorf("%s: conntrack %s: %d flows, not %d", u.who, u.line, lines, want)
			}
		case len(want) == 0 && lines != u.shown:
			t.Errorf("%s: conntrack %s: %d lines, not %d:\n%s", u.who, u.line, lines, u.shown, out)
		}
		if table := strings.Join(strings.Fields(after),
			" "); !strings.Contains(strings.ReplaceAll(table, " 86399 ", " 86400 "), u.becomes) {
			t.Errorf("%s: conntrack %s: no %q in\n%s", u.who, u.line, u.becomes, after)
		}
		if status == 1 && !strings.Contains(errOut, "0 flow entries have been deleted") { // what kube-proxy reads
			t.Errorf("%s: conntrack %s: %s", u.who, u.line, errOut)
		}
	}
}
