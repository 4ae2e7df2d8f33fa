package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/packet/packettest"
)

// tun makes interface tun0 inside ns: what is written to the file is a packet
// that comes in by it.
func tun(t *testing.T, ns *nstest.NS) *os.File {
	t.Helper()
	nstest.Need(t, "ip")
	var fd int
	var err error
	ns.Do(func() {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		var ifr struct { // struct ifreq
			name  [unix.IFNAMSIZ]byte
			flags uint16
			_     [22]byte
		}
		copy(ifr.name[:], "tun0")
		ifr.flags = unix.IFF_TUN | unix.IFF_NO_PI
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&ifr))); e != 0 {
			err = e
		}
	})
	if err != nil {
		t.Fatalf("tun: %v", err)
	}
	f := os.NewFile(uintptr(fd), "tun")
	t.Cleanup(func() { _ = f.Close() })
	ns.Run("ip", "addr", "add", "10.0.0.2/24", "dev", "tun0")
	ns.Run("ip", "addr", "add", "fd00::2/64", "dev", "tun0", "nodad")
	ns.Run("ip", "link", "set", "tun0", "up", "mtu", "65535")
	return f
}

// rawSender returns a function that sends whole packets from inside ns, which
// come to the output hook as they are but for an IPv4 header that the kernel
// mends.
func rawSender(t *testing.T, ns *nstest.NS) func(b []byte) error {
	t.Helper()
	var v4, v6 int
	var err error
	ns.Do(func() {
		if v4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
			unix.IPPROTO_RAW); err == nil {
			v6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		}
	})
	if err != nil {
		t.Fatalf("raw socket: %v", err)
	}
	t.Cleanup(func() { _, _ = unix.Close(v4), unix.Close(v6) })
	return func(b []byte) error {
		switch {
		case len(b) >= 20 && b[0]>>4 == 4:
			return unix.Sendto(v4, b, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 0, 0, 2}})
		case len(b) >= 40 && b[0]>>4 == 6:
			to := &unix.SockaddrInet6{}
			to.Addr = [16]byte{0xfd, 15: 2}
			return unix.Sendto(v6, b, 0, to)
		}
		return unix.EINVAL
	}
}

// waiting returns how many packets wait in queue num for a verdict, and how many
// were queued since it was bound, by the kernel's count.
func waiting(t *testing.T, ns *nstest.NS, num string) (depth, queued int) {
	t.Helper()
	list := ns.Run("cat", "/proc/thread-self/net/netfilter/nfnetlink_queue")
	for line := range strings.Lines(list) {
		// queue port depth mode range dropped user_dropped last_id 1
		if w := strings.Fields(line); len(w) > 7 && w[0] == num {
			depth, _ = strconv.Atoi(w[2])
			queued, _ = strconv.Atoi(w[7])
			return depth, queued
		}
	}
	t.Fatalf("queue %s is not in the kernel's list:\n%s", num, list)
	return 0, 0
}

// TestQueueMalformed sends everything wrong that we know through a queue, at
// speed, under rules of every kind. What the kernel lets in has a verdict, all of
// it; nothing ends nfctl, and its memory does not grow.
func TestQueueMalformed(t *testing.T) {
	t.Parallel()
	if os.Getenv("NFCTL_TEST_INNER") != "" {
		t.Skip("/dev/net/tun and the kernel's list of queues need root")
	}
	script := filepath.Join(t.TempDir(), "rule.lua")
	if err := os.WriteFile(script,
		[]byte("return function(p) if p.udp and p.udp.dport == 53 then return \"drop\" end end, {\"ip\", \"udp\", "+
			"\"tcp\", \"payload\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		rounds int
		args   []string
	}{
		{"flags", 60, []string{"-q", "--drop-port", "22", "--accept-sport", "1-1000", "--drop-dport", "53", "--drop-proto", "icmp,132", "--accept-proto", "gre",
			"--drop-src", "10.0.0.1", "--accept-dst", "fd00::/64", "--drop", "tcp 10.0.0.0/8 > :22", "--default", "drop"}},
		{"expressions", 60, []string{"-q", "--drop-if", `payload contains "load" and udp.dport == 53`, "--accept-if", `"SYN" in tcp.flags or ip.ttl < 3`,
			"--drop-if", `length > 1000 and ip.src in ["10.0.0.0/8", "fd00::/8"]`, "--drop-if", `not (ip.proto in ["tcp", "udp"]) and ip.ttl > 1`}},
		{"edits", 60, []string{"-q", "--rule", "mark 7", "--rule", "set ip.ttl=9", "--rule", `set tcp.dport=2222`, "--rule", `set udp.sport=7`, "--rule", "set ip.dst=10.0.0.2 udp >",
			"--rule", `replace "payload" "pay" resize`, "--rule", `replace "hello" "HELLO"`, "--rule", "log icmp >"}},
		{"edits that may fail", 60, []string{"-q", "--on-uneditable", "accept", "--snaplen", "60", "--rule", `set ip.ttl=9`, "--rule", `replace "l" "LL" resize`}},
		{"ends", 60, []string{"-q", "--rule", "mark 0x10/0x10 repeat tcp >", "--rule", "stop udp >", "--rule", "queue 9 bypass", "--max-len", "100000"}},
		{"lua", 10, []string{"-q", "--rule", "lua " + script}},
		{"text", 10, []string{"--print-payload", "hex", "-v"}},
		{"json", 10, []string{"-o", "json", "--print-payload", "hex"}},
		{"headers only", 60, []string{"-q", "--meta", "--drop-if", "mark == 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ns := nstest.New(t)
			f, raw := tun(t, ns), rawSender(t, ns)
			corpus := packettest.Malformed()
			p := startQueue(t, ns, append([]string{"--num", "3", "--attach", "prerouting", "--attach", "output"},
				tt.args...)...)
			pid := p.Cmd.Process.Pid
			written, rounds := 0, 0
			// The packets wait for their verdicts in the order that they came in,
			// so none is left when the last has its.
			round := func() {
				for _, c := range corpus {
					if len(c.Data) > 65535 {
						c.Data = c.Data[:65535]
					}
					// Not everything passes: an interface takes IPv4 and IPv6 only,
					// and the kernel looks at the IP header before the hooks.
					if _, err := f.Write(c.Data); err == nil {
						written++
					}
					if raw(c.Data) == nil {
						written++
					}
				}
				rounds++
				nstest.Until(t, "no packet waits", func() bool {
					if p.Ended() {
						t.Fatalf("nfctl ended: %s", p.Stderr())
					}
					depth, _ := waiting(t, ns, "3")
					return depth == 0
				})
			}
			for range tt.rounds / 5 {
				round()
			}
			before, _, _ := resident(t, pid)
			for range tt.rounds - tt.rounds/5 {
				round()
			}
			after, _, _ := resident(t, pid)
			if grown := after - before; grown > 8<<10 {
				t.Errorf("memory grew from %d to %d KiB", before, after)
			}
			_, queued := waiting(t, ns, "3")
			if queued < 700*rounds {
				t.Errorf("of %d packets in %d rounds only %d came to the queue", written, rounds, queued)
			}
			p.Signal(unix.SIGTERM)
			if status := p.Wait(); status != 0 {
				t.Fatalf("status %d: %s", status, p.Stderr())
			}
			total := counted(p.Stderr(), "packet")
			if total < queued {
				t.Errorf("%d packets were queued, %d had verdicts", queued, total)
			}
			for _, word := range []string{"lost", "vanished", "refused", "malformed", "not answered", "panic"} {
				if strings.Contains(p.Stderr(), word) {
					t.Errorf("totals tell of %s", word)
				}
			}
			t.Logf("%d cases, %d rounds: %d written, %d queued, %d verdicts, %d KiB grown", len(corpus), rounds,
				written, queued, total, after-before)
		})
	}
}
