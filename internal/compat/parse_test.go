package compat

import (
	"errors"
	"reflect"
	"strings"
	"testing"
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
	for _, s := range []string{"-L -p tcp --sport 1", "-I -s 1.1.1.1 -d 2.2.2.2 -p icmp --icmp-type 8 --icmp-code 0 -t 5", "-D -n [::1]:5 --mask-src 1.0.1.0 -s 1.1.1.1",
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
