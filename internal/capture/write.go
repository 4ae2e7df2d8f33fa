package capture

import (
	"encoding/binary"
	"math"
	"strconv"

	"nfctl/internal/packet"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// Block types and options of pcapng (draft-ietf-opsawg-pcapng), and the link type of
// packets that begin with their IP header (LINKTYPE_RAW, tcpdump.org/linktypes.html).
// gopacket's writer knows no options of packets.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6 // enhanced packet block

	byteOrder = 0x1a2b3c4d
	linkRaw   = 101

	optEnd        = 0
	optComment    = 1
	optFlags      = 2 // epb_flags
	optPacketID   = 5 // epb_packetid
	optQueue      = 6 // epb_queue
	optName       = 2 // if_name
	optResolution = 9 // if_tsresol
	optProgram    = 4 // shb_userappl

	inbound, outbound = 1, 2 // bits of epb_flags
)

// A Writer makes the blocks of a file of packets: one section with one interface,
// since libpcap reads no more than that of one. It is for one goroutine; the zero
// value is ready.
type Writer struct {
	// Snaplen bounds what is written of each packet, in bytes; 0: all that was copied.
	Snaplen uint32
	// Program is the name and version of the program, for the file's head.
	Program string
}

// Begin appends the head of a file.
func (w *Writer) Begin(b []byte) []byte {
	at := len(b)
	b = beginBlock(b, blockSection)
	b = le32(b, byteOrder)
	b = append(b, 1, 0, 0, 0)   // version 1.0
	b = le64(b, math.MaxUint64) // the section's length: not known
	b = text(b, optProgram, w.Program)
	b = endBlock(le32(b, optEnd), at)

	at = len(b)
	b = beginBlock(b, blockInterface)
	b = le32(b, linkRaw)
	b = le32(b, w.Snaplen)
	b = text(b, optName, "nfqueue")
	b = append(b, optResolution, 0, 1, 0, 9, 0, 0, 0) // 10^-9 s
	return endBlock(le32(b, optEnd), at)
}

// Append appends the block of a packet and what was decided on it, with the
// transport's checksum finished where that was left to the device.
//
// An edited packet is written as it goes on; one that is dropped after edits, or goes
// on without them, as it came, which a Keeper knows.
func (w *Writer) Append(b []byte, p *queue.Packet, d *queue.Decision) []byte {
	data, length := p.Data, int(p.Length)
	edited := d.Data != nil && !p.DryRun
	switch {
	case edited:
		data, length = d.Data, len(d.Data)
	case p.Kept != nil && p.Kept.Data != nil:
		data, length = p.Kept.Data, int(p.Kept.Length)
	}
	length = max(length, len(data))

	at := len(b)
	b = beginBlock(b, blockPacket)
	b = le32(b, 0) // the interface
	b = le32(b, uint32(uint64(p.Time)>>32))
	b = le32(b, uint32(uint64(p.Time)))
	size := len(b)
	b = le32(b, 0)
	b = le32(b, uint32(length))
	from := len(b)
	b = append(b, data...)
	inner := false
	switch {
	case length > len(data):
	case edited && p.SkbInfo&queue.GSO != 0: // the kernel goes on from its datagrams' sum
		_ = packet.Finish(b[from:])
	case !edited && p.SkbInfo&queue.CsumNotReady != 0:
		inner = packet.Finish(b[from:]) != nil
	}
	if w.Snaplen > 0 && len(b)-from > int(w.Snaplen) {
		b = b[:from+int(w.Snaplen)]
	}
	binary.LittleEndian.PutUint32(b[size:], uint32(len(b)-from))
	b = pad(b)

	opt := len(b)
	b = append(b, optComment, 0, 0, 0)
	b = appendComment(b, p)
	if inner {
		b = append(b, " (an inner checksum is unfinished)"...)
	}
	binary.LittleEndian.PutUint16(b[opt+2:], uint16(len(b)-opt-4))
	b = pad(b)
	switch p.Hook {
	case 0, 1:
		b = append(b, optFlags, 0, 4, 0, inbound, 0, 0, 0)
	case 3, 4:
		b = append(b, optFlags, 0, 4, 0, outbound, 0, 0, 0)
	}
	b = le64(append(b, optPacketID, 0, 8, 0), uint64(p.ID))
	b = le32(append(b, optQueue, 0, 4, 0), uint32(p.Queue))
	return endBlock(le32(b, optEnd), at)
}

// appendComment appends as much as is known of a packet beside its bytes:
//
//	drop rule 3 (FILE:LINE) forward in eth0 out eth1 mark 0x10 uid 1000
//
// with marked 0x11 behind, when a rule has marked it. fromComment reads it.
func appendComment(b []byte, p *queue.Packet) []byte {
	b = p.Verdict.Append(b)
	if p.Flow {
		b = append(b, " flow"...)
	}
	if p.Rule > 0 {
		b = strconv.AppendUint(append(b, " rule "...), uint64(p.Rule), 10)
		if k := p.Kept; k != nil && k.Rule.File != "" {
			b = append(append(b, " ("...), k.Rule.File...)
			b = append(strconv.AppendInt(append(b, ':'), int64(k.Rule.Line), 10), ')')
		}
	}
	b = queue.Hooks.Append(append(b, ' '), uint64(p.Hook))
	b = appendDev(b, " in ", p.In, p.InName())
	b = appendDev(b, " out ", p.Out, p.OutName())
	mark := p.Mark
	if p.Kept != nil {
		mark = p.Kept.Mark
	}
	if mark != 0 {
		b = value.AppendHex(append(b, " mark "...), uint64(mark))
	}
	if p.Has&queue.HasUID != 0 {
		b = strconv.AppendUint(append(b, " uid "...), uint64(p.UID), 10)
	}
	if p.Has&queue.HasGID != 0 {
		b = strconv.AppendUint(append(b, " gid "...), uint64(p.GID), 10)
	}
	if p.Mark != mark {
		b = value.AppendHex(append(b, " marked "...), uint64(p.Mark))
	}
	if p.Why != "" {
		b = append(append(append(b, " ("...), p.Why...), ')')
	}
	if p.DryRun {
		b = append(b, " (dry run)"...)
	}
	return b
}

func appendDev(b []byte, word string, index uint32, name []byte) []byte {
	switch {
	case index == 0:
	case name == nil:
		b = strconv.AppendUint(append(append(b, word...), '#'), uint64(index), 10)
	default:
		b = append(append(b, word...), name...)
	}
	return b
}

// Next returns the length of the block that b begins with, or 0 where it is not whole.
func Next(b []byte) int {
	if len(b) < 12 {
		return 0
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n < 12 || uint64(n) > uint64(len(b)) {
		return 0
	}
	return int(n)
}

func le32(b []byte, n uint32) []byte { return binary.LittleEndian.AppendUint32(b, n) }
func le64(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

// pad fills up to 32 bits: blocks begin at such bounds of a file, and so of b.
func pad(b []byte) []byte {
	for len(b)&3 != 0 {
		b = append(b, 0)
	}
	return b
}

// beginBlock appends the head of a block, whose length endBlock fills in.
func beginBlock(b []byte, typ uint32) []byte { return le32(le32(b, typ), 0) }

func endBlock(b []byte, at int) []byte {
	n := uint32(len(b) - at + 4)
	binary.LittleEndian.PutUint32(b[at+4:], n)
	return le32(b, n)
}

// text appends an option that is text; an empty one is left out.
func text(b []byte, code uint16, s string) []byte {
	if s == "" {
		return b
	}
	s = s[:min(len(s), math.MaxUint16)]
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return pad(append(b, s...))
}

// A Keeper is a Decider that keeps of each packet what a Writer needs beside it.
type Keeper struct {
	queue.Decider
	// Edits says that the rules change packets: how each came is kept.
	Edits bool

	kept queue.Kept
	buf  []byte
}

// Decide decides as the Decider in it does.
func (k *Keeper) Decide(p *queue.Packet, d *queue.Decision) {
	k.kept = queue.Kept{Mark: p.Mark}
	if k.Edits {
		k.buf = append(k.buf[:0], p.Data...)
		k.kept.Data, k.kept.Length = k.buf, p.Length
	}
	k.Decider.Decide(p, d)
	if d.Rule > 0 {
		k.kept.Rule = k.Rule(d.Rule)
	}
	p.Kept = &k.kept
}
