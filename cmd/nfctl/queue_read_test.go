package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"nfctl/internal/nstest"
	"nfctl/internal/packet/packettest"
)

// decided are the verdicts in lines of JSON.
func decided(t *testing.T, out string) (list []string) {
	t.Helper()
	for line := range strings.Lines(out) {
		var r struct {
			Kind, Verdict, Scope, Hook, Indev, Outdev string
			Rule, UID                                 int
			IP                                        struct{ Src string }
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if r.Kind != "packet" {
			t.Errorf("%s", line)
		}
		list = append(list, fmt.Sprint(r.Verdict, r.Scope, r.Rule, r.Hook, r.Indev, r.Outdev, r.UID, r.IP.Src))
	}
	return list
}

// What a run has written, replayed with the same rules, has the same verdicts.
func TestQueueReadDecidesTheSame(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	file := filepath.Join(t.TempDir(), "out.pcapng")
	rules := []string{"--rule", "mark 0x10 udp > :7000 if mark == 0", "--rule",
		"drop every 3 udp > :7000 if mark == 0x10",
		"--rule", "drop limit over 50/s burst 3 per sport udp > " +
			":7000", "--rule", `accept if outdev == "lo" && uid == 0 && tcp != nil && hook == "output"`,
		"--rule", "drop chance 50% udp > :7001", "--rule", "accept first 3 udp > :7002", "--rule", "drop udp > " +
			":7002", "--seed", "7", "-o", "json"}
	p := startQueue(t, ns, append([]string{"--num", "5", "--uid-gid", "--attach", "output", "-w", file}, rules...)...)
	for _, host := range hosts {
		for _, port := range []string{"7000", "7001", "7002"} {
			c, err := ns.Dial("udp", host+":"+port, nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			for range 30 {
				_, _ = c.Write([]byte("some text"))
			}
			_ = c.Close()
		}
		exchange(t, ns, ns.TCPEcho(host+":0"), 5000)
	}
	endQueue(t, p)
	live := decided(t, p.Stdout())
	out, words, status := ns.Exec(nstest.Build(t), append([]string{"queue", "--read", file}, rules...)...)
	if status != 0 {
		t.Fatal(words)
	}
	played := decided(t, out)
	if len(live) < 180 || len(played) != len(live) {
		t.Fatalf("%d packets, %d replayed: %s", len(live), len(played), words)
	}
	for i := range live {
		if live[i] != played[i] {
			t.Errorf("packet %d: %s, replayed %s", i+1, live[i], played[i])
		}
	}
	if !strings.Contains(words, "nfctl: capture: "+strconv.Itoa(len(live))+" packets") {
		t.Error(words)
	}
}

// A capturedAt is a packet with its time, in ms.
type capturedAt struct {
	ms   int
	data []byte
}

func datagram(dport uint16, text string) []byte {
	return packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 17, L4: packettest.UDP(1234, dport, text)}.Bytes()
}

// pcap makes a capture of a link type.
func pcap(t *testing.T, typ uint32, packets ...capturedAt) string {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(65536, layers.LinkType(typ)); err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.UnixMilli(1_700_000_000_000 + int64(p.ms)),
			CaptureLength: len(p.data), Length: len(p.data)}, p.data); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func save(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// replayed runs nfctl queue --read in its own process, without a namespace or privileges.
func replayed(t *testing.T, file string, args ...string) (out, words string, status int) {
	t.Helper()
	c := exec.Command(nstest.Build(t), append([]string{"queue", "--read", file}, args...)...)
	var o, e bytes.Buffer
	c.Stdout, c.Stderr = &o, &e
	_ = c.Run()
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

// Time is the capture's, for limit and for what is printed and written.
func TestQueueReadTime(t *testing.T) {
	t.Parallel()
	var slow, fast []capturedAt
	for i := range 20 {
		slow = append(slow, capturedAt{i * 1000, datagram(7, "x")})
		fast = append(fast, capturedAt{i * 100, datagram(7, "x")})
	}
	for _, c := range []struct {
		file  string
		drops int
	}{{pcap(t, 101, slow...), 0}, {pcap(t, 101, fast...), 18}} {
		out, words, _ := replayed(t, save(t, c.file), "--rule", "drop limit over 1/s burst 1", "--fields",
			"time,verdict", "-o", "csv")
		if n := strings.Count(out, "drop"); n != c.drops || !strings.Contains(out, "\n2023-11-14T22:13:20") &&
			!strings.Contains(out, "\n1700000000") {
			t.Errorf("%d dropped, want %d: %s%s", n, c.drops, out, words)
		}
	}
}

// What rules let wait is written at the time when it would go on, and in that order; a
// copy is only recorded, and a bit that is flipped is written.
func TestQueueReadHolds(t *testing.T) {
	t.Parallel()
	var sent []capturedAt
	for i, text := range []string{"slow 0", "fast 1", "slow 2", "fast 3", "fast 4"} {
		sent = append(sent, capturedAt{i * 1000, datagram(7, text)}) // a second apart
	}
	file := save(t, pcap(t, 101, sent...))
	again := filepath.Join(t.TempDir(), "again")
	out, words, status := replayed(t, file, "--rule", `delay 1.5s if payload contains "slow"`, "--rule",
		"duplicate udp > :7", "--fields", "held", "-o", "csv", "-w", again)
	if status != 0 || strings.Count(out, "1.5\n") != 2 {
		t.Errorf("status %d: %s%s", status, out, words)
	}
	var order, times []string
	for _, p := range captureOf(t, again, false) {
		order = append(order, string(p[len(p)-6:]))
	}
	if got := strings.Join(order, ","); got != "fast 1,slow 0,fast 3,slow 2,fast 4" {
		t.Error(got)
	}
	out, words, _ = replayed(t, again, "--fields", "time", "-o", "csv")
	for line := range strings.Lines(out) {
		if _, after, ok := strings.Cut(line, ":13:"); ok {
			times = append(times, after[:4])
		}
	}
	if got := strings.Join(times, " "); got != "21.0 21.5 23.0 23.5 24.0" {
		t.Errorf("%s: %s%s", got, out, words)
	}
	again = filepath.Join(t.TempDir(), "damaged")
	if _, words, status := replayed(t, file, "--rule", "corrupt udp > :7", "-q", "-w", again); status != 0 {
		t.Error(words)
	}
	for i, p := range captureOf(t, again, false) {
		if was := sent[i].data; bytes.Equal(p, was) || !bytes.Equal(p[:20], was[:20]) {
			t.Errorf("packet %d: %x of %x", i, p, was)
		}
	}
}

// A verdict for a flow holds for its later packets, both ways alike.
func TestQueueReadFlow(t *testing.T) {
	t.Parallel()
	file := save(t, pcap(t, 101, capturedAt{0, datagram(7, "GET")}, capturedAt{1, datagram(7, "other")}, capturedAt{2,
		datagram(8, "other")}))
	for _, verdict := range []string{"accept", "drop", "reject"} {
		out, words, status := replayed(t, file, "--rule", verdict+` flow if payload contains "GET"`, "--rule", "drop",
			"--fields", "verdict,scope,rule", "-o", "tsv")
		want := verdict + "\tflow\t1\n"
		if want := "verdict\tscope\trule\n" + want + want + "drop\t\t2\n"; out != want || status != 0 {
			t.Errorf("%s: %q, want %q: %s", verdict, out, want, words)
		}
	}
}

// What is written of a replay is a capture again, edits included.
func TestQueueReadWrites(t *testing.T) {
	t.Parallel()
	file := save(t, pcap(t, 101, capturedAt{5, datagram(7, "an evil text")}))
	again := filepath.Join(t.TempDir(), "again")
	if _, words, status := replayed(t, file, "--rule", `replace "evil" "good" udp > :7`, "-w", again,
		"-q"); status != 0 || !strings.Contains(words, "1 edited") {
		t.Fatal(words)
	}
	out, words, _ := replayed(t, again, "--print-payload", "ascii")
	if !strings.Contains(out, "an good text") {
		t.Error(out, words)
	}
	if got := captureOf(t, again, false); len(got) != 1 || packettest.Verify(got[0]) != nil || !bytes.Contains(got[0],
		[]byte("good")) {
		t.Errorf("%q", got)
	}
	if _, words, status := replayed(t, again, "-w", again); status != exitUsage || !strings.Contains(words,
		"it is the file that is read") || len(captureOf(t, again, false)) != 1 {
		t.Error(status, words)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != pcap(t, 101, capturedAt{5, datagram(7,
		"an evil text")}) {
		t.Error("what was read has changed")
	}
}

func TestQueueReadFormats(t *testing.T) {
	t.Parallel()
	content := pcap(t, 101, capturedAt{0, datagram(7, "x")})
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte(content))
	_ = w.Close()
	want, _, _ := replayed(t, save(t, content), "-o", "json")
	if got, words, _ := replayed(t, save(t, z.String()), "-o", "json"); got != want || !strings.Contains(want,
		`"hook":"forward"`) {
		t.Error(got, want, words)
	}
	c := exec.Command(nstest.Build(t), "queue", "-r", "-", "-o", "json")
	c.Stdin = strings.NewReader(content)
	if got, err := c.Output(); err != nil || string(got) != want {
		t.Errorf("%s %v", got, err)
	}
	if got, words, _ := replayed(t, save(t, content), "--read-hook", "input", "-o", "json"); !strings.Contains(got,
		`"hook":"input"`) {
		t.Error(got, words)
	}
}

// What is wrong is told with the packet's number, behind what could be read.
func TestQueueReadTorn(t *testing.T) {
	t.Parallel()
	one, two := datagram(7, "x"), datagram(8, "y")
	content := pcap(t, 101, capturedAt{0, one}, capturedAt{1, two})
	for n := 24 + 16 + len(one) + 1; n < len(content); n++ {
		out, words, status := replayed(t, save(t, content[:n]))
		if status != exitFailed || strings.Count(out, "\n") != 1 || !strings.Contains(words,
			"packet 2: the capture ends in the midst of it") {
			t.Fatalf("%d bytes: status %d: %s%s", n, status, out, words)
		}
		n += 7
	}
	if _, words, status := replayed(t, save(t, pcap(t, 105, capturedAt{0, one}))); status != exitFailed ||
		!strings.Contains(words, "link type 105: want Ethernet") {
		t.Error(status, words)
	}
}

func TestQueueReadUsage(t *testing.T) {
	t.Parallel()
	file := save(t, pcap(t, 101))
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--num", "3"}, "--num is about the kernel's queues"},
		{[]string{"--attach", "input"}, "--attach is about"},
		{[]string{"--netns", "none"}, "--netns is about"},
		{[]string{"--max-len", "3"}, "--max-len is about"},
		{[]string{"--read-hook", "middle"}, "middle"},
		{[]string{"--snaplen", "30"}, "wants that too"},
	} {
		if out, words, status := replayed(t, file, c.args...); status != exitUsage || !strings.Contains(words,
			c.says) || out != "" {
			t.Errorf("%q: status %d: %s", c.args, status, words)
		}
	}
	if _, words, status := replayed(t, file+"none"); status != exitFailed || !strings.Contains(words, "no such file") {
		t.Error(status, words)
	}
	if _, words, status := replayed(t, ""); status != exitUsage {
		t.Error(status, words)
	}
	// What a capture has not is told once.
	file = save(t, pcap(t, 101, capturedAt{0, datagram(7, "x")}, capturedAt{0, datagram(7, "x")}))
	_, words, status := replayed(t, file, "--drop-if", "uid == 0", "--drop-if", "ct.mark == 1")
	if status != 0 || strings.Count(words, "has no user and group") != 1 || strings.Count(words,
		"have neither connections") != 1 {
		t.Error(status, words)
	}
}

// What tcpdump writes of the same packets at different places reads alike.
func TestQueueReadTcpdump(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "ip", "tcpdump", "iptables", "ip6tables")
	a, b := nstest.New(t), nstest.New(t)
	nstest.Veth(t, a, b)
	for _, ipt := range []string{"iptables", "ip6tables"} {
		b.Run(ipt, "-w", "-t", "mangle", "-A", "INPUT", "-p", "udp", "--dport", "7000", "-j", "MARK", "--set-mark",
			"0x12")
		b.Run(ipt, "-w", "-t", "mangle", "-A", "INPUT", "-p", "udp", "--dport", "7000", "-j", "NFLOG", "--nflog-group",
			"5")
	}
	dir := t.TempDir()
	dumps := map[string][]string{
		"ethernet": {"-i", "veth0"}, "sll": {"-i", "any", "-y", "LINUX_SLL"}, "sll2": {"-i", "any", "-y",
			"LINUX_SLL2"}, "nflog": {"-i", "nflog:5"},
	}
	var procs []*nstest.Proc
	for name, args := range dumps {
		args = append(args, "-n", "-U", "--immediate-mode", "-Z", "root", "-w", filepath.Join(dir, name))
		if name != "nflog" {
			args = append(args, "udp and dst port 7000")
		}
		p := b.Start("tcpdump", args...)
		p.WaitOutput("listening on")
		procs = append(procs, p)
	}
	for _, host := range []string{"10.0.0.2", "[fd00::2]"} {
		in := b.ListenUDP(host + ":7000")
		c, err := a.Dial("udp", host+":7000", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if _, err := fmt.Fprintf(c, "x%d", i); err != nil { // short: frames are filled up
				t.Fatal(err)
			}
			_ = in.SetReadDeadline(time.Now().Add(nstest.Patience))
			if _, _, err := in.ReadFrom(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name := range dumps {
		nstest.Until(t, name+" has all", func() bool {
			out, _, _ := replayed(t, filepath.Join(dir, name), "--fields", "id", "-o", "tsv")
			return strings.Count(out, "\n") == 11
		})
	}
	for _, p := range procs {
		p.Signal(os.Interrupt)
	}
	fields := "family,ip.src,ip.dst,sport,dport,length,udp.length,verdict"
	want, _, _ := replayed(t, filepath.Join(dir, "ethernet"), "--fields", fields, "-o", "csv", "--drop",
		"udp 10.0.0.0/8 > :7000")
	if strings.Count(want, "drop") != 5 || !strings.Contains(want, "ipv6,fd00::1,fd00::2") || !strings.Contains(want,
		",7000,30,10,drop") {
		t.Error(want)
	}
	for name := range dumps {
		got, words, status := replayed(t, filepath.Join(dir, name), "--fields", fields, "-o", "csv", "--drop",
			"udp 10.0.0.0/8 > :7000")
		if got != want || status != 0 {
			t.Errorf("%s: %s, want %s%s", name, got, want, words)
		}
	}
	got, _, _ := replayed(t, filepath.Join(dir, "nflog"), "--fields", "hook,mark", "-o", "tsv")
	if strings.Count(got, "input\t0x12\n") != 10 {
		t.Error(got)
	}
	if got, _, _ := replayed(t, filepath.Join(dir, "ethernet"), "--drop-if", `hwaddr != ""`, "-q", "-o",
		"text"); got != "" {
		t.Error(got)
	}
}
