package compat

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/format"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		line string
		want Command
	}{
		{"-L", Command{Verb: 'L', Table: "conntrack"}},
		{"-p tcp --dport 80 --dump exp", Command{}},
		{"--dport 80 -p tcp -L", Command{}},
		{"-Lexp -o x,id", Command{Verb: 'L', Table: "expect", Output: "xml,id", Family: "ipv4"}},
		{"-Dp tcp --dport=80", Command{Verb: 'D', Table: "conntrack", Proto: "6", Choose: []Flag{{"proto", "6"}, {"dport", "80"}}}},
		{"-D -s 10.1.2.3/8 -n 1.2.3.4:80", Command{Verb: 'D', Table: "conntrack", Family: "ipv4",
			Choose: []Flag{{"src", "10.0.0.0/8"}, {"src-nat", "1.2.3.4:80"}, {"family", "ipv4"}}}},
		{"-D -g [fd00::1]:80", Command{Verb: 'D', Table: "conntrack", Family: "ipv6", Choose: []Flag{{"dst-nat", "[fd00::1]:80"}, {"family", "ipv6"}}}},
		{"-L -u ASSURED,!SEEN", Command{Verb: 'L', Table: "conntrack", Choose: []Flag{{"status", "ASSURED"}, {"status", "!SEEN_REPLY"}}}},
		{"-U -p udp -m 0x1/0xff -t 60", Command{Verb: 'U', Table: "conntrack", Proto: "17", Choose: []Flag{{"proto", "17"}}, Sets: []string{"timeout=60", "mark^=0x1/0xff"}}},
		{"-U --label-del", Command{Verb: 'U', Table: "conntrack", LabelDel: []string{AllLabels}}},
		{"-E -e NEW,DES -b 100", Command{Verb: 'E', Table: "conntrack", Events: "new,destroy", Buffer: 100}},
		{"-R file", Command{Verb: 'R', Table: "conntrack", File: "file"}},
		{"", Command{Verb: 'h', Table: "conntrack"}},
		{"-D -i 0x10", Command{Verb: 'D', Table: "conntrack", Exprs: []string{"id == 16"}}},
	} {
		got, err := Parse(strings.Fields(c.line))
		if c.want.Verb == 0 {
			if bad := (*Error)(nil); !errors.As(err, &bad) || bad.Status != 2 {
				t.Errorf("%s: %v", c.line, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.line, err)
		} else if !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s:\n%+v, not\n%+v", c.line, *got, c.want)
		}
	}
}

// Every option stands in the help, and that of a protocol in its own.
func TestHelp(t *testing.T) {
	text := Help("")
	for _, o := range options {
		if !o.extra && !strings.Contains(text, "--"+o.names[0]) {
			t.Errorf("--%s is not in the help", o.names[0])
		}
	}
	for _, p := range protocols.Get() {
		text := Help(p.name)
		for _, o := range p.opts {
			if !strings.Contains(text, "--"+o.names[0]) {
				t.Errorf("%s: --%s is not in the help", p.name, o.names[0])
			}
		}
	}
}

// Whatever the words are, the answer is a command or an *Error.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"-L -p tcp --sport 1",
		"-I -s 1.1.1.1 -d 2.2.2.2 -p icmp --icmp-type 8 --icmp-code 0 -t 5", "-D -n [::1]:5 --mask-src 1.0.1.0 -s 1.1.1.1",
		"-U --label-del a,b -u !ASSURED", "-G -r 1.1.1.1 -q 2.2.2.2 -p gre --reply-key-src 1 --reply-key-dst 2", "-E --event-mask=ALL -o save", "--", "-Lexp", "-zn"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words := strings.Split(s, " ")
		c, err := Parse(words)
		if bad := (*Error)(nil); err != nil && !errors.As(err, &bad) || err == nil && c == nil {
			t.Errorf("%q: %v", words, err)
		}
		if err == nil && c.Verb == 'h' {
			Help(c.Proto)
		}
	})
}

func TestProcStats(t *testing.T) {
	t.Parallel()
	got := string(appendProcStats(nil, "entries  found new\n0000000a  00000000 ffffffff\n0000000a  00000001 00000002 "+
		"00000003\n"))
	if want := "cpu=0   \tentries=10 found=0 new=4294967295 \ncpu=1   \tentries=10 found=1 new=2 \n"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	if got := appendProcStats(nil, ""); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// TestBigID: ids of flows are of 32 bits, of which half are from 2^31 up, also where
// whole numbers of Go are of 32 bits.
func TestBigID(t *testing.T) {
	t.Parallel()
	for _, id := range []uint32{0, 1<<31 - 1, 1 << 31, 3000000000, 1<<32 - 1} {
		c, err := Parse([]string{"-D", "-i", fmt.Sprint(id)})
		if err != nil {
			t.Errorf("%d: %v", id, err)
			continue
		}
		choice, err := (&runner{}).chooser(c)
		if err != nil {
			t.Errorf("%d: %v", id, err)
			continue
		}
		for _, other := range []uint32{0, 1, 1<<31 - 1, 1 << 31, 3000000000, 3000000001, 1<<32 - 1} {
			if got := choice.Keep(&ct.Flow{ID: other, Present: ct.HasID}); got != (other == id) {
				t.Errorf("-D -i %d chooses %d: %v", id, other, got)
			}
		}
	}
	if _, err := Parse([]string{"-D", "-i", "4294967296"}); err == nil {
		t.Error("an id of 33 bits")
	}
}

// A DCCP flow's role goes to the kernel, whatever that makes of it.
func TestCompatRole(t *testing.T) {
	t.Parallel()
	for word, role := range map[string]uint8{"client": 0, "server": 1} {
		c, err := Parse(strings.Fields("-I -s 10.0.0.1 -d 10.0.0.2 -p dccp --sport 1 --dport 2 -t 5 --state " +
			"OPEN --role " + word))
		if err != nil {
			t.Fatal(err)
		}
		f, err := (&runner{}).entry(c)
		if err != nil || !f.Has(ct.HasDCCPRole) || f.DCCPRole != role {
			t.Errorf("%s: %+v, %v", word, f, err)
		}
	}
}

// TestCompatPlain: lines for -R that are read by the short road are those that
// the option tables take, and mean the same by them.
func TestCompatPlain(t *testing.T) {
	r := &runner{}
	plain := 0
	for _, verb := range []string{"-A", "-I"} {
		for _, proto := range []string{"tcp", "udp"} {
			for _, addrs := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"},
				{"::ffff:1.2.3.4", "::1"}, {"0.0.0.0", "10.0.0.2"}} {
				for _, status := range []string{"UNSET", "SEEN_REPLY", "SEEN_REPLY,ASSURED", "ASSURED", "CONFIRMED"} {
					for _, more := range []string{"", " --state NONE", " --state SYN_SENT2", " --state LISTEN",
						" --state established", " -m 0", " -m 4294967295", " --mark 7", " -m 4294967296",
						" -w 0", " -w 65535", " -w 65536", " -m 1 -w 2", " --state CLOSE -w 9 -m 8", " --state CLOSE -m 7/7"} {
						for _, timeout := range []string{"0", "60", "2147483647", "2147483648", "4294967295",
							"4294967296"} {
							line := fmt.Sprintf("%s -t %s -u %s -s %s -d %s -r %[5]s -q %[4]s -p %[6]s --sport 0 "+
								"--dport 65535 --reply-port-src 65535 --reply-port-dst 0%[7]s", verb, timeout, status,
								addrs[0], addrs[1], proto, more)
							got := new(ct.Flow)
							if !format.ParsePlain(line, got) {
								continue
							}
							plain++
							relax(got)
							c, err := ParseLine(strings.Fields(line))
							if err != nil {
								t.Errorf("%s: %v", line, err)
								continue
							}
							want, err := r.entry(c)
							if err != nil || c.Verb != line[1] || len(c.Warnings) > 0 || !reflect.DeepEqual(got, want) {
								t.Errorf("%s: %v\ngot  %+v\nwant %+v", line, err, got, want)
							}
						}
					}
				}
			}
		}
	}
	if plain < 1000 {
		t.Errorf("%d plain lines", plain)
	}
}

// TestFlagsAgree: conntrack(8)'s options are the flags of nfctl's own commands, under
// the same names and letters.
func TestFlagsAgree(t *testing.T) {
	lists := [][]option{options}
	for _, p := range protocols.Get() {
		lists = append(lists, p.opts)
	}
	agreed := 0
	for _, o := range slices.Concat(lists...) {
		f := ct.FindFlag(ct.FlowFlags, o.names[0], true)
		if f == nil {
			continue
		}
		agreed++
		names, letter := f.Names(true)
		for _, n := range o.names {
			if !slices.Contains(names, n) {
				t.Errorf("--%s: nfctl has %q, not --%s", o.names[0], names, n)
			}
		}
		if has := strings.Trim(string(o.letter), "\x00"); has != letter && o.names[0] != "label-add" {
			t.Errorf("--%s is -%s here, -%s there", o.names[0], has, letter)
		}
	}
	if agreed < 40 {
		t.Errorf("only %d options have a flag", agreed)
	}
}
