package format

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nl"
	"nfctl/internal/nstest"
	"nfctl/internal/value"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// entries are made with conntrack(8) itself, one of each sort; a '!' marks those
// that need a label rule.
var entries = []string{
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 80 --state NONE -t 5000",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 2 --dport 80 --state SYN_SENT -t 5000",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 3 --dport 80 --state SYN_RECV -t 5000 -u SEEN_REPLY",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 4 --dport 80 --state ESTABLISHED -t 5000 -u SEEN_REPLY,ASSURED -m 4294967295",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 5 --dport 80 --state FIN_WAIT -t 5000 -u ASSURED",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 6 --dport 80 --state CLOSE_WAIT -t 5000 -u SEEN_REPLY,FIXED_TIMEOUT",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 7 --dport 80 --state LAST_ACK -t 5000",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 8 --dport 80 --state TIME_WAIT -t 5000",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 9 --dport 80 --state CLOSE -t 5000",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 10 --dport 80 --state SYN_SENT2 -t 5000 -m 7",
	"-p tcp -s fd00::1 -d fd00::2 --sport 1 --dport 80 --state ESTABLISHED -t 5000 -u SEEN_REPLY,ASSURED",
	"-p udp -s 255.255.255.255 -d 0.0.0.1 --sport 65535 --dport 53 -t 5000",
	"-p udp -s ::ffff:1.2.3.4 -d 64:ff9b::1.2.3.4 --sport 65535 --dport 53 -t 5000",
	"-p udp -s ::1.2.3.4 -d 1:0:0:2::3 --sport 65535 --dport 53 -t 5000 -u SEEN_REPLY",
	"-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 5000 -w 5",
	"-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 5000 -w 65535 -m 1",
	"-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 3 --dport 2 -t 5000 --orig-zone 6",
	"-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 4 --dport 2 -t 5000 --reply-zone 7",
	"-p udplite -s fd00::1 -d fd00::2 --sport 1 --dport 2 -t 5000",
	"-p udplite -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 5000",
	"-p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 65535 -t 5000",
	"-p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 13 --icmp-code 0 --icmp-id 1 -t 5000 -u SEEN_REPLY",
	"-p icmpv6 -s fd00::1 -d fd00::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 77 -t 5000",
	"-p sctp -s 10.0.0.1 -d 10.0.0.2 --sport 5 --dport 6 --state ESTABLISHED --orig-vtag 1 --reply-vtag 4294967295 -t 5000",
	"-p sctp -s fd00::1 -d fd00::2 --sport 5 --dport 6 --state SHUTDOWN_ACK_SENT --orig-vtag 1 --reply-vtag 2 -t 5000",
	"-p dccp -s 10.0.0.1 -d 10.0.0.2 --sport 5 --dport 6 --state OPEN --role client -t 5000",
	"-p gre -s 10.0.0.1 -d 10.0.0.2 --srckey 1000 --dstkey 65535 -t 5000",
	"-p gre -s fd00::1 -d fd00::2 --srckey 1000 --dstkey 2000 -t 5000",
	"-p 50 -s 10.0.0.1 -d 10.0.0.2 -t 5000",
	"-p 255 -s fd00::1 -d fd00::2 -t 5000 -m 3",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 2000 --dport 80 --state ESTABLISHED -t 5000 --src-nat 1.2.3.4:99",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 2001 --dport 80 --state ESTABLISHED -t 5000 --dst-nat 1.2.3.4:99 -u SEEN_REPLY",
	"-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 2002 --dport 80 --state ESTABLISHED -t 5000 --src-nat 1.2.3.5 --dst-nat 1.2.3.4",
	"-p tcp -s fd00::1 -d fd00::2 --sport 2000 --dport 80 --state ESTABLISHED -t 5000 --src-nat fd00::9",
	"-p tcp -s fd00::1 -d fd00::2 --sport 2001 --dport 80 --state ESTABLISHED -t 5000 --dst-nat fd00::9 -m 5",
	"!-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 3000 --dport 80 --state ESTABLISHED -t 5000 -u SEEN_REPLY,ASSURED --label-add five,seven",
	"!-p udp -s fd00::1 -d fd00::2 --sport 3000 --dport 80 -t 5000 --label-add seven",
}

const labelFile = "5 five\n7 seven\n100 <&>\n"

// filled is a namespace with a varied table. conntrack runs conntrack(8) in it,
// where it finds names for labels.
type filled struct {
	t *testing.T
	*nstest.NS
	etc string
}

func fill(t *testing.T) *filled {
	t.Helper()
	nstest.Need(t, "conntrack", "iptables", "unshare")
	ns := nstest.Enter(t)
	dir := t.TempDir()
	labels := filepath.Join(dir, "connlabel.conf")
	if err := os.WriteFile(labels, []byte(labelFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ct.LoadLabels(labels); err != nil {
		t.Fatal(err)
	}
	f := &filled{t, ns, dir}
	for _, s := range []string{"nf_conntrack_acct", "nf_conntrack_timestamp"} {
		if err := os.WriteFile("/proc/thread-self/net/../../../sys/net/netfilter/"+s, []byte("1"), 0); err != nil {
			if err := os.WriteFile("/proc/sys/net/netfilter/"+s, []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	ns.Run("ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
	ns.Run("ip", "addr", "add", "fd99::1/128", "dev", "lo", "nodad")
	// The rules track, name the helper of port 21, and use labels.
	ns.Run("iptables", "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "--dport", "21", "-j", "CT", "--helper", "ftp")
	ns.Run("ip6tables", "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "--dport", "21", "-j", "CT", "--helper", "ftp")
	for _, c := range []string{"iptables", "ip6tables"} {
		ns.Run(c, "-A", "OUTPUT", "-m", "connlabel", "--label", "5")
		ns.Run(c, "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "ACCEPT")
	}
	return f
}

// table makes the entries, and some by traffic.
func (f *filled) table() {
	f.t.Helper()
	script := ""
	for _, e := range entries {
		script += "conntrack -I " + strings.TrimPrefix(e, "!") + " || exit 1\n"
	}
	f.inEtc("sh", "-ec", script)
	f.traffic()
}

// traffic opens connections with and without a helper, and leaves them open.
func (f *filled) traffic() (control [2]net.Conn) {
	f.t.Helper()
	for i, addr := range []string{"10.99.0.1", "[fd99::1]"} {
		for _, port := range []string{":21", ":4000"} {
			l := f.ListenTCP(addr + port)
			f.t.Cleanup(func() { _ = l.Close() })
			c, err := f.Dial("tcp", l.Addr().String(), nstest.Patience)
			if err != nil {
				f.t.Fatal(err)
			}
			s, err := l.Accept()
			if err != nil {
				f.t.Fatal(err)
			}
			go func() { _, _ = io.Copy(s, s) }()
			f.t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
			ask(f.t, c, "USER x\r\n")
			if port == ":21" {
				control[i] = c
			}
		}
		if addr == "10.99.0.1" {
			f.Ask(f.UDPEcho(addr+":5000"), "hello", nstest.Patience)
		}
	}
	return control
}

func ask(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(nstest.Patience))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
}

// inEtc runs a program where /etc holds only names of labels.
func (f *filled) inEtc(args ...string) string {
	f.t.Helper()
	mount := `mount -t tmpfs none /etc && mkdir /etc/xtables && cat > /etc/xtables/connlabel.conf <<'EOF' && exec "$@"` + "\n" + labelFile + "EOF\n"
	return f.Run("unshare", append([]string{"-m", "sh", "-c", mount, "sh"}, args...)...)
}

func (f *filled) conntrack(args ...string) string {
	f.t.Helper()
	return f.inEtc(append([]string{"conntrack"}, args...)...)
}

// list writes the table in a format.
func (f *filled) list(o Output) string {
	f.t.Helper()
	p, err := New(Flows, o, Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	b := p.Begin(nil)
	_, err = ct.Dump(context.Background(), ct.DumpOptions{}, func(fl *ct.Flow) error {
		b = p.Append(b, fl)
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return string(p.End(b))
}

func output(t *testing.T, s string) Output {
	t.Helper()
	o, err := ParseOutput(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// xmlStates: conntrack(8) prints the states of SCTP and DCCP in XML by the names of
// TCP's.
func xmlStates(line string) string {
	for proto, names := range map[string]*value.Names{`protonum="132"`: ct.SCTPStateNames,
		`protonum="33"`: ct.DCCPStateNames} {
		if !strings.Contains(line, proto) {
			continue
		}
		line = xmlState.ReplaceAllStringFunc(line, func(s string) string {
			n, _ := ct.TCPStateNames.Parse(xmlState.FindStringSubmatch(s)[1])
			return "<state>" + names.Word(n) + "</state>"
		})
	}
	return line
}

var (
	xmlState = regexp.MustCompile(`<state>(\w+)</state>`)
	running  = regexp.MustCompile(`(?:^(?:ipv[46] +\d+ +)?[a-z0-9]+ +\d+ |-t |<timeout>|delta-time=|<deltatime>)(\d+)`)
)

// atOnce gives theirs the seconds of ours that differ by no more than the few which
// may pass between two programs.
func atOnce(theirs, ours string) string {
	a, b := running.FindAllStringSubmatchIndex(ours, -1), running.FindAllStringSubmatchIndex(theirs, -1)
	if len(a) != len(b) {
		return theirs
	}
	for i := len(b) - 1; i >= 0; i-- {
		x, _ := strconv.Atoi(ours[a[i][2]:a[i][3]])
		y, _ := strconv.Atoi(theirs[b[i][2]:b[i][3]])
		if d := x - y; d >= -3 && d <= 3 {
			theirs = theirs[:b[i][2]] + ours[a[i][2]:a[i][3]] + theirs[b[i][3]:]
		}
	}
	return theirs
}

// differences are the ones that are meant, each with its reason. The function
// turns a line of conntrack(8) into ours, given ours.
var differences = map[string]struct {
	why string
	fix func(theirs, ours string) string
}{
	"xml": {"states of SCTP and DCCP have their own names, not those of TCP's", func(theirs, _ string) string { return xmlStates(theirs) }},
	"save": {"ours goes on with what conntrack(8) loses", func(theirs, ours string) string {
		if rest, ok := strings.CutPrefix(ours, theirs); ok && extras.MatchString(rest) {
			return ours
		}
		return theirs
	}},
}

// stampOf: conntrack(8) writes microseconds without their leading zeros and with
// blanks behind, so that 15 ms is as much as 150 ms; ours have six digits.
var stampOf = regexp.MustCompile(`(?m)^\[\d{10}\.\d+ *\]\t|^\[0.000000\]\t`)

// used is the count of an entry's users, one or two.
var used = regexp.MustCompile(`use=[12]\b|<use>[12]</use>`)

var extras = regexp.MustCompile(`^( --mark [1-9]\d*| --label-add \S+| --set [a-z0-9-]+=\S+)*$`)

// TestConntrackLines compares what we write of a varied table with conntrack(8),
// line for line.
func TestConntrackLines(t *testing.T) {
	f := fill(t)
	f.table()
	for _, mode := range []string{"", "id", "extended", "extended,id,ktimestamp", "labels,id",
		"extended,labels,ktimestamp,timestamp,userspace",
		"xml", "xml,ktimestamp", "xml,labels,id,extended", "save"} {
		args, o := []string{"-L"}, Output{Format: Text}
		if mode != "" {
			args, o = append(args, "-o", mode), output(t, mode)
		}
		diff := differences[strings.Split(mode, ",")[0]]
		var report string
		// What the traffic made may end between the two.
		same := false
		for i := 0; i < 40 && !same; i++ {
			ours := strings.Split(f.list(o), "\n")
			theirs := strings.Split(f.conntrack(args...), "\n")
			report = ""
			for k := range max(len(ours), len(theirs)) {
				var a, b string
				if k < len(ours) {
					a = ours[k]
				}
				if k < len(theirs) {
					b = theirs[k]
				}
				b = atOnce(b, a)
				if diff.fix != nil {
					b = diff.fix(b, a)
				}
				// Where a dump goes on with a second datagram, 5.10 holds the entry that it
				// goes on at; which that is is a matter of buffers.
				if used.ReplaceAllString(a, "") == used.ReplaceAllString(b, "") {
					continue
				}
				if a != b {
					report += fmt.Sprintf("\n ours   %s\n theirs %s", a, b)
				}
			}
			if len(ours) < len(entries) { // the traffic's may have expired on a slow machine
				t.Fatalf("%d lines of %d entries and the traffic's", len(ours), len(entries))
			}
			same = report == ""
		}
		if !same {
			t.Errorf("-o %s: differs from conntrack(8):%s", mode, report)
		}
	}
}

// TestConntrackEvents compares what we write of events with conntrack -E.
func TestConntrackEvents(t *testing.T) {
	f := fill(t)
	modes := []string{"extended,id,ktimestamp,timestamp", "xml,timestamp"}
	var theirs []*nstest.Proc
	for _, m := range modes {
		theirs = append(theirs, f.Start("conntrack", "-E", "-b", "1000000", "-o", m))
	}
	c, err := nl.Dial(nl.Config{Groups: 7, Buffer: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// All listen once an entry's event has come to each.
	n := 0
	nstest.Until(t, "conntrack -E listens", func() bool {
		n++
		f.Run("conntrack", "-I", "-p", "99", "-s", "1.1.1.1", "-d", fmt.Sprintf("2.2.%d.%d", n/250, n%250), "-t",
			"5000")
		return !slices.ContainsFunc(theirs, func(p *nstest.Proc) bool {
			return !strings.Contains(p.Stdout(), "1.1.1.1")
		})
	})
	f.table()
	f.Run("conntrack", "-U", "-f", "ipv4", "-p", "tcp", "-m", "9")
	f.Run("conntrack", "-D", "-p", "tcp", "-f", "ipv4")
	f.Run("conntrack", "-D", "-p", "udp", "-f", "ipv6")
	f.Run("conntrack", "-I", "-p", "99", "-s", "3.3.3.3", "-d", "4.4.4.4", "-t", "5000")

	out := make([][]string, len(modes))
	var printers []*Printer[ct.Flow]
	for _, m := range modes {
		p, err := New(Flows, output(t, m), Options{Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		printers = append(printers, p)
	}
	buf := make([]byte, 1<<20)
	var fl ct.Flow
	for last := false; !last; {
		if err := c.SetReadDeadline(time.Now().Add(nstest.Patience)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for m, rest, ok := nl.NextMsg(buf[:n]); ok; m, rest, ok = nl.NextMsg(rest) {
			if err := fl.DecodeEvent(&m); err != nil {
				t.Fatal(err)
			}
			fl.Time = uint64(time.Now().UnixNano())
			for i, p := range printers {
				out[i] = append(out[i], strings.TrimSuffix(string(p.Append(nil, &fl)), "\n"))
			}
			last = last || fl.Orig.Src.String() == "3.3.3.3"
		}
	}
	for i, p := range theirs {
		p.WaitOutput("3.3.3.3")
		p.Signal(os.Interrupt)
		p.Wait()
		ours, them := events(out[i]), events(strings.Split(p.Stdout(), "\n"))
		if len(ours) < 2*len(entries) {
			t.Errorf("%s: only %d events", modes[i], len(ours))
		}
		for k := range max(len(ours), len(them)) {
			if k >= len(ours) || k >= len(them) || ours[k] != them[k] {
				a, b := "", ""
				if k < len(ours) {
					a = ours[k]
				}
				if k < len(them) {
					b = them[k]
				}
				t.Errorf("%s: event %d:\n ours   %s\n theirs %s", modes[i], k, a, b)
				break
			}
		}
	}
	// As a document ours is well-formed.
	doc := "" + string(printers[1].Begin(nil)) + strings.Join(out[1], "\n") + string(printers[1].End(nil))
	wellFormed(t, doc)
}

// events normalises what must differ: when each program read or wrote an event,
// the name of a process that may be gone, where XML names the cause, and the
// states of SCTP and DCCP in XML; and leaves out what came before all listened.
func events(lines []string) []string {
	var out []string
	for _, l := range lines {
		l = stampOf.ReplaceAllString(l, "[0.000000]\t")
		l = regexp.MustCompile(`<when>.*</when>`).ReplaceAllString(l, "<when/>")
		l = regexp.MustCompile(` progname=\S+`).ReplaceAllString(l, "")
		l = regexp.MustCompile(`</flow> \[USERSPACE\] portid=(\d+)$`).ReplaceAllString(l,
			"<userspace><portid>$1</portid></userspace></flow>")
		l = regexp.MustCompile(`delta-time=\d+|<deltatime>\d+</deltatime>`).ReplaceAllString(l, "delta")
		if strings.Contains(l, "src") && !strings.Contains(l, "1.1.1.1") && !strings.Contains(l, `protonum="132"`) &&
			!strings.Contains(l, `protonum="33"`) {
			out = append(out, l)
		}
	}
	return out
}

func wellFormed(t *testing.T, doc string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(doc))
	for depth := 0; ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("not XML: %v in %.2000s", err, doc)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		case xml.CharData:
			if depth == 1 && strings.TrimSpace(string(tok)) != "" {
				t.Fatalf("text between flows: %q", tok)
			}
		}
	}
}

// TestConntrackExpect compares expectations with conntrack(8), lists and events.
func TestConntrackExpect(t *testing.T) {
	f := fill(t)
	theirs := f.Start("conntrack", "-E", "expect", "-o", "timestamp")
	// A connection that is older than the first listener never has events.
	nstest.Until(t, "conntrack -E expect joined its groups", func() bool {
		for line := range strings.Lines(f.Run("cat", "/proc/net/netlink")) {
			if w := strings.Fields(line); w[1] == "12" && w[3] != "00000000" { // NETLINK_NETFILTER, groups
				return true
			}
		}
		return false
	})
	control := f.traffic()
	ours := func(o Output, family uint8) string {
		p, err := New(Expects, o, Options{})
		if err != nil {
			t.Fatal(err)
		}
		b := p.Begin(nil)
		if err := dumpExpects(family, func(e *ct.Expect) { b = p.Append(b, e) }); err != nil {
			t.Fatal(err)
		}
		return string(p.End(b))
	}
	c, err := nl.Dial(nl.Config{Groups: 1<<3 | 1<<5})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port := 5000
	nstest.Until(t, "conntrack -E expect listens", func() bool {
		port++
		ask(t, control[0], fmt.Sprintf("PORT 10,99,0,1,%d,%d\r\n", port>>8, port&255))
		return strings.Contains(theirs.Stdout(), "[NEW]")
	})
	ask(t, control[0], "PORT 10,99,0,1,30,30\r\n")
	ask(t, control[1], "EPRT |2|fd99::1|6000|\r\n")
	// Without -f conntrack(8) lists IPv4's only.
	for _, mode := range []string{"", "xml"} {
		for family, num := range map[string]uint8{"ipv4": ct.IPv4, "ipv6": ct.IPv6} {
			args, o := []string{"-L", "expect", "-f", family}, Output{Format: Text}
			if mode != "" {
				args, o = append(args, "-o", mode), output(t, mode)
			}
			var a, b string
			for i := 0; i < 40 && (a != b || i == 0); i++ {
				a, b = ours(o, num), f.Run("conntrack", args...)
			}
			if a != b || !strings.Contains(a, "ftp") {
				t.Errorf("-o %s:\n ours\n%s theirs\n%s", mode, a, b)
			}
		}
	}
	f.Run("conntrack", "-F", "expect")
	nstest.Until(t, "the end of every expectation", func() bool {
		s := theirs.Stdout()
		return strings.HasSuffix(s, "\n") && strings.Count(s, "[DESTROY]") == strings.Count(s, "[NEW]")
	})
	theirs.Signal(os.Interrupt)
	theirs.Wait()
	p, err := New(Expects, Output{Format: Text, Timestamp: true}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	buf := make([]byte, 1<<20)
	for {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Read(buf)
		if err != nil {
			break
		}
		var e ct.Expect
		for m, rest, ok := nl.NextMsg(buf[:n]); ok; m, rest, ok = nl.NextMsg(rest) {
			if err := e.DecodeEvent(&m); err != nil {
				t.Fatal(err)
			}
			e.By = ct.By{} // conntrack(8) does not tell it
			e.Time = 1
			events = append(events, string(p.Append(nil, &e)))
		}
	}
	them := stampOf.ReplaceAllString(theirs.Stdout(), "[0.000000]\t")
	if us := strings.Join(events, ""); !strings.HasSuffix(us, them) || them == "" {
		t.Errorf("events differ:\n ours\n%s theirs\n%s", us, them)
	}
}

// dumpExpects hands each expectation to f.
func dumpExpects(family uint8, f func(*ct.Expect)) error {
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		return err
	}
	defer c.Close()
	var e ct.Expect
	req := nl.Finish(nl.AppendHeader(nil, nl.Type(nl.SubsysExpect, 1), 0, family, 0), 0)
	_, err = c.Dump(req, func(m *nl.Msg) error {
		err := e.Decode(m)
		f(&e)
		return err
	})
	return err
}

// ownZone reports whether a direction of a flow in JSON has a zone of its own.
func ownZone(v map[string]any) bool {
	for _, way := range []string{"orig", "reply"} {
		if d, ok := v[way].(map[string]any); ok && d["zone"] != nil {
			return true
		}
	}
	return false
}

// TestFormatsOfTable writes the table in every other format and looks whether
// each can be read.
func TestFormatsOfTable(t *testing.T) {
	f := fill(t)
	f.table()
	flows := 0
	for line := range strings.Lines(f.list(Output{Format: JSON})) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if v["kind"] != "flow" || v["mark"] == nil || (v["zone"] == nil) != ownZone(v) || v["orig"] == nil {
			t.Errorf("incomplete: %s", line)
		}
		flows++
	}
	if flows < len(entries) {
		t.Errorf("%d flows", flows)
	}
	wellFormed(t, f.list(Output{Format: XML, Labels: true}))
	for _, o := range []Output{{Format: Table}, {Format: CSV}, {Format: TSV}, {Format: Flow},
		{Format: Template, Template: "{{.orig.src}}"}, {Format: TSV, Fields: []string{"ipv4-src", "labels", "orig"}}} {
		if n := strings.Count(f.list(o), "\n"); n != flows && n != flows+1 {
			t.Errorf("%v: %d lines of %d flows", o.Format, n, flows)
		}
	}
}

// TestSaveRestores writes the table with -o save and with -o json, empties it,
// makes it again and compares.
func TestSaveRestores(t *testing.T) {
	f := fill(t)
	f.table()
	// What cannot be set, and what runs on, is left out of the comparison.
	masked := func() string {
		text := f.list(Output{Format: Save})
		lines := strings.Split(regexp.MustCompile(`(?m)^-A -t \d+ `).ReplaceAllString(text, "-A "), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	want := masked()
	for _, format := range []Format{Save, JSON} {
		saved := f.list(Output{Format: format})
		f.Run("conntrack", "-F")
		c, err := nl.Dial(nl.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for s, err := range Load(strings.NewReader(saved)) {
			if err != nil {
				t.Error(err)
				continue
			}
			req := nl.AppendHeader(nil, nl.Type(nl.SubsysCt, 0), unix.NLM_F_CREATE|unix.NLM_F_EXCL, s.Flow.Family(), 0)
			req = nl.Finish(s.Flow.AppendAttrs(req), 0)
			if err := c.Do(req); err != nil {
				t.Errorf("%v: %s", err, s.Text)
			}
		}
		_ = c.Close()
		if got := masked(); got != want {
			t.Errorf("-o %v: made again:\n%s\nwas:\n%s", format, onlyIn(got, want), onlyIn(want, got))
		}
	}
}

func onlyIn(a, b string) string {
	in := map[string]bool{}
	for l := range strings.Lines(b) {
		in[l] = true
	}
	var out bytes.Buffer
	for l := range strings.Lines(a) {
		if !in[l] {
			out.WriteString(l)
		}
	}
	return out.String()
}

// TestLoadConntrack: conntrack(8)'s own save lines are read, all of them.
func TestLoadConntrack(t *testing.T) {
	f := fill(t)
	f.table()
	n := 0
	for s, err := range Load(strings.NewReader(f.conntrack("-L", "-o", "save"))) {
		if err != nil {
			t.Error(err)
			continue
		}
		n++
		if got := string(AppendSave(nil, s.Flow)); s.Flow.SNAT.Addr.IsValid() || s.Flow.DNAT.Addr.IsValid() {
			continue // is asked for, and has not happened
		} else if strings.TrimSuffix(got, "\n") != s.Text {
			t.Errorf("read back as %s not %s", got, s.Text)
		}
	}
	if n < len(entries) {
		t.Errorf("%d lines", n)
	}
}
