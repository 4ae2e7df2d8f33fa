package packet

import (
	"bytes"
	"encoding/binary"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// dnsTypes are the types of IANA's registry that are met or asked for.
var dnsTypes = value.NewNames("DNS type", 0xffff,
	value.Name{Word: "A", Num: 1}, value.Name{Word: "NS", Num: 2}, value.Name{Word: "CNAME", Num: 5},
	value.Name{Word: "SOA", Num: 6},
	value.Name{Word: "NULL", Num: 10}, value.Name{Word: "PTR", Num: 12}, value.Name{Word: "HINFO", Num: 13},
	value.Name{Word: "MX", Num: 15},
	value.Name{Word: "TXT", Num: 16}, value.Name{Word: "RP", Num: 17}, value.Name{Word: "SIG", Num: 24},
	value.Name{Word: "KEY", Num: 25},
	value.Name{Word: "AAAA", Num: 28}, value.Name{Word: "LOC", Num: 29}, value.Name{Word: "SRV", Num: 33},
	value.Name{Word: "NAPTR", Num: 35},
	value.Name{Word: "CERT", Num: 37}, value.Name{Word: "DNAME", Num: 39}, value.Name{Word: "OPT", Num: 41},
	value.Name{Word: "DS", Num: 43},
	value.Name{Word: "SSHFP", Num: 44}, value.Name{Word: "RRSIG", Num: 46}, value.Name{Word: "NSEC", Num: 47},
	value.Name{Word: "DNSKEY", Num: 48},
	value.Name{Word: "NSEC3", Num: 50}, value.Name{Word: "NSEC3PARAM", Num: 51}, value.Name{Word: "TLSA", Num: 52},
	value.Name{Word: "SMIMEA", Num: 53},
	value.Name{Word: "CDS", Num: 59}, value.Name{Word: "CDNSKEY", Num: 60}, value.Name{Word: "OPENPGPKEY", Num: 61},
	value.Name{Word: "SVCB", Num: 64},
	value.Name{Word: "HTTPS", Num: 65}, value.Name{Word: "SPF", Num: 99}, value.Name{Word: "TKEY", Num: 249},
	value.Name{Word: "TSIG", Num: 250},
	value.Name{Word: "IXFR", Num: 251}, value.Name{Word: "AXFR", Num: 252}, value.Name{Word: "ANY", Num: 255},
	value.Name{Word: "URI", Num: 256},
	value.Name{Word: "CAA", Num: 257})

// hostNames reads names as the fields have them: in lower case, without the last dot.
func hostNames(s string) (value.Set, error) {
	rest, not := strings.CutPrefix(s, "!")
	set := value.Set{Not: not}
	for name := range strings.SplitSeq(rest, ",") {
		if len(name) > 1 {
			name = strings.TrimSuffix(name, ".")
		}
		set.Texts = append(set.Texts, string(appendLower(nil, []byte(name))))
	}
	return set, nil
}

// application is what the payload of a packet says, as far as it was looked at. A
// Headers keeps one from packet to packet, once a rule asks.
type application struct {
	lookedDNS, lookedTLS bool // at the packet at hand

	dns      bool
	name     []byte
	typ      uint16
	response bool

	sni, alpn       []byte
	hasSNI, hasALPN bool
	hello           []byte // joined records
}

func (h *Headers) app() *application {
	if h.application == nil {
		h.application = new(application)
	}
	return h.application
}

// forget has the payload looked at anew.
func (h *Headers) forget() {
	if h.application != nil {
		h.application.lookedDNS, h.application.lookedTLS = false, false
	}
}

// applicationRows are the fields of what the transport carries.
func applicationRows() []row {
	const asks = AsksPayload | AsksApart
	dns := func(h *Headers) (*application, bool) { a := h.dns(); return a, a.dns }
	return []row{
		{
			Path:   "dns.name",
			Kind:   field.String,
			Parse:  hostNames,
			Hidden: true,
			Asks:   asks,
			Doc: "name that the first question is about, in lower case, without the last dot; over UDP, or at the " +
				"beginning of a TCP segment",
			Data: func(h *Headers) ([]byte, bool) {
				a, ok := dns(h)
				return a.name, ok
			},
		},
		{
			Path:   "dns.type",
			Kind:   field.Enum,
			Names:  dnsTypes,
			Max:    0xffff,
			Hidden: true,
			Asks:   asks,
			Doc:    "type that the first question asks for, as A, AAAA or HTTPS",
			Num: func(h *Headers) (uint64, bool) {
				a, ok := dns(h)
				return uint64(a.typ), ok
			},
		},
		{
			Path:   "dns.response",
			Kind:   field.Bool,
			Max:    1,
			Hidden: true,
			Asks:   asks,
			Doc:    "the message answers its question, or else asks it",
			Num: func(h *Headers) (uint64, bool) {
				a, ok := dns(h)
				return isBit(a.response), ok
			},
		},
		{
			Path:   "tls.sni",
			Kind:   field.String,
			Parse:  hostNames,
			Hidden: true,
			Asks:   AsksPayload,
			Doc:    "server name of a ClientHello that is whole in the packet, in lower case",
			Data: func(h *Headers) ([]byte, bool) {
				a := h.tls()
				return a.sni, a.hasSNI
			},
		},
		{
			Path:   "tls.alpn",
			Kind:   field.String,
			Hidden: true,
			Asks:   AsksPayload,
			Doc: "protocols that a ClientHello offers which is whole in the packet, joined by commas, as " +
				"h2,http/1.1",
			Data: func(h *Headers) ([]byte, bool) {
				a := h.tls()
				return a.alpn, a.hasALPN
			},
		},
	}
}

// dns looks for a DNS message (RFC 1035 4.1) in the payload of a UDP datagram, or
// at its beginning in one of TCP, behind the length. Any port will do: what is taken
// for a message has a question that reads well.
func (h *Headers) dns() *application {
	a := h.app()
	if a.lookedDNS {
		return a
	}
	a.lookedDNS, a.dns = true, false
	b, ok := h.Payload()
	if !ok || h.state&stLater != 0 {
		return a
	}
	switch h.l4 {
	case ProtoUDP:
	case ProtoTCP:
		if len(b) < 2 {
			return a
		}
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		b = b[:min(n, len(b))]
	default:
		return a
	}
	// What is certainly none costs no error's memory: 12 bytes of header with 1
	// question at least, a known operation, a name, type and class.
	if len(b) < 12+1+4 || b[2]>>3&15 > 6 || b[4] != 0 || b[5] == 0 {
		return a
	}
	var p dnsmessage.Parser
	header, err := p.Start(b)
	if err != nil {
		return a
	}
	q, err := p.Question()
	if err != nil {
		return a
	}
	switch q.Class & 0x7fff { // the highest bit asks mDNS for a unicast answer (RFC 6762 5.4)
	case dnsmessage.ClassINET, dnsmessage.ClassCHAOS, dnsmessage.ClassHESIOD, 254, dnsmessage.ClassANY:
	default:
		return a
	}
	name := q.Name.Data[:q.Name.Length]
	if len(name) > 1 {
		name = bytes.TrimSuffix(name, []byte("."))
	}
	a.dns, a.name, a.typ, a.response = true, appendLower(a.name[:0], name), uint16(q.Type), header.Response
	return a
}

// appendLower appends s with its ASCII letters in lower case.
func appendLower(b, s []byte) []byte {
	for _, c := range s {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// A reader takes numbers and texts off a message; bad says that it lacked some.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if r.bad = r.bad || n > len(r.b); r.bad {
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) number(size int) (n int) {
	for _, c := range r.bytes(size) {
		n = n<<8 | int(c)
	}
	return n
}

// vector takes a text behind its length, which is of size bytes.
func (r *reader) vector(size int) []byte { return r.bytes(r.number(size)) }

// tls looks for a ClientHello (RFC 8446 4.1.2) that begins with the payload of a TCP
// segment and is whole in it, in one record or more.
func (h *Headers) tls() *application {
	a := h.app()
	if a.lookedTLS {
		return a
	}
	a.lookedTLS, a.hasSNI, a.hasALPN = true, false, false
	b, ok := h.Payload()
	if !ok || h.l4 != ProtoTCP {
		return a
	}
	hello := a.clientHello(b)
	if hello == nil {
		return a
	}
	r := reader{b: hello}
	r.bytes(2 + 32)             // version, random
	r.vector(1)                 // session
	suites := len(r.vector(2))  // of an even length
	if len(r.vector(1)) == 0 || // compression
		suites == 0 || suites%2 != 0 || r.bad {
		return a
	}
	if len(r.b) == 0 {
		return a // no extensions, as of old
	}
	extensions := reader{b: r.vector(2)}
	if r.bad || len(r.b) != 0 {
		return a
	}
	hasSNI, hasALPN := false, false
	a.sni, a.alpn = a.sni[:0], a.alpn[:0]
	for len(extensions.b) > 0 {
		typ := extensions.number(2)
		x := reader{b: extensions.vector(2)}
		if extensions.bad {
			return a
		}
		switch typ {
		case 0: // server_name, RFC 6066 3: a list of names, of which one is of a host
			list := reader{b: x.vector(2)}
			if x.bad = x.bad || hasSNI || len(x.b) != 0; x.bad {
				return a
			}
			for len(list.b) > 0 {
				kind, name := list.number(1), list.vector(2)
				if list.bad || len(name) == 0 || kind == 0 && hasSNI {
					return a
				}
				if kind == 0 {
					a.sni, hasSNI = appendLower(a.sni, name), true
				}
			}
		case 16: // application_layer_protocol_negotiation, RFC 7301 3.1
			list := reader{b: x.vector(2)}
			if x.bad = x.bad || hasALPN || len(x.b) != 0; x.bad {
				return a
			}
			for len(list.b) > 0 {
				name := list.vector(1)
				if list.bad || len(name) == 0 {
					return a
				}
				if hasALPN {
					a.alpn = append(a.alpn, ',')
				}
				a.alpn, hasALPN = append(a.alpn, name...), true
			}
		}
	}
	a.hasSNI, a.hasALPN = hasSNI, hasALPN
	return a
}

// clientHello returns the body of the handshake message, or nil.
func (a *application) clientHello(b []byte) []byte {
	const handshake, clientHello = 22, 1
	records := reader{b: b}
	message := a.hello[:0]
	want := 4 // of the message, with its own header
	for len(message) < want {
		kind, major := records.number(1), records.number(1)
		records.number(1)
		piece := records.vector(2)
		if records.bad || kind != handshake || major != 3 || len(piece) == 0 {
			return nil
		}
		message = append(message, piece...)
		a.hello = message
		if message[0] != clientHello {
			return nil
		}
		if len(message) >= 4 {
			want = 4 + (int(message[1])<<16 | int(message[2])<<8 | int(message[3]))
		}
	}
	if len(message) != want { // something follows, in the same record
		return nil
	}
	return message[4:]
}
