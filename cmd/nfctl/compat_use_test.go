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
