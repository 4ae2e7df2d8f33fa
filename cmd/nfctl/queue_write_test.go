package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// captureOf reads the packets of a pcapng file, and fails the test at what is not
// whole, but for the last packet where it may be torn.
func captureOf(t *testing.T, path string, torn bool) (packets [][]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for {
		b, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) || torn && errors.Is(err, io.ErrUnexpectedEOF) {
			return packets
		}
		if err != nil {
			t.Fatalf("%s: packet %d: %v", path, len(packets)+1, err)
		}
		if info.CaptureLength != len(b) {
			t.Fatalf("%s: packet %d: %d bytes, says %d", path, len(packets)+1, len(b), info.CaptureLength)
		}
		packets = append(packets, bytes.Clone(b))
	}
}

// tshark returns the fields of each packet of a capture, one line each.
func tshark(t *testing.T, path string, fields ...string) []string {
	t.Helper()
	args := []string{"-n", "-r", path, "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o",
		"ip.check_checksum:TRUE",
		"-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, words, status := nstest.Here(t).Exec("tshark", args...)
	if status != 0 {
		t.Fatalf("tshark: %s", words)
	}
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

// What is written is what goes over the wire, edits included.
func TestQueueWriteIsWhatIsSent(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "ip", "tcpdump")
	for _, v := range []struct{ family, from, to string }{{"4", "10.0.0.1", "10.0.0.2"}, {"6", "fd00::1", "fd00::2"}} {
		t.Run(v.family, func(t *testing.T) {
			a, b := nstest.New(t), nstest.New(t)
			nstest.Veth(t, a, b)
			dir := t.TempDir()
			far := filepath.Join(dir, "far.pcap")
			dump := b.Start("tcpdump", "-i", "veth0", "-n", "-U", "--immediate-mode", "-s", "0", "-w", far, "-Z",
				"root",
				"src "+v.from+" and (udp or tcp)")
			dump.WaitOutput("listening on")
			near := filepath.Join(dir, "near.pcapng")
			q := startQueue(t, a, "-q", "--no-gso", "--attach", "postrouting", "-w", near, "--write-if",
				"udp != nil || tcp != nil",
				"--rule", `replace "evil" "harmless" udp > :7000`, "--rule", "set ip.ttl=9 tcp > :7001")
			in := b.ListenUDP(net.JoinHostPort(v.to, "7000"))
			defer in.Close()
			out, err := a.Dial("udp", net.JoinHostPort(v.to, "7000"), nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			for i := range 20 {
				if _, err := fmt.Fprintf(out, "an evil datagram %d", i); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 100)
				_ = in.SetReadDeadline(time.Now().Add(nstest.Patience))
				if n, _, err := in.ReadFrom(buf); err != nil || !strings.HasPrefix(string(buf[:n]),
					"an harmless datagram") {
					t.Fatalf("%q %v", buf[:n], err)
				}
			}
			exchange(t, a, b.TCPEcho(net.JoinHostPort(v.to, "7001")), 9000)
			words := endQueue(t, q)
			dump.Signal(unix.SIGTERM)
			dump.Wait()
			f, err := os.Open(far)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			r, err := pcapgo.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			var want [][]byte
			for {
				p, _, err := r.ReadPacketData()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, trim(p[14:]))
			}
			got := captureOf(t, near, false)
			if len(got) < 30 || !strings.Contains(words, "nfctl: "+strconv.Itoa(len(got))+" packets written to "+near) {
				t.Errorf("%d packets: %s", len(got), words)
			}
			if len(got) > len(want) || len(got) < len(want)-3 { // the connection's end may come behind nfctl's
				t.Fatalf("%d packets written, %d came to the far end", len(got), len(want))
			}
			for i := range got {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("packet %d\n% x written\n% x came", i+1, got[i], want[i])
				}
			}
		})
	}
}

// exchange sends n bytes over a connection to what sends them back.
func exchange(t *testing.T, ns *nstest.NS, addr string, n int) {
	t.Helper()
	c, err := ns.Dial("tcp", addr, nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(nstest.Patience))
	go func() { _, _ = c.Write(bytes.Repeat([]byte("y"), n)) }()
	if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

// trim takes off what fills an Ethernet frame behind a packet.
func trim(p []byte) []byte {
	if p[0]>>4 == 4 {
		return p[:int(p[2])<<8|int(p[3])]
	}
	return p[:40+(int(p[4])<<8|int(p[5]))]
}

// What Wireshark's programs read of a file, large segments and dropped packets included.
func TestQueueWriteReadByOthers(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "tshark", "tcpdump", "capinfos", "editcap", "mergecap")
	for _, host := range hosts {
		ns := nstest.New(t)
		dir := t.TempDir()
		file, rules := filepath.Join(dir, "out.pcapng"), filepath.Join(dir, "rules")
		if err := os.WriteFile(rules, []byte("# a rule\nmark 0x10 udp > :7000\n\nset ip.ttl=3 udp > :7000\ndrop "+
			"udp > :7000\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := startQueue(t, ns, "-q", "--uid-gid", "--num", "7", "--attach", "output", "--rules", rules, "-w", file)
		c, err := ns.Dial("udp", host+":7000", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("dropped"))
		exchange(t, ns, ns.TCPEcho(host+":7001"), 50000)
		endQueue(t, p)
		lines := tshark(t, file, "frame.packet_id", "frame.interface_queue", "frame.packet_flags_direction",
			"frame.comment", "ip.ttl", "ipv6.hlim",
			"udp.checksum.status", "tcp.checksum.status", "frame.len")
		large := 0
		for i, l := range lines {
			f := strings.Split(l, "|")
			if f[0] != strconv.Itoa(i+1) || f[1] != "7" || f[2] != "0x00000002" || f[6] != "1" && f[7] != "1" {
				t.Errorf("packet %d: %s", i+1, l)
			}
			if n, _ := strconv.Atoi(f[8]); n > 20000 {
				large++
			}
			want := "accept output out lo" // and the user, where there is a socket
			if f[6] == "1" {               // it is written as it came
				want = "drop rule 3 (" + rules + ":5) output out lo uid 0 gid 0 marked 0x10"
				if f[4]+f[5] != "64" {
					t.Errorf("packet %d: %s", i+1, l)
				}
			}
			if !strings.HasPrefix(f[3], want) {
				t.Errorf("packet %d: %q, want %q…", i+1, f[3], want)
			}
		}
		if large == 0 {
			t.Errorf("no large segment among %q", lines)
		}
		n := len(lines)
		count := func(words string) {
			t.Helper()
			if got := strings.Count(words, "\n"); got != n {
				t.Errorf("%d lines of %d packets: %s", got, n, words)
			}
		}
		count(ns.Run("tcpdump", "-n", "-r", file))
		if info := ns.Run("capinfos", "-M", file); !strings.Contains(info,
			"Number of packets:   "+strconv.Itoa(n)+"\n") || !strings.Contains(info, "Capture application: nfctl ") {
			t.Error(info)
		}
		edited, merged := filepath.Join(dir, "edited.pcapng"), filepath.Join(dir, "merged.pcapng")
		ns.Run("editcap", "-r", file, edited, "1")
		ns.Run("mergecap", "-a", "-w", merged, file, edited)
		again := tshark(t, merged, "frame.comment")
		if len(again) != n+1 || again[n] != again[0] {
			t.Errorf("%d packets after mergecap: %q", len(again), again)
		}
	}
}

func TestQueueWriteBounded(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "tshark")
	ns := nstest.New(t)
	file := filepath.Join(t.TempDir(), "out.pcapng")
	if err := os.WriteFile(file, []byte("what was there"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The rule looks behind what is written, and only what it drops is.
	p := startQueue(t, ns, "-q", "--attach", "output udp > :7000", "--rule", `drop if payload contains "evil"`, "-w",
		file, "--snaplen", "30", "--write-if", `verdict == "drop" && rule == 1`)
	in := ns.ListenUDP("127.0.0.1:7000")
	defer in.Close()
	c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, text := range []string{"good", "long enough, and evil", "good again"} {
		if _, err := c.Write([]byte(text)); err != nil && !isTransient(err) {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 100)
	for _, want := range []string{"good", "good again"} {
		_ = in.SetReadDeadline(time.Now().Add(nstest.Patience))
		if n, _, err := in.ReadFrom(buf); err != nil || string(buf[:n]) != want {
			t.Fatalf("%q %v, want %q", buf[:n], err, want)
		}
	}
	endQueue(t, p)
	if got := tshark(t, file, "frame.len", "frame.cap_len"); len(got) != 1 || got[0] != "49|30" {
		t.Errorf("%q", got)
	}
}

func TestQueueWriteToAPipe(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "tshark")
	ns := nstest.New(t)
	file := filepath.Join(t.TempDir(), "out.pcapng")
	ready := filepath.Join(t.TempDir(), "ready")
	p := ns.Start("sh", "-c", `"$0" queue --attach 'output udp > :7000' --count 2 --ready-file "$1" -w - | cat >"$2"`,
		nstest.Build(t), ready, file)
	nstest.WaitFile(t, ready)
	defer ns.ListenUDP("127.0.0.1:7000").Close() // else the second is answered by the error for the first
	c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	p.Wait()
	if got := tshark(t, file, "frame.comment"); len(got) != 2 || !strings.HasPrefix(got[0], "accept output out lo") {
		t.Errorf("%q: %s", got, p.Stderr())
	}
}

func TestQueueWriteUsage(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "target"), link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--write-if", "tcp != nil"}, exitUsage, "--write-if chooses what --write writes"},
		{[]string{"-w", "-", "-o", "json"}, exitUsage, "standard output is the capture"},
		{[]string{"-w", "-", "--print-payload", "hex"}, exitUsage, "standard output is the capture"},
		{[]string{"-w", dir + "/x", "--meta"}, exitUsage, "--meta copies nothing"},
		{[]string{"-w", dir + "/x", "--write-if", "nonsense == 1"}, exitUsage, "nonsense"},
		{[]string{"-w", link}, exitFailed, "symbolic link"},
		{[]string{"-w", dir}, exitFailed, dir},
		{[]string{"-w", dir + "/none/x"}, exitFailed, "no such file"},
	} {
		_, words, status := ns.Exec(nstest.Build(t), append([]string{"queue"}, c.args...)...)
		if status != c.status || !strings.Contains(words, c.says) {
			t.Errorf("%q: status %d: %s", c.args, status, words)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a file was made by a command that failed")
	}
}

// A full disk ends the run, and what is on it reads to the last packet that was told of.
func TestQueueWriteFullDisk(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	dir := t.TempDir()
	ready, file := filepath.Join(dir, "ready"), filepath.Join(dir, "out.pcapng")
	p := ns.Start("unshare", "-m", "sh", "-c", `
		mkdir "$3" && mount -t tmpfs -o size=64k tmpfs "$3" || exit 99
		"$0" queue -q --attach 'output udp > :7000' --ready-file "$1" -w "$3/f"
		status=$?
		cp "$3/f" "$2"
		exit $status`, nstest.Build(t), ready, file, filepath.Join(dir, "disk"))
	nstest.WaitFile(t, ready)
	c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nstest.Until(t, "the disk is full", func() bool {
		for range 20 {
			_, _ = c.Write(make([]byte, 400))
		}
		return p.Ended()
	})
	if p.Wait() != exitFailed || !strings.Contains(p.Stderr(), "no space left on device: the file ends with a "+
		"whole record") {
		t.Errorf("status %d: %s", p.Wait(), p.Stderr())
	}
	if n := len(captureOf(t, file, false)); n < 50 || !strings.Contains(p.Stderr(),
		"nfctl: "+strconv.Itoa(n)+" packets written to ") {
		t.Errorf("%d packets: %s", n, p.Stderr())
	}
}

// After kill -9, which may come in the midst of a write, what is in the file reads.
func TestQueueWriteKilled(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	file := filepath.Join(t.TempDir(), "out.pcapng")
	p := startQueue(t, ns, "-q", "--attach", "output udp > :7000", "-w", file)
	c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nstest.Until(t, "something is written", func() bool {
		for range 50 {
			_, _ = c.Write(make([]byte, 300))
		}
		st, err := os.Stat(file)
		return err == nil && st.Size() > 300_000
	})
	p.Signal(unix.SIGKILL)
	p.Wait()
	if n := len(captureOf(t, file, true)); n < 500 {
		t.Errorf("%d packets", n)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}
