package table

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/value"
)

// GroupFields finds the fields by which flows are grouped: names, of addresses with the
// length of a network behind it, as orig.src/24; one over 32 is for IPv6 addresses, and
// orig.src/24/64 is for both. Addresses of a family without a length stay whole.
func GroupFields(names []string) (by []*field.Row[ct.Flow], err error) {
	if len(names) == 0 || slices.Contains(names, "") {
		return nil, Usagef("--group-by: want names of fields, as orig.src,orig.dport")
	}
	for _, text := range names {
		name, lengths, cut := strings.Cut(strings.TrimSpace(text), "/")
		r, err := ct.FlowFields.Find(name)
		if err != nil {
			return nil, Named("--group-by", err)
		}
		same := func(o *field.Row[ct.Flow]) bool { return o.Path == r.Path }
		if r.Path == "kind" || slices.ContainsFunc(by, same) {
			return nil, Named("--group-by", &value.Error{What: "field", Text: text,
				Valid: "fields of flows, each once"})
		}
		if cut {
			bits4, bits6, err := networkBits(lengths)
			if err != nil || r.Kind != field.Addr {
				return nil, Named("--group-by", &value.Error{What: "field", Text: text,
					Valid: "behind an address /24 for IPv4, /64 for IPv6, or /24/64 for both"})
			}
			r = ct.Networks(r, bits4, bits6)
		}
		by = append(by, r)
	}
	return by, nil
}

// networkBits reads the lengths behind a field's name.
func networkBits(text string) (bits4, bits6 int, err error) {
	for i, word := range strings.SplitN(text, "/", 2) {
		n, err := strconv.ParseUint(word, 10, 8)
		switch {
		case err != nil || n == 0 || n > 128:
			return 0, 0, strconv.ErrRange
		case i == 0 && n <= 32:
			bits4 = int(n)
		case bits6 == 0:
			bits6 = int(n)
		default:
			return 0, 0, strconv.ErrRange
		}
	}
	return bits4, bits6, nil
}

// A group is a group of flows and what tells it from others.
type group struct {
	key string
	format.Group
}

// A grouper counts the flows that one goroutine reads, by group.
type grouper struct {
	by     []*field.Row[ct.Flow]
	groups map[string]*group
	key    []byte
}

func (w *grouper) flow(f *ct.Flow) error {
	w.key = w.key[:0]
	for _, r := range w.by {
		w.key = appendKey(w.key, r, f)
	}
	g := w.groups[string(w.key)]
	if g == nil {
		g = &group{key: string(w.key)}
		for _, r := range w.by {
			g.Values = append(g.Values, valueOf(r, f))
		}
		w.groups[g.key] = g
	}
	g.Count++
	packets, counted := f.Packets()
	bytes, _ := f.Bytes()
	g.Counted = g.Counted || counted
	g.Packets += packets
	g.Bytes += bytes
	g.Rate = joined(g.Rate, f.Rate)
	return nil
}

// joined is how much both grew together.
func joined(a, b ct.Rate) ct.Rate {
	return ct.Rate{Bytes: a.Bytes + b.Bytes, Packets: a.Packets + b.Packets, Known: a.Known || b.Known}
}

func valueOf(r *field.Row[ct.Flow], f *ct.Flow) (v format.GroupValue) {
	switch {
	case r.Num != nil:
		v.Num, v.OK = r.Num(f)
	case r.IP != nil:
		v.Addr, v.OK = r.IP(f)
	case r.Data != nil:
		d, ok := r.Data(f)
		v.Data, v.OK = bytes.Clone(d), ok
	}
	return v
}

// appendKey appends a field's value so that values that differ do so in bytes,
// whatever comes before and behind.
func appendKey(b []byte, r *field.Row[ct.Flow], f *ct.Flow) []byte {
	switch {
	case r.Num != nil:
		if n, ok := r.Num(f); ok {
			return binary.BigEndian.AppendUint64(append(b, 1), n)
		}
	case r.IP != nil:
		if a, ok := r.IP(f); ok {
			d := a.As16()
			return append(append(b, byte(a.BitLen())), d[:]...)
		}
	case r.Data != nil:
		if d, ok := r.Data(f); ok {
			return append(binary.BigEndian.AppendUint32(append(b, 2), uint32(len(d))), d...)
		}
	}
	return append(b, 0)
}

// Groups counts the flows that were chosen by the values of some fields. Without an
// order the groups with the most flows come first, of these those with the most bytes.
func Groups(ctx context.Context, c *Choice[ct.Flow], d ct.DumpOptions,
	by []*field.Row[ct.Flow], order *Order[format.Group]) ([]format.Group, ct.DumpResult, error) {
	var workers []*grouper
	_, res, err := List(ctx, c, Listing{Dump: d, Reader: func() func(*ct.Flow) error {
		w := &grouper{by: by, groups: map[string]*group{}}
		workers = append(workers, w)
		return w.flow
	}})
	if err != nil {
		return nil, res, err
	}
	all := map[string]*group{}
	for _, w := range workers {
		for key, g := range w.groups {
			if have := all[key]; have != nil {
				have.Count, have.Packets, have.Bytes = have.Count+g.Count, have.Packets+g.Packets, have.Bytes+g.Bytes
				have.Counted = have.Counted || g.Counted
				have.Rate = joined(have.Rate, g.Rate)
			} else {
				all[key] = g
			}
		}
	}
	sorted := make([]*group, 0, len(all))
	for _, g := range all {
		sorted = append(sorted, g)
	}
	slices.SortFunc(sorted, func(a, b *group) int {
		if order != nil {
			if c := order.Compare(&a.Group, &b.Group); c != 0 {
				return c
			}
		}
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.key, b.key))
	})
	list := make([]format.Group, len(sorted))
	for i, g := range sorted {
		list[i] = g.Group
	}
	return list, res, nil
}
