package ct

import "slices"

// A Flag is a flag by which flows or expectations are chosen, by which one is
// described, or both: commands and lines of -o save take the same. Most are
// conntrack(8)'s.
type Flag struct {
	Name    string
	Short   string   // one letter
	Aliases []string // other full names

	ChooseAs   []string // more names where it chooses, of one letter too
	DescribeAs []string // more names where it describes

	Choose   FlagHelp // where it chooses
	Describe FlagHelp // where it describes

	Paths []string // fields of which any may have the value
	Proto uint8    // the protocol that it implies, or 0
	Bare  bool     // may choose without a value

	Sets string // the attribute that it describes, of addresses that of IPv4
	Key  bool   // part of what the kernel finds the flow by
	Orig bool   // said by a flow in words, too
}

// A FlagHelp is what help says about a flag; without a kind there is no such flag,
// without a text it is in no help.
type FlagHelp struct{ Kind, Text string }

// Names returns the flag's full names, the first of which is for help, and its letter
// or "": where it describes, or else where it chooses.
func (f *Flag) Names(describe bool) (names []string, letter string) {
	more := f.ChooseAs
	if describe {
		more = f.DescribeAs
	}
	names, letter = append([]string{f.Name}, f.Aliases...), f.Short
	for _, n := range more {
		if len(n) == 1 {
			letter = n
		} else {
			names = append(names, n)
		}
	}
	return names, letter
}

// FindFlag returns the flag that describes, or else chooses, under a full name; or nil.
func FindFlag(flags []Flag, name string, describe bool) *Flag {
	for i := range flags {
		f := &flags[i]
		use, more := f.Choose, f.ChooseAs
		if describe {
			use, more = f.Describe, f.DescribeAs
		}
		if use.Kind != "" && (f.Name == name || slices.Contains(f.Aliases, name) || slices.Contains(more, name)) {
			return f
		}
	}
	return nil
}

// FlowFlags are the flags about flows.
var FlowFlags = []Flag{
	{Name: "proto", Short: "p", Aliases: []string{"protonum"}, Paths: []string{"proto"}, Sets: "orig-l4proto", Key: true, Orig: true,
		Choose:   FlagHelp{"protocols", "transport protocol: tcp, or a list udp,icmp"},
		Describe: FlagHelp{"protocol", "transport protocol"}},
	{Name: "src", Short: "s", Aliases: []string{"orig-src"}, Paths: []string{"orig.src"}, Sets: "orig-ipv4-src", Key: true, Orig: true,
		Choose:   FlagHelp{"addresses", "source of the original direction: addresses, prefixes, ranges"},
		Describe: FlagHelp{"address", "source of the original direction"}},
	{Name: "dst", Short: "d", Aliases: []string{"orig-dst"}, Paths: []string{"orig.dst"}, Sets: "orig-ipv4-dst", Key: true, Orig: true,
		Choose:   FlagHelp{"addresses", "destination of the original direction"},
		Describe: FlagHelp{"address", "destination of the original direction"}},
	{Name: "sport", Aliases: []string{"orig-port-src"}, Paths: []string{"orig.sport"}, Sets: "orig-port-src", Key: true, Orig: true,
		Choose:   FlagHelp{"ports", "source port of the original direction: 22, ssh, 1000-2000, 22,80"},
		Describe: FlagHelp{"port", "source port of the original direction"}},
	{Name: "dport", Aliases: []string{"orig-port-dst"}, Paths: []string{"orig.dport"}, Sets: "orig-port-dst", Key: true, Orig: true,
		Choose:   FlagHelp{"ports", "destination port of the original direction"},
		Describe: FlagHelp{"port", "destination port of the original direction"}},
	{Name: "reply-src", DescribeAs: []string{"r"}, Paths: []string{"reply.src"}, Sets: "repl-ipv4-src",
		Choose:   FlagHelp{"addresses", "source of the reply direction"},
		Describe: FlagHelp{"address", "source of the reply direction (default: the original destination)"}},
	{Name: "reply-dst", DescribeAs: []string{"q"}, Paths: []string{"reply.dst"}, Sets: "repl-ipv4-dst",
		Choose:   FlagHelp{"addresses", "destination of the reply direction"},
		Describe: FlagHelp{"address", "destination of the reply direction (default: the original source)"}},
	{Name: "reply-port-src", Paths: []string{"reply.sport"}, Sets: "repl-port-src",
		Choose:   FlagHelp{"ports", "source port of the reply direction"},
		Describe: FlagHelp{"port", "source port of the reply direction"}},
	{Name: "reply-port-dst", Paths: []string{"reply.dport"}, Sets: "repl-port-dst",
		Choose:   FlagHelp{"ports", "destination port of the reply direction"},
		Describe: FlagHelp{"port", "destination port of the reply direction"}},
	{Name: "host", Paths: []string{"orig.src", "orig.dst", "reply.src", "reply.dst"},
		Choose: FlagHelp{"addresses", "either end, in either direction"}},
	{Name: "port", Paths: []string{"orig.sport", "orig.dport", "reply.sport", "reply.dport"},
		Choose: FlagHelp{"ports", "port of either end, in either direction"}},
	{Name: "family", Short: "f", Paths: []string{"family"}, Sets: "orig-l3proto", Key: true,
		Choose:   FlagHelp{"families", "address family: ipv4 or ipv6"},
		Describe: FlagHelp{"family", "address family; the addresses say it"}},
	{Name: "state", Paths: []string{"state"}, Sets: "state",
		Choose:   FlagHelp{"states", "state of the protocol: ESTABLISHED, or a list SYN_SENT,SYN_RECV"},
		Describe: FlagHelp{"state", "state of the protocol (default: ESTABLISHED)"}},
	{Name: "status", Short: "u", Paths: []string{"status"}, Sets: "status",
		Choose:   FlagHelp{"status", "status: ASSURED, SEEN_REPLY, UNREPLIED, …; of a list any"},
		Describe: FlagHelp{"status", "status bits: SEEN_REPLY, ASSURED, FIXED_TIMEOUT"}},
	{Name: "mark", Short: "m", Paths: []string{"mark"}, Sets: "mark",
		Choose:   FlagHelp{"mark", "mark: 7, or under a mask 0x1/0xff"},
		Describe: FlagHelp{"mark", "mark"}},
	{Name: "timeout", Short: "t", Paths: []string{"timeout"}, Sets: "timeout",
		Choose:   FlagHelp{"seconds", "time left: 30s, or a range 0-5m"},
		Describe: FlagHelp{"duration", "time left (default: what a packet would give it)"}},
	{Name: "zone", Short: "w", Paths: []string{"zone"}, Sets: "zone", Key: true, Orig: true,
		Choose:   FlagHelp{"zones", "zone of both directions"},
		Describe: FlagHelp{"number", "zone of both directions"}},
	{Name: "orig-zone", Sets: "orig-zone", Key: true, Orig: true,
		Choose:   FlagHelp{"zones", "zone of the original direction alone; 0: none"},
		Describe: FlagHelp{"number", "zone of the original direction alone"}},
	{Name: "reply-zone", Sets: "repl-zone", Key: true, Orig: true,
		Choose:   FlagHelp{"zones", "zone of the reply direction alone; 0: none"},
		Describe: FlagHelp{"number", "zone of the reply direction alone"}},
	{Name: "label", Short: "l", DescribeAs: []string{"label-add"}, Paths: []string{"labels"}, Sets: "connlabels",
		Choose:   FlagHelp{"labels", "connection label, by name or number; of a list any"},
		Describe: FlagHelp{"labels", "connection labels, by name or number"}},
	{Name: "helper", Paths: []string{"helper"}, Sets: "helper-name",
		Choose:   FlagHelp{"names", "name of the helper: ftp"},
		Describe: FlagHelp{"name", "helper: ftp, sip, …"}},
	{Name: "src-nat", DescribeAs: []string{"n"}, Bare: true, Sets: "snat-ipv4",
		Choose:   FlagHelp{"address", "the source is translated, to this address[:port] if one is given"},
		Describe: FlagHelp{"address", "translate the source to this address[:port], or one of a range"}},
	{Name: "dst-nat", DescribeAs: []string{"g"}, Bare: true, Sets: "dnat-ipv4",
		Choose:   FlagHelp{"address", "the destination is translated, to this address[:port] if one is given"},
		Describe: FlagHelp{"address", "translate the destination to this address[:port], or one of a range"}},
	{Name: "any-nat", Bare: true,
		Choose: FlagHelp{"address", "source or destination is translated"}},
	{Name: "icmp-type", Paths: []string{"orig.type"}, Sets: "icmp-type", Key: true, Orig: true,
		Choose:   FlagHelp{"numbers", "ICMP or ICMPv6 type"},
		Describe: FlagHelp{"number", "ICMP or ICMPv6 type"}},
	{Name: "icmp-code", Paths: []string{"orig.code"}, Sets: "icmp-code", Key: true, Orig: true,
		Choose:   FlagHelp{"numbers", "ICMP or ICMPv6 code"},
		Describe: FlagHelp{"number", "ICMP or ICMPv6 code"}},
	{Name: "icmp-id", Paths: []string{"orig.id"}, Sets: "icmp-id", Key: true, Orig: true,
		Choose:   FlagHelp{"numbers", "ICMP or ICMPv6 identifier"},
		Describe: FlagHelp{"number", "ICMP or ICMPv6 identifier"}},
	{Name: "icmpv6-type", Paths: []string{"orig.type"}, Proto: ICMPv6, Sets: "icmp-type", Key: true, Orig: true,
		Choose: FlagHelp{Kind: "numbers"}, Describe: FlagHelp{Kind: "number"}},
	{Name: "icmpv6-code", Paths: []string{"orig.code"}, Proto: ICMPv6, Sets: "icmp-code", Key: true, Orig: true,
		Choose: FlagHelp{Kind: "numbers"}, Describe: FlagHelp{Kind: "number"}},
	{Name: "icmpv6-id", Paths: []string{"orig.id"}, Proto: ICMPv6, Sets: "icmp-id", Key: true, Orig: true,
		Choose: FlagHelp{Kind: "numbers"}, Describe: FlagHelp{Kind: "number"}},
	{Name: "src-key", Aliases: []string{"srckey", "orig-key-src"}, Paths: []string{"orig.sport"}, Proto: GRE,
		Sets: "orig-port-src", Key: true, Orig: true,
		Choose:   FlagHelp{"keys", "GRE key of the source"},
		Describe: FlagHelp{"key", "GRE key of the source"}},
	{Name: "dst-key", Aliases: []string{"dstkey", "orig-key-dst"}, Paths: []string{"orig.dport"}, Proto: GRE,
		Sets: "orig-port-dst", Key: true, Orig: true,
		Choose:   FlagHelp{"keys", "GRE key of the destination"},
		Describe: FlagHelp{"key", "GRE key of the destination"}},
	{Name: "reply-key-src", Paths: []string{"reply.sport"}, Proto: GRE, Sets: "repl-port-src",
		Choose:   FlagHelp{"keys", "GRE key of the reply's source"},
		Describe: FlagHelp{"key", "GRE key of the reply's source"}},
	{Name: "reply-key-dst", Paths: []string{"reply.dport"}, Proto: GRE, Sets: "repl-port-dst",
		Choose:   FlagHelp{"keys", "GRE key of the reply's destination"},
		Describe: FlagHelp{"key", "GRE key of the reply's destination"}},
	{Name: "orig-vtag", Paths: []string{"sctp.vtag_orig"}, Sets: "sctp-vtag-orig",
		Choose:   FlagHelp{"numbers", "SCTP verification tag of the original direction"},
		Describe: FlagHelp{"number", "SCTP verification tag of the original direction, as in packets"}},
	{Name: "reply-vtag", Paths: []string{"sctp.vtag_reply"}, Sets: "sctp-vtag-repl",
		Choose:   FlagHelp{"numbers", "SCTP verification tag of the reply direction"},
		Describe: FlagHelp{"number", "SCTP verification tag of the reply direction, as in packets"}},
	{Name: "role", Paths: []string{"dccp.role"}, Sets: "dccp-role",
		Choose:   FlagHelp{"role", "DCCP role of the original direction: client or server"},
		Describe: FlagHelp{"role", "DCCP role: client or server"}},
	{Name: "secmark", DescribeAs: []string{"c"}, Paths: []string{"secmark"}, Sets: "secmark",
		Choose: FlagHelp{"numbers", "security mark, of old kernels"}, Describe: FlagHelp{Kind: "number"}},
	{Name: "id", Paths: []string{"id"},
		Choose: FlagHelp{"numbers", "id of the flow, as -o id, json or a watch shows it"}},
	{Name: "set",
		Describe: FlagHelp{"NAME=VALUE", "set any attribute that 'nfctl attr list' calls settable on create"}},
}

// ExpectFlags are the flags about expectations. As in conntrack(8) --orig-* is about
// the master, --tuple-* about the connection expected.
var ExpectFlags = []Flag{
	{Name: "master",
		Choose: FlagHelp{"pattern", "the connection that expects, as 'tcp 10.0.0.1 > :21'"}},
	{Name: "proto", Short: "p", Aliases: []string{"protonum"}, Paths: []string{"tuple.proto"},
		Choose:   FlagHelp{"protocols", "protocol of the connection expected"},
		Describe: FlagHelp{"protocol", "protocol of master and connection expected, beside --orig-… and --tuple-…"}},
	{Name: "orig-src", DescribeAs: []string{"s", "src"}, Paths: []string{"master.src"},
		Choose:   FlagHelp{"addresses", "source of the master"},
		Describe: FlagHelp{"address", "source of the master"}},
	{Name: "orig-dst", DescribeAs: []string{"d", "dst"}, Paths: []string{"master.dst"},
		Choose:   FlagHelp{"addresses", "destination of the master"},
		Describe: FlagHelp{"address", "destination of the master"}},
	{Name: "orig-port-src", DescribeAs: []string{"sport", "srckey", "orig-key-src"}, Paths: []string{"master.sport"},
		Choose:   FlagHelp{"ports", "source port of the master"},
		Describe: FlagHelp{"port", "source port of the master"}},
	{Name: "orig-port-dst", DescribeAs: []string{"dport", "dstkey", "orig-key-dst"}, Paths: []string{"master.dport"},
		Choose:   FlagHelp{"ports", "destination port of the master"},
		Describe: FlagHelp{"port", "destination port of the master"}},
	{Name: "tuple-src", ChooseAs: []string{"s", "src"}, Paths: []string{"tuple.src"},
		Choose:   FlagHelp{"addresses", "source of the connection expected"},
		Describe: FlagHelp{"address", "source of the connection expected"}},
	{Name: "tuple-dst", ChooseAs: []string{"d", "dst"}, Paths: []string{"tuple.dst"},
		Choose:   FlagHelp{"addresses", "destination of the connection expected"},
		Describe: FlagHelp{"address", "destination of the connection expected"}},
	{Name: "tuple-port-src", ChooseAs: []string{"sport"}, DescribeAs: []string{"tuple-key-src"}, Paths: []string{"tuple.sport"},
		Choose:   FlagHelp{"ports", "source port of the connection expected"},
		Describe: FlagHelp{"port", "source port of the connection expected"}},
	{Name: "tuple-port-dst", ChooseAs: []string{"dport"}, DescribeAs: []string{"tuple-key-dst"}, Paths: []string{"tuple.dport"},
		Choose:   FlagHelp{"ports", "destination port of the connection expected"},
		Describe: FlagHelp{"port", "destination port of the connection expected"}},
	{Name: "mask-src", Paths: []string{"mask.src"},
		Choose:   FlagHelp{"addresses", "which bits of the source count"},
		Describe: FlagHelp{"mask", "which bits of the source count, as 255.255.255.0"}},
	{Name: "mask-port-src", Aliases: []string{"mask-sport"}, DescribeAs: []string{"mask-key-src"}, Paths: []string{"mask.sport"},
		Choose:   FlagHelp{"numbers", "which bits of the source port count"},
		Describe: FlagHelp{"mask", "which bits of the source port count: 0 or 65535 or between"}},
	{Name: "mask-dst", Describe: FlagHelp{Kind: "mask"}},
	{Name: "mask-port-dst", DescribeAs: []string{"mask-dport", "mask-key-dst"}, Describe: FlagHelp{Kind: "mask"}},
	{Name: "host", Paths: []string{"tuple.src", "tuple.dst", "master.src", "master.dst"},
		Choose: FlagHelp{"addresses", "either end, of the master or of the connection expected"}},
	{Name: "port", Paths: []string{"tuple.sport", "tuple.dport", "master.sport", "master.dport"},
		Choose: FlagHelp{"ports", "port of either end, of the master or of the connection expected"}},
	{Name: "family", Short: "f", Paths: []string{"family"},
		Choose: FlagHelp{"families", "address family: ipv4 or ipv6"}},
	{Name: "zone", Short: "w", Paths: []string{"zone"},
		Choose: FlagHelp{"zones", "zone of the master and of the connection expected"}},
	{Name: "helper", Paths: []string{"helper"},
		Choose: FlagHelp{"names", "name of the helper: ftp"}},
	{Name: "class", Paths: []string{"class"},
		Choose: FlagHelp{"numbers", "class: which of the helper's policies"}},
	{Name: "flags", Paths: []string{"flags"},
		Choose: FlagHelp{"flags", "flags: permanent, inactive"}},
	{Name: "timeout", Short: "t", Paths: []string{"timeout"},
		Choose: FlagHelp{"seconds", "time left: 30s, or a range 0-5m"}},
	{Name: "id", Paths: []string{"id"},
		Choose: FlagHelp{"numbers", "id of the expectation"}},
}
