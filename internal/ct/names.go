package ct

import (
	"slices"

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

// TCPFlagNames are the flags of a direction of a TCP connection
// (IP_CT_TCP_FLAG_*, linux/netfilter/nf_conntrack_tcp.h); the numbers are masks.
var TCPFlagNames = value.NewNames("TCP connection flag", 255,
	value.Name{Word: "WINDOW_SCALE", Num: 1}, value.Name{Word: "SACK_PERM", Num: 2}, value.Name{Word: "CLOSE_INIT", Num: 4},
	value.Name{Word: "BE_LIBERAL", Num: 8}, value.Name{Word: "DATA_UNACKNOWLEDGED", Num: 0x10}, value.Name{Word: "MAXACK_SET", Num: 0x20},
	value.Name{Word: "EXP_CHALLENGE_ACK", Num: 0x40}, value.Name{Word: "SIMULTANEOUS_OPEN", Num: 0x80},
)

// ExpectFlagNames are the flags of an expectation; the numbers are masks.
var ExpectFlagNames = value.NewNames("expectation flag", 7,
	value.Name{Word: "permanent", Num: Permanent}, value.Name{Word: "inactive", Num: Inactive}, value.Name{Word: "userspace", Num: Userspace})

// EventNames are the words of Event.
var EventNames = value.NewNames("event", 4, value.WordList("", "new", "update", "destroy", "existing")...)

// DirNames are the directions of a connection.
var DirNames = value.NewNames("direction", 1, value.Name{Word: "orig", Num: 0}, value.Name{Word: "original", Num: 0}, value.Name{Word: "reply", Num: 1})

// DCCPRoleNames are the values of the attribute dccp-role.
var DCCPRoleNames = value.NewNames("DCCP role", 1, value.WordList("client", "server")...)

// States of each protocol in the kernel's numbers. The words are those that
// conntrack(8) prints; a number without a word is printed as NONE.
var (
	tcpStates  = []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}
	sctpStates = []string{"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT", "HEARTBEAT_ACKED"}
	dccpStates = []string{"NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE", "INVALID"}

	// TCPStateNames are those of linux/netfilter/nf_conntrack_tcp.h; 9 was LISTEN.
	TCPStateNames = value.NewNames("TCP state", 255, append(value.WordList(tcpStates...), value.Name{Word: "LISTEN", Num: 9})...)
	// SCTPStateNames are those of linux/netfilter/nf_conntrack_sctp.h.
	SCTPStateNames = value.NewNames("SCTP state", 255, value.WordList(sctpStates...)...)
	// DCCPStateNames are those of kernels that still tracked DCCP.
	DCCPStateNames = value.NewNames("DCCP state", 255, value.WordList(dccpStates...)...)

	// StateNames are the states of all protocols, in numbers of our own: a word
	// that several protocols use has one number. See Flow.State.
	StateNames = value.NewNames("state", 0, append(stateWords, value.Name{Word: "LISTEN", Num: stateNumber("SYN_SENT2")})...)

	tcpShared, sctpShared, dccpShared = shared(tcpStates), shared(sctpStates), shared(dccpStates)
	stateWords                        = allStates()
)

func allStates() []value.Name {
	var list []value.Name
	for _, words := range [][]string{tcpStates, sctpStates, dccpStates} {
		for _, w := range words {
			if !slices.ContainsFunc(list, func(n value.Name) bool { return n.Word == w }) {
				list = append(list, value.Name{Word: w, Num: uint64(len(list))})
			}
		}
	}
	return list
}

func stateNumber(word string) uint64 {
	for _, n := range stateWords {
		if n.Word == word {
			return n.Num
		}
	}
	return 0
}

// shared gives each of a protocol's states its number in StateNames.
func shared(words []string) (out []uint64) {
	for _, w := range words {
		out = append(out, stateNumber(w))
	}
	return out
}

func stateOf(shared []uint64, state uint8) uint64 {
	if int(state) < len(shared) {
		return shared[state]
	}
	return 0
}
