package ct

import (
	"nfctl/internal/nl"
)

// Timeouts are the timeouts in seconds that a network namespace gives to flows
// (net.netfilter.nf_conntrack_*_timeout*). With them a flow tells how long ago
// its last packet was: each packet sets its timeout anew.
type Timeouts struct {
	Ages bool // flows that begin now have an age: net.netfilter.nf_conntrack_timestamp is 1

	policies [256]bool // by protocol: see LoadPolicies

	tcp                   [10]uint32 // by state
	tcpRetrans, tcpUnack  uint32
	sctp                  [10]uint32
	udp, udpStream        uint32
	gre, greStream        uint32
	icmp, icmpv6, generic uint32
}

var tcpTimeouts = [10]string{1: "syn_sent", 2: "syn_recv", 3: "established", 4: "fin_wait", 5: "close_wait",
	6: "last_ack", 7: "time_wait", 8: "close", 9: "syn_sent"}
var sctpTimeouts = [10]string{1: "closed", 2: "cookie_wait", 3: "cookie_echoed", 4: "established", 5: "shutdown_sent",
	6: "shutdown_recd", 7: "shutdown_ack_sent", 8: "heartbeat_sent"}

// LoadTimeouts reads the settings of the calling thread's network namespace. Those
// that this kernel does not have stay unknown.
func LoadTimeouts() *Timeouts {
	get := func(name string) uint32 {
		n, _ := setting("nf_conntrack_" + name)
		return uint32(n)
	}
	t := &Timeouts{
		tcpRetrans: get("tcp_timeout_max_retrans"), tcpUnack: get("tcp_timeout_unacknowledged"),
		udp: get("udp_timeout"), udpStream: get("udp_timeout_stream"), gre: get("gre_timeout"),
		greStream: get("gre_timeout_stream"),
		icmp:      get("icmp_timeout"), icmpv6: get("icmpv6_timeout"), generic: get("generic_timeout"),
		Ages: get("timestamp") == 1,
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

// LoadPolicies finds out for which protocols the namespace has timeout policies:
// nft's (ct timeout) and those of nfct(8), which iptables (CT --timeout) and Open
// vSwitch use. No flow tells whether it has one.
func (t *Timeouts) LoadPolicies() error {
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		return err
	}
	defer c.Close()
	const getTimeouts, timeoutProto = 1, 3 // IPCTNL_MSG_TIMEOUT_GET, CTA_TIMEOUT_L4PROTO
	note := func(typ uint16, body []byte) {
		for a := range nl.Attrs(body) {
			if n, ok := a.U8(); ok && a.Type == typ {
				t.policies[n] = true
			}
		}
	}
	// A kernel that lacks the one or the other has no such policies.
	_, _ = c.Dump(nl.AppendHeader(nil, nl.Type(nl.SubsysTimeout, getTimeouts), nl.FlagDump, 0,
		0), func(m *nl.Msg) error {
		note(timeoutProto, m.Body())
		return nil
	})
	// NFT_MSG_GETOBJ, NFTA_OBJ_*, NFT_OBJECT_CT_TIMEOUT, NFTA_CT_TIMEOUT_L4PROTO
	const getObjects, objectType, objectData, ctTimeout, ctTimeoutProto = 19, 3, 4, 7, 2
	req := nl.AppendU32(nl.AppendHeader(nil, nl.Type(nl.SubsysTables, getObjects), nl.FlagDump, 0, 0), objectType,
		ctTimeout)
	_, _ = c.Dump(nl.Finish(req, 0), func(m *nl.Msg) error {
		for a := range nl.Attrs(m.Body()) {
			if a.Type == objectData {
				note(ctTimeoutProto, a.Data)
			}
		}
		return nil
	})
	return nil
}

// Policies returns the protocols that have timeout policies: see LoadPolicies.
func (t *Timeouts) Policies() (protos []uint8) {
	for p, has := range t.policies {
		if has {
			protos = append(protos, uint8(p))
		}
	}
	return protos
}

// SetIdle sets f.Idle, the seconds since the last packet in either direction that
// set the flow's timeout anew, where that can be known: the setting of the flow's
// state less the time that is left. It cannot where the kernel may have used
// another number: for flows that are offloaded or have a fixed timeout, of a
// protocol that has a timeout policy, with more time left than the setting gives,
// in a TCP state whose packets may have had one of the shorter settings for
// retransmissions and unacknowledged data, or idle for longer than they are old.
// Where a flow's age is not known, one with less than half of the setting left may
// as well be one whose timeout was set by hand or whose setting was another then.
func (t *Timeouts) SetIdle(f *Flow) {
	full := t.of(f)
	if full == 0 || !f.Has(HasTimeout) || f.Timeout > full ||
		f.Status&(StatusFixedTimeout|StatusOffload|StatusHWOffload) != 0 || t.policies[f.Orig.Proto] {
		return
	}
	if f.Orig.Proto == TCP && (full > t.tcpRetrans && f.Timeout <= t.tcpRetrans ||
		full > t.tcpUnack && f.Timeout <= t.tcpUnack) {
		return
	}
	// What remains is cut to whole seconds: a second of the difference is that.
	idle := full - f.Timeout
	idle -= min(idle, 1)
	if age, ok := f.Age(); ok {
		if uint64(idle) > age/1e9 {
			return
		}
	} else if f.Timeout < full/2 {
		return
	}
	f.Idle, f.Present = idle, f.Present|HasIdle
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
