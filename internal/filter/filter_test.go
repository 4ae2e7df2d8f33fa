package filter

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Which subjects match, by the first letter of their names: ssh, dns, ping, odd,
// empty.
var table = []struct{ expr, match string }{
	// Numbers.
	{`tcp.dport == 22`, "s"},
	{`tcp.dport == "22"`, "s"},
	{`tcp.dport == "ssh"`, "s"},
	{`tcp.dport == "SSH"`, "s"},
	{`tcp.dport == "22,65535"`, "so"},
	{`tcp.dport == "20-30"`, "s"},
	{`tcp.dport == "!22"`, "o"},
	{`tcp.dport != "!22"`, "s"},
	{`tcp.dport == 0x16`, "s"},
	{`tcp.dport == 0b10110`, "s"},
	{`tcp.dport == 0o26`, "s"},
	{`tcp.dport == 2_2`, "s"},
	{`22 == tcp.dport`, "s"},
	{`tcp.dport != 22`, "o"},
	{`22 != tcp.dport`, "o"},
	{`not (tcp.dport == 22)`, "dpoe"},
	{`!(tcp.dport == 22)`, "dpoe"},
	{`not (tcp.dport != 22)`, "sdpe"},
	{`tcp.dport > 22`, "o"},
	{`tcp.dport >= 22`, "so"},
	{`tcp.dport < 22`, ""},
	{`tcp.dport <= 22`, "s"},
	{`22 < tcp.dport`, "o"},
	{`22 <= tcp.dport`, "so"},
	{`22 > tcp.dport`, ""},
	{`22 >= tcp.dport`, "s"},
	{`20 < tcp.dport < 30`, "s"},
	{`tcp.dport > 65535`, ""},
	{`tcp.dport >= 65535`, "o"},
	{`tcp.sport < 0`, ""},
	{`tcp.sport <= 0`, "o"},
	{`tcp.dport > "ssh"`, "o"},
	{`tcp.dport == 20 + 2`, "s"},
	{`tcp.dport in [22, 80]`, "s"},
	{`tcp.dport in ["ssh", 65535]`, "so"},
	{`tcp.dport in ["20-30", "http"]`, "s"},
	{`tcp.dport in "22,80"`, "s"},
	{`tcp.dport in 20..30`, "s"},
	{`tcp.dport in 0..65535`, "so"},
	{`tcp.dport not in [22, 80]`, "dpoe"},
	{`not (tcp.dport in [22])`, "dpoe"},
	{`tcp.dport in [1, 3, 5, 7, 9, 22, 65535]`, "so"},
	{`22 in [tcp.dport, udp.dport]`, "s"},
	{`53 in [tcp.dport, udp.dport]`, "d"},
	{`tcp.dport in [53, udp.dport, 22]`, "s"},
	{`tcp["dport"] == 22`, "s"},
	{`zone == 0`, "s"},
	{`zone == 7`, "d"},
	{`zone != 7`, "so"},
	{`timeout > "30s"`, "so"},
	{`timeout > 30`, "so"},
	{`timeout >= "30"`, "sdo"},
	{`timeout == "2m"`, "s"},
	{`timeout in "0-1m"`, "dp"},
	{`timeout == 0`, "p"},
	{`orig.bytes > "1MiB"`, "so"},
	{`orig.bytes == "2MiB"`, "s"},
	{`orig.bytes <= 60`, "d"},
	{`orig.bytes > reply.bytes`, "s"},
	{`orig.bytes < reply.bytes`, "d"},
	{`orig.bytes != reply.bytes`, "sd"},
	{`orig.bytes == reply.bytes`, ""},
	{`large > 9223372036854775807`, "dp"},
	{`large == "18446744073709551615"`, "d"},
	{`large > "9223372036854775808"`, "d"},
	{`mark == 1`, "s"},
	{`mark == "0x1"`, "s"},
	{`mark == "0x1/0x1"`, "sdo"},
	{`mark == "0x1/0xff"`, "s"},
	{`mark != "0x1/0x1"`, "p"},
	{`mark == "0/0x1"`, "p"},
	{`mark == "!1"`, "dpo"},
	{`mark in ["0x1/0xff", 511]`, "sd"},
	{`mark in [0, 1]`, "sp"},
	{`mark == 4294967295`, "o"},
	{`mark > 0`, "sdo"},
	// Arithmetic.
	{`orig.bytes - reply.bytes == "1MiB"`, "!"}, // no reader beside a computed number
	{`orig.bytes - reply.bytes == 1048576`, "s"},
	{`orig.bytes - reply.bytes < 0`, "d"},
	{`orig.bytes - reply.bytes < -50`, "d"},
	{`orig.bytes + reply.bytes == 180`, "d"},
	{`orig.bytes * 2 == reply.bytes`, "d"},
	{`reply.bytes == orig.bytes * 2`, "d"},
	{`orig.bytes / orig.packets > 2000`, "so"},
	{`orig.bytes / orig.packets > 2097.1`, "so"},
	{`orig.bytes / orig.packets == 2097`, ""},
	{`orig.bytes / orig.packets != 2097`, "so"},
	{`not (orig.bytes / orig.packets > 2000)`, "dpe"},
	{`mark % 2 == 1`, "sdo"},
	{`zone % orig.packets == 0`, "so"},
	{`-timeout == -30`, "d"},
	{`+timeout == 30`, "d"},
	{`timeout + 1 > 120.5`, "so"},
	{`2 * timeout == 60`, "d"},
	{`(timeout + 30) / 2 == 30`, "d"},
	{`orig.bytes * orig.bytes > 0`, "sd"},
	{`large + 1 > 0`, ""},
	{`orig.bytes + 1 > 0`, "sd"},
	{`timeout + mark in 121..122`, "s"},
	{`timeout / 2 in 14..16`, "d"},
	{`timeout + 0 in [30, 120]`, "sd"},
	{`1 < 2`, "sdpoe"},
	{`1 + 1 == 3`, ""},
	// Names.
	{`proto == "tcp"`, "s"},
	{`proto == "TCP"`, "s"},
	{`proto == 6`, "s"},
	{`proto != "tcp"`, "dpo"},
	{`proto == "6"`, "s"},
	{`proto == 99`, "o"},
	{`proto in ["tcp", "udp", 99]`, "sdo"},
	{`proto in "tcp,udp"`, "sd"},
	{`proto == "!tcp"`, "dpo"},
	{`proto not in ["tcp"]`, "dpoe"},
	{`"tcp" == proto`, "s"},
	{`proto startsWith "t"`, "s"},
	{`proto contains "c"`, "sp"},
	{`proto endsWith "p"`, "sdp"},
	{`proto matches "^(tcp|udp)$"`, "sd"},
	{`lower(state) == "established"`, "s"},
	{`state == "ESTABLISHED"`, "s"},
	{`state == "established"`, "s"},
	{`state != "ESTABLISHED"`, "o"},
	{`state in ["TIME_WAIT", "CLOSE_WAIT"]`, "o"},
	{`state contains "WAIT"`, "o"},
	{`state == nil`, "dpe"},
	{`upper(proto) == "TCP"`, "s"},
	{`proto == helper`, ""},
	// Addresses.
	{`ip.src == "10.0.0.1"`, "s"},
	{`ip.src != "10.0.0.1"`, "dp"},
	{`ip.src in "10.0.0.0/8"`, "s"},
	{`ip.src == "10.0.0.0/8"`, "s"},
	{`ip.src in ["10.0.0.0/8", "fd00::/8"]`, "sd"},
	{`ip.src not in ["10.0.0.0/8", "fd00::/8"]`, "poe"},
	{`ip.src in "10.0.0.0/255.0.0.0"`, "s"},
	{`ip.src in "192.168.7.1-192.168.7.9"`, "p"},
	{`ip.src in "::/0"`, "d"},
	{`ip.src in "0.0.0.0/0"`, "sp"},
	{`ip.src in "!10.0.0.0/8"`, "dp"},
	{`ip.src == "fd00:0:0::1"`, "d"},
	{`"10.0.0.2" in [ip.src, ip.dst]`, "s"},
	{`"10.0.0.0/8" in [ip.src, ip.dst]`, "s"},
	{`ip.src == ip.dst`, ""},
	{`ip.src != ip.dst`, "sdp"},
	{`ip.dst in ["8.8.8.8", "8.8.4.4", "fd00::2"]`, "dp"},
	{`ip.src in ["fd00::1", "fd00::3", "fd00::/127"]`, "d"},
	// Lists.
	{`"ASSURED" in status`, "s"},
	{`"assured" in status`, "s"},
	{`"ASSURED" not in status`, "dpoe"},
	{`not ("ASSURED" in status)`, "dpoe"},
	{`"!ASSURED" in status`, "dpo"},
	{`"UNREPLIED" in status`, "dpo"},
	{`"UNREPLIED" in status and "CONFIRMED" in status`, "d"},
	{`"ASSURED,CONFIRMED" in status`, "sd"},
	{`"0x10" in status`, "o"},
	{`"SYN" in tcp.flags`, "s"},
	{`"SYN" in tcp.flags and "ACK" in tcp.flags`, "s"},
	{`tcp.flags == ["SYN", "ACK"]`, "s"},
	{`tcp.flags == ["ACK", "SYN"]`, "s"},
	{`tcp.flags == ["SYN"]`, ""},
	{`tcp.flags != ["SYN"]`, "so"},
	{`tcp.flags == 256`, "o"},
	{`len(status) == 3`, "s"},
	{`len(status) > 0`, "sdo"},
	{`len(tcp.flags) == 1`, "o"},
	{`len(labels) == 4`, "p"},
	{`any(status, # == "ASSURED")`, "s"},
	{`any(status, # in ["assured", "EXPECTED"])`, "s"},
	{`all(status, # == "CONFIRMED")`, "dp"},
	{`none(status, # == "ASSURED")`, "dpo"},
	{`any(status, # startsWith "0x")`, "o"},
	{`all(status, # != "ASSURED")`, "dpo"},
	{`"web" in labels`, "s"},
	{`"WEB" in labels`, "s"},
	{`"1" in labels`, "s"},
	{`"web,mail" in labels`, "sp"},
	{`"!web" in labels`, "dp"},
	{`"15" in labels`, "p"},
	{`any(labels, # startsWith "w")`, "sp"},
	{`any(labels, lower(#) == "bulk")`, "p"},
	{`any(labels, # == "Bulk" and mark == 0)`, "p"},
	{`any(labels, # == "Bulk" and mark == 1)`, ""},
	{`any(labels, len(#) == 2)`, "p"},
	{`all(labels, # endsWith "b")`, "sd"},
	{`none(labels, # matches "^w.*r$")`, "sd"},
	{`any(labels, # == helper)`, ""},
	{`any(labels, true)`, "sp"},
	// Texts and bytes.
	{`helper == "Dns"`, "d"},
	{`helper == "dns"`, ""},
	{`lower(helper) == "dns"`, "d"},
	{`upper(helper) in ["DNS", "FTP"]`, "d"},
	{`lower(helper) in ["dns"]`, "d"},
	{`lower(helper) != "dns"`, "po"},
	{`lower(helper) contains "n"`, "d"},
	{`lower(helper) startsWith "d"`, "d"},
	{`upper(helper) endsWith "S"`, "d"},
	{`helper != "Dns"`, "po"},
	{`helper == "ftp,x"`, "o"},
	{`helper == ""`, "p"},
	{`helper in ["Dns", "ftp,x"]`, "do"},
	{`helper > "E"`, "o"},
	{`helper <= "Dns"`, "dp"},
	{`helper matches "^[a-z,]+$"`, "o"},
	{`helper not matches "^[a-z,]+$"`, "sdpe"},
	{`helper contains ","`, "o"},
	{`len(helper) == 3`, "d"},
	{`payload contains "SSH"`, "s"},
	{`payload startsWith "SSH-2"`, "s"},
	{`payload endsWith "\r\n"`, "s"},
	{`payload contains b"\xffq"`, "d"},
	{`payload == b"\x00\x01\xffq\x80"`, "d"},
	{`payload startsWith b'\x00'`, "d"},
	{`payload matches "SSH-[12]"`, "s"},
	{`lower(payload) contains "ssh"`, "s"},
	{`payload == ""`, "p"},
	{`len(payload) > 3`, "sd"},
	{`len(payload) == 0`, "p"},
	{`payload != nil`, "sdp"},
	{"payload contains `-2.0-`", "s"},
	// Times.
	{`start > "2026-01-01T00:00:00Z"`, "s"},
	{`start < "2026-01-01T00:00:00Z"`, ""},
	{`start == "2026-01-02T15:04:05Z"`, "s"},
	{`stop >= 5`, "so"},
	{`stop == 5`, "o"},
	{`stop in 4..6`, "o"},
	{`stop - start == 100`, "s"},
	{`stop - start > 99.5`, "s"},
	{`stop > start`, "s"},
	{`stop > start + 100`, ""},
	{`stop != start`, "s"},
	// Truth.
	{`fragment`, "d"},
	{`not fragment`, "spoe"},
	{`fragment == true`, "d"},
	{`fragment == false`, "s"},
	{`fragment != true`, "s"},
	{`fragment == "true"`, "d"},
	{`fragment != offloaded`, "s"},
	{`fragment == offloaded`, ""},
	{`fragment == (zone == 7)`, "sd"},
	{`(zone == 7) == fragment`, "sd"},
	{`(fragment ?? offloaded) != nil`, "sd"},
	{`(zone == 7 ? fragment : offloaded) == true`, "sd"},
	{`(zone == 7) == (timeout == 30)`, "sdpoe"},
	{`(zone == 7) != true`, "spoe"},
	{`true`, "sdpoe"},
	{`false`, ""},
	{`not true`, ""},
	{`false or tcp.dport == 22`, "s"},
	{`true and tcp.dport == 22`, "s"},
	{`false and tcp.dport == 22`, ""},
	// Presence.
	{`tcp != nil`, "so"},
	{`tcp == nil`, "dpe"},
	{`nil != tcp`, "so"},
	{`udp == nil and tcp == nil`, "pe"},
	{`tcp.flags != nil`, "so"},
	{`labels != nil`, "sdp"},
	{`helper == nil`, "se"},
	{`ip != nil`, "sdp"},
	{`(tcp.dport ?? udp.dport) != nil`, "sdo"},
	{`timeout + orig.packets != nil`, "sdo"},
	{`orig.bytes / orig.packets == nil`, "dpe!"},
	// Joined.
	{`tcp.dport == 22 && ip.src in "10.0.0.0/8"`, "s"},
	{`tcp.dport == 22 and ip.src in "10.0.0.0/8" and "ASSURED" in status and mark == 1`, "s"},
	{`tcp.dport == 22 || udp.dport == 53`, "sd"},
	{`tcp.dport == 22 or udp.dport == 53 or proto == 1`, "sdp"},
	{`tcp.dport == 22 or udp.dport == 53 and mark == 1`, "s"},
	{`(tcp.dport == 22 or udp.dport == 53) and mark == 0x1ff`, "d"},
	{`not (tcp == nil) and not (tcp.dport == 22)`, "o"},
	{`proto == "tcp" ? tcp.dport == 22 : udp.dport == 53`, "sd"},
	{`(proto == "tcp" ? tcp.dport : udp.dport) == 53`, "d"},
	{`(proto == "tcp" ? mark : 5) == 5`, "dpoe"},
	{`(tcp.dport ?? udp.dport) == 53`, "d"},
	{`(tcp.dport ?? udp.dport) == "domain"`, "d"},
	{`(tcp.dport ?? udp.dport) in [22, 53]`, "sd"},
	{`(zone ?? 9) == 9`, "pe"},
	{`(zone ?? 9) > 5`, "dpoe"},
	{`(helper ?? "none") == "none"`, "se"},
	{`(fragment ?? true)`, "dpoe"},
	{`(ip.src ?? "1.1.1.1") == "1.1.1.1"`, "oe"},
	{`tcp.dport == 22 // a comment`, "s"},
	{`/* a comment */ tcp.dport == 22`, "s"},
	{"tcp.dport\n==\t22", "s"},
}

var letters = []struct {
	letter string
	name   string
}{{"s", "ssh"}, {"d", "dns"}, {"p", "ping"}, {"o", "odd"}, {"e", "empty"}}

func matching(p *Program[subject]) string {
	var got string
	for _, l := range letters {
		if p.Match(subjects[l.name]) {
			got += l.letter
		}
	}
	return got
}

func TestTable(t *testing.T) {
	oracled := 0
	for _, tt := range table {
		p, err := Compile(reg, tt.expr)
		if tt.match == "!" {
			if err == nil {
				t.Errorf("%s: compiles", tt.expr)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.expr, err)
			continue
		}
		if got, want := matching(p), strings.TrimSuffix(tt.match, "!"); got != want {
			t.Errorf("%s matches %q, want %q", tt.expr, got, want)
		}
		if p.Text() != tt.expr {
			t.Errorf("%s: Text is %s", tt.expr, p.Text())
		}
		o := judge(t, tt.expr)
		for _, l := range letters {
			s := subjects[l.name]
			// Package regexp keeps its machines in a pool, which forgets at random
			// under the race detector.
			if n := testing.AllocsPerRun(1, func() { p.Match(s) }); n != 0 &&
				!(raceEnabled && strings.Contains(tt.expr, "matches")) {
				t.Errorf("%s allocates %v times on %s", tt.expr, n, l.name)
			}
			if o.agrees(t, p, s) {
				oracled++
			}
		}
	}
	if oracled < 3*len(table) {
		t.Errorf("the oracle judged only %d cases of %d", oracled, 5*len(table))
	}
	if len(table) < 150 {
		t.Errorf("%d expressions", len(table))
	}
}

// judge is the oracle of an expression, nil when it does not do it.
func judge(t *testing.T, text string) *oracle {
	t.Helper()
	o, err := newOracle(text)
	if err != nil {
		if !errors.Is(err, errNoOracle) {
			t.Errorf("oracle of %s: %v", text, err)
		}
		return nil
	}
	return o
}

// agrees compares with the virtual machine, and reports whether it could.
func (o *oracle) agrees(t *testing.T, p *Program[subject], s *subject) bool {
	t.Helper()
	if o == nil {
		return false
	}
	want, err := o.match(s)
	if errors.Is(err, errNoOracle) {
		return false
	}
	if err != nil {
		t.Errorf("oracle of %s: %v", p.Text(), err)
		return false
	}
	if got := p.Match(s); got != want {
		t.Errorf("%s on %+v is %v, by the oracle %v", p.Text(), s, got, want)
	}
	return true
}

func TestFaults(t *testing.T) {
	for text, want := range map[string]uint64{
		`orig.bytes / orig.packets > 1`:        1, // dns: no packets
		`mark % orig.packets == 1`:             1,
		`large + 1 > 0`:                        2, // beyond 63 bits: dns, ping
		`orig.bytes * 9223372036854775807 > 0`: 3,
		`-9223372036854775807 - timeout > 0`:   3,
		`tcp.dport == 22`:                      0,
	} {
		p, err := Compile(reg, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := matching(p)
		if n := p.Faults(); n != want {
			t.Errorf("%s: %d faults, want %d (matches %q)", text, n, want, got)
		}
	}
}

func TestProgram(t *testing.T) {
	p, err := Compile(reg, `tcp.dport in [22, 80] and (udp != nil or mark == 1) and mark == 1`)
	if err != nil {
		t.Fatal(err)
	}
	conds, exact := p.Conds()
	if len(conds) != 2 || exact || conds[0].Paths[0] != "tcp.dport" || len(conds[0].Set.Nums) != 2 ||
		conds[1].Paths[0] != "mark" {
		t.Errorf("Conds = %+v, %v", conds, exact)
	}
	if got := p.Fields(); !slices.Equal(got, []string{"tcp.dport", "udp", "mark"}) {
		t.Errorf("Fields = %v", got)
	}
	for text, want := range map[string]bool{
		`proto == "tcp"`: true, `proto != "tcp"`: true, `proto == "tcp" and ip.src in "10.0.0.0/8"`: true,
		`not (proto == "tcp")`: false, `lower(helper) == "x"`: false, `tcp.dport > 22`: true, `"ASSURED" in status`: true,
		`(tcp.dport ?? udp.dport) == 22`: false, `tcp.dport == udp.dport`: false, `fragment == true`: true,
	} {
		p, err := Compile(reg, text)
		if err != nil {
			t.Fatal(err)
		}
		conds, exact := p.Conds()
		if exact != want {
			t.Errorf("%s: exact %v", text, exact)
		}
		if !exact {
			continue
		}
		// What the conditions say is what the expression says.
		test, err := Conds(reg, conds...)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range subjects {
			if test(s) != p.Match(s) {
				t.Errorf("%s on %s: conditions say %v", text, name, test(s))
			}
		}
	}
}

func TestReservedWord(t *testing.T) {
	for _, w := range []string{"not", "in", "len", "any", "contains", "nil", "let"} {
		if !ReservedWord(w) {
			t.Errorf("%s is not reserved", w)
		}
	}
	for _, w := range []string{"tcp", "type", "count", "mark", ""} {
		if ReservedWord(w) {
			t.Errorf("%s is reserved", w)
		}
	}
	for i := range reg.Rows() {
		for w := range strings.SplitSeq(reg.Rows()[i].Path, ".") {
			if ReservedWord(w) {
				t.Errorf("the field %s has a reserved word", reg.Rows()[i].Path)
			}
		}
	}
}

// FuzzCompile: any text is compiled or refused with a place in it, and what is
// compiled agrees with the oracle.
func FuzzCompile(f *testing.F) {
	for _, tt := range table[:40] {
		f.Add(tt.expr)
	}
	for _, tt := range wrong {
		f.Add(tt.expr)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 300 {
			return
		}
		p, err := Compile(reg, text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Column < 1 || e.Column > utf8.RuneCountInString(text)+1 {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		var o *oracle
		if utf8.ValidString(text) {
			o = judge(t, text)
		}
		for _, l := range letters {
			s := subjects[l.name]
			p.Match(s)
			if p.Faults() == 0 { // the machine wraps around where we fault
				o.agrees(t, p, s)
			}
		}
	})
}
