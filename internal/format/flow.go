package format

import (
	"net/netip"
	"strconv"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// Flows prints entries of the connection tracking table and events about them.
var Flows = &Subject[ct.Flow]{
	Kind: "flow", Fields: ct.FlowFields,
	Events: []string{"event", "time"},
	Columns: []string{"proto", "state", "timeout", "orig.src", "orig.sport", "orig.dst", "orig.dport",
		"reply.src", "reply.sport", "reply.dst", "reply.dport", "orig.packets", "orig.bytes", "reply.packets", "reply.bytes",
		"status", "mark", "zone", "id"},
	Table: flowTable,
	Text:  func(o *Output, _ Options) func([]byte, *ct.Flow) []byte { return flowText(o) },
	XML:   func(o *Output, _ Options) func([]byte, *ct.Flow) []byte { return flowXML(o) },
	Flow:  func(*Output, Options) func([]byte, *ct.Flow) []byte { return flowWords },
	Save:  func(*Output, Options) func([]byte, *ct.Flow) []byte { return AppendSave },
	Root:  "conntrack",
}

// Expects prints expectations and events about them.
var Expects = &Subject[ct.Expect]{
	Kind: "expect", Fields: ct.ExpectFields,
	Events: []string{"event", "time"},
	Columns: []string{"timeout", "tuple.proto", "tuple.src", "tuple.sport", "tuple.dst", "tuple.dport",
		"mask.src", "mask.sport", "master.src", "master.sport", "master.dst", "master.dport", "helper", "class", "flags", "id", "zone"},
	Table: expectTable,
	Text:  func(o *Output, _ Options) func([]byte, *ct.Expect) []byte { return expectText(o) },
	XML:   func(o *Output, _ Options) func([]byte, *ct.Expect) []byte { return expectXML(o) },
	Save:  func(*Output, Options) func([]byte, *ct.Expect) []byte { return AppendSaveExpect },
	Root:  "expect",
}

// columns returns columns of fields that are known to be there.
func rowColumn(name string, title string) Column[ct.Flow] {
	c := RowColumn(ct.FlowFields.Row(name))
	c.Name = title
	return c
}

// flowTable is what fits a terminal: both ends, what translation made of them,
// and what tells a flow from the mass.
func flowTable(opt Options) []Column[ct.Flow] {
	var cols []Column[ct.Flow]
	if opt.Stream {
		cols = append(cols, rowColumn("event", "event"))
	}
	proto := rowColumn("proto", "proto")
	proto.Stays = true
	end := func(title string, end func([]byte, *ct.Tuple, Namer) []byte) Column[ct.Flow] {
		return Column[ct.Flow]{Name: title, Tail: true, Stays: true,
			Append: func(b []byte, f *ct.Flow) []byte { return end(b, &f.Orig, opt.Names) }}
	}
	cols = append(cols, proto,
		Column[ct.Flow]{Name: "state", Append: func(b []byte, f *ct.Flow) []byte {
			if f.Orig.Has(ct.TupleType | ct.TupleCode) {
				b = strconv.AppendUint(append(b, "type "...), uint64(f.Orig.Type), 10)
				b = strconv.AppendUint(append(b, '/'), uint64(f.Orig.Code), 10)
				return strconv.AppendUint(append(b, " id "...), uint64(f.Orig.ID), 10)
			}
			return append(b, stateWord(f)...)
		}},
		rowColumn("timeout", "timeout"),
		end("source", appendSrc), end("destination", appendDst),
		Column[ct.Flow]{Name: "translated", Tail: true, Append: appendTranslated},
		Column[ct.Flow]{Name: "packets", Right: true, Append: func(b []byte, f *ct.Flow) []byte {
			if !f.Has(ct.HasOrigPackets) {
				return b
			}
			return strconv.AppendUint(b, f.OrigCounters.Packets+f.ReplyCounters.Packets, 10)
		}},
		Column[ct.Flow]{Name: "bytes", Right: true, Append: func(b []byte, f *ct.Flow) []byte {
			if !f.Has(ct.HasOrigBytes) {
				return b
			}
			return strconv.AppendUint(b, f.OrigCounters.Bytes+f.ReplyCounters.Bytes, 10)
		}},
		Column[ct.Flow]{Name: "mark", Right: true, Append: func(b []byte, f *ct.Flow) []byte {
			if f.Mark == 0 {
				return b
			}
			return value.AppendHex(b, uint64(f.Mark))
		}},
		rowColumn("zone", "zone"),
		Column[ct.Flow]{Name: "status", Append: func(b []byte, f *ct.Flow) []byte {
			if !f.Has(ct.HasStatus) {
				return b
			}
			start := len(b)
			if f.Status&ct.StatusSeenReply == 0 {
				b = append(b, "UNREPLIED,"...)
			}
			const shown = ct.StatusExpected | ct.StatusAssured | ct.StatusDying | ct.StatusFixedTimeout |
				ct.StatusHelper | ct.StatusOffload | ct.StatusHWOffload
			for s := f.Status & shown; s != 0; s &= s - 1 {
				b = append(append(b, ct.StatusNames.Word(uint64(s&-s))...), ',')
			}
			if len(b) > start {
				b = b[:len(b)-1]
			}
			return b
		}})
	if opt.Rates {
		cols = append(cols, rateColumns(func(f *ct.Flow) ct.Rate { return f.Rate })...)
	}
	return cols
}

// rateColumns are how much an object grew a second.
func rateColumns[T any](of func(*T) ct.Rate) []Column[T] {
	column := func(name string, n func(ct.Rate) uint64) Column[T] {
		return Column[T]{Name: name, Right: true, Stays: true, Append: func(b []byte, t *T) []byte {
			if r := of(t); r.Known {
				b = strconv.AppendUint(b, n(r), 10)
			}
			return b
		}}
	}
	return []Column[T]{column("packets/s", func(r ct.Rate) uint64 { return r.Packets }),
		column("bytes/s", func(r ct.Rate) uint64 { return r.Bytes })}
}

// appendEnd appends ADDRESS:PORT, with brackets around an IPv6 address.
func appendEnd(b []byte, a netip.Addr, port uint16, has, hexPort bool) []byte {
	switch {
	case !has:
		return value.AppendAddr(b, a)
	case a.Is6():
		b = append(value.AppendAddr(append(b, '['), a), "]:"...)
	default:
		b = append(value.AppendAddr(b, a), ':')
	}
	if hexPort {
		return value.AppendHex(b, uint64(port))
	}
	return strconv.AppendUint(b, uint64(port), 10)
}

func appendSrc(b []byte, t *ct.Tuple, n Namer) []byte {
	return appendNamedEnd(b, t.Src, t.Sport, t, t.Has(ct.TupleSport), n)
}

func appendDst(b []byte, t *ct.Tuple, n Namer) []byte {
	return appendNamedEnd(b, t.Dst, t.Dport, t, t.Has(ct.TupleDport), n)
}

// appendTranslated appends to what a flow's ends are translated: without the address
// or the port that was kept.
func appendTranslated(b []byte, f *ct.Flow) []byte {
	_, snat, _, spat := f.SrcNAT()
	_, dnat, _, dpat := f.DstNAT()
	if snat || spat {
		b = appendNew(append(b, "src "...), f.Reply.Dst, f.Reply.Dport, snat, spat, f.Reply.Proto == ct.GRE)
	}
	if dnat || dpat {
		if snat || spat {
			b = append(b, ", "...)
		}
		b = appendNew(append(b, "dst "...), f.Reply.Src, f.Reply.Sport, dnat, dpat, f.Reply.Proto == ct.GRE)
	}
	return b
}

// appendNew appends the parts of an end that are new.
func appendNew(b []byte, a netip.Addr, port uint16, newAddr, newPort, hexPort bool) []byte {
	switch {
	case newAddr:
		return appendEnd(b, a, port, newPort, hexPort)
	case hexPort:
		return value.AppendHex(append(b, ':'), uint64(port))
	}
	return strconv.AppendUint(append(b, ':'), uint64(port), 10)
}

func expectTable(opt Options) []Column[ct.Expect] {
	row := func(name, title string) Column[ct.Expect] {
		c := RowColumn(ct.ExpectFields.Row(name))
		c.Name = title
		return c
	}
	ends := func(title string, at func(*ct.Expect) *ct.Tuple,
		end func([]byte, *ct.Tuple, Namer) []byte) Column[ct.Expect] {
		return Column[ct.Expect]{Name: title, Tail: true, Stays: !strings.HasPrefix(title, "master"),
			Append: func(b []byte, e *ct.Expect) []byte { return end(b, at(e), opt.Names) }}
	}
	var cols []Column[ct.Expect]
	if opt.Stream {
		cols = append(cols, row("event", "event"))
	}
	// An end of which the mask leaves the port open is shown without it.
	src := func(e *ct.Expect) *ct.Tuple {
		t := e.Tuple
		if e.Mask.Has(ct.TupleSport) && e.Mask.Sport == 0 {
			t.Present &^= ct.TupleSport
		}
		return &t
	}
	dst := func(e *ct.Expect) *ct.Tuple { return &e.Tuple }
	master := func(e *ct.Expect) *ct.Tuple { return &e.Master }
	return append(cols, row("tuple.proto", "proto"), row("timeout", "timeout"), ends("source", src, appendSrc),
		ends("destination", dst, appendDst), ends("master source", master, appendSrc),
		ends("master destination", master, appendDst),
		row("zone", "zone"), row("helper", "helper"), row("flags", "flags"))
}
