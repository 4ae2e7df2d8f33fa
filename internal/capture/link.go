package capture

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"nfctl/internal/queue"
)

// Link types (tcpdump.org/linktypes.html) whose packets can be read.
const (
	linkNull     = 0
	linkEthernet = 1
	linkRawBSD   = 12 // DLT_RAW, as some files have it
	linkRawOpen  = 14 // that of OpenBSD
	linkLoop     = 108
	linkSLL      = 113
	linkIPv4     = 228
	linkIPv6     = 229
	linkNFLOG    = 239
	linkSLL2     = 276
)

const (
	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherPPPoE = 0x8864
)

var be = binary.BigEndian

// link reads what stands in front of the IP header. False: the packet is not IP.
// What it knows of the packet beside its bytes it puts into p.
type link func(b []byte, p *queue.Packet) (ip []byte, ok bool)

// linkOf returns the reader of a link type, or nil.
func linkOf(typ uint32) link {
	switch typ {
	case linkEthernet:
		return ethernet
	case linkRaw, linkRawBSD, linkRawOpen, linkIPv4, linkIPv6:
		return raw
	case linkSLL:
		return sll
	case linkSLL2:
		return sll2
	case linkNull, linkLoop:
		return loopback
	case linkNFLOG:
		return nflog
	}
	return nil
}

// errLink says that packets of a link type cannot be read.
func errLink(typ uint32) error {
	return fmt.Errorf("link type %d: want Ethernet (1), raw IP (12, 14, 101, 228, 229), Linux cooked (113, 276), "+
		"loopback (0, 108) or NFLOG (239)", typ)
}

func raw(b []byte, _ *queue.Packet) ([]byte, bool) { return b, true }

func ethernet(b []byte, p *queue.Packet) ([]byte, bool) {
	if len(b) < 14 {
		return nil, false
	}
	p.HwAddr = b[6:12:12]
	return ether(be.Uint16(b[12:]), b[14:], p)
}

// ether takes off VLAN tags (of which the outermost is the packet's) and PPPoE.
func ether(proto uint16, b []byte, p *queue.Packet) ([]byte, bool) {
	for {
		switch proto {
		case etherIPv4, etherIPv6:
			return b, true
		case 0x8100, 0x88a8, 0x9100:
			if len(b) < 4 {
				return nil, false
			}
			if p.Has&queue.HasVLAN == 0 {
				p.VLANProto, p.VLANTCI = proto, be.Uint16(b)
				p.Has |= queue.HasVLAN
			}
			proto, b = be.Uint16(b[2:]), b[4:]
		case etherPPPoE:
			if len(b) < 8 || be.Uint16(b[6:]) != 0x21 && be.Uint16(b[6:]) != 0x57 {
				return nil, false
			}
			return b[8:], true
		default:
			return nil, false
		}
	}
}

// sll is the header of LINUX_SLL: type, ARPHRD, address and its length, protocol.
func sll(b []byte, p *queue.Packet) ([]byte, bool) {
	if len(b) < 16 {
		return nil, false
	}
	if n := be.Uint16(b[4:]); n > 0 && n <= 8 {
		p.HwAddr = b[6:][:n:n]
	}
	return ether(be.Uint16(b[14:]), b[16:], p)
}

func sll2(b []byte, p *queue.Packet) ([]byte, bool) {
	if len(b) < 20 {
		return nil, false
	}
	if n := b[11]; n > 0 && n <= 8 {
		p.HwAddr = b[12:][:n:n]
	}
	const outgoing = 4
	if index := be.Uint32(b[4:]); b[10] == outgoing {
		p.Out = index
	} else {
		p.In = index
	}
	return ether(be.Uint16(b), b[20:], p)
}

// loopback has an address family in front: of NULL in the order of the machine that
// wrote it.
func loopback(b []byte, _ *queue.Packet) ([]byte, bool) {
	if len(b) < 4 {
		return nil, false
	}
	family := be.Uint32(b)
	if family > 0xffff {
		family = binary.LittleEndian.Uint32(b)
	}
	switch family {
	case 2, 10, 24, 28, 30: // AF_INET; AF_INET6 of Linux, NetBSD, FreeBSD, Darwin
		return b[4:], true
	}
	return nil, false
}

// Attributes of NFLOG (NFULA_*, linux/netfilter/nfnetlink_log.h). Their lengths are in
// the order of the machine that wrote them, their values in network order.
const (
	logPacketHdr = 1
	logMark      = 2
	logIn        = 4
	logOut       = 5
	logPhysIn    = 6
	logPhysOut   = 7
	logHwAddr    = 8
	logPayload   = 9
	logUID       = 11
	logGID       = 14
)

func nflog(b []byte, p *queue.Packet) ([]byte, bool) {
	if len(b) < 8 || b[1] != 0 { // family, version, group
		return nil, false
	}
	b = b[4:]
	var order binary.ByteOrder = binary.LittleEndian
	if n := int(order.Uint16(b)); n < 4 || n > len(b) {
		order = be
	}
	var ip []byte
	for len(b) >= 4 {
		n, typ := int(order.Uint16(b)), order.Uint16(b[2:])
		if n < 4 || n > len(b) {
			return nil, false
		}
		v := b[4:n]
		b = b[min((n+3)&^3, len(b)):]
		if len(v) < 4 && typ != logPayload {
			continue
		}
		switch typ {
		case logPacketHdr:
			p.Hook = v[2]
		case logMark:
			p.Mark = be.Uint32(v)
		case logIn:
			p.In = be.Uint32(v)
		case logOut:
			p.Out = be.Uint32(v)
		case logPhysIn:
			p.PhysIn = be.Uint32(v)
		case logPhysOut:
			p.PhysOut = be.Uint32(v)
		case logHwAddr:
			if n := int(be.Uint16(v)); n <= len(v)-4 {
				p.HwAddr = v[4:][:n:n]
			}
		case logUID:
			p.UID = be.Uint32(v)
			p.Has |= queue.HasUID
		case logGID:
			p.GID = be.Uint32(v)
			p.Has |= queue.HasGID
		case logPayload:
			ip = v
		}
	}
	return ip, ip != nil
}

// fromComment takes over what a Writer wrote of a packet beside its bytes. dev returns
// an interface's number for its name. Comments of others change nothing.
func fromComment(s string, p *queue.Packet, dev func(name string) uint32) {
	w := words{rest: s}
	verdict := w.next()
	if !isVerdict(verdict) {
		return
	}
	if verdict == queue.KindQueue.String() {
		w.next()
		w.skip("bypass")
	}
	w.skip("flow")
	if w.skip("rule") {
		w.next()
		w.place()
	}
	hook, ok := queue.Hooks.Lookup(w.next())
	if !ok {
		return
	}
	p.Hook = uint8(hook)
	for w.rest != "" {
		switch word := w.next(); word {
		case "in":
			p.In = dev(w.next())
		case "out":
			p.Out = dev(w.next())
		case "mark":
			if n, err := strconv.ParseUint(w.next(), 0, 32); err == nil {
				p.Mark = uint32(n)
			}
		case "uid", "gid":
			n, err := strconv.ParseUint(w.next(), 10, 32)
			switch {
			case err != nil:
				return
			case word == "uid":
				p.UID = uint32(n)
				p.Has |= queue.HasUID
			default:
				p.GID = uint32(n)
				p.Has |= queue.HasGID
			}
		case "marked":
			w.next()
		default:
			return
		}
	}
}

// isVerdict reports whether a word is one that such a comment begins with.
func isVerdict(word string) bool {
	for k := range queue.Kinds {
		if k.String() == word {
			return true
		}
	}
	return false
}

// words are what blanks divide.
type words struct{ rest string }

func (w *words) next() (word string) {
	word, w.rest, _ = strings.Cut(w.rest, " ")
	return word
}

// skip takes a word, if it is next.
func (w *words) skip(word string) bool {
	rest, ok := strings.CutPrefix(w.rest, word+" ")
	if ok {
		w.rest = rest
	}
	return ok
}

// place takes the place of a rule, "(FILE:LINE)", if it is next. A file's name may hold
// blanks and parentheses: its end is in front of a hook.
func (w *words) place() {
	if !strings.HasPrefix(w.rest, "(") {
		return
	}
	for at := 0; ; {
		i := strings.Index(w.rest[at:], ") ")
		if i < 0 {
			return
		}
		at += i + 2
		behind := words{w.rest[at:]}
		if _, ok := queue.Hooks.Lookup(behind.next()); ok {
			w.rest = w.rest[at:]
			return
		}
	}
}
