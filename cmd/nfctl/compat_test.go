package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"nfctl/internal/compat"
	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/gentest"
	"nfctl/internal/nstest"
)

type difference struct{ name, theirs, ours, why string }

// differences are what nfctl does otherwise than conntrack(8) 1.4.7, and why.
// docs/compat-conntrack.md is held to be the same table.
var differences = []difference{
	{"numbers", "a number is read as far as it goes: `-w foo` is zone 0, `-m abc` mark 0, `--dport 80-90` port 80, `--dport 99999` port 34463, `-s 10` address 0.0.0.10, `-f ipv4x` ipv4", "ends with status 2", "a slip must not delete or change other flows than those meant"},
	{"services", "`--dport http` is port 0", "port 80", "ports may be named"},
	{"nat6", "the address behind `-n` and `-g` is ignored when it is IPv6: `-D -n fd00::99` deletes every translated flow", "compares it", "it deletes what was not asked for"},
	{"attached", "the address in `-n1.2.3.4` and `--src-nat=1.2.3.4` is ignored: `-D` then deletes every translated flow", "is the address", "getopt's other spelling of the same"},
	{"table", "the table in `--dump=expect` and `-Lexp` is ignored, and flows are listed", "is the table", "getopt's other spelling of the same"},
	{"cluster", "what is attached to a command is ignored: `-Dp tcp` deletes everything, `-LD` lists", "more options: `-Dp tcp` is `-D -p tcp`, `-LD` is refused", "it deletes what was not asked for; later versions of conntrack do so too"},
	{"status", "`-u UNSET` fails on lists and says nothing on deletes, `-u SEEN_REPLY,!ASSURED` finds nothing, `-D -u !ASSURED` and `-D -u UNREPLIED` delete everything", "all that was named must hold, on lists and deletes alike", "it deletes what was not asked for"},
	{"family", "`-F -f ipv6` empties the table of IPv4 too", "deletes flows of that family", "it deletes what was not asked for"},
	{"save", "`-o save` loses mark, labels, helper and more", "they follow as `--mark`, `--label-add`, `--set`, which `-A`, `-I` and `-R` take; where there is nothing to add the line is the same", "a saved table should be the one that was saved"},
	{"labels", "`-o labels` leaves out labels that connlabel.conf has no name for", "shows their numbers", "the flow has them"},
	{"update", "`-U` without an address or `-f` fails", "works", "the family is known of each flow"},
	{"update-print", "`-U` prints only some of several flows that it changed", "prints all", "it says how many there were, and shows fewer"},
	{"update-nat", "`-U -n ADDRESS` fails", "changes the flows that are so translated", "it takes the address for a change"},
	{"nat-port", "`-g 8.8.8.8:53` finds no flow whose port was 53 before, too", "finds flows that are translated to this address and port", "that is what was asked for"},
	{"zone", "`-U` of flows outside zone 0 fails", "works", "the zone is known of each flow"},
	{"timeout", "`-D -t 5` alone deletes everything", "deletes flows with 5 seconds left", "it deletes what was not asked for"},
	{"xml", "`-G -o xml` lacks the end of the document", "ends it", "it is not XML otherwise"},
	{"xml-state", "XML calls an SCTP state by TCP's name for its number", "by its own name", "it is another state"},
	{"reply", "`-G` with the reply direction alone fails", "works", "the kernel finds a flow by either"},
	{"zero", "`-L -z -n` shows the translated flows, and sets the counters of all to zero", "is refused as `-z` with other filters is", "counters that nobody saw would be lost"},
	{"crash", "an unknown SCTP state crashes", "ends with status 2", "it is a bad command line"},
	{"reply-parts", "`-I -s A -d B` with the reply's ports alone ignores them, with one of its addresses makes the other 0.0.0.0, with both and no ports fails; `-I -p udp -r A -q B --sport 1 --dport 2` makes a flow of protocol 0", "what is given is the reply's, the rest the mirror of the original", "it was asked for"},
	{"expect-key", "`-D expect` and `-G expect` want `--reply-port-src` and `--reply-port-dst`, with `-p gre` `--reply-key-src` and `--reply-key-dst`, `-I expect -p gre` too, and do not use them", "does not want them", "nothing is done with them"},
	{"expect-delete", "`-D expect` says that 0 expectations have been shown and ends with status 1, having deleted it", "says that 1 was deleted, status 0", "it was"},
	{"help", "has its own text", "text made from the tables by which nfctl reads", "it is the same options in other words"},
	{"version", "prints its version", "prints " + compat.Version + ", whatever is installed", "of which this is the command line"},
	{"events", "`-E` does not take `-u`, `-E expect` not `-e` and `-b`", "takes them", "events can be chosen by status, and expectations by what happened"},
	{"events-buffer", "`-b` does nothing, and prints that it did; without it the buffer is the system's", "sets the buffer; without it 64 MiB, or 1/32 of the memory where that is less", "events are lost otherwise"},
	{"events-xml", "`-E -o xml` and `-E -o save` put `[USERSPACE]` behind an element or line in some versions", "only the element or line", "it is neither XML nor a line for `-R` otherwise"},
	{"load", "`-R` stops at the first line that fails, and does not say which", "does the other lines, and names each that failed; the status is 1", "the rest of a saved table would be lost"},
	{"full", "`-L >/dev/full` ends with status 0", "ends with status 1", "the list is not there"},
	{"flush", "`-F` says that the table has been emptied before it looks whether it was", "says so when it was", "it may not have been permitted"},
	{"expect-ports", "`-I expect --tuple-port-dst 3333` stores protocol 13 and no port (1.4.7)", "stores the port", "it is not what was asked for"},
	{"expect-timeout", "`-I expect -t 60` stores the helper's timeout, which the kernel takes at first", "sets it by a second request", "it was asked for"},
	{"unprivileged", "`-C` and `-S` without privileges say that they may not, print what /proc has, and end with status 1", "print the same with status 0", "the figures are right"},
	{"dccp", "a kernel without DCCP tracking stores `-I -p dccp` without ports and state, and nobody is told", "the same, for `--role` too", "the kernel has nowhere to keep it"},
}

// compatTable is what the tables hold at first, as lines for conntrack -R.
const compatTable = `
-I -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1000 --dport 80 --state ESTABLISHED -t 100000 -u SEEN_REPLY,ASSURED -m 5
-I -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 1001 --dport 443 --state ESTABLISHED -t 100000 -u SEEN_REPLY
-I -s 10.0.0.3 -d 10.0.0.2 -p tcp --sport 1002 --dport 22 --state TIME_WAIT -t 100000 -m 0x14
-I -s 10.0.0.3 -d 10.1.0.2 -p tcp --sport 1003 --dport 443 --state SYN_SENT -t 100000
-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1000 --dport 53 -t 50000 -n 192.0.2.9:77 -g 8.8.8.8
-I -s 10.0.0.1 -d 10.1.0.2 -p udp --sport 1001 --dport 53 -t 50000 -n 192.0.2.9
-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1002 --dport 5353 -t 50000 -g 10.9.9.9:53
-I -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1003 --dport 53 -t 50000 -u SEEN_REPLY,ASSURED
-I -s 10.0.0.1 -d 10.0.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 5 -t 50000
-I -s 10.0.0.1 -d 10.0.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 5 -t 50000 -w 4
-I -s 10.0.0.1 -d 10.0.0.2 -p gre --srckey 0x10 --dstkey 20 -t 50000
-I -s 10.0.0.1 -d 10.0.0.2 -p sctp --sport 1 --dport 2 --state ESTABLISHED --orig-vtag 4 --reply-vtag 5 -t 50000
-I -s 10.0.0.1 -d 10.0.0.2 -p 50 -t 50000
-I -s 10.0.0.9 -d 10.0.0.2 -p udp --sport 1 --dport 3 -t 50000 --orig-zone 3
-I -s 10.5.0.1 -d 10.5.0.2 -p udp --sport 1 --dport 3 -t 50000 -w 5
-I -s fd00::1 -d fd00::2 -p tcp --sport 1 --dport 443 --state ESTABLISHED -t 100000 -u SEEN_REPLY,ASSURED
-I -s fd00::1 -d fd00::2 -p udp --sport 1 --dport 53 -t 50000 -n fd00::aa
-I -s fd00::1 -d fd00::2 -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 5 -t 50000
`

// A twin is one of two namespaces with the same table. Table and reset work in
// this process: hundreds of command lines need them.
type twin struct {
	ns      *nstest.NS
	program string
	dirty   bool
}

// flowsOf are the flows that lines for conntrack -R make.
func flowsOf(t *testing.T, lines string) (flows []*ct.Flow) {
	t.Helper()
	for l, err := range format.Load(strings.NewReader(lines)) {
		if err != nil {
			t.Fatal(err)
		}
		f := l.Flow.Clone()
		if f.Has(ct.HasTCPState) { // as conntrack -R has them
			flags := uint8(2 | 8) // SACK_PERM, BE_LIBERAL
			if f.TCPState >= ct.TCPTimeWait {
				flags |= 4 // CLOSE_INIT
			}
			f.TCPFlagsOrig, f.TCPMaskOrig, f.TCPFlagsReply, f.TCPMaskReply = flags, flags, flags, flags
			f.Present |= ct.HasTCPFlagsOrig | ct.HasTCPMaskOrig | ct.HasTCPFlagsReply | ct.HasTCPMaskReply
		}
		flows = append(flows, f)
	}
	return flows
}

// reset makes the table hold these flows alone.
func (w *twin) reset(t *testing.T, flows []*ct.Flow) {
	t.Helper()
	w.ns.Do(func() {
		c, err := ct.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Flush(0, ct.KernelFilter{}); err != nil {
			t.Fatal(err)
		}
		b := c.NewBatch(len(flows), func(f *ct.Flow, err error) {
			if err != nil {
				t.Errorf("%v: %v", f.Orig, err)
			}
		})
		for _, f := range flows {
			if err := b.Create(f, false); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Flush(); err != nil {
			t.Fatal(err)
		}
	})
	w.dirty = false
}

// table is the table in order, as conntrack -L -o extended prints it and with all
// that -o save knows beyond that.
func (w *twin) table(t *testing.T) string {
	t.Helper()
	var b []byte
	w.ns.Do(func() {
		_, err := ct.Dump(t.Context(), ct.DumpOptions{}, func(f *ct.Flow) error {
			b = append(format.AppendFlow(b, f, &format.Output{Extended: true}), "   "...)
			if _, more, ok := bytes.Cut(format.AppendSave(nil, f), []byte(" --set ")); ok {
				b = append(append(b, " --set "...), more...)
			}
			b = append(b, '\n')
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	return sorted(string(b))
}

func twins(t *testing.T) [2]*twin {
	t.Helper()
	nstest.Need(t, "conntrack")
	return [2]*twin{{ns: nstest.New(t), program: "conntrack", dirty: true},
		{ns: nstest.New(t), program: asConntrack(t), dirty: true}}
}

var unstable = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`(use=)[0-9]+`), "${1}N"}, // -G and -U: who else looks at it
	{regexp.MustCompile(`( id=)[0-9]{6,}`), "${1}N"},
	{regexp.MustCompile(`<(use|id)>[0-9]+`), "<$1>N"},
	{regexp.MustCompile(`conntrack v1\.4\.[0-9]+`), "conntrack vX"},
	{regexp.MustCompile(`<when>.*</when>`), "<when/>"},
}

// passing are seconds that pass while a test runs: they are rounded.
var passing = regexp.MustCompile(`((?:^|\n)(?:ipv[46] +[0-9]+ )?[a-z0-9]+ +[0-9]+ |<timeout>|-t )([0-9]{3,})`)

func steady(s string) string {
	s = passing.ReplaceAllStringFunc(s, func(m string) string {
		p := passing.FindStringSubmatch(m)
		n, _ := strconv.Atoi(p[2])
		return p[1] + strconv.Itoa((n+99)/100*100)
	})
	for _, u := range unstable {
		s = u.re.ReplaceAllString(s, u.to)
	}
	return s
}

// An outcome is what a command line did.
type outcome struct {
	status        int
	stdout, table string
	summary       string // the line that programs match
}

func (w *twin) do(t *testing.T, args []string) outcome {
	out, errOut, status := w.ns.Exec(w.program, args...)
	o := outcome{status: status, stdout: sorted(out)}
	if status < 2 {
		for _, line := range strings.Split(steady(errOut), "\n") {
			if strings.Contains(line, " have been ") || strings.Contains(line, " has been emptied") {
				o.summary = line
			}
		}
	}
	// A command that was refused, or only looks, changed nothing.
	if status == 2 || !changes.MatchString(strings.Join(args, " ")) {
		return o
	}
	w.dirty = true
	o.table = w.table(t)
	return o
}

var changes = regexp.MustCompile(`(^| )(-[A-Za-z]*[IADUFz]|--(create|add|de|up|fl|zero))`)

type compatCase struct{ group, line, differs string }

func compatCases(t *testing.T, path string) (cases []compatCase) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	group := ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		switch {
		case line == "":
		case line[0] == '#':
			group = strings.TrimPrefix(line, "# ")
		case line[0] == '[':
			name, rest, _ := strings.Cut(line[1:], "] ")
			cases = append(cases, compatCase{group, rest, name})
		default:
			cases = append(cases, compatCase{group, line, ""})
		}
	}
	return cases
}

func TestCompatTwins(t *testing.T) {
	cases := compatCases(t, "testdata/compat.txt")
	if len(cases) < 300 {
		t.Fatalf("only %d command lines", len(cases))
	}
	flows := flowsOf(t, compatTable)
	work := make(chan compatCase, len(cases))
	for i, c := range cases {
		if testing.Short() && i%8 != 0 && !strings.Contains(c.line, "dccp") { // on emulated processors
			continue
		}
		work <- c
	}
	close(work)
	var wg sync.WaitGroup
	for range 4 {
		pair := twins(t)
		wg.Go(func() {
			for c := range work {
				c.check(t, pair, flows)
			}
		})
	}
	wg.Wait()
}

func (c compatCase) check(t *testing.T, pair [2]*twin, flows []*ct.Flow) {
	if c.differs != "" && !slices.ContainsFunc(differences, func(d difference) bool { return d.name == c.differs }) {
		t.Errorf("%s: no difference is named %q", c.line, c.differs)
	}
	var did [2]outcome
	for i, w := range pair {
		if w.dirty {
			w.reset(t, flows)
		}
		did[i] = w.do(t, strings.Fields(c.line))
	}
	differs := c.differs
	if differs == "update-print" { // and in nothing else; which ones is chance
		did[0].stdout, did[1].stdout, differs = "", "", ""
	}
	switch same := did[0] == did[1]; {
	case same && differs != "":
		t.Errorf("%s: conntrack %s: is said to differ [%s], and does not", c.group, c.line, differs)
	case !same && differs == "":
		t.Errorf("%s: conntrack %s\n--- conntrack(8): %s\n--- nfctl: %s", c.group, c.line, did[0], did[1])
	}
}

func (o outcome) String() string {
	return fmt.Sprintf("status %d, %q\n%s\ntable:\n%s", o.status, o.summary, o.stdout, o.table)
}

// TestGeneratedCompat holds the page of differences to the table of these tests.
func TestGeneratedCompat(t *testing.T) {
	b := []byte("| | conntrack(8) | nfctl | why |\n|---|---|---|---|\n")
	for _, d := range differences {
		b = fmt.Appendf(b, "| %s | %s | %s | %s |\n", d.name, d.theirs, d.ours, d.why)
	}
	gentest.Between(t, "docs/compat-conntrack.md", "differences", b)
}
