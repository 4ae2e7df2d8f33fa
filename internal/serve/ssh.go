package serve

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/nft"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
)

// maxAncestors bounds the walk to the process that still has the variable.
const maxAncestors = 32

// sshConnection returns the ends of the connection by which the user is logged in.
// sudo takes SSH_CONNECTION away, so the processes that nfctl descends from are
// looked at too.
func sshConnection() (client, server netip.AddrPort, ok bool) {
	text := os.Getenv("SSH_CONNECTION")
	for pid, n := os.Getppid(), 0; text == "" && pid > 1 && n < maxAncestors; n++ {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if s, found := strings.CutPrefix(string(v), "SSH_CONNECTION="); found {
				text = s
			}
		}
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		words := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // state, parent, …
		if len(words) < 2 {
			break
		}
		pid, _ = strconv.Atoi(words[1])
	}
	w := strings.Fields(text) // client's address and port, the server's
	if len(w) != 4 {
		return client, server, false
	}
	end := func(addr, port string) (netip.AddrPort, bool) {
		a, err := netip.ParseAddr(addr)
		n, e := strconv.ParseUint(port, 10, 16)
		return netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(n)), err == nil && e == nil
	}
	client, okClient := end(w[0], w[1])
	server, okServer := end(w[2], w[3])
	return client, server, okClient && okServer && client.Addr().BitLen() == server.Addr().BitLen()
}

// isOwn reports whether an address is one of this network namespace: in another the
// user's connection does not end.
func isOwn(a netip.Addr) bool {
	list, _ := net.InterfaceAddrs()
	for _, n := range list {
		if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr() == a {
			return true
		}
	}
	return false
}

// LockedOut says in words that the rules would drop the packets of the user's own
// connection, which Attach queues; "" when they do not.
func (r *Run) LockedOut() string {
	if len(r.Attach) == 0 || r.DryRun {
		return ""
	}
	set := r.Set()
	client, server, ok := sshConnection()
	if !ok || !isOwn(server.Addr()) {
		return ""
	}
	for _, s := range r.Attach {
		p, ok := segmentAt(s.Hook, client, server)
		if !ok || !queues(&s, p) {
			continue
		}
		v, n := set.Foresee(p, r.Default)
		if v != queue.Drop && v != queue.Reject {
			continue
		}
		what := "--default drop"
		if n > 0 {
			what = fmt.Sprintf("rule %d (%v)", n, set.Name(n))
		}
		verb := "drops"
		if v == queue.Reject {
			verb = "rejects"
		}
		return fmt.Sprintf("%s %s your own SSH connection, tcp %v > %v, at %s: an --accept in front of it keeps it, "+
			"--duration 60s ends nfctl in any case", what, verb, client, server, s.Hook)
	}
	return ""
}

// segmentAt makes a segment of a TCP connection as it passes a hook of the server's
// machine; false for a hook that it does not pass.
func segmentAt(hook nft.Hook, client, server netip.AddrPort) (*queue.Packet, bool) {
	src, dst := client, server
	switch hook {
	case nft.Prerouting, nft.Input:
	case nft.Output, nft.Postrouting:
		src, dst = server, client
	default:
		return nil, false
	}
	tcp := binary.BigEndian.AppendUint16(nil, src.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, dst.Port())
	tcp = append(tcp, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, 1<<4 /* ACK */, 0xff, 0xff, 0, 0, 0, 0)
	b := []byte{6 << 4, 0, 0, 0, 0, byte(len(tcp)), unix.IPPROTO_TCP, 64}
	family := uint8(unix.AF_INET6)
	if src.Addr().Is4() {
		family = unix.AF_INET
		b = []byte{4<<4 | 5, 0, 0, byte(20 + len(tcp)), 0, 1, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0}
	}
	b = append(append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...), tcp...)
	return &queue.Packet{Hook: uint8(hook), Family: family, Data: b, Length: uint32(len(b)),
		Has: queue.HasPayload | queue.HasLength}, true
}

// queues reports whether a rule of --attach queues a packet at its hook.
func queues(s *nft.Spec, p *queue.Packet) bool {
	if s.Family != unix.AF_UNSPEC && s.Family != p.Family {
		return false
	}
	if s.Pattern == nil {
		return true
	}
	match, err := rule.Matcher(s.Pattern)
	return err == nil && (match == nil || match(p))
}
