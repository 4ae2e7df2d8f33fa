// Package compat reads the command line of conntrack(8), version 1.4.8, into
// nfctl's own terms: the flags of 'nfctl ct' and 'nfctl expect', attributes to
// set, an output. It does no I/O.
package compat

import (
	"slices"
	"strings"

	"nfctl/internal/lazy"
)

// verbs is a set of commands. The same letter about expectations is another
// command, since it takes other options.
type verbs uint32

const (
	list verbs = 1 << iota
	create
	add
	update
	remove
	get
	flush
	event
	count
	stats
	version
	help
	expectList
	expectCreate
	expectRemove
	expectGet
	expectFlush
	expectEvent
	expectCount
	expectStats

	making = create | add
	keyed  = making | get
	choose = list | update | remove | event
)

// A command is one of conntrack(8)'s.
type command struct {
	letter      byte
	name        string
	flow, other verbs // about flows, and about expectations; 0: there is none
	table       string
	doc         string
}

var commands = []command{
	{'L', "dump", list, expectList, "[table] [options]", "list flows or expectations"},
	{'G', "get", get, expectGet, "[table] parameters", "show one flow or expectation"},
	{'D', "delete", remove, expectRemove, "[table] parameters", "delete flows, or an expectation"},
	{'I', "create", create, expectCreate, "[table] parameters", "make a flow or an expectation, which must not be there"},
	{'A', "add", add, 0, "[table] parameters", "make a flow, unless it is there"},
	{'U', "update", update, 0, "[table] parameters", "change flows"},
	{'E', "event", event, expectEvent, "[table] [options]", "show events as they happen"},
	{'F', "flush", flush, expectFlush, "[table]", "delete all flows or expectations"},
	{'C', "counter", count, expectCount, "[table]", "show how many there are"},
	{'S', "stats", stats, expectStats, "[table]", "show the kernel's counters"},
	{'V', "version", version, version, "", "show the version"},
	{'h', "help", help, help, "", "show this text; with -p, the protocol's options too"},
}

// tables are those of -L; others take the first two.
var tables = []string{"conntrack", "expect", "dying", "unconfirmed"}

// arg says whether an option has a value.
type arg uint8

const (
	none arg = iota
	required
	optional
)

// An option is one of conntrack(8)'s, with the commands that it goes with.
type option struct {
	names  []string // in full; the first is the one in messages
	letter byte     // 0: none
	arg    arg
	may    verbs // it may be given
	must   verbs // it has to be given
	pair   verbs // it has to be given, with its like, or the other pair has
	kind   string
	doc    string
	extra  bool // nfctl's: in no help of conntrack's, and never meant by a shortened name
}

const any4 = list | update | remove | event

var options = []option{
	{names: []string{"src", "orig-src"}, letter: 's', arg: required, may: any4, pair: keyed, must: expectCreate | expectRemove | expectGet, kind: "ip[/bits]", doc: "source of the original direction"},
	{names: []string{"dst", "orig-dst"}, letter: 'd', arg: required, may: any4, pair: keyed, must: expectCreate | expectRemove | expectGet, kind: "ip[/bits]", doc: "destination of the original direction"},
	{names: []string{"reply-src"}, letter: 'r', arg: required, may: any4 | expectCreate | expectRemove | expectGet, pair: keyed, kind: "ip", doc: "source of the reply direction"},
	{names: []string{"reply-dst"}, letter: 'q', arg: required, may: any4 | expectCreate | expectRemove | expectGet, pair: keyed, kind: "ip", doc: "destination of the reply direction"},
	{names: []string{"protonum", "proto"}, letter: 'p', arg: required, may: any4 | help, must: keyed | expectCreate | expectRemove | expectGet, kind: "proto", doc: "protocol, by name or number"},
	{names: []string{"timeout"}, letter: 't', arg: required, may: update | remove, must: making | expectCreate, kind: "seconds", doc: "time left"},
	{names: []string{"status"}, letter: 'u', arg: required, may: list | update | remove | event | making | expectCreate, kind: "status", doc: "status, as ASSURED,!SEEN_REPLY"},
	{names: []string{"zero"}, letter: 'z', may: list, doc: "set the counters of what is listed to zero"},
	{names: []string{"event-mask"}, letter: 'e', arg: required, may: event | expectEvent, kind: "events", doc: "ALL, or of NEW,UPDATES,DESTROY"},
	{names: []string{"tuple-src"}, arg: required, must: expectCreate, kind: "ip", doc: "source of the connection expected"},
	{names: []string{"tuple-dst"}, arg: required, must: expectCreate, kind: "ip", doc: "destination of the connection expected"},
	{names: []string{"mask-src"}, arg: required, may: any4, must: expectCreate, kind: "mask", doc: "bits of the source that count"},
	{names: []string{"mask-dst"}, arg: required, may: any4, must: expectCreate, kind: "mask", doc: "bits of the destination that count"},
	{names: []string{"nat-range"}, letter: 'a', arg: required, may: ^verbs(0), kind: "range", doc: "ignored"},
	{names: []string{"mark"}, letter: 'm', arg: required, may: any4 | making, kind: "mark[/mask]", doc: "mark"},
	{names: []string{"id"}, letter: 'i', arg: required, may: update | remove | get, kind: "id", doc: "id"},
	{names: []string{"family"}, letter: 'f', arg: required, may: any4 | flush | expectList, kind: "family", doc: "ipv4 or ipv6"},
	{names: []string{"src-nat"}, letter: 'n', arg: optional, may: any4 | making, kind: "[ip[:port]]", doc: "the source is translated"},
	{names: []string{"dst-nat"}, letter: 'g', arg: optional, may: any4 | making, kind: "[ip[:port]]", doc: "the destination is translated"},
	{names: []string{"any-nat"}, letter: 'j', arg: optional, may: list | event, kind: "[ip[:port]]", doc: "either is translated"},
	{names: []string{"output"}, letter: 'o', arg: required, may: list | update | remove | get | event | expectList | expectEvent, kind: "forms", doc: "xml, save, or of extended,timestamp,id,ktimestamp,labels"},
	{names: []string{"secmark"}, letter: 'c', arg: required, may: list | event, kind: "secmark", doc: "security mark"},
	{names: []string{"buffer-size"}, letter: 'b', arg: required, may: event | expectEvent, kind: "bytes", doc: "receive buffer of events"},
	{names: []string{"zone"}, letter: 'w', arg: required, may: list | remove | event | making, kind: "zone", doc: "zone of both directions"},
	{names: []string{"orig-zone"}, arg: required, may: list | remove | event | making, kind: "zone", doc: "zone of the original direction alone"},
	{names: []string{"reply-zone"}, arg: required, may: list | remove | event | making, kind: "zone", doc: "zone of the reply direction alone"},
	{names: []string{"label"}, letter: 'l', arg: required, may: any4 | get, kind: "labels", doc: "labels, all of which it has"},
	{names: []string{"label-add"}, arg: required, may: update | making, kind: "labels", doc: "labels to add"},
	{names: []string{"label-del"}, arg: optional, may: update, kind: "[labels]", doc: "labels to take away, or all"},
	{names: []string{"helper"}, arg: required, may: making, extra: true},
	{names: []string{"set"}, arg: required, may: making, extra: true},
}

// A protocol has options of its own, which are known behind -p.
type protocol struct {
	name   string
	num    uint8
	states []string
	upper  string // in messages
	opts   []option
	pairs  [2][2]string // of options that are given together
}

func ports() []option {
	one := func(what, doc string, reply bool, names ...string) option {
		o := option{names: names, arg: required, may: any4, pair: keyed, kind: what, doc: doc}
		if reply {
			o.may |= expectRemove | expectGet
		} else {
			o.must = expectCreate | expectRemove | expectGet
		}
		return o
	}
	return []option{
		one("port", "source port of the original direction", false, "sport", "orig-port-src"),
		one("port", "destination port of the original direction", false, "dport", "orig-port-dst"),
		one("port", "source port of the reply direction", true, "reply-port-src"),
		one("port", "destination port of the reply direction", true, "reply-port-dst"),
		{names: []string{"mask-port-src"}, arg: required, must: expectCreate, kind: "mask", doc: "bits of the source port that count"},
		{names: []string{"mask-port-dst"}, arg: required, must: expectCreate, kind: "mask", doc: "bits of the destination port that count"},
		{names: []string{"tuple-port-src"}, arg: required, must: expectCreate, kind: "port", doc: "source port of the connection expected"},
		{names: []string{"tuple-port-dst"}, arg: required, must: expectCreate, kind: "port", doc: "destination port of the connection expected"},
	}
}

// keys are ports under the names that GRE has for them.
func keys() []option {
	opts := ports()
	for i := range opts {
		o := &opts[i]
		for j, n := range o.names {
			o.names[j] = strings.Replace(n, "port", "key", 1)
		}
		o.kind, o.doc = strings.Replace(o.kind, "port", "key", 1), strings.Replace(o.doc, "port", "key", 1)
	}
	opts[0].names[0], opts[1].names[0] = "srckey", "dstkey"
	opts[2].may, opts[3].may = opts[2].may|expectCreate, opts[3].may|expectCreate
	return opts
}

func state() option {
	return option{names: []string{"state"}, arg: required, may: any4 | get, must: making, kind: "state",
		doc: "state of the connection"}
}

func icmp(v string) []option {
	return []option{
		{names: []string{v + "-type"}, arg: required, may: any4, must: keyed, kind: "type", doc: "type"},
		{names: []string{v + "-code"}, arg: required, may: any4, must: keyed, kind: "code", doc: "code"},
		{names: []string{v + "-id"}, arg: required, may: any4 | keyed, kind: "id", doc: "identifier"},
	}
}

var (
	portPairs = [2][2]string{{"sport", "dport"}, {"reply-port-src", "reply-port-dst"}}
	keyPairs  = [2][2]string{{"srckey", "dstkey"}, {"reply-key-src", "reply-key-dst"}}
)

var protocols = lazy.Value[[]protocol]{Make: func() []protocol {
	return []protocol{
		{name: "tcp", num: 6, upper: "TCP", opts: append(ports(), state()), pairs: portPairs,
			states: strings.Fields("NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2 LISTEN")},
		{name: "udp", num: 17, opts: ports(), pairs: portPairs},
		{name: "udplite", num: 136, opts: ports(), pairs: portPairs},
		{name: "icmp", num: 1, opts: icmp("icmp")},
		{name: "icmpv6", num: 58, opts: icmp("icmpv6")},
		{name: "sctp", num: 132, upper: "SCTP", pairs: portPairs,
			opts: append(ports(), state(),
				option{names: []string{"orig-vtag"}, arg: required, may: update | get, must: making, kind: "tag",
					doc: "verification tag of the original direction"},
				option{names: []string{"reply-vtag"}, arg: required, may: update | get, must: making, kind: "tag",
					doc: "verification tag of the reply direction"}),
			states: strings.Fields("NONE CLOSED COOKIE_WAIT COOKIE_ECHOED ESTABLISHED SHUTDOWN_SENT SHUTDOWN_RECD " +
				"SHUTDOWN_ACK_SENT")},
		{name: "dccp", num: 33, upper: "DCCP", pairs: portPairs,
			opts: append(ports(), state(),
				option{names: []string{"role"}, arg: required, must: making, kind: "role",
					doc: "role of the original direction: client or server"}),
			states: strings.Fields("NONE REQUEST RESPOND PARTOPEN OPEN CLOSEREQ CLOSING TIMEWAIT")},
		{name: "gre", num: 47, opts: keys(), pairs: keyPairs},
	}
}}

// findProtocol returns the protocol with options of its own, or nil.
func findProtocol(num uint8) *protocol {
	i := slices.IndexFunc(protocols.Get(), func(p protocol) bool { return p.num == num })
	if i < 0 {
		return nil
	}
	return &protocols.Get()[i]
}
