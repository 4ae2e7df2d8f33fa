package ct

import (
	"os"
	"strconv"
	"strings"
)

// Timeouts are the timeouts in seconds that a network namespace gives to flows
// (net.netfilter.nf_conntrack_*_timeout*). With them a flow tells how long ago
// its last packet was: each packet sets its timeout anew.
type Timeouts struct {
	tcp                   [10]uint32 // by state
	tcpRetrans, tcpUnack  uint32
	sctp                  [10]uint32
	udp, udpStream        uint32
	gre, greStream        uint32
	icmp, icmpv6, generic uint32
}

var tcpTimeouts = [10]string{1: "syn_sent", 2: "syn_recv", 3: "established", 4: "fin_wait", 5: "close_wait", 6: "last_ack", 7: "time_wait", 8: "close", 9: "syn_sent"}
var sctpTimeouts = [10]string{1: "closed", 2: "cookie_wait", 3: "cookie_echoed", 4: "established", 5: "shutdown_sent", 6: "shutdown_recd", 7: "shutdown_ack_sent", 8: "heartbeat_sent"}

// LoadTimeouts reads the settings of the calling thread's network namespace. Those
// that this kernel does not have stay unknown.
func LoadTimeouts() *Timeouts {
	get := func(name string) uint32 {
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
		if err != nil {
			return 0
		}
		n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
		return uint32(n)
	}
	t := &Timeouts{
		tcpRetrans: get("tcp_timeout_max_retrans"), tcpUnack: get("tcp_timeout_unacknowledged"),
		udp: get("udp_timeout"), udpStream: get("udp_timeout_stream"), gre: get("gre_timeout"), greStream: get("gre_timeout_stream"),
		icmp: get("icmp_timeout"), icmpv6: get("icmpv6_timeout"), generic: get("generic_timeout"),
	}
	for i, name := range tcpTimeouts {
		if name != "" {
			t.tcp[i] = get("tcp_timeout_" + name)
		}
	}
	for i, name := range sctpTimeouts {
		if name != "" {
			t.sctp[i] = get("sctp_timeout_" + name)
		}
	}
	return t
}

// SetIdle sets f.Idle, the seconds since the flow's last packet in either
// direction, where the timeout tells. It does not for flows that are offloaded or
// have a fixed timeout, whose timeout is longer than the setting, or who are TCP
// connections that may wait for an acknowledgement, which the kernel gives a
// timeout of their own. It is wrong for flows whose timeout was set by hand or by
// a timeout policy of a rule (CT --timeout).
func (t *Timeouts) SetIdle(f *Flow) {
	full := t.of(f)
	if full == 0 || !f.Has(HasTimeout) || f.Timeout > full || f.Status&(StatusFixedTimeout|StatusOffload|StatusHWOffload) != 0 {
		return
	}
	if f.Orig.Proto == TCP && (full > t.tcpRetrans && f.Timeout <= t.tcpRetrans || full > t.tcpUnack && f.Timeout <= t.tcpUnack) {
		return
	}
	// What remains is cut to whole seconds: a second of the difference is that.
	f.Idle = full - f.Timeout
	if f.Idle > 0 {
		f.Idle--
	}
	f.Present |= HasIdle
}

// Of returns the timeout in seconds that a packet gives to f, 0 when unknown: of
// TCP and SCTP connections the state must be known.
func (t *Timeouts) Of(f *Flow) uint32 { return t.of(f) }

// of returns the timeout that a packet gives to f, 0 when unknown.
func (t *Timeouts) of(f *Flow) uint32 {
	switch f.Orig.Proto {
	case TCP:
		if f.Has(HasTCPState) && int(f.TCPState) < len(t.tcp) {
			return t.tcp[f.TCPState]
		}
		return 0
	case SCTP:
		if f.Has(HasSCTPState) && int(f.SCTPState) < len(t.sctp) {
			return t.sctp[f.SCTPState]
		}
		return 0
	case UDP, UDPLite:
		if f.Status&StatusAssured != 0 {
			return t.udpStream
		}
		return t.udp
	case GRE:
		if f.Status&StatusSeenReply != 0 {
			return t.greStream
		}
		return t.gre
	case ICMP:
		return t.icmp
	case ICMPv6:
		return t.icmpv6
	}
	return t.generic
}
