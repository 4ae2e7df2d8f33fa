package queue

import (
	"bytes"
	"encoding/binary"
	"time"
	"unsafe"

	"nfctl/internal/ct"
	"nfctl/internal/nl"
	"nfctl/internal/packet"
)

// Flags of Packet.SkbInfo (include/uapi/linux/netfilter/nfnetlink_queue.h).
const (
	CsumNotReady    = 1 << 0 // the transport checksum is still to be made
	GSO             = 1 << 1 // larger than the path's MTU: the kernel will cut it
	CsumNotVerified = 1 << 2 // nothing has checked the transport checksum yet
)

// Has tells which attributes came with a Packet.
type Has uint16

const (
	HasUID Has = 1 << iota
	HasGID
	HasVLAN
	HasLength
	HasPayload
	HasCtInfo
	HasPriority
	HasTimestamp
	firstSpare // the bits from here on are for rows without a field of their own
)

// maxSpare is how many rows without a field of their own there can be.
const maxSpare = 8

// A Packet is one packet of a queue. It is reused: it and all that it refers to
// are valid until the next one is read.
type Packet struct {
	ID     uint32
	Queue  uint16
	Proto  uint16 // EtherType: 0x0800, 0x86dd
	Hook   uint8  // NF_INET_…: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting
	Family uint8  // address family of the packet, else of the hook
	Has    Has

	Mark     uint32 // 0 when the packet has none
	Priority uint32
	SkbInfo  uint32 // CsumNotReady, GSO, CsumNotVerified
	UID, GID uint32 // of the local socket's file
	CtInfo   uint32 // relation to its connection (enum ip_conntrack_info)

	// Interface indices; 0: none. InName and the like give names.
	In, Out, PhysIn, PhysOut uint32

	VLANProto, VLANTCI uint16

	HwAddr []byte // the sender's link layer address; nil: unknown
	L2     []byte // the link layer header
	SecCtx []byte // security context of the socket

	Time   int64  // when the kernel received it, else when we did: nanoseconds since the epoch
	Length uint32 // of the whole packet in bytes from the IP header on, with HasLength
	Data   []byte // what was copied of it, from the IP header on

	// Undecoded says that the message was malformed, so that only what is here
	// is known; no rule sees such a packet.
	Undecoded bool

	Verdict Verdict // with Decided: what was decided, by which rule
	Flow    bool    // for the rest of its flow
	Rule    int
	Decided bool
	Why     string // why another verdict was given than the rule's own; "" mostly
	DryRun  bool   // the verdict was not given, but accept
	Kept    *Kept  // nil: nobody asked for more
	Held    int64  // how long it waits before it goes on, nanoseconds

	now int64 // see Now

	spare   [maxSpare]uint32 // numbers of rows without a field of their own
	headers packet.Headers
	parsed  bool
	ctRaw   []byte
	ctState uint8 // 0 not decoded, 1 there, 2 absent
	flow    ct.Flow
	names   *ifNames
	scratch []byte
}

// Kept is what a Decider may keep of a packet for whoever sees it afterwards.
type Kept struct {
	Data   []byte   // as it came; nil: rules change nothing
	Length uint32   // of it then
	Mark   uint32   // of it then
	Rule   RuleName // that decided
}

// Headers returns the packet's headers, parsed at the first call.
func (p *Packet) Headers() *packet.Headers {
	if !p.parsed {
		p.headers.Parse(p.Data, int(p.Length))
		p.parsed = true
	}
	return &p.headers
}

// CT returns the packet's connection, when the kernel sent it; else nil.
func (p *Packet) CT() *ct.Flow {
	if p.ctState == 0 {
		p.ctState = 2
		if p.ctRaw != nil {
			p.ctState = 1
			_ = p.flow.DecodeAttrs(p.Family, p.ctRaw) // of a malformed one, what could be read
		}
	}
	if p.ctState == 1 {
		return &p.flow
	}
	return nil
}

// Captured returns how many bytes of the packet were copied.
func (p *Packet) Captured() int { return len(p.Data) }

// Truncated reports that the copy is not the whole packet.
func (p *Packet) Truncated() bool {
	return p.Has&HasPayload == 0 || p.Has&HasLength != 0 && int(p.Length) > len(p.Data)
}

// reset makes p a packet of which nothing is known.
func (p *Packet) reset() {
	p.Has = 0
	p.Mark, p.Priority, p.SkbInfo, p.CtInfo = 0, 0, 0, 0
	p.In, p.Out, p.PhysIn, p.PhysOut = 0, 0, 0, 0
	p.HwAddr, p.L2, p.SecCtx, p.Data, p.ctRaw = nil, nil, nil, nil, nil
	p.Length = 0
	p.Undecoded = false
	p.parsed, p.ctState, p.Decided, p.Why, p.Held, p.Kept = false, 0, false, "", 0, nil
}

// decode reads a message of the kernel. It is false when not even the packet's
// id is there; Undecoded says that something else was wrong. whole is false for
// a message whose end is missing.
func (p *Packet) decode(m *nl.Msg, whole bool) bool {
	p.Queue = m.ResID()
	p.Family = m.Family()
	p.reset()
	p.Undecoded = !whole
	found := false
	words := messageWords.Get()
	b := m.Body()
	for a, rest, ok := nl.NextAttr(b); ok; a, rest, ok = nl.NextAttr(b) {
		b = rest
		switch a.Type {
		case attrPacketHdr: // struct nfqnl_msg_packet_hdr
			if len(a.Data) < 7 {
				ok = false
				break
			}
			p.ID = binary.BigEndian.Uint32(a.Data)
			p.Proto = binary.BigEndian.Uint16(a.Data[4:])
			p.Hook = a.Data[6]
			found = true
			switch p.Proto {
			case 0x0800:
				p.Family = ct.IPv4
			case 0x86dd:
				p.Family = ct.IPv6
			}
		case attrTimestamp: // struct nfqnl_msg_packet_timestamp
			if ok = len(a.Data) >= 16; ok {
				p.Time = int64(binary.BigEndian.Uint64(a.Data))*1e9 + int64(binary.BigEndian.Uint64(a.Data[8:]))*1e3
				p.Has |= HasTimestamp
			}
		case attrHwAddr: // struct nfqnl_msg_packet_hw
			if ok = len(a.Data) >= 4; ok {
				n := int(binary.BigEndian.Uint16(a.Data))
				if ok = n <= len(a.Data)-4; ok {
					p.HwAddr = a.Data[4:][:n]
				}
			}
		case attrPayload:
			p.Data = a.Data
			p.Has |= HasPayload
		case attrCt:
			p.ctRaw = a.Data
		case attrSecCtx:
			p.SecCtx = a.Text()
		case attrVLAN:
			for v, b, ok := nl.NextAttr(a.Data); ok; v, b, ok = nl.NextAttr(b) {
				n, _ := v.U16()
				switch v.Type {
				case attrVLANProto:
					p.VLANProto = n
				case attrVLANTCI:
					p.VLANTCI = n
					p.Has |= HasVLAN
				}
			}
		case attrL2:
			p.L2 = a.Data
		default:
			if int(a.Type) >= len(words) || words[a.Type].place == 0 {
				break // of a newer kernel
			}
			w := &words[a.Type]
			var n uint32
			n, ok = a.U32()
			*(*uint32)(unsafe.Add(unsafe.Pointer(p), w.place)) = n
			p.Has |= w.has
		}
		if !ok {
			p.Undecoded = true
		}
	}
	if len(b) > 0 {
		p.Undecoded = true
	}
	// The kernel sends the length only when the copy is shorter.
	if p.Has&(HasPayload|HasLength) == HasPayload {
		p.Length = uint32(len(p.Data))
		p.Has |= HasLength
	}
	if p.Has&HasLength != 0 && int(p.Length) < len(p.Data) {
		p.Length = uint32(len(p.Data))
	}
	return found
}

// ifNames resolves interface indices in the queue's namespace. A name once seen
// stays known after its interface has gone, and is asked for anew every second,
// so that a renamed interface gets its new name.
type ifNames struct {
	lookup func(index uint32) (string, bool)
	m      map[uint32]*ifName
	now    int64 // nanoseconds, of the batch under way
}

type ifName struct {
	name  []byte // nil: never known
	asked int64
}

func (n *ifNames) get(index uint32) []byte {
	if n == nil || index == 0 {
		return nil
	}
	e := n.m[index]
	if e == nil {
		e = &ifName{asked: -int64(time.Hour)}
		n.m[index] = e
	}
	if n.now-e.asked >= int64(time.Second) || n.now < e.asked {
		e.asked = n.now
		if s, ok := n.lookup(index); ok && !bytes.Equal(e.name, []byte(s)) {
			e.name = []byte(s)
		}
	}
	return e.name
}

// InName returns the name of the interface that the packet came in by, nil when
// there is none or it is not known.
func (p *Packet) InName() []byte { return p.names.get(p.In) }

// OutName returns the name of the interface that the packet is to leave by.
func (p *Packet) OutName() []byte { return p.names.get(p.Out) }

// PhysInName returns the bridge port that the packet came in by.
func (p *Packet) PhysInName() []byte { return p.names.get(p.PhysIn) }

// PhysOutName returns the bridge port that the packet is to leave by.
func (p *Packet) PhysOutName() []byte { return p.names.get(p.PhysOut) }
