package nfctl_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/packet/packettest"
	"nfctl/internal/pattern"
	"nfctl/internal/queue"
)

// TestWords: no key of the JSON that expressions speak of is a word or a
// function of their language.
func TestWords(t *testing.T) {
	testWords(t, queue.Fields)
	testWords(t, ct.FlowFields)
	testWords(t, ct.ExpectFields)
}

func testWords[T any](t *testing.T, reg *field.Registry[T]) {
	for i := range reg.Rows() {
		r := &reg.Rows()[i]
		for w := range strings.SplitSeq(r.Path, ".") {
			if filter.ReservedWord(w) {
				t.Errorf("%s: %q is a word of expressions", r.Path, w)
			}
		}
	}
}

// TestEveryField: each field can be asked for and compared, by its path, and an
// absent one matches nothing.
func TestEveryField(t *testing.T) {
	testFields(t, queue.Fields)
	testFields(t, ct.FlowFields)
	testFields(t, ct.ExpectFields)
}

func testFields[T any](t *testing.T, reg *field.Registry[T]) {
	var empty T
	for i := range reg.Rows() {
		r := &reg.Rows()[i]
		if reg.Reserved(r.Path) != "" {
			if _, err := filter.Compile(reg, r.Path+" != nil"); err == nil {
				t.Errorf("%s is reserved, and compiles", r.Path)
			}
			continue
		}
		exprs := []string{r.Path + " != nil"}
		switch r.Kind {
		case field.Uint:
			exprs = append(exprs, r.Path+" == 1", r.Path+` > "0"`, r.Path+" in 1..2",
				r.Path+" == "+strconv.FormatUint(r.Limit()>>1, 10), r.Path+" + 1 > 0")
		case field.Enum:
			for _, n := range r.Names.List() {
				if n.Word == "mptcp" { // a socket's, in no packet
					continue
				}
				exprs = append(exprs, r.Path+" == "+strconv.Quote(n.Word),
					r.Path+" in ["+strconv.Quote(strings.ToUpper(n.Word))+"]")
			}
		case field.Flags:
			for _, n := range r.Names.List() {
				exprs = append(exprs, strconv.Quote(n.Word)+" in "+r.Path, "any("+r.Path+`, # contains "A")`)
			}
		case field.Bits:
			exprs = append(exprs, `"7" in `+r.Path, "len("+r.Path+") > 0", "all("+r.Path+`, # == "7")`)
		case field.Addr:
			exprs = append(exprs, r.Path+` == "10.0.0.1"`, r.Path+` in ["10.0.0.0/8", "fd00::/8"]`)
		case field.String, field.Bytes:
			exprs = append(exprs, r.Path+` == "x"`, r.Path+` contains "x"`, "len("+r.Path+") > 1",
				"lower("+r.Path+`) startsWith "x"`)
		case field.Time:
			exprs = append(exprs, r.Path+` > "2026-01-02T15:04:05Z"`, r.Path+" > 5", r.Path+" - 5 > 0")
		case field.Bool:
			exprs = append(exprs, r.Path, r.Path+" == true", r.Path+` != "false"`)
		}
		for _, e := range exprs {
			p, err := filter.Compile(reg, e)
			if err != nil {
				t.Errorf("%s: %v", e, err)
				continue
			}
			if p.Match(&empty) && !r.Has(&empty) {
				t.Errorf("%s matches where %s is absent", e, r.Path)
			}
		}
	}
}

func packetOf(p packettest.Packet) *queue.Packet {
	b := p.Bytes()
	family := uint8(ct.IPv4)
	if strings.Contains(p.Src, ":") {
		family = ct.IPv6
	}
	return &queue.Packet{Family: family, Hook: 3, Data: b, Length: uint32(len(b)),
		Has: queue.HasPayload | queue.HasLength | queue.HasUID, Mark: 0x101}
}

// TestPacketExpressions: expressions and patterns over real packets, by the
// letters of those that match.
func TestPacketExpressions(t *testing.T) {
	packets := []struct {
		letter string
		p      *queue.Packet
	}{
		{"t", packetOf(packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 6, L4: packettest.TCP(40000, 22, 2, []byte{2, 4, 5, 0xb4}, "")})},
		{"u", packetOf(packettest.Packet{Src: "10.0.0.1", Dst: "192.168.1.1", Proto: 17, L4: packettest.UDP(5353, 53, "\x00\xffquery")})},
		{"6", packetOf(packettest.Packet{Src: "fd00::1", Dst: "fd00::2", Proto: 6, L4: packettest.TCP(1, 443, 0x18, nil, "GET / HTTP/1.1\r\n")})},
		{"i", packetOf(packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 1, L4: packettest.ICMP(8, 0, 513, 1, "ping")})},
		{"e", &queue.Packet{}},
	}
	for _, tt := range []struct{ expr, match string }{
		{`tcp.dport == 22`, "t"},
		{`tcp.dport == "ssh" and ip.src in "10.0.0.0/8"`, "t"},
		{`dport in ["ssh", "domain", 443]`, "tu6"},
		{`dport != 22`, "u6"},
		{`not (dport == 22)`, "u6ie"},
		{`"SYN" in tcp.flags and "ACK" not in tcp.flags`, "t"},
		{`tcp.flags == ["PSH", "ACK"]`, "6"},
		{`tcp.mss == 1460`, "t"},
		{`tcp != nil`, "t6"},
		{`udp != nil or icmp != nil`, "ui"},
		{`ct != nil`, ""},
		{`ct.mark == 0`, ""},
		{`ct == nil`, "tu6ie"},
		{`mark == "0x1/0xff"`, "tu6i"},
		{`hook == "output"`, "tu6i"},
		{`uid == 0`, "tu6i"},
		{`ip.proto == "TCP"`, "t6"},
		{`ip.src in ["10.0.0.0/8", "fd00::/8"]`, "tu6i"},
		{`ip.dst in "192.168.0.0/16"`, "u"},
		{`ip.ttl == 64`, "tu6i"},
		{`"DF" in ip.flags`, "tui"},
		{`icmp.type == "echo-request"`, "i"},
		{`icmp.type == 8 and icmp.id == 513`, "i"},
		{`payload contains "HTTP/1.1"`, "6"},
		{`payload startsWith b"\x00\xff"`, "u"},
		{`lower(payload) contains "get /"`, "6"},
		{`length > 60`, "6"},
		{`length - captured == 0`, "tu6i"},
		{`family == "ipv6"`, "6"},
		{`indev == "eth0"`, ""},
		{`ip.fragment`, ""},
	} {
		prog, err := filter.Compile(queue.Fields, tt.expr)
		if err != nil {
			t.Errorf("%s: %v", tt.expr, err)
			continue
		}
		var got string
		for _, p := range packets {
			if prog.Match(p.p) {
				got += p.letter
			}
			if n := testing.AllocsPerRun(1, func() { prog.Match(p.p) }); n != 0 {
				t.Errorf("%s allocates %v times on %s", tt.expr, n, p.letter)
			}
		}
		if got != tt.match {
			t.Errorf("%s matches %q, want %q", tt.expr, got, tt.match)
		}
	}
}

func TestFlowExpressions(t *testing.T) {
	flow := func(words ...string) *ct.Flow {
		f := &ct.Flow{}
		for i := 0; i < len(words); i += 2 {
			if err := ct.Find(ct.FlowAttrs(), words[i]).SetText(f, words[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	flows := []struct {
		letter string
		f      *ct.Flow
	}{
		{"t", flow("l3proto", "ipv4", "l4proto", "tcp", "orig-ipv4-src", "10.0.0.1", "orig-ipv4-dst", "10.0.0.2", "orig-port-src", "40000", "orig-port-dst", "22",
			"repl-ipv4-src", "10.0.0.2", "repl-ipv4-dst", "10.0.0.1", "repl-port-src", "22", "repl-port-dst", "40000",
			"timeout", "120", "status", "SEEN_REPLY,ASSURED,CONFIRMED", "tcp-state", "ESTABLISHED", "mark", "7")},
		{"u", flow("l3proto", "ipv6", "l4proto", "udp", "orig-ipv6-src", "fd00::1", "orig-ipv6-dst", "fd00::2", "orig-port-src", "5353", "orig-port-dst", "53",
			"timeout", "30", "status", "CONFIRMED", "zone", "5")},
		{"i", flow("l3proto", "ipv4", "l4proto", "icmp", "orig-ipv4-src", "10.0.0.1", "orig-ipv4-dst", "10.0.0.2", "icmp-type", "8", "icmp-code", "0", "icmp-id", "513", "timeout", "1", "status", "CONFIRMED")},
	}
	match := func(what, want string, test func(*ct.Flow) bool) {
		t.Helper()
		var got string
		for _, f := range flows {
			if test(f.f) {
				got += f.letter
			}
		}
		if got != want {
			t.Errorf("%s matches %q, want %q", what, got, want)
		}
	}
	for _, tt := range []struct{ expr, match string }{
		{`orig.src in "10.0.0.0/8"`, "ti"},
		{`orig.dport in [22, 80]`, "t"},
		{`"ASSURED" in status`, "t"},
		{`"UNREPLIED" in status`, "ui"},
		{`state == "ESTABLISHED"`, "t"},
		{`state != "ESTABLISHED"`, ""},
		{`proto == "TCP"`, "t"},
		{`proto_num == 6`, "t"},
		{`timeout > "20s"`, "tu"},
		{`mark == "0x7/0xff"`, "t"},
		{`mark == 0`, "ui"},
		{`zone == 0`, "ti"},
		{`orig.bytes > "1MiB"`, ""},
		{`orig.bytes == nil`, "tui"},
		{`orig.type == 8`, "i"},
		{`labels == nil`, "tui"},
		{`orig.dst == reply.src`, "t"},
	} {
		prog, err := filter.Compile(ct.FlowFields, tt.expr)
		if err != nil {
			t.Errorf("%s: %v", tt.expr, err)
			continue
		}
		match(tt.expr, tt.match, prog.Match)
	}
	for text, want := range map[string]string{
		"tcp >": "t", "* > :22": "t", "10.0.0.0/8 >": "ti", "udp [fd00::1]:5353 > [fd00::2]:53 zone 5": "u", "> zone 0": "ti",
		"icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513": "i", ">": "tui", "udp 10.0.0.0/8 >": "", "> :1-100": "tu",
	} {
		p, err := pattern.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		conds, err := p.Conds(pattern.FlowPaths)
		if err != nil {
			t.Fatal(err)
		}
		test, err := filter.Conds(ct.FlowFields, conds...)
		if err != nil {
			t.Fatal(err)
		}
		match(text, want, test)
	}
}

// TestHelpExpressions: every expression that the help shows is one.
func TestHelpExpressions(t *testing.T) {
	found := 0
	for line := range strings.Lines(filter.Help) {
		text, ok := strings.CutPrefix(line, "    ")
		if !ok {
			continue
		}
		found++
		text, _, _ = strings.Cut(strings.TrimSpace(text), "  ")
		_, err1 := filter.Compile(queue.Fields, text)
		_, err2 := filter.Compile(ct.FlowFields, text)
		if err1 != nil && err2 != nil {
			t.Errorf("%s: %v; %v", text, err1, err2)
		}
	}
	if found < 15 {
		t.Errorf("%d expressions in the help", found)
	}
}

func BenchmarkPacketExpression(b *testing.B) {
	p := packetOf(packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 6,
		L4: packettest.TCP(40000, 22, 2, nil, "")})
	prog, err := filter.Compile(queue.Fields, `tcp.dport == 22 && ip.src in "10.0.0.0/8"`)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("compiled", func(b *testing.B) {
		for b.Loop() {
			prog.Match(p)
		}
	})
	b.Run("loads alone", func(b *testing.B) {
		port, src := queue.Fields.Row("tcp.dport").Num, queue.Fields.Row("ip.src").IP
		for b.Loop() {
			port(p)
			src(p)
		}
	})
	b.Run("by hand", func(b *testing.B) {
		prefix := netip.MustParsePrefix("10.0.0.0/8")
		for b.Loop() {
			h := p.Headers()
			_, dport, ok := h.Ports()
			src, _ := h.Src()
			if proto, _ := h.Proto(); ok && proto == 6 && dport == 22 && prefix.Contains(src) {
				continue
			}
		}
	})
}
