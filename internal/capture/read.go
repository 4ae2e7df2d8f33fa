//go:build !router

package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"nfctl/internal/packet"
	"nfctl/internal/queue"
)

// A Reader reads the packets of a capture: pcap, pcapng, both perhaps compressed by
// gzip. It is for one goroutine.
type Reader struct {
	// Hook is where packets count as queued of which the capture does not say it.
	Hook uint8
	// Others counts packets that are not IP, which are passed over.
	Others uint64

	b     *bufio.Reader
	ng    *pcapgo.NgReader // nil: old is
	old   *pcapgo.Reader
	link  link // of all packets; nil: each packet's interface says it
	n     uint64
	names []string // of interfaces, by number from firstName on
	known map[string]beside
}

// firstName is the number of the first interface of which a capture knows the name
// alone.
const firstName = 1 << 31

// A ReadError says at which packet of a capture, from 1, something was wrong.
type ReadError struct {
	Packet uint64 // 0: in front of the first
	Err    error
}

func (e *ReadError) Error() string {
	if e.Packet == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("packet %d: %v", e.Packet, e.Err)
}
func (e *ReadError) Unwrap() error { return e.Err }

var errTorn = errors.New("the capture ends in the midst of it")

// NewReader reads a capture's beginning. An error is a *ReadError.
func NewReader(r io.Reader) (*Reader, error) {
	c := &Reader{b: bufio.NewReaderSize(r, 64<<10)}
	err := c.begin()
	if err != nil {
		return nil, &ReadError{Err: begun(err)}
	}
	return c, nil
}

func begun(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("too short for a capture")
	}
	return err
}

func (r *Reader) begin() error {
	head, err := r.b.Peek(4)
	if err != nil {
		return err
	}
	if head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(r.b)
		if err != nil {
			return err
		}
		r.b = bufio.NewReaderSize(z, 64<<10)
		if head, err = r.b.Peek(4); err != nil {
			return err
		}
	}
	switch binary.LittleEndian.Uint32(head) {
	case blockSection:
		r.ng, err = pcapgo.NewNgReader(r.b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		return err
	case 0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1:
		if r.old, err = pcapgo.NewReader(r.b); err != nil {
			return err
		}
		typ := uint32(r.old.LinkType()) & 0xffff // above it says whether frames end in their checksums
		if r.link = linkOf(typ); r.link == nil {
			return errLink(typ)
		}
		return nil
	}
	return fmt.Errorf("not a capture: it begins with % x, no pcap or pcapng file does", head)
}

// Waiting reports that nothing more is there for now: to read on may mean to wait.
func (r *Reader) Waiting() bool { return r.b.Buffered() == 0 }

// Next makes p the next IP packet of the capture; io.EOF: there is none. Its number is
// its place in the capture. Other errors are *ReadError. What p refers to is valid
// until the next call.
func (r *Reader) Next(p *queue.Packet) error {
	for {
		r.n++
		ok, err := r.next(p)
		switch {
		case errors.Is(err, io.EOF):
			return io.EOF
		case errors.Is(err, io.ErrUnexpectedEOF):
			return &ReadError{r.n, errTorn}
		case err != nil:
			return &ReadError{r.n, err}
		case ok:
			return nil
		}
		r.Others++
	}
}

func (r *Reader) next(p *queue.Packet) (ok bool, err error) {
	var data []byte
	var info gopacket.CaptureInfo
	var opts pcapgo.NgPacketOptions
	read := r.link
	if r.ng != nil {
		data, info, opts, err = r.ng.ZeroCopyReadPacketDataWithOptions()
	} else if data, info, err = r.old.ZeroCopyReadPacketData(); info.CaptureLength > 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return false, err
	}
	if read == nil {
		typ, _ := info.AncillaryData[0].(layers.LinkType)
		if read = linkOf(uint32(typ)); read == nil {
			return false, errLink(uint32(typ))
		}
	}
	if info.Length < len(data) {
		return false, fmt.Errorf("%d bytes of a packet of %d", len(data), info.Length)
	}
	p.Hook, p.ID = r.Hook, uint32(r.n)
	if r.ng != nil {
		if opts.Queue != nil {
			p.Queue = uint16(*opts.Queue)
		}
		for _, text := range opts.Comments {
			r.comment(text, p)
		}
	}
	ip, ok := read(data, p)
	if !ok || len(ip) == 0 {
		return false, nil
	}
	switch ip[0] >> 4 {
	case 4:
		p.Proto, p.Family = etherIPv4, familyIPv4
	case 6:
		p.Proto, p.Family = etherIPv6, familyIPv6
	default:
		return false, nil
	}
	length := info.Length - (len(data) - len(ip))
	// What follows the packet in its frame is none of it.
	if n := packet.TotalLength(ip); n >= 20 && n < length {
		length = n
		ip = ip[:min(n, len(ip)):min(n, len(ip))]
	}
	p.Data, p.Length = ip, uint32(length)
	p.Has |= queue.HasPayload | queue.HasLength
	p.Time = 0
	if !info.Timestamp.IsZero() { // simple packet blocks have none
		p.Time = info.Timestamp.UnixNano()
		p.Has |= queue.HasTimestamp
	}
	return true, nil
}

// Address families, as the kernel numbers them.
const (
	familyIPv4 = 2
	familyIPv6 = 10
)

// comment takes over what a comment says. There are few that differ.
func (r *Reader) comment(text string, p *queue.Packet) {
	k, ok := r.known[text]
	if !ok {
		var q queue.Packet
		q.Hook = p.Hook
		fromComment(text, &q, r.dev)
		k = beside{q.Hook, q.Has, q.In, q.Out, q.Mark, q.UID, q.GID}
		if len(r.known) >= mostKnown || r.known == nil {
			r.known = map[string]beside{}
		}
		r.known[text] = k
	}
	p.Hook, p.In, p.Out, p.Mark, p.UID, p.GID = k.hook, k.in, k.out, k.mark, k.uid, k.gid
	p.Has |= k.has
}

// mostKnown bounds how many comments are remembered.
const mostKnown = 1024

// A beside is what a comment says of a packet beside its bytes.
type beside struct {
	hook                    uint8
	has                     queue.Has
	in, out, mark, uid, gid uint32
}

// dev returns the number of an interface that is known by its name.
func (r *Reader) dev(name string) uint32 {
	for i, n := range r.names {
		if n == name {
			return firstName + uint32(i)
		}
	}
	const most = 4096 // namespaces have fewer
	if name == "" || len(name) > 15 || len(r.names) == most || strings.HasPrefix(name, "#") {
		return 0
	}
	r.names = append(r.names, strings.Clone(name))
	return firstName + uint32(len(r.names)-1)
}

// Device returns the name of the interface that a packet of r has by a number.
func (r *Reader) Device(index uint32) (string, bool) {
	if i := index - firstName; index >= firstName && int(i) < len(r.names) {
		return r.names[i], true
	}
	return "", false
}
