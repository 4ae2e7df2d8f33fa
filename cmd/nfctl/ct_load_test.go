package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nfctl/internal/nstest"
)

// event is a record of a stream: of a TCP flow with this source port. more are
// further keys, with a comma in front.
func event(what string, sport int, more string) string {
	return fmt.Sprintf(`{"kind":"flow","event":%q,"family":"ipv4","proto":"tcp","timeout":300%s}`+"\n", what, more+
		fmt.Sprintf(
			`,"orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":%d,"dport":80},"reply":{"src":"10.0.0.2","dst":"10.0.0.1","sport":80,"dport":%[1]d}`, sport))
}

// TestCtLoadEvents applies streams of events: what is left in the table, and what is
// said.
func TestCtLoadEvents(t *testing.T) {
	t.Parallel()
	const (
		syn   = `,"state":"SYN_SENT","status":["CONFIRMED"]`
		est   = `,"state":"ESTABLISHED","status":["SEEN_REPLY","ASSURED","CONFIRMED"]`
		fixed = `,"state":"ESTABLISHED","status":["SEEN_REPLY","ASSURED","CONFIRMED","FIXED_TIMEOUT"]`
	)
	// A translated flow: the kernel refuses the translation of one that is there.
	nat := func(what string, mark int) string {
		return fmt.Sprintf(
			`{"kind":"flow","event":%q,"family":"ipv4","proto":"udp","timeout":300,"orig":{"src":"10.0.0.1","dst":"192.0.2.9","sport":7,"dport":53},`+
				`"reply":{"src":"10.0.0.3","dst":"10.0.0.1","sport":5353,"dport":7},"status":["SEEN_REPLY","ASSURED","CONFIRMED","DST_NAT"],"mark":%d,"zone":0}`+"\n", what, mark)
	}
	child := func(what, status string) string {
		return fmt.Sprintf(
			`{"kind":"flow","event":%q,"family":"ipv4","proto":"tcp","timeout":300,"state":"ESTABLISHED","orig":{"src":"10.0.0.2","dst":"10.0.0.1","sport":20,"dport":999},`+
				`"reply":{"src":"10.0.0.1","dst":"10.0.0.2","sport":999,"dport":20},"status":["EXPECTED"%s,"CONFIRMED"],"master":{"src":"10.0.0.1","dst":"10.0.0.2","sport":21,"dport":80,"proto":"tcp"}}`+"\n", what, status)
	}
	update := func(mark int) string { // of a child, as the kernel tells it: without its master
		return regexp.MustCompile(`,"master":{[^}]*}`).ReplaceAllString(strings.Replace(child("update",
			`,"SEEN_REPLY","ASSURED"`), "}\n", fmt.Sprintf(`,"mark":%d}`+"\n", mark), 1), "")
	}
	for _, c := range []struct {
		name   string
		in     string
		args   string // separated by blanks
		status int
		want   []string // of each flow a part of 'ct list -o text', with its source port in front
		says   string   // a part of what is said
	}{
		{"a life", event("new", 1, syn) + event("update", 1, est), "--or-update", 0, []string{"1 ESTABLISHED"}, "2 flows made or changed"},
		{"a whole life", event("new", 1, syn) + event("update", 1, est) + event("destroy", 1, est), "--or-update", 0, nil, "2 flows made or changed, 1 deleted"},
		{"two lives", event("new", 1, est) + event("destroy", 1, est) + event("new", 1, syn+`,"mark":3`), "--or-update", 0, []string{"1 SYN_SENT", "1 mark=3"}, ", 1 deleted"},
		{"an end alone", event("destroy", 1, est), "--or-update", 0, nil, "0 flows made or changed, 1 gone already"},
		{"an end, only to make", "\n" + event("destroy", 1, est), "", 1, nil, "line 2: "},
		{"an end, only to make: what to do", event("destroy", 1, est), "", 1, nil, "hint: --or-update"},
		{"an end, to try", event("destroy", 1, est), "--dry-run", 1, nil, "line 1: "},
		{"an end and a beginning, only to make", event("new", 2, est) + event("destroy", 1, est) + event("new", 3, est), "", 1, []string{"2 ESTABLISHED", "3 ESTABLISHED"}, "2 flows made, 1 line failed"},
		{"an end in another zone", event("new", 1, est+`,"zone":0`) + event("destroy", 1, est+`,"zone":4`), "--or-update", 0, []string{"1 ESTABLISHED"}, "1 gone already"},
		{"an end in its zone", event("new", 1, est+`,"zone":4`) + event("destroy", 1, est+`,"zone":4`), "--or-update", 0, nil, "1 deleted"},
		{"what an update does not say", event("new", 1, syn) + event("update", 1, `,"status":["CONFIRMED"],"mark":9`), "--or-update", 0, []string{"1 SYN_SENT", "1 mark=9"}, ""},
		{"an update without a beginning", event("update", 1, est+`,"mark":9`), "--or-update", 0, []string{"1 ESTABLISHED", "1 mark=9"}, "1 flow made or changed"},
		{"a status that is behind", event("new", 1, est) + event("update", 1, syn+`,"mark":9`) + event("new", 1, syn+`,"mark":10`), "--or-update", 0, []string{"1 SYN_SENT", "1 ASSURED", "1 mark=10"}, "3 flows made or changed"},
		{"a fixed timeout", event("new", 1, fixed) + event("update", 1, fixed+`,"mark":9`), "--or-update", 0, []string{"1 mark=9"}, "2 flows made or changed"},
		{"a translated life", nat("new", 1) + nat("update", 2) + nat("existing", 3), "--or-update", 0, []string{"7 src=10.0.0.3", "7 mark=3"}, "3 flows made or changed"},
		{"a translated life's end", nat("existing", 1) + nat("existing", 2) + nat("destroy", 2), "--or-update", 0, nil, "2 flows made or changed, 1 deleted"},
		{"two translated lives", nat("new", 1) + nat("destroy", 1) + nat("new", 2) + nat("update", 3), "--or-update", 0, []string{"7 mark=3"}, "3 flows made or changed, 1 deleted"},
		{"records", `{"kind":"resync","time":"2026-01-02T12:00:00.000000000Z"}` + "\n" + event("existing", 1, est) + `{"kind":"existing","flows":1,"expects":0,"no_events":0}` + "\n" +
			`{"kind":"resynced","flows":1,"expects":0,"no_events":0}` + "\n", "", 0, []string{"1 ESTABLISHED"}, "1 flow made\n"},
		{"losses", event("new", 1, est) + `{"kind":"lost","time":"2026-01-02T12:00:00.000000000Z","count":5,"where":"socket"}` + "\n" + event("new", 2, est), "--or-update", 0,
			[]string{"1 ESTABLISHED", "2 ESTABLISHED"}, "line 2: 5 events were lost here"},
		{"losses, counted", `{"kind":"lost","count":5,"where":"socket"}` + "\n" + `{"kind":"lost","count":6,"where":"socket"}` + "\n", "", 0, nil, "11 events lost"},
		{"losses that nobody counts", `{"kind":"lost","count":null,"where":"socket"}` + "\n", "", 0, nil, "0 or more events lost"},
		{"other records", `{"kind":"expect","event":"new"}` + "\n", "--or-update", 1, nil, "line 1: "},
		{"another event", event("exploded", 1, est), "--or-update", 1, nil, "event"},
		{"no event", event("", 1, est), "--or-update", 1, nil, "event"},
		{"a child before its master", child("existing", "") + event("existing", 21, est) + `{"kind":"existing"}` + "\n", "--or-update", 0, []string{"20 ESTABLISHED", "21 ESTABLISHED"}, "2 flows made or changed"},
		{"a child of nobody", child("existing", "") + `{"kind":"existing"}` + "\n" + event("new", 21, est), "--or-update", 1, []string{"21 ESTABLISHED"}, "master"},
		{"a child's life before its master", child("existing", "") + update(4) + event("existing", 21, est) + update(5), "--or-update", 0, []string{"20 mark=5", "21 ESTABLISHED"}, "4 flows made or changed"},
		{"a child's end before its master", child("existing", "") + child("destroy", "") + event("existing", 21, est), "--or-update", 0, []string{"21 ESTABLISHED"}, "1 deleted"},
		{"a child twice", event("new", 21, est) + child("new", "") + child("existing", `,"SEEN_REPLY","ASSURED"`) + update(4), "--or-update", 0, []string{"20 mark=4", "20 ASSURED", "21 ESTABLISHED"}, "4 flows made or changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			nstest.Enter(t)
			_, errs, status := callWith(c.in, append([]string{"ct", "load"}, strings.Fields(c.args)...)...)
			if status != c.status || !strings.Contains(errs, c.says) {
				t.Errorf("status %d, want %d, and %q: %s", status, c.status, c.says, errs)
			}
			flows := map[string]string{}
			for line := range strings.Lines(good(t, "ct", "list", "-o", "text")) {
				_, rest, _ := strings.Cut(line, "sport=")
				port, _, _ := strings.Cut(rest, " ")
				flows[port] = line
			}
			ports := map[string]bool{}
			for _, w := range c.want {
				port, part, _ := strings.Cut(w, " ")
				if ports[port] = true; !strings.Contains(flows[port], part) {
					t.Errorf("no %q: %q", w, flows[port])
				}
			}
			if len(flows) != len(ports) {
				t.Errorf("%d flows are left, want %d: %q", len(flows), len(ports), flows)
			}
		})
	}
}

// TestCtLoadStream: a stream that has no end is applied as it comes, and what it has
// loaded takes no memory.
func TestCtLoadStream(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c := exec.Command(nstest.Build(t), "ct", "load", "--or-update")
	c.Stdin = r
	p := ns.StartCmd(c)
	_ = r.Close()
	// Each of these updates the kernel refuses at first: the flow is translated.
	update := func(n int) string {
		return fmt.Sprintf(
			`{"kind":"flow","event":"existing","family":"ipv4","proto":"udp","timeout":300,"orig":{"src":"10.0.0.1","dst":"192.0.2.9","sport":7,"dport":53},`+
				`"reply":{"src":"10.0.0.3","dst":"10.0.0.1","sport":5353,"dport":7},"mark":%d,"zone":0}`+"\n", n)
	}
	marked := func(n int) {
		t.Helper()
		nstest.Until(t, fmt.Sprint("mark ", n), func() bool {
			return strings.Contains(ns.Run(nstest.Build(t), "ct", "list"), fmt.Sprintf("mark=%d ", n))
		})
	}
	for n := 1; n <= 3; n++ {
		if _, err := w.WriteString(update(n)); err != nil {
			t.Fatal(err)
		}
		marked(n)
	}
	peak := func() int {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		kib, _ := strconv.Atoi(regexp.MustCompile(`VmRSS:\s+(\d+)`).FindStringSubmatch(string(b))[1])
		return kib
	}
	before := peak()
	const many = 30000
	for n := 4; n <= many; n++ {
		if _, err := w.WriteString(update(n)); err != nil {
			t.Fatal(err)
		}
	}
	marked(many)
	if grown := peak() - before; grown > 16<<10 { // kept, they are 30 MiB
		t.Errorf("%d updates took %d KiB", many, grown)
	}
	_ = w.Close()
	if p.Wait() != 0 || !strings.Contains(p.Stderr(), fmt.Sprintf("%d flows made or changed", many)) {
		t.Error(p.Stderr())
	}
}

// TestCtLoadRelays joins two namespaces by two streams, one each way. What happens in
// one is done in the other, once.
func TestCtLoadRelays(t *testing.T) {
	t.Parallel()
	nf := nstest.Build(t)
	a, b := nstest.New(t), nstest.New(t)
	track(a)
	a.Run(nf, "ct", "create", "-q", "tcp 10.0.0.1:1 > 10.0.0.2:80", "--timeout", "600")
	dir := t.TempDir()
	relay := func(from, to *nstest.NS, name string) (watch *exec.Cmd, said *strings.Builder, load *nstest.Proc) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		lc := exec.Command(nf, "ct", "load", "--or-update")
		lc.Stdin = r
		load = to.StartCmd(lc)
		watch, said = exec.Command(nf, "ct", "watch", "--with-existing", "--not-by", "load", "-o", "json",
			"--ready-file", dir+"/"+name), &strings.Builder{}
		watch.Stdout, watch.Stderr = w, said
		from.Do(func() { err = watch.Start() })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = watch.Process.Kill() })
		_, _ = r.Close(), w.Close()
		nstest.WaitFile(t, dir+"/"+name)
		return watch, said, load
	}
	watchA, saidA, loadB := relay(a, b, "a")
	watchB, saidB, loadA := relay(b, a, "b")
	list := func(ns *nstest.NS, what string) string { return ns.Run(nf, "ct", "list", "-o", "text", what) }
	nstest.Until(t, "what was there is there", func() bool { return list(b, "> :80") != "" })
	// A connection of the one, real this time.
	addr := a.TCPEcho("127.0.0.1:0")
	conn, err := a.Dial("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	nstest.Until(t, "the copy is established", func() bool {
		return strings.Contains(list(b, "tcp > :"+port), "ESTABLISHED")
	})
	a.Run(nf, "ct", "update", "-q", "tcp > :"+port, "--set", "mark=5")
	nstest.Until(t, "the copy has the mark", func() bool { return strings.Contains(list(b, "tcp > :"+port), "mark=5") })
	_ = conn.Close()
	a.Run(nf, "ct", "delete", "-q", "tcp > :"+port)
	nstest.Until(t, "the copy is gone", func() bool { return list(b, "tcp > :"+port) == "" })
	// Flows of the other, and everything's end.
	for i := range 20 {
		b.Run(nf, "ct", "create", "-q", fmt.Sprintf("udp 10.0.1.1:%d > 10.0.1.2:53", i+1), "--timeout", "600")
	}
	nstest.Until(t, "the other's flows are there", func() bool {
		return strings.Count(list(a, "udp > 10.0.1.2:53"), "\n") == 20
	})
	b.Run(nf, "ct", "delete", "-q", "udp > 10.0.1.2:53")
	nstest.Until(t, "the other's flows are gone", func() bool { return list(a, "udp > 10.0.1.2:53") == "" })
	shown := regexp.MustCompile(`(\d+) shown`)
	for _, p := range []struct {
		watch *exec.Cmd
		said  *strings.Builder
		load  *nstest.Proc
		most  int
	}{{watchA, saidA, loadB, 30}, {watchB, saidB, loadA, 80}} {
		_ = p.watch.Process.Signal(os.Interrupt)
		err := p.watch.Wait()
		m := shown.FindStringSubmatch(p.said.String())
		if err != nil || m == nil || p.load.Wait() != 0 {
			t.Fatalf("%v: %s%s", err, p.said, p.load.Stderr())
		}
		if n, _ := strconv.Atoi(m[1]); n > p.most {
			t.Errorf("%d events were sent: they go round", n)
		}
	}
}

// TestWatchNotBy leaves out what processes did, by their number and name.
func TestWatchNotBy(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "conntrack")
	ns := nstest.New(t)
	nf := nstest.Build(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	lc := exec.Command(nf, "ct", "load") // goes on until its input ends
	lc.Stdin = r
	load := ns.StartCmd(lc)
	_ = r.Close()
	send := func(sport int) {
		if _, err := fmt.Fprintf(w, "-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport %d --dport 1 -t 600\n",
			sport); err != nil {
			t.Fatal(err)
		}
		nstest.Until(t, "the flow is there", func() bool {
			return ns.Run(nf, "ct", "list", fmt.Sprintf("udp :%d > :1", sport)) != ""
		})
	}
	var watches []*nstest.Proc
	kinds := []string{"load", strconv.Itoa(lc.Process.Pid), "nfctl", "1,nobody"}
	for _, who := range kinds {
		watches = append(watches, startReady(t, ns, "ct", "watch", "-o", "json", "--not-by", who))
	}
	send(1)
	ns.Run("conntrack", "-I", "-p", "udp", "-s", "10.0.0.1", "-d", "10.0.0.2", "--sport", "2", "--dport", "1", "-t",
		"600")
	for i, p := range watches {
		p.WaitOutput(`"sport":2,"dport":1`)
		if seen := strings.Contains(p.Stdout(), `"sport":1,"dport":1`); seen != (i == 3) {
			t.Errorf("--not-by %s: what the load did is shown: %v\n%s", kinds[i], seen, p.Stdout())
		}
	}
	_ = w.Close()
	load.Wait()
}

func TestCtSaveLoad(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	r := rand.New(rand.NewPCG(4, 4))
	want := variedLines(r, 10000, true, true)
	ns := nstest.Here(t)
	useLabels(t, ns)
	loaded(t, strings.Join(want, "\n"))
	begin := time.Now()
	first := good(t, "ct", "save")
	json := good(t, "ct", "save", "-o", "json")
	before := sortedLines(first, anyTimeout, "")
	if len(before) != 10000 {
		t.Fatalf("%d flows were saved", len(before))
	}
	for _, form := range []struct{ name, text string }{{"save", first}, {"json", json}} {
		good(t, "ct", "flush", "--all")
		nstest.Until(t, "the table is empty", func() bool { return strings.TrimSpace(good(t, "ct", "count")) == "0" })
		loaded(t, form.text)
		second := good(t, "ct", "save")
		differ(t, form.name, sortedLines(second, anyTimeout, ""), before)
		gone := uint64(time.Since(begin)/time.Second) + 2
		old, now := timeouts(t, first), timeouts(t, second)
		for line, had := range old {
			if has := now[line]; has > had || had-has > gone {
				t.Fatalf("%s: timeout %d, was %d, %d s at most went by: %s", form.name, has, had, gone, line)
			}
		}
	}
	// A namespace without a rule that uses labels: all but those, and a warning.
	t.Run("without labels", func(t *testing.T) {
		nstest.Enter(t)
		_, errs, status := callWith(first, "ct", "load")
		if status != 0 || !strings.Contains(errs, "labels were not stored") {
			t.Errorf("status %d: %s", status, errs)
		}
		differ(t, "without labels", sortedLines(good(t, "ct", "save"), anyTimeout, ""),
			sortedLines(first, anyTimeout, "", anyLabels, ""))
	})
}

// TestCtSaveKeeps has a line keep what conntrack(8) loses.
func TestCtSaveKeeps(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	useLabels(t, ns)
	const what = "udp 10.0.0.1:1000 > 10.0.0.2:53"
	good(t, "ct", "create", "tcp 10.0.0.1:1000 > 10.0.0.2:21", "--mark", "7", "--label", "3,127", "--helper", "ftp",
		"--set", "tcp.wscale_orig=7", "--set", "tcp.wscale_reply=2",
		"--set", "tcp.flags_orig=WINDOW_SCALE,SACK_PERM", "--set", "tcp.flags_reply=WINDOW_SCALE",
		"--set", "orig-nat-seq-correction-pos=1", "--set", "orig-nat-seq-offset-before=2", "--set",
		"orig-nat-seq-offset-after=3")
	good(t, "ct", "create", what, "--timeout", "10m", "--status", "ASSURED", "--set", "master-ipv4-src=10.0.0.1",
		"--set", "master-ipv4-dst=10.0.0.2", "--set", "master-l4proto=tcp",
		"--set", "master-port-src=1000", "--set", "master-port-dst=21")
	good(t, "ct", "create", "udp 10.0.0.1:900 > 10.0.0.2:54", "--timeout", "10m", "--set", "master-ipv4-src=10.0.0.1",
		"--set", "master-ipv4-dst=10.0.0.2", "--set", "master-l4proto=udp",
		"--set", "master-port-src=1000", "--set", "master-port-dst=53")
	saved := good(t, "ct", "save")
	for _, word := range []string{"--mark 7 ", "--label-add 3,127", "helper-name=ftp", "=10.0.0.1", "tcp.wscale_orig=7",
		"=3"} {
		if !strings.Contains(saved, word) && !strings.Contains(saved,
			strings.Replace(word, "tcp.wscale_orig", "tcp-wscale-orig", 1)) {
			t.Errorf("no %q in %s", word, saved)
		}
	}
	lines := sortedLines(saved)
	back := slices.Clone(lines)
	slices.Reverse(back)
	// Masters are made before their children, whichever stand first.
	for _, order := range [][]string{lines, back} {
		good(t, "ct", "flush", "--all")
		loaded(t, strings.Join(order, "\n"))
		differ(t, "restored", sortedLines(good(t, "ct", "save"), anyTimeout, ""), sortedLines(saved, anyTimeout, ""))
	}
	// A child whose master is nowhere is a bad line, the rest is loaded.
	good(t, "ct", "flush", "--all")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "udp") })
	_, errs, status := callWith("# one\n"+lines[i]+"\n-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 9 --dport 9\n", "ct",
		"load")
	if status != exitFailed || !strings.Contains(errs, "line 2") || !strings.Contains(errs, "master") {
		t.Errorf("status %d: %s", status, errs)
	}
	if n := strings.TrimSpace(good(t, "ct", "count")); n != "1" {
		t.Errorf("%s flows, want 1", n)
	}
}

// TestCtLoadGoesOn has one bad line cost nothing but itself.
func TestCtLoadGoesOn(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	var b strings.Builder
	bad := map[int]string{}
	for i := 1; i <= 500; i++ {
		switch i {
		case 7:
			bad[i] = "rubbish"
		case 150:
			bad[i] = "-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 99999 --dport 1"
		case 151:
			// the kernel refuses it
			bad[i] = "-A -p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 3 --icmp-code 0 --icmp-id 1"
		case 152:
			bad[i] = "-I -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 1" // is there already
		case 400:
			bad[i] = `{"kind":"flow","proto":"udp"}`
		}
		if bad[i] != "" {
			fmt.Fprintln(&b, bad[i])
		} else {
			fmt.Fprintf(&b, "-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport %d --dport 1 -t 600\n", i)
		}
	}
	file := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	_, errs, status := call("ct", "load", file, "--dry-run")
	if status != exitFailed || strings.TrimSpace(good(t, "ct", "count")) != "0" {
		t.Errorf("dry run: status %d: %s", status, errs)
	}
	_, errs, status = call("ct", "load", file)
	if status != exitFailed {
		t.Errorf("status %d: %s", status, errs)
	}
	last := -1
	for i := range 501 {
		at := strings.Index(errs, fmt.Sprintf("line %d:", i))
		if (bad[i] != "") != (at >= 0) {
			t.Errorf("line %d is told: %v; it is bad: %v", i, at >= 0, bad[i] != "")
		}
		if at >= 0 && at < last {
			t.Errorf("line %d is told out of order", i)
		}
		last = max(last, at)
	}
	if !strings.Contains(errs, "495 flows made, 5 lines failed") {
		t.Errorf("totals: %s", errs)
	}
	// Again: all are there, and left alone.
	_, errs, _ = call("ct", "load", file)
	if !strings.Contains(errs, "0 flows made, 495 already there, 5 lines failed") {
		t.Errorf("totals: %s", errs)
	}
	good(t, "ct", "flush", "--all")
	_, errs, status = call("ct", "load", file, "--strict")
	if n := strings.TrimSpace(good(t, "ct", "count")); status != exitFailed || n != "6" ||
		!strings.Contains(errs, "line 7") {
		t.Errorf("strict: status %d, %s flows: %s", status, n, errs)
	}
}

// TestCtLoadedNAT restores a translated flow in a fresh namespace, where it
// translates packets as soon as there is a NAT chain.
func TestCtLoadedNAT(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	for _, c := range []struct {
		name, ask, local, from, family string
	}{
		{"ipv4", "127.0.0.1:5353", "127.0.0.1:0", "127.0.0.1:40000", "ip"},
		{"ipv6", "[::1]:5353", "[::1]:0", "[::1]:40000", "ip6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			made, fresh := nstest.New(t), nstest.New(t)
			server := fresh.UDPEcho(c.local)
			nf := nstest.Build(t)
			made.Run(nf, "ct", "create", "udp "+c.from+" > "+c.ask, "--dst-nat", server, "-t", "10m")
			saved := made.Run(nf, "ct", "save")
			_, errs, status := pipeTo(fresh, saved, nf, "ct", "load")
			if status != 0 || !strings.Contains(errs, "no NAT chain") {
				t.Errorf("without a chain: status %d: %s", status, errs)
			}
			if answered(t, fresh, c.from, c.ask) {
				t.Fatal("translated without a NAT chain: the test shows nothing")
			}
			fresh.Run(nf, "ct", "flush", "--all")
			fresh.Run("nft", "add table "+c.family+" n; add chain "+c.family+
				" n out { type nat hook output priority -100; }; add rule "+c.family+" n out ct state invalid drop")
			_, errs, status = pipeTo(fresh, saved, nf, "ct", "load")
			if status != 0 || strings.Contains(errs, "no NAT chain") {
				t.Errorf("with a chain: status %d: %s", status, errs)
			}
			if !answered(t, fresh, c.from, c.ask) {
				t.Error("no answer through the restored translation")
			}
		})
	}
}

func TestCtCopiesNamespaces(t *testing.T) {
	t.Parallel()
	a, b := nstest.New(t), nstest.New(t)
	nf := nstest.Build(t)
	lines := variedLines(rand.New(rand.NewPCG(5, 5)), 1000, true, false)
	if _, errs, status := pipeTo(a, strings.Join(lines, "\n"), nf, "ct", "load"); status != 0 {
		t.Fatal(errs)
	}
	host := nstest.Here(t)
	out, errs, status := host.Exec("sh", "-c", nf+" --netns "+a.Path()+" ct save | "+nf+" --netns "+b.Path()+" ct load")
	if status != 0 || out != "" {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	differ(t, "copied", sortedLines(b.Run(nf, "ct", "save"), anyTimeout, ""),
		sortedLines(a.Run(nf, "ct", "save"), anyTimeout, ""))
	if n := strings.Count(b.Run(nf, "ct", "save"), "\n"); n != 1000 {
		t.Errorf("%d flows", n)
	}
}

// TestCtLoadAsLinesCome: what comes slowly by a pipe is made when its line is whole,
// and what is wrong with it is said then.
func TestCtLoadAsLinesCome(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c := exec.Command(nstest.Build(t), "ct", "load")
	c.Stdin = r
	p := ns.StartCmd(c)
	_ = r.Close()
	line := func(sport int) string {
		return fmt.Sprintf("-A -t 600 -p udp -s 10.0.0.1 -d 10.0.0.2 --sport %d --dport 1\n", sport)
	}
	for i, text := range []string{line(1) + line(2), line(3)[:20], line(3)[20:] + "nonsense\n", line(4)} {
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		want := []string{"2", "2", "3", "4"}[i]
		nstest.Until(t, want+" flows", func() bool {
			return strings.TrimSpace(ns.Run(nstest.Build(t), "ct", "count")) == want
		})
		if i == 2 {
			p.WaitOutput("nonsense")
		}
	}
	_ = w.Close()
	if p.Wait() != exitFailed || !strings.Contains(p.Stderr(), "4 flows made, 1 line failed") {
		t.Error(p.Stderr())
	}
}

// TestCtLoadProgress: a load that takes long shows on a terminal how far it is,
// and takes that away; one that is short shows nothing, and neither does -q.
func TestCtLoadProgress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		read, size int64
		want       string
	}{
		{5 << 10, 0, "5 KiB"}, {0, 100, "[" + strings.Repeat(" ", 30) + "] 0%"}, {50, 100, "[" + strings.Repeat("=", 15) + strings.Repeat(" ", 15) + "] 50%"},
		{120, 100, "[" + strings.Repeat("=", 30) + "] 100%"},
	} {
		if got := progress(c.read, c.size); got != c.want {
			t.Errorf("%d of %d: %q", c.read, c.size, got)
		}
	}
	nf := nstest.Build(t)
	const line = "-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 900\n"
	for _, c := range []struct {
		args        []string
		slow, shows bool
	}{{[]string{"ct", "load"}, true, true}, {[]string{"ct", "load"}, false, false},
		{[]string{"ct", "load", "-q"}, true, false}} {
		ns := nstest.New(t)
		master, slave := pty(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(nf, c.args...)
		cmd.Stdin, cmd.Stderr = r, slave
		ns.Do(func() { err = cmd.Start() })
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		_ = slave.Close() // so that reading ends with nfctl
		var said strings.Builder
		shown, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			buf := make([]byte, 4096)
			for {
				n, err := master.Read(buf)
				if err != nil {
					return
				}
				before := said.Len() > 0
				if said.Write(buf[:n]); !before {
					close(shown)
				}
			}
		}()
		if _, err := w.WriteString(line); err != nil {
			t.Fatal(err)
		}
		switch {
		case c.shows:
			select {
			case <-shown:
			case <-time.After(nstest.Patience):
				t.Error("nothing is shown")
			}
		case c.slow:
			time.Sleep(1500 * time.Millisecond) // longer than what shows a bar
		}
		_ = w.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		<-ended
		if text := said.String(); strings.Contains(text, "standard input: 0 KiB\r\x1b[K") != c.shows ||
			!strings.Contains(text, "1 flow made") && c.args[len(c.args)-1] != "-q" {
			t.Errorf("%v: %q", c.args, text)
		}
	}
}

// TestCtSaveICMP: two pings of one identifier behind one address come back as they
// were, from lines and from JSON.
func TestCtSaveICMP(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	for _, c := range [][2]string{{"icmp 10.0.0.1 > 10.0.0.9 type 8 code 0 id 7", "7"},
		{"icmp 10.0.0.2 > 10.0.0.9 type 8 code 0 id 7", "9001"}} {
		good(t, "ct", "create", c[0], "--timeout", "1h", "--set", "snat-ipv4=192.0.2.1", "--set", "snat-port="+c[1])
	}
	good(t, "ct", "create", "icmpv6 fd00::1 > fd00::9 type 128 code 0 id 7", "--timeout", "1h", "--set",
		"snat-ipv6=fd01::1", "--set", "snat-port=5000")
	before := sortedLines(good(t, "ct", "list"), `icmp(v6)? +\d+ \d+ `, "")
	if all := strings.Join(before, "\n"); !strings.Contains(all, "id=9001") || !strings.Contains(all, "id=5000") {
		t.Fatalf("not translated: %s", all)
	}
	for _, form := range []string{"save", "json"} {
		saved := good(t, "ct", "save", "-o", form)
		good(t, "ct", "flush", "--all")
		loaded(t, saved)
		differ(t, form, sortedLines(good(t, "ct", "list"), `icmp(v6)? +\d+ \d+ `, ""), before)
	}
	if out := good(t, "ct", "list", "--filter", "nat.sport == 9001", "-o", "flow"); !strings.Contains(out, "10.0.0.2") {
		t.Errorf("nat.sport == 9001 finds %q", out)
	}
}

// TestCtLoadWithoutState: of a flow whose state was not told the windows are not
// known either.
func TestCtLoadWithoutState(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	loaded(t,
		"-A -u SEEN_REPLY,ASSURED -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1 --dport 5001 "+
			"--reply-port-src 5001 --reply-port-dst 1\n"+
			`{"family":"ipv4","proto":"tcp","orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":2,"dport":5001},"status":["SEEN_REPLY","ASSURED","CONFIRMED","OFFLOAD"]}`+"\n"+
			"-A -u SEEN_REPLY,ASSURED -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 3 --dport 5001 --state ESTABLISHED\n"+
			"-A -s 10.0.0.1 -d 10.0.0.2 -p tcp --sport 4 --dport 5001\n")
	out := good(t, "ct", "list", "--fields", "orig.sport,state,tcp.flags_orig,tcp.flags_reply", "-o", "tsv")
	got := sortedLines(out)
	want := []string{"1\tESTABLISHED\tBE_LIBERAL\tBE_LIBERAL", "2\tESTABLISHED\tBE_LIBERAL\tBE_LIBERAL",
		"3\tESTABLISHED", "4\tESTABLISHED"}
	for i, w := range want {
		if i >= len(got) || strings.TrimSpace(got[i]) != w {
			t.Fatalf("got %q, want %q in front", out, w)
		}
	}
}

// TestLoadListings: the table as conntrack(8) and the kernel list it makes the same flows
// again.
func TestLoadListings(t *testing.T) {
	nstest.Need(t, "conntrack")
	ns := nstest.Enter(t)
	for _, flow := range []string{"tcp 10.0.0.1:1 > 10.0.0.2:80", "udp 10.0.0.1:5 > 10.0.0.2:53",
		"tcp [fd00::1]:1 > [fd00::2]:80 zone 4", "udp 10.0.0.1:6 > 10.0.0.2:53 orig-zone 3", "50 10.0.0.1 > 10.0.0.2",
		"gre 10.0.0.1:1 > 10.0.0.2:2", "sctp 10.0.0.1:1 > 10.0.0.2:2",
		"udplite 10.0.0.1:1 > 10.0.0.2:2", "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 7",
		"icmpv6 fd00::1 > fd00::2 type 128 code 0 id 9"} {
		good(t, "ct", "create", flow, "--timeout", "6000", "--mark", "5")
	}
	good(t, "ct", "create", "tcp 10.0.0.1:9 > 10.0.0.2:80", "--src-nat", "192.0.2.1:99", "--helper", "ftp", "--timeout",
		"6000")
	show := func() []string {
		return sortedLines(good(t, "ct", "list", "-o", "json", "--fields",
			"family,proto,state,status,orig,reply,mark,helper,zone"))
	}
	before, saved := show(), good(t, "ct", "save", "-o", "json")
	for _, list := range [][]string{{"conntrack", "-L"}, {"conntrack", "-L", "-o", "extended,id,ktimestamp,labels"},
		{"conntrack", "-L", "-o", "xml"}, {"cat", "/proc/net/nf_conntrack"}} {
		want := before
		good(t, "ct", "flush", "--all")
		loaded(t, saved)
		text := ns.Run(list[0], list[1:]...)
		if list[0] == "cat" || slices.Contains(list, "xml") { // which lack helpers, types and identifiers
			var rest []string
			for _, l := range want {
				if slices.Contains(list, "xml") && strings.Contains(l, `"icmp`) {
					continue
				}
				if list[0] == "cat" {
					l = strings.NewReplacer(`,"helper":"ftp"`, "", `,"HELPER"`, "").Replace(l)
				}
				rest = append(rest, l)
			}
			want = rest
		}
		good(t, "ct", "flush", "--all")
		file := filepath.Join(t.TempDir(), "listing")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs, status := call("ct", "load", file)
		if failed := len(before) - len(want); status != 0 && failed == 0 || !strings.Contains(errs,
			fmt.Sprintf("%d flows made", len(want))) {
			t.Errorf("%v: status %d: %s", list, status, errs)
		}
		differ(t, fmt.Sprint(list), show(), want)
	}
	file := filepath.Join(t.TempDir(), "bad")
	bad := strings.Repeat("tcp 6 src=10.0.0.1\n<flow><meta/></flow>\ntcp 6 src=1 dst=2 src=3 dst=4\n", 1000)
	if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs, status := call("ct", "load", file)
	if n := strings.Count(errs, "\n"); status != exitFailed || n > 23 || !strings.Contains(errs,
		"3000 of 3000 lines failed") {
		t.Errorf("status %d, %d lines: %s", status, n, errs)
	}
}
