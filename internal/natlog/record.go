// Package natlog keeps a log of address translations, and finds in such logs who had an
// address and port at a time.
//
// A log is a stream of records. Translations begin and end; alive says that one was
// there already when the log, or a piece of it, began. Between start or lost and synced
// not everything is known: that is a gap, which reaches back to since. Behind stop
// nothing is known either.
package natlog

import (
	"net/netip"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/value"
)

// An Event says what a Record tells.
type Event uint8

// The events. Those of translations come first.
const (
	Begin  Event = iota // a translation began
	Alive               // it was there already
	End                 // it ended
	Start               // the log was begun, or gone on with: a gap until Synced
	Lost                // events were lost: a gap from Since until Synced
	Synced              // all translations are known from here on
	Piece               // another file begins: what is alive follows. Since: the last record before
	Stop                // the log ends as it should
	Gap                 // of a search: nothing, or not all, is known from Since to Time
)

var events = value.NewNamesOf("event", 255, func() []value.Name {
	var list []value.Name
	for i, word := range []string{"begin", "alive", "end", "start", "lost", "synced", "piece", "stop", "gap"} {
		list = append(list, value.Name{Word: word, Num: uint64(i)})
	}
	return list
})

// A Place is an address with a port, or with the identifier of ICMP.
type Place struct {
	Addr netip.Addr
	Port uint16
}

// A Record is a line of a log.
type Record struct {
	Time  uint64 // ns since the epoch
	Event Event
	Since uint64 // when the translation began, or the gap; ns since the epoch; 0: not known
	Until uint64 // of a search: when it ended; 0: not in what was read

	Of      uint8 // which side is translated: Source, Destination
	Family  uint8
	Proto   uint8
	ID      uint32 // of the flow
	Zone    uint16
	Inside  Place // the address that others do not see
	Outside Place // what they see instead
	To      Place // the other end

	Packets, Bytes uint64 // of both directions, of an end
	Counted        bool
	Unsure         bool // the end is not later than Time, and was not seen

	Count      uint64 // events lost
	CountKnown bool
}

// Of what a translation changes.
const (
	Source      = 1
	Destination = 2
)

var sides = value.NewNames("side", 2, value.Name{Word: "src", Num: Source}, value.Name{Word: "dst", Num: Destination})

func (r *Record) translation() bool {
	return r.Event <= End || r.Event == Gap && r.Inside.Addr.IsValid()
}

func placeRows(name, doc string, get func(*Record) *Place) []field.Row[Record] {
	part := &field.Part[Record]{Has: func(r *Record) bool { return get(r).Addr.IsValid() }}
	return []field.Row[Record]{
		{Path: name + ".addr", Kind: field.Addr, Doc: doc, Part: part,
			IP: func(r *Record) (netip.Addr, bool) { p := get(r); return p.Addr, p.Addr.IsValid() }},
		{Path: name + ".port", Kind: field.Uint, Max: 0xffff, Doc: "its port, key or ICMP identifier", Part: part,
			Num: func(r *Record) (uint64, bool) { p := get(r); return uint64(p.Port), p.Addr.IsValid() }},
	}
}

// Fields are the fields of a record.
var Fields = &field.Registry[Record]{Make: func() []field.Row[Record] {
	rows := []field.Row[Record]{
		{Path: "time", Kind: field.Time, Doc: "when; of an alive one, when that was written",
			Num: func(r *Record) (uint64, bool) { return r.Time, r.Time != 0 }},
		{Path: "event", Kind: field.Enum, Names: events, Max: 255,
			Doc: "begin, alive, end; start, lost, synced, piece, stop; of a search gap",
			Num: func(r *Record) (uint64, bool) { return uint64(r.Event), true }},
		{Path: "since", Kind: field.Time,
			Doc: "when the translation began, or the gap; of a piece, when the record before it was",
			Num: func(r *Record) (uint64, bool) { return r.Since, r.Since != 0 }},
		{Path: "until", Kind: field.Time, Doc: "when it ended, of a search",
			Num: func(r *Record) (uint64, bool) { return r.Until, r.Until != 0 }},
		{Path: "of", Kind: field.Enum, Names: sides, Max: 255, Doc: "what is translated: src or dst",
			Num: func(r *Record) (uint64, bool) { return uint64(r.Of), r.Of != 0 }},
		{Path: "family", Kind: field.Enum, Names: value.Families, Max: 255, Doc: "address family",
			Num: func(r *Record) (uint64, bool) { return uint64(r.Family), r.Of != 0 }},
		{Path: "proto", Kind: field.Enum, Names: value.Protocols, Max: 255, Doc: "protocol",
			Num: func(r *Record) (uint64, bool) { return uint64(r.Proto), r.Of != 0 }},
	}
	rows = append(rows, placeRows("inside", "address that others do not see",
		func(r *Record) *Place { return &r.Inside })...)
	rows = append(rows, placeRows("outside", "address that they see instead",
		func(r *Record) *Place { return &r.Outside })...)
	rows = append(rows, placeRows("to", "address of the other end", func(r *Record) *Place { return &r.To })...)
	return append(rows,
		field.Row[Record]{Path: "zone", Kind: field.Uint, Max: 0xffff, Doc: "conntrack zone",
			Num: func(r *Record) (uint64, bool) { return uint64(r.Zone), r.Zone != 0 }},
		field.Row[Record]{Path: "id", Kind: field.Uint, Max: 1<<32 - 1, Doc: "the flow's id",
			Num: func(r *Record) (uint64, bool) { return uint64(r.ID), r.Of != 0 }},
		field.Row[Record]{Path: "duration", Kind: field.Uint, Doc: "how long it lasted, in ms; of an end",
			Num: func(r *Record) (uint64, bool) {
				end := r.Time
				if r.Until != 0 {
					end = r.Until
				}
				return (end - r.Since) / 1e6, r.Since != 0 && end >= r.Since && (r.Event == End || r.Until != 0)
			}},
		field.Row[Record]{Path: "packets", Kind: field.Uint, Doc: "packets of both directions; of an end, where " +
			"they are counted",
			Num: func(r *Record) (uint64, bool) { return r.Packets, r.Counted }},
		field.Row[Record]{Path: "bytes", Kind: field.Uint, Doc: "bytes of both directions, likewise",
			Num: func(r *Record) (uint64, bool) { return r.Bytes, r.Counted }},
		field.Row[Record]{Path: "unsure", Kind: field.Bool, Max: 1, Doc: "true: it ended some time in the gap " +
			"before; else absent",
			Num: func(r *Record) (uint64, bool) { return 1, r.Unsure }},
		field.Row[Record]{Path: "count", Kind: field.Uint, Doc: "events lost, where that is known",
			Num: func(r *Record) (uint64, bool) { return r.Count, r.Event == Lost && r.CountKnown }},
	)
}}

// ends returns what a flow's tuples say of its translations: of the source, of the
// destination.
func ends(f *ct.Flow) (src, dst bool) {
	o, r := &f.Orig, &f.Reply
	if !o.Src.IsValid() || !r.Src.IsValid() {
		return false, false
	}
	if o.Has(ct.TupleID) && r.Has(ct.TupleID) { // an identifier belongs to whoever asks
		return r.Dst != o.Src || r.ID != o.ID, r.Src != o.Dst
	}
	return r.Dst != o.Src || r.Dport != o.Sport, r.Src != o.Dst || r.Sport != o.Dport
}
