package ct

import (
	"slices"

	"nfctl/internal/lazy"
	"nfctl/internal/value"
)

// Status bits of a flow (linux/netfilter/nf_conntrack_common.h).
const (
	StatusExpected     = 1 << 0
	StatusSeenReply    = 1 << 1
	StatusAssured      = 1 << 2
	StatusConfirmed    = 1 << 3
	StatusSrcNAT       = 1 << 4
	StatusDstNAT       = 1 << 5
	StatusSeqAdjust    = 1 << 6
	StatusSrcNATDone   = 1 << 7
	StatusDstNATDone   = 1 << 8
	StatusDying        = 1 << 9
	StatusFixedTimeout = 1 << 10
	StatusTemplate     = 1 << 11
	StatusNATClash     = 1 << 12
	StatusHelper       = 1 << 13
	StatusOffload      = 1 << 14
	StatusHWOffload    = 1 << 15

	// StatusChangeable are the bits that the kernel lets anyone set. Of the
	// others it ignores a change of the NAT and offload bits and refuses one of
	// EXPECTED, CONFIRMED and DYING with EBUSY.
	StatusChangeable = StatusSeenReply | StatusAssured | StatusFixedTimeout | StatusHelper
)

// StatusNames are the status bits by name; the numbers are masks.
var StatusNames = value.NewNames("status", 1<<32-1,
	value.Name{Word: "EXPECTED", Num: StatusExpected}, value.Name{Word: "SEEN_REPLY", Num: StatusSeenReply},
	value.Name{Word: "ASSURED", Num: StatusAssured}, value.Name{Word: "CONFIRMED", Num: StatusConfirmed},
	value.Name{Word: "SRC_NAT", Num: StatusSrcNAT}, value.Name{Word: "DST_NAT", Num: StatusDstNAT},
	value.Name{Word: "SEQ_ADJUST", Num: StatusSeqAdjust}, value.Name{Word: "SRC_NAT_DONE", Num: StatusSrcNATDone},
	value.Name{Word: "DST_NAT_DONE", Num: StatusDstNATDone}, value.Name{Word: "DYING", Num: StatusDying},
	value.Name{Word: "FIXED_TIMEOUT", Num: StatusFixedTimeout}, value.Name{Word: "TEMPLATE", Num: StatusTemplate},
	value.Name{Word: "NAT_CLASH", Num: StatusNATClash}, value.Name{Word: "UNTRACKED", Num: StatusNATClash},
	value.Name{Word: "HELPER", Num: StatusHelper}, value.Name{Word: "OFFLOAD", Num: StatusOffload},
	value.Name{Word: "HW_OFFLOAD", Num: StatusHWOffload},
)

const tcpWindowScale = 1 // IP_CT_TCP_FLAG_WINDOW_SCALE

// TCPFlagNames are the flags of a direction of a TCP connection
// (IP_CT_TCP_FLAG_*, linux/netfilter/nf_conntrack_tcp.h); the numbers are masks.
var TCPFlagNames = value.NewNames("TCP connection flag", 255,
	value.Name{Word: "WINDOW_SCALE", Num: tcpWindowScale}, value.Name{Word: "SACK_PERM", Num: 2},
	value.Name{Word: "CLOSE_INIT", Num: 4},
	value.Name{Word: "BE_LIBERAL", Num: 8}, value.Name{Word: "DATA_UNACKNOWLEDGED", Num: 0x10},
	value.Name{Word: "MAXACK_SET", Num: 0x20},
	value.Name{Word: "EXP_CHALLENGE_ACK", Num: 0x40}, value.Name{Word: "SIMULTANEOUS_OPEN", Num: 0x80},
)

// ExpectFlagNames are the flags of an expectation; the numbers are masks.
var ExpectFlagNames = value.NewNames("expectation flag", 7,
	value.Name{Word: "permanent", Num: Permanent}, value.Name{Word: "inactive", Num: Inactive},
	value.Name{Word: "userspace", Num: Userspace})

// EventNames are the words of Event.
var EventNames = value.NewWords("event", 4, "", "new", "update", "destroy", "existing")

// DirNames are the directions of a connection.
var DirNames = value.NewNames("direction", 1, value.Name{Word: "orig", Num: 0}, value.Name{Word: "original", Num: 0},
	value.Name{Word: "reply", Num: 1})

// DCCPRoleNames are the values of the attribute dccp-role.
var DCCPRoleNames = value.NewWords("DCCP role", 1, "client", "server")

// States that commands set or compare, in the kernel's numbers
// (linux/netfilter/nf_conntrack_tcp.h, nf_conntrack_sctp.h).
const (
	TCPSynSent      = 1
	TCPEstablished  = 3
	TCPTimeWait     = 7
	SCTPEstablished = 4
)

// The states of each protocol in the kernel's numbers. The words are those that
// conntrack(8) prints; a number without a word is printed as NONE.

// TCPStateNames are those of linux/netfilter/nf_conntrack_tcp.h; 9 was LISTEN.
var TCPStateNames = value.NewNames("TCP state", 255,
	value.Name{Word: "NONE", Num: 0}, value.Name{Word: "SYN_SENT", Num: 1}, value.Name{Word: "SYN_RECV", Num: 2},
	value.Name{Word: "ESTABLISHED", Num: 3}, value.Name{Word: "FIN_WAIT", Num: 4},
	value.Name{Word: "CLOSE_WAIT", Num: 5},
	value.Name{Word: "LAST_ACK", Num: 6}, value.Name{Word: "TIME_WAIT", Num: 7}, value.Name{Word: "CLOSE", Num: 8},
	value.Name{Word: "SYN_SENT2", Num: 9}, value.Name{Word: "LISTEN", Num: 9},
)

// SCTPStateNames are those of linux/netfilter/nf_conntrack_sctp.h.
var SCTPStateNames = value.NewWords("SCTP state", 255,
	"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD",
	"SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT", "HEARTBEAT_ACKED")

// DCCPStateNames are those of kernels that still tracked DCCP.
var DCCPStateNames = value.NewWords("DCCP state", 255,
	"NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE", "INVALID")

// StateNames are the states of all protocols, TCP's first, in numbers of our own:
// a word that several protocols use has one number. See Flow.State.
var StateNames = value.NewNamesOf("state", 0, allStates)

func allStates() []value.Name {
	var list, aliases []value.Name
	at := func(word string) int {
		return slices.IndexFunc(list, func(n value.Name) bool { return n.Word == word })
	}
	for _, names := range []*value.Names{TCPStateNames, SCTPStateNames, DCCPStateNames} {
		for _, n := range names.List() {
			if first := names.Word(n.Num); first != n.Word {
				aliases = append(aliases, value.Name{Word: n.Word, Num: uint64(at(first))})
			} else if at(n.Word) < 0 {
				list = append(list, value.Name{Word: n.Word, Num: uint64(len(list))})
			}
		}
	}
	return append(list, aliases...)
}

// The numbers in StateNames of each protocol's states.
var (
	tcpStates  = lazy.Value[[]uint64]{Make: func() []uint64 { return shared(TCPStateNames) }}
	sctpStates = lazy.Value[[]uint64]{Make: func() []uint64 { return shared(SCTPStateNames) }}
	dccpStates = lazy.Value[[]uint64]{Make: func() []uint64 { return shared(DCCPStateNames) }}
)

func shared(names *value.Names) []uint64 {
	var out []uint64
	for i := uint64(0); names.Word(i) != ""; i++ {
		n, _ := StateNames.Lookup(names.Word(i))
		out = append(out, n)
	}
	return out
}

func stateOf(shared []uint64, state uint8) uint64 {
	if int(state) < len(shared) {
		return shared[state]
	}
	return 0
}
