package format

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// load reads text and writes each flow as a line again.
func load(text string) (lines []string, errs []error) {
	for s, err := range Load(strings.NewReader(text)) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		lines = append(lines, strings.TrimSuffix(string(AppendSave(nil, s.Flow)), "\n"))
	}
	return lines, errs
}

func TestLoad(t *testing.T) {
	const (
		udp = "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p udp --sport 1 --dport 53 --reply-port-src " +
			"53 --reply-port-dst 1"
		icmp = "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p icmp --icmp-type 8 --icmp-code 0 " +
			"--icmp-id 5"
	)
	for _, tt := range []struct{ name, in, want string }{
		{"as it is", udp, udp},
		{"no reply given", "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 53", udp},
		{"long flags", "--create --timeout=60 --orig-src 10.0.0.1 --orig-dst 10.0.0.2 --proto UDP --orig-port-src 1 --orig-port-dst=domain", udp},
		{"a duration", "-I -t 1m -s 10.0.0.1 -d 10.0.0.2 -p 17 --sport 1 --dport 53", udp},
		{"blanks and quotes", "  -A\t-t '60' -s \"10.0.0.1\" -d 10.0.'0.2' -p u\\dp  --sport 1 --dport 53 \r", udp},
		{"a comment behind", udp + " # old", udp},
		{"state before the protocol", "-A -t 60 --state ESTABLISHED -s fd00::1 -d fd00::2 -p tcp --sport 1 --dport 2 -m 0x10",
			"-A -t 60 -s fd00::1 -d fd00::2 -r fd00::2 -q fd00::1 -p tcp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1 --state ESTABLISHED --mark 16"},
		{"icmp", "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 5", icmp},
		{"json", `{"kind":"flow","proto":"udp","timeout":60,"orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":1,"dport":53,"packets":5},"id":99,"use":1,"start":"2026-01-02T12:00:00.000000000Z","mark":0,"zone":0}`, udp},
		{"json with nulls", `{"proto":"icmp","helper":null,"timeout":60,"orig":{"src":"10.0.0.1","dst":"10.0.0.2","type":8,"code":0,"id":5}}`, icmp},
		{"set", "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --set dport=53 --set repl-port-src=53", ""},
		{"set an attribute", "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --set orig-port-dst=53", udp},
		{"set a path", "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --set orig.dport=53", udp},
		{"with a zone and labels", "-A -t 60 -w 7 -s 10.0.0.1 -d 10.0.0.2 -p 99 --label-add 3,100",
			"-A -t 60 -w 7 -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p 99 --label-add 3,100"},
	} {
		got, errs := load(tt.in)
		if tt.want == "" {
			if len(errs) != 1 {
				t.Errorf("%s: %v, want an error", tt.name, got)
			}
			continue
		}
		if len(errs) > 0 || !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s: %v\ngot  %s\nwant %s", tt.name, errs, got, tt.want)
		}
	}
}

func TestLoadNAT(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want func(*ct.Flow) bool
	}{
		{"-A -t 5 -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -n 1.2.3.4 -p tcp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 99 --state CLOSE", func(f *ct.Flow) bool {
			return f.SNAT.Addr.String() == "1.2.3.4" && f.Has(ct.HasSNATPort) && f.SNAT.Port == 99 && !f.DNAT.Addr.IsValid() && !f.Has(ct.HasDNATPort)
		}},
		{"-A -t 5 -s 10.0.0.1 -d 10.0.0.2 -g 1.2.3.4 -q 10.0.0.1 -p tcp --sport 1 --dport 2 --reply-port-src 88 --reply-port-dst 1 --state CLOSE", func(f *ct.Flow) bool {
			return f.DNAT.Addr.String() == "1.2.3.4" && f.Has(ct.HasDNATPort) && f.DNAT.Port == 88 && !f.SNAT.Addr.IsValid() && !f.Has(ct.HasSNATPort)
		}},
		{"-A -t 5 -s 10.0.0.1 -d 10.0.0.2 -n 1.2.3.4:1000 -p tcp --sport 1 --dport 2 --state CLOSE", func(f *ct.Flow) bool {
			return f.SNAT.Addr.String() == "1.2.3.4" && f.SNAT.Port == 1000
		}},
		{"-A -t 5 -s 10.0.0.1 -d 10.0.0.2 -n 1.2.3.4-1.2.3.9:1000-2000 -p tcp --sport 1 --dport 2 --state CLOSE", func(f *ct.Flow) bool {
			return f.SNAT.AddrMax.String() == "1.2.3.9" && f.SNAT.PortMax == 2000
		}},
		{"-A -t 5 -s fd00::1 -d fd00::2 -g [fd00::9]:80 -p tcp --sport 1 --dport 2 --state CLOSE", func(f *ct.Flow) bool {
			return f.DNAT.Addr.String() == "fd00::9" && f.DNAT.Port == 80
		}},
		// Only the port is translated: conntrack(8) would lose it.
		{"-A -t 5 -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 99 --state CLOSE --set snat-port=99", func(f *ct.Flow) bool {
			return !f.SNAT.Addr.IsValid() && f.SNAT.Port == 99 && f.Has(ct.HasSNATPort)
		}},
		{`{"proto":"tcp","timeout":5,"state":"CLOSE","status":["CONFIRMED","SRC_NAT","SRC_NAT_DONE"],"orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":1,"dport":2},"reply":{"src":"10.0.0.2","dst":"1.2.3.4","sport":2,"dport":99}}`, func(f *ct.Flow) bool {
			return f.SNAT.Addr.String() == "1.2.3.4" && f.SNAT.Port == 99
		}},
	} {
		for s, err := range Load(strings.NewReader(tt.in)) {
			if err != nil {
				t.Error(err)
				continue
			}
			f := s.Flow
			if !tt.want(f) {
				t.Errorf("%s: SNAT %+v, DNAT %+v", tt.in, f.SNAT, f.DNAT)
			}
			mirror := f.Orig.Reverse()
			if f.Reply.Src != mirror.Src || f.Reply.Dst != mirror.Dst || f.Reply.Sport != mirror.Sport ||
				f.Reply.Dport != mirror.Dport {
				t.Errorf("%s: the reply %+v is not the mirror of %+v", tt.in, f.Reply, f.Orig)
			}
			if f.Status&^(ct.StatusChangeable|ct.StatusConfirmed) != 0 {
				t.Errorf("%s: status %#x", tt.in, f.Status)
			}
		}
	}
}

func TestLoadErrors(t *testing.T) {
	const ok = "-A -t 60 -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 53"
	for in, want := range map[string]string{
		"hello":                             `"hello" is not a valid start of a line`,
		"-D -s 10.0.0.1":                    "-A or -I",
		ok + " --nonsense 5":                `"--nonsense"`,
		ok + " -o xml":                      `"-o"`,
		ok + " --mark":                      "--mark with a value",
		ok + " --mark 99999999999":          "--mark",
		ok + " --sport 70000":               "--sport",
		ok + " --set":                       "--set with a value",
		ok + " --set mark":                  "NAME=VALUE",
		ok + " --set makr=5":                `did you mean "mark"`,
		ok + " --set id=5":                  "the kernel picks it",
		ok + " --set orig-counter-bytes=5":  "the kernel ignores it",
		ok + " --state ESTABLISHED":         "only tcp, sctp and dccp",
		ok + " -r fd00::1":                  "addresses of one family",
		ok + " -f ipv6":                     "family",
		ok + " 'x":                          "an end of the quotation",
		"-A -t 60 -p udp":                   "both addresses",
		"-A -t 60 -s 10.0.0.1 -d 10.0.0.2":  "a protocol",
		"-A -s 10.0.0.1/8 -d 10.0.0.2 -p 5": "-s",
		"{":                                 "not a JSON object",
		"{} {}":                             "after top-level value",
		"[1]":                               "start of a line",
		`{"kind":"expect"}`:                 `a protocol and a destination`,
		`{"orig":{"srx":"1.2.3.4"}}`:        "orig.src",
		`{"orig":"1.2.3.4"}`:                "orig",
		`{"mark":{"x":1}}`:                  "mark",
		`{"status":[1]}`:                    "strings",
		`{"proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":99999}}`:         "orig.sport",
		`{"proto":"udp","status":["NONSENSE"],"orig":{"src":"10.0.0.1","dst":"10.0.0.2"}}`: "NONSENSE",
	} {
		text := "# a comment\n\n" + ok + "\n" + in + "\n" + ok + "\n"
		lines, errs := load(text)
		var le *LineError
		if len(lines) != 2 || len(errs) != 1 || !errors.As(errs[0], &le) {
			t.Errorf("%s: %d flows, %v", in, len(lines), errs)
			continue
		}
		if le.Line != 4 || le.Text != in || !strings.Contains(errs[0].Error(), want) ||
			!strings.HasPrefix(errs[0].Error(), "line 4: ") {
			t.Errorf("%s: %v, want %q in it", in, errs[0], want)
		}
	}
	for _, in := range []string{"hello, this is no line", `{"orig":{"srx":"1.2.3.4"}}`,
		`{"proto":"udp","helper":7,"orig":{"src":"10.0.0.1x"}}`} {
		_, want := load(in)
		// What comes behind overwrites what was read.
		_, got := load(in + strings.Repeat("\n"+ok, 10000))
		if len(got) != 1 || got[0].Error() != want[0].Error() {
			t.Errorf("%v, want %v", got, want)
		}
	}
	_, errs := load(ok + "\n-A " + strings.Repeat("x", maxLine) + "\n" + ok)
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "longer than") {
		t.Errorf("a long line: %v", errs)
	}
	n := 0
	for range Load(strings.NewReader(ok + "\n" + ok)) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d flows after a break", n)
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string][]string{
		"":                      nil,
		" a  b\tc ":             {"a", "b", "c"},
		`'a b' "c d"e f' 'g`:    {"a b", "c de", "f g"},
		`"a\"b\\" '\' a\ b`:     {`a"b\`, `\`, "a b"},
		`'' ""`:                 {"", ""},
		"a#b #c d":              {"a#b"},
		`--set=a"b=c d"`:        {"--set=ab=c d"},
		"trailing\\":            {"trailing\\"},
		"'a\u00e9' \u00e9\"\"b": {"a\u00e9", "\u00e9b"},
	} {
		got, err := Split(nil, in)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Split(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"'", `"`, `a"b\"`, "'a b"} {
		var ve *value.Error
		if _, err := Split(nil, bad); !errors.As(err, &ve) {
			t.Errorf("Split(%q): %v", bad, err)
		}
	}
}

// FuzzLoad: what is read is written so that it is read as the same again, and
// nothing panics.
func FuzzLoad(f *testing.F) {
	for _, s := range samples() {
		f.Add(string(AppendSave(nil, s)))
		p, _ := New(Flows, Output{Format: JSON}, Options{})
		f.Add(string(p.Append(nil, s)))
	}
	f.Add("ipv4 2 tcp 6 599 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=9 dport=80 packets=0 bytes=0 src=10.0.0.2 " +
		"dst=192.0.2.1 sport=80 dport=99 [ASSURED] mark=0 zone-orig=3 delta-time=0 [start=Tue Dec  1] helper=ftp use=1")
	f.Add(`<flow><meta direction="original"><layer3 protonum="2"><src>10.0.0.1</src><dst>10.0.0.2</dst></layer3><layer4 ` +
		`protonum="6"><sport>1</sport></layer4></meta><meta direction="independent"><mark>5</mark></meta></flow>`)
	f.Add("-A -t 60 --set helper-name='a b' --label-add 1 -p tcp -s ::1 -d ::2 --set tcp-mask-orig=5 # x")
	f.Fuzz(func(t *testing.T, text string) {
		for s, err := range Load(strings.NewReader(text)) {
			if err != nil {
				continue
			}
			line := string(AppendSave(nil, s.Flow))
			if strings.ContainsRune(line[:len(line)-1], '\n') {
				t.Fatalf("%q becomes two lines: %q", s.Text, line)
			}
			if s.Flow.SNAT.Addr.IsValid() || s.Flow.DNAT.Addr.IsValid() ||
				s.Flow.Present&(ct.HasSNATPort|ct.HasDNATPort) != 0 {
				continue // what is asked for is no part of a flow that is written
			}
			again, errs := load(line)
			if len(errs) > 0 || len(again) != 1 || again[0]+"\n" != line {
				t.Fatalf("%q\nwritten as %q\nthen as    %q, %v", s.Text, line, again, errs)
			}
			j, _ := newJSON(ct.FlowFields, nil, nil)
			if b := j.Append(nil, s.Flow); !json.Valid(b) {
				t.Fatalf("not JSON: %s", b)
			}
		}
	})
}

// slowly reads a line by the readers that know everything.
func slowly(text string, f *ct.Flow) error {
	if text[0] == '{' {
		return cmp.Or(newJSONFlow().parse(text, f), f.Orig.Complete())
	}
	words, err := Split(nil, text)
	if err == nil {
		err = ParseSave(words, f)
	}
	if err == nil {
		err = f.Orig.Complete()
	}
	return err
}

// FuzzPlain: what the short roads read means what it means without them.
func FuzzPlain(f *testing.F) {
	for _, s := range append(samples(), typical()) {
		f.Add(string(AppendSave(nil, s)))
		p, _ := New(Flows, Output{Format: JSON}, Options{})
		f.Add(string(p.Append(nil, s)))
	}
	for _, s := range plainLines {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		for s, err := range Load(strings.NewReader(text + "\n" + text)) { // the second time by what was learnt
			if n++; n > 100 {
				break
			}
			var bad *LineError
			line := s.Text
			if errors.As(err, &bad) {
				line, err = bad.Text, bad.Err
			} else if err != nil {
				continue
			}
			if _, aside, _ := parseAside(line); aside || strings.HasPrefix(line, ExpectLine+" ") {
				continue
			}
			var want ct.Flow
			wantErr := slowly(line, &want)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Fatalf("%q: %v, want %v", line, err, wantErr)
			}
			if err == nil && !reflect.DeepEqual(*s.Flow, want) {
				t.Fatalf("%q:\ngot  %+v\nwant %+v", line, *s.Flow, want)
			}
		}
	})
}

const plainUDP = "-A -t 60 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p udp --sport 1 --dport 53 " +
	"--reply-port-src 53 --reply-port-dst 1"

// plainLines are lines that the short roads read, and some that they must not.
var plainLines = []string{
	plainUDP,
	strings.Replace(plainUDP, "UNSET", "SEEN_REPLY,ASSURED", 1) + " -m 7 -w 3",
	strings.Replace(plainUDP, "udp", "tcp", 1) + " --state TIME_WAIT --mark 4294967295",
	strings.Replace(plainUDP, "-A", "-I", 1) + " --state CLOSE",
	strings.Replace(plainUDP, "-t 60", "-t 060", 1),
	strings.Replace(plainUDP, "-t 60", "-t 4294967296", 1),
	strings.Replace(plainUDP, "--sport 1 ", "--sport 65536 ", 1),
	strings.Replace(plainUDP, "--sport 1 ", "--sport +1 ", 1),
	strings.Replace(plainUDP, "-s 10.0.0.1", "-s fe80::1%lo", 1),
	strings.Replace(plainUDP, "-s 10.0.0.1", "-s fe80::1", 1),
	strings.Replace(plainUDP, "-r 10.0.0.2", "-r 1.2.3.4", 1),
	strings.Replace(plainUDP, "-dst 1", "-dst 2", 1),
	plainUDP + " -m 010", plainUDP + " -m 0x10", plainUDP + " -m 1/1", plainUDP + " -w 0", plainUDP + " -w 65536", plainUDP + " -w", plainUDP + " -t 1",
	plainUDP + " # x", plainUDP + "  -m 1", plainUDP + "\t-m 1", plainUDP + " -m '1'", plainUDP + " -m #1", plainUDP + " -m 1\r",
	`{"kind":"flow","family":"ipv4","proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":1,"dport":2},"status":["SEEN_REPLY","ASSURED"],"mark":1,"zone":0,"synproxy":{"isn":0}}`,
	`{"proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":1,"dport":2,"sport":3},"status":[],"mark":01}`,
	`{"proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2"},"orig":{"src":"10.0.0.3"},"status":["A"],"status":["ASSURED","ASSURED"]}`,
	`{"proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2"},"mark":1.0,"id":1e9,"use":-1}`,
	`{"proto":"udp","orig.src":"10.0.0.1","orig.dst":"10.0.0.2","mark":null,"state":true}`,
	`{"proto":"ud\u0070","orig":{"src":"10.0.0.1","dst":"10.0.0.2"}, "mark": 1}`,
	`{"proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2"},"mark":1}}`, `{"proto":"udp","orig":{"src":"10.0.0.1"`, `{"orig":{}}`, `{"mark":{}}`, `{"orig":1}`, `{"proto":"a` + "\x01" + `"}`,
	`{"proto":"icmp","reply":{"type":3,"code":1,"id":4},"orig":{"src":"10.0.0.1","dst":"10.0.0.2","type":8,"code":0,"id":5}}`,
	`{"proto":"udp","orig":{"src":"fd00::1","dst":"fd00::2"},"snat":{"addr":"fd00::9","port":80}}`, `{"proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2"},"status":8}`, `{"proto":17,"orig":{"src":"10.0.0.1","dst":"10.0.0.2"},"status":"ASSURED"}`,
	`{"proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":65536}}`, `{"proto":"udp","orig":{"src":"10.0.0.1","dst":"10.0.0.2"},"mark":4294967295,"id":18446744073709551616,"synproxy":{"isn":18446744073709551617}}`,
	`{"proto":"udp","timeout":"1m","orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":"domain"},"helper":"x","helper_info":"aGk="}`,
	`{}`, `{"mark":1,}`, `{,"mark":1}`, `{"mark"`, `{"mark":`, `{"status":["A"`, `{"status":["A",]}`, `{"status":[1]}`, `{"kind":"expect"}`, `{"kind":1}`, `{"helper":"a\nb"}`,
}

// TestPlain: the short roads are taken by what programs write.
func TestPlain(t *testing.T) {
	p, _ := New(Flows, Output{Format: JSON}, Options{})
	j := newJSONFlow()
	for _, proto := range []uint8{ct.TCP, ct.UDP} {
		f := typical()
		f.Present &^= ct.HasTCPFlagsOrig | ct.HasTCPMaskOrig
		if f.Orig.Proto = proto; proto == ct.UDP {
			f.Present &^= ct.HasTCPState
		}
		saved := strings.TrimSpace(string(AppendSave(nil, f)))
		if !ParsePlain(saved, &ct.Flow{}) {
			t.Errorf("not plain: %s", saved)
		}
		f.Present |= ct.HasTCPFlagsOrig | ct.HasTCPFlagsReply | ct.HasTCPWscaleOrig | ct.HasTCPWscaleReply |
			ct.HasSynproxy
		f.TCPFlagsReply = 0 // an empty list
		line := strings.TrimSpace(string(p.Append(nil, f)))
		got := new(ct.Flow)
		if !j.plain(line, got) {
			t.Errorf("not plain: %s", line)
		}
		if n := testing.AllocsPerRun(100, func() { got.Reset(); j.plain(line, got) }); n > 0 {
			t.Errorf("%.0f allocations for %s", n, line)
		}
		if n := testing.AllocsPerRun(100, func() { got.Reset(); ParsePlain(saved, got) }); n > 0 {
			t.Errorf("%.0f allocations for %s", n, saved)
		}
		const lines = 1000
		text := strings.Repeat(line+"\n"+saved+"\n", lines/2)
		if n := testing.AllocsPerRun(3, func() { load0(t, text) }); n > lines/2 {
			t.Errorf("%.0f allocations for %d lines", n, lines)
		}
	}
}

func load0(t *testing.T, text string) {
	for _, err := range Load(strings.NewReader(text)) {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestKeysInOrder: attributes are set in the order of their keys, and a key sets
// one attribute, or one of each family.
func TestKeysInOrder(t *testing.T) {
	k := keySets.Get()
	for i := range k.attrs[1:] {
		a, b := &k.attrs[i], &k.attrs[i+1]
		if b.key < a.key || b.key == a.key && (a.six != 4 || b.six != 6) {
			t.Errorf("%s, key %d, before %s, key %d", a.attr.Name, a.key, b.attr.Name, b.key)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, format := range []Format{Save, JSON} {
		b.Run(format.String(), func(b *testing.B) {
			p, err := New(Flows, Output{Format: format}, Options{})
			if err != nil {
				b.Fatal(err)
			}
			line := p.Append(nil, typical())
			text := strings.Repeat(string(line), 1000)
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for n := 0; n < b.N; {
				for _, err := range Load(strings.NewReader(text)) {
					if err != nil {
						b.Fatal(err)
					}
					if n++; n >= b.N {
						break
					}
				}
			}
		})
	}
}
