package format

import (
	"net/netip"
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
)

// A Group is the flows that are alike in some fields.
type Group struct {
	Values                []GroupValue // of the fields, in the order that Groups returned
	Count, Packets, Bytes uint64
	Counted               bool // some of them have counters
	Rate                  ct.Rate
	Time                  uint64 // of the listing, ns since the epoch; 0: there is but one
}

// A GroupValue is the value of a field: a number, an address or bytes, as its
// kind is. Without OK the flows do not have the field.
type GroupValue struct {
	OK   bool
	Num  uint64
	Addr netip.Addr
	Data []byte
}

// Groups makes the kind of object that flows grouped by some fields are. It
// returns the fields too, in the order of their values: those of one JSON object
// stand together.
func Groups(by ...*field.Row[ct.Flow]) (*Subject[Group], []*field.Row[ct.Flow]) {
	parent := func(r *field.Row[ct.Flow]) string { head, _, _ := strings.Cut(r.Path, "."); return head }
	sorted := slices.Clone(by)
	slices.SortStableFunc(sorted, func(a, b *field.Row[ct.Flow]) int {
		at := func(r *field.Row[ct.Flow]) int {
			return slices.IndexFunc(by, func(o *field.Row[ct.Flow]) bool { return parent(o) == parent(r) })
		}
		return at(a) - at(b)
	})
	var rows []field.Row[Group]
	for i, r := range sorted {
		row := field.Row[Group]{Path: r.Path, Aliases: r.Aliases, Kind: r.Kind, Doc: r.Doc, Names: r.Names, Max: r.Max,
			Parse: r.Parse, AppendNum: r.AppendNum, Bit: r.Bit}
		switch {
		case r.Num != nil:
			row.Num = func(g *Group) (uint64, bool) { return g.Values[i].Num, g.Values[i].OK }
		case r.IP != nil:
			row.IP = func(g *Group) (netip.Addr, bool) { return g.Values[i].Addr, g.Values[i].OK }
		default:
			row.Data = func(g *Group) ([]byte, bool) { return g.Values[i].Data, g.Values[i].OK }
		}
		rows = append(rows, row)
	}
	rows = append(rows,
		num("count", "how many flows", func(g *Group) (uint64, bool) { return g.Count, true }),
		num("packets", "their packets, of both directions", func(g *Group) (uint64, bool) {
			return g.Packets, g.Counted
		}),
		num("bytes", "their bytes, of both directions", func(g *Group) (uint64, bool) { return g.Bytes, g.Counted }),
		num("rate.packets", "their packets a second, with --interval", func(g *Group) (uint64, bool) {
			return g.Rate.Packets, g.Rate.Known
		}),
		num("rate.bytes", "their bytes a second, with --interval", func(g *Group) (uint64, bool) {
			return g.Rate.Bytes, g.Rate.Known
		}),
		field.Row[Group]{Path: "time", Kind: field.Time, Doc: "when they were listed, with --interval",
			Num: func(g *Group) (uint64, bool) { return g.Time, g.Time != 0 }})
	s := &Subject[Group]{Kind: "group", Fields: field.New(func() []field.Row[Group] { return rows })}
	for _, r := range rows[:len(sorted)+3] {
		s.Columns = append(s.Columns, r.Path)
	}
	s.Table = func(opt Options) []Column[Group] {
		var cols []Column[Group]
		for i := range rows[:len(sorted)+3] {
			cols = append(cols, RowColumn(&rows[i]))
		}
		if opt.Rates {
			cols = append(cols, rateColumns(func(g *Group) ct.Rate { return g.Rate })...)
		}
		return cols
	}
	return s, sorted
}
