package table

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/value"
)

// GroupFields finds the fields by which flows are grouped.
func GroupFields(names []string) (by []*field.Row[ct.Flow], err error) {
	if len(names) == 0 || slices.Contains(names, "") {
		return nil, Usagef("--group-by: want names of fields, as orig.src,orig.dport")
	}
	for _, name := range names {
		r, err := ct.FlowFields.Find(strings.TrimSpace(name))
		if err != nil {
			return nil, Named("--group-by", err)
		}
		if r.Path == "kind" || slices.Contains(by, r) {
			return nil, Named("--group-by", &value.Error{What: "field", Text: name,
				Valid: "fields of flows, each once"})
		}
		by = append(by, r)
	}
	return by, nil
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
	g.Counted = g.Counted || f.Present&(ct.HasOrigCounters|ct.HasReplyCounters) != 0
	g.Packets += f.OrigCounters.Packets + f.ReplyCounters.Packets
	g.Bytes += f.OrigCounters.Bytes + f.ReplyCounters.Bytes
	return nil
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

// Groups counts the flows that were chosen by the values of some fields. The groups
// with the most flows come first, of these those with the most bytes.
func Groups(ctx context.Context, c *Choice[ct.Flow], d ct.DumpOptions,
	by []*field.Row[ct.Flow]) ([]format.Group, ct.DumpResult, error) {
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
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.key, b.key))
	})
	list := make([]format.Group, len(sorted))
	for i, g := range sorted {
		list[i] = g.Group
	}
	return list, res, nil
}
