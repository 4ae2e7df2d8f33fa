package filter

import (
	"net/netip"
	"slices"
	"strings"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// subject is a small packet and flow in one: it has every kind of field, and may
// lack each of them.
type subject struct {
	proto, state  *uint64
	src, dst      netip.Addr
	tcp           *ports
	udp           *ports
	mark, zone    *uint64
	timeout       *uint64
	bytes, pkts   *uint64
	status        *uint64
	labels        []byte
	helper        []byte
	payload       []byte
	start, stop   *uint64
	fragment      *uint64
	offloaded     *uint64
	rbytes, large *uint64
}

type ports struct {
	sport, dport uint16
	flags        *uint64
}

var (
	states = value.NewWords("state", 9, "NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT",
		"CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2")
	statuses = value.NewNames("status", 1<<16-1, value.Name{Word: "EXPECTED", Num: 1},
		value.Name{Word: "SEEN_REPLY", Num: 2},
		value.Name{Word: "ASSURED", Num: 4}, value.Name{Word: "CONFIRMED", Num: 8})
	flags = value.NewNames("TCP flag", 511, value.Name{Word: "FIN", Num: 1}, value.Name{Word: "SYN", Num: 2},
		value.Name{Word: "RST", Num: 4}, value.Name{Word: "PSH", Num: 8}, value.Name{Word: "ACK", Num: 16})
	labelNames = []string{"", "web", "mail", "Bulk", "", "worker"}
)

func opt(p *uint64) (uint64, bool) {
	if p == nil {
		return 0, false
	}
	return *p, true
}

func num(f func(*subject) *uint64) func(*subject) (uint64, bool) {
	return func(s *subject) (uint64, bool) { return opt(f(s)) }
}

func ip(f func(*subject) netip.Addr) func(*subject) (netip.Addr, bool) {
	return func(s *subject) (netip.Addr, bool) { a := f(s); return a, a.IsValid() }
}

func data(f func(*subject) []byte) func(*subject) ([]byte, bool) {
	return func(s *subject) ([]byte, bool) { d := f(s); return d, d != nil }
}

// parseStatus knows UNREPLIED, the word for a bit that is not set.
func parseStatus(s string) (value.Set, error) {
	if strings.EqualFold(s, "UNREPLIED") {
		return value.Set{Nums: []value.Range{{}}, Mask: 2}, nil
	}
	r := field.Row[subject]{Path: "status", Kind: field.Flags, Names: statuses}
	return r.ParseSet(s)
}

var portRows = []field.Row[ports]{
	{Path: "sport", Kind: field.Uint, Max: 65535, Parse: value.Ports, Num: func(p *ports) (uint64, bool) { return uint64(p.sport), true }},
	{Path: "dport", Kind: field.Uint, Max: 65535, Parse: value.Ports, Num: func(p *ports) (uint64, bool) { return uint64(p.dport), true }},
	{Path: "flags", Kind: field.Flags, Max: 511, Names: flags, Num: func(p *ports) (uint64, bool) { return opt(p.flags) }},
}

var reg = &field.Registry[subject]{Make: subjectRows, Reserve: func(path string) string {
	if path == "verdict" {
		return "it is not known while deciding"
	}
	return ""
}}

func subjectRows() []field.Row[subject] {
	return slices.Concat(
		[]field.Row[subject]{
			{Path: "proto", Aliases: []string{"l4proto"}, Kind: field.Enum, Max: 255, Names: value.Protocols, Num: num(func(s *subject) *uint64 { return s.proto })},
			{Path: "state", Kind: field.Enum, Names: states, Num: num(func(s *subject) *uint64 { return s.state })},
			{Path: "ip.src", Kind: field.Addr, Parse: value.Addrs, IP: ip(func(s *subject) netip.Addr { return s.src })},
			{Path: "ip.dst", Kind: field.Addr, IP: ip(func(s *subject) netip.Addr { return s.dst })},
		},
		field.Lift("tcp.", portRows, func(s *subject) *ports { return s.tcp }),
		field.Lift("udp.", portRows[:2], func(s *subject) *ports { return s.udp }),
		[]field.Row[subject]{
			{Path: "mark", Aliases: []string{"orig-mark"}, Kind: field.Uint, Max: 1<<32 - 1, Parse: value.Mark, Num: num(func(s *subject) *uint64 { return s.mark })},
			{Path: "zone", Kind: field.Uint, Max: 65535, Num: num(func(s *subject) *uint64 { return s.zone })},
			{Path: "timeout", Kind: field.Uint, Max: 1<<32 - 1, Parse: value.Seconds, Num: num(func(s *subject) *uint64 { return s.timeout })},
			{Path: "orig.bytes", Kind: field.Uint, Parse: value.Sizes, Num: num(func(s *subject) *uint64 { return s.bytes })},
			{Path: "orig.packets", Kind: field.Uint, Num: num(func(s *subject) *uint64 { return s.pkts })},
			{Path: "reply.bytes", Kind: field.Uint, Parse: value.Sizes, Num: num(func(s *subject) *uint64 { return s.rbytes })},
			{Path: "large", Kind: field.Uint, Num: num(func(s *subject) *uint64 { return s.large })},
			{Path: "status", Kind: field.Flags, Max: 1<<16 - 1, Names: statuses, Parse: parseStatus, Num: num(func(s *subject) *uint64 { return s.status })},
			{Path: "labels", Kind: field.Bits, Max: 15, Bit: func(n int) string {
				if n < len(labelNames) {
					return labelNames[n]
				}
				return ""
			}, Data: data(func(s *subject) []byte { return s.labels })},
			{Path: "helper", Kind: field.String, Data: data(func(s *subject) []byte { return s.helper })},
			{Path: "payload", Kind: field.Bytes, Hidden: true, Data: data(func(s *subject) []byte { return s.payload })},
			{Path: "start", Kind: field.Time, Num: num(func(s *subject) *uint64 { return s.start })},
			{Path: "stop", Kind: field.Time, Num: num(func(s *subject) *uint64 { return s.stop })},
			{Path: "fragment", Kind: field.Bool, Num: num(func(s *subject) *uint64 { return s.fragment })},
			{Path: "offloaded", Kind: field.Bool, Num: num(func(s *subject) *uint64 { return s.offloaded })},
		},
	)
}

func n(v uint64) *uint64 { return &v }

// subjects by name, for the tables.
var subjects = map[string]*subject{
	"empty": {},
	"ssh": {proto: n(6), state: n(3), src: netip.MustParseAddr("10.0.0.1"), dst: netip.MustParseAddr("10.0.0.2"),
		tcp: &ports{sport: 40000, dport: 22, flags: n(0x12)}, mark: n(1), zone: n(0), timeout: n(120), bytes: n(2 << 20), pkts: n(1000), rbytes: n(1 << 20),
		status: n(14), labels: []byte{2, 0}, start: n(1767366245e9), stop: n(1767366345e9), fragment: n(0), offloaded: n(1), payload: []byte("SSH-2.0-x\r\n")},
	"dns": {proto: n(17), src: netip.MustParseAddr("fd00::1"), dst: netip.MustParseAddr("fd00::2"),
		udp: &ports{sport: 5353, dport: 53}, mark: n(0x1ff), zone: n(7), timeout: n(30), bytes: n(60), pkts: n(0), rbytes: n(120),
		status: n(8), labels: []byte{0, 0}, helper: []byte("Dns"), payload: []byte{0, 1, 0xff, 'q', 0x80}, fragment: n(1), large: n(1<<64 - 1)},
	"ping": {proto: n(1), src: netip.MustParseAddr("192.168.7.9"), dst: netip.MustParseAddr("8.8.8.8"), mark: n(0), timeout: n(0),
		status: n(0), labels: []byte{0x2c, 0x80}, helper: []byte(""), payload: []byte{}, large: n(1 << 63)},
	"odd": {proto: n(99), state: n(7), tcp: &ports{sport: 0, dport: 65535, flags: n(0x100)}, mark: n(1<<32 - 1), zone: n(65535), timeout: n(1<<32 - 1),
		bytes: n(1<<64 - 1), pkts: n(3), status: n(0x8010), helper: []byte("ftp,x"), stop: n(5e9)},
}
