package packet_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"nfctl/internal/packet"
	"nfctl/internal/packet/packettest"
)

// query is a message as dnsmessage writes it.
func query(t testing.TB, name string, typ dnsmessage.Type, response bool) string {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true, Response: response},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}}}
	if response {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name,
			Class: dnsmessage.ClassINET},
			Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func prefixed(s string) string { return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s }

// greeting is what crypto/tls sends first.
func greeting(t testing.TB, name string, protocols ...string) []byte {
	t.Helper()
	a, b := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _ = tls.Client(a, &tls.Config{ServerName: name, NextProtos: protocols}).HandshakeContext(ctx) }()
	defer cancel()
	buf := make([]byte, 65536)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// records cuts the handshake message of a record to records of n bytes.
func records(b []byte, n int) (out []byte) {
	for m := b[5:]; len(m) > 0; {
		k := min(n, len(m))
		out = append(append(out, 22, 3, 1, byte(k>>8), byte(k)), m[:k]...)
		m = m[k:]
	}
	return out
}

func TestApplication(t *testing.T) {
	hello := greeting(t, "Example.COM", "h2", "http/1.1")
	tcp := func(payload []byte) []byte { return pkt(6, packettest.TCP(1, 443, 16, nil, string(payload))) }
	const none = "dns.name - dns.type - dns.response - tls.sni - tls.alpn -"
	q := query(t, "WWW.Example.com.", dnsmessage.TypeAAAA, false)
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"query", pkt(17, packettest.UDP(5000, 53, q)), `dns.name "www.example.com" dns.type AAAA dns.response 0 tls.sni -`},
		{"query over IPv6", pkt6(17, packettest.UDP(5000, 5353, q)), `dns.name "www.example.com" dns.type AAAA dns.response 0`},
		{"answer", pkt(17, packettest.UDP(53, 5000, query(t, "a.b.", dnsmessage.TypeMX, true))), `dns.name "a.b" dns.type MX dns.response 1`},
		{"root", pkt(17, packettest.UDP(53, 5000, query(t, ".", dnsmessage.TypeNS, true))), `dns.name "." dns.type NS`},
		{"over TCP", pkt(6, packettest.TCP(5000, 53, 16, nil, prefixed(q))), `dns.name "www.example.com" dns.type AAAA`},
		{"behind another", pkt(6, packettest.TCP(5000, 53, 16, nil, prefixed(q)+prefixed(q))), `dns.name "www.example.com"`},
		{"TCP without length", pkt(6, packettest.TCP(5000, 53, 16, nil, q)), none},
		{"cut", pkt(17, packettest.UDP(5000, 53, q[:len(q)-1])), none},
		{"no question", pkt(17, packettest.UDP(5000, 53, q[:4]+"\x00\x00"+q[6:])), none},
		{"another class", pkt(17, packettest.UDP(5000, 53, q[:len(q)-1]+"\x77")), none},
		{"loop", pkt(17, packettest.UDP(5000, 53, q[:12]+"\xc0\x0c\x00\x01\x00\x01")), none},
		{"in ICMP", pkt(1, packettest.ICMP(8, 0, 1, 2, q)), none},

		{"hello", tcp(hello), `tls.sni "example.com" tls.alpn "h2,http/1.1" dns.name -`},
		{"no protocols", tcp(greeting(t, "a.example")), `tls.sni "a.example" tls.alpn -`},
		{"an address has no name", tcp(greeting(t, "192.0.2.1", "h2")), `tls.sni - tls.alpn "h2"`},
		{"over IPv6", pkt6(6, packettest.TCP(1, 8443, 16, nil, string(hello))), `tls.sni "example.com"`},
		{"in many records", tcp(records(hello, 7)), `tls.sni "example.com" tls.alpn "h2,http/1.1"`},
		{"followed by another record", tcp(append(bytes.Clone(hello), 23, 3, 3, 0, 1, 0)), `tls.sni "example.com"`},
		{"cut hello", tcp(hello[:len(hello)-1]), none},
		{"a byte more", tcp(append(records(hello, 1<<14)[:3], append([]byte{byte((len(hello) - 4) >> 8), byte(len(hello) - 4)}, append(bytes.Clone(hello[5:]), 0)...)...)), none},
		{"over UDP", pkt(17, packettest.UDP(1, 443, string(hello))), none},
		{"server's", tcp(append([]byte{22, 3, 3, 0, 4, 2, 0, 0}, 0)), none},
	} {
		check(t, c.name, parse(c.b), c.want)
	}
}

// What was looked at is looked at again when it changed, and for the next packet.
func TestApplicationChanges(t *testing.T) {
	h := parse(pkt(17, packettest.UDP(5000, 53, query(t, "one.example.", dnsmessage.TypeA, false))))
	check(t, "before", h, `dns.name "one.example"`)
	var ed packet.Editor
	if err := ed.Apply(h, packet.Meta{}, replace(t, "one", "two", false)); err != nil {
		t.Fatal(err)
	}
	check(t, "edited", h, `dns.name "two.example"`)
	if err := ed.Apply(h, packet.Meta{}, replace(t, "\x03two", "\x05three", false)); err != nil {
		t.Fatal(err)
	}
	check(t, "edited again", h, `dns.name "three.example"`)
	h.Parse(pkt(6, packettest.TCP(1, 443, 16, nil, string(greeting(t, "x.example")))), 0)
	check(t, "next", h, `dns.name - tls.sni "x.example"`)
	h.Parse(pkt(6, packettest.TCP(1, 443, 16, nil, "")), 0)
	check(t, "last", h, "dns.name - tls.sni -")
}

func TestApplicationAllocates(t *testing.T) {
	hello := pkt(6, packettest.TCP(1, 443, 16, nil, string(records(greeting(t, "example.com", "h2", "http/1.1"), 100))))
	dns := pkt(17, packettest.UDP(5000, 53, query(t, "www.example.com.", dnsmessage.TypeA, true)))
	other := pkt(17, packettest.UDP(5000, 53, strings.Repeat("no message", 10)))
	var h packet.Headers
	look := func() {
		for _, b := range [][]byte{hello, dns, other} {
			h.Parse(b, 0)
			for _, path := range []string{"dns.name", "dns.type", "dns.response", "tls.sni", "tls.alpn"} {
				rowHas(&h, path)
			}
		}
	}
	look()
	if n := testing.AllocsPerRun(100, look); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func rowHas(h *packet.Headers, path string) bool {
	for i := range rowList {
		if rowList[i].Path == path {
			return rowList[i].Has(h)
		}
	}
	return false
}

var rowList = packet.Rows()

// FuzzApplication: no input is too wrong, and what is found is of the packet.
func FuzzApplication(f *testing.F) {
	f.Add([]byte(query(f, "www.example.com.", dnsmessage.TypeA, true)))
	f.Add([]byte(prefixed(query(f, "a.", dnsmessage.TypeA, false))))
	f.Add(greeting(f, "example.com", "h2"))
	f.Add(records(greeting(f, "example.com", "h2"), 9))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 60000 {
			return
		}
		for _, b := range [][]byte{pkt(17, packettest.UDP(1, 2, string(payload))),
			pkt(6, packettest.TCP(1, 2, 16, nil, string(payload)))} {
			h := parse(b)
			for i := range rowList {
				r := &rowList[i]
				if !strings.HasPrefix(r.Path, "dns.") && !strings.HasPrefix(r.Path, "tls.") || r.Data == nil {
					continue
				}
				d, ok := r.Data(h)
				if ok && len(d) > len(payload) {
					t.Fatalf("%s: %q of %q", r.Path, d, payload)
				}
				var want []byte
				if h.Version() == 4 && b[9] == 17 && r.Path == "dns.name" { // dnsmessage itself, as a whole
					var m dnsmessage.Message
					if m.Unpack(payload) == nil && len(m.Questions) > 0 && m.Questions[0].Class == 1 && m.OpCode <= 6 &&
						len(m.Questions) < 256 {
						want = bytes.ToLower([]byte(m.Questions[0].Name.String()))
						if !ok || string(d) != string(want) && string(d)+"." != string(want) {
							t.Fatalf("%q %v, want %q", d, ok, want)
						}
					}
				}
			}
		}
	})
}

func BenchmarkApplication(b *testing.B) {
	for name, data := range map[string][]byte{
		"dns":   pkt(17, packettest.UDP(5000, 53, query(b, "www.example.com.", dnsmessage.TypeA, false))),
		"tls":   pkt(6, packettest.TCP(1, 443, 16, nil, string(greeting(b, "example.com", "h2")))),
		"other": pkt(17, packettest.UDP(5000, 4433, strings.Repeat("\x80\x00some", 100))),
	} {
		b.Run(name, func(b *testing.B) {
			var dns, sni int
			for i := range rowList {
				switch rowList[i].Path {
				case "dns.name":
					dns = i
				case "tls.sni":
					sni = i
				}
			}
			b.ReportAllocs()
			var h packet.Headers
			for b.Loop() {
				h.Parse(data, 0)
				rowList[dns].Data(&h)
				rowList[sni].Data(&h)
			}
		})
	}
}
