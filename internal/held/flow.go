package held

import (
	"hash/maphash"

	"nfctl/internal/packet"
)

var flowSeed = maphash.MakeSeed()

// FlowOf returns the flow of a packet for a Line: what one end says to another by one
// protocol, between two ports or in one exchange of ICMP. The other direction is
// another flow. Two flows of the same number, which is rare, wait for each other.
// Fragments but the first have no ports, and are a flow for each protocol.
func FlowOf(h *packet.Headers) uint64 {
	proto, ok := h.Proto()
	if !ok {
		return 1
	}
	var b [2*16 + 6]byte
	n := 0
	switch d := h.Data; h.Version() {
	case 4:
		n = copy(b[:], d[12:20])
	default:
		n = copy(b[:], d[8:40])
	}
	b[n] = proto
	if sport, dport, ok := h.Ports(); ok {
		b[n+1], b[n+2], b[n+3], b[n+4] = byte(sport>>8), byte(sport), byte(dport>>8), byte(dport)
	} else if id, ok := h.QueryID(); ok {
		b[n+1], b[n+2] = byte(id>>8), byte(id)
	}
	return max(1, maphash.Bytes(flowSeed, b[:n+5]))
}
