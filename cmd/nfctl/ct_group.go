package main

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
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// groupFields reads --group-by.
func groupFields(names []string) (by []*field.Row[ct.Flow], err error) {
	for _, name := range names {
		r, err := ct.FlowFields.Find(strings.TrimSpace(name))
		if err != nil {
			return nil, named("--group-by", err)
		}
		if r.Path == "kind" || slices.Contains(by, r) {
			return nil, named("--group-by", &value.Error{What: "field", Text: name, Valid: "fields of flows, each once"})
		}
		by = append(by, r)
	}
	return by, nil
}

// A flowGroup is a group and what tells it from others.
type flowGroup struct {
	key string
	format.Group
}

// A grouper counts the flows of one dump by group.
type grouper struct {
	keep   func(*ct.Flow) bool
	by     []*field.Row[ct.Flow]
	groups map[string]*flowGroup
	key    []byte
}

// Flow implements ct.Worker.
func (w *grouper) Flow(f *ct.Flow) error {
	if w.keep != nil && !w.keep(f) {
		return nil
	}
	w.key = w.key[:0]
	for _, r := range w.by {
		w.key = appendKey(w.key, r, f)
	}
	g := w.groups[string(w.key)]
	if g == nil {
		g = &flowGroup{key: string(w.key)}
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

// Rest implements ct.Worker.
func (w *grouper) Rest() error { return nil }

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

func (a *app) ctGroups(ctx context.Context, o *ctListOptions, out format.Output, choose *table.Choice[ct.Flow], d ct.DumpOptions) error {
	by, err := groupFields(o.groupBy)
	if err != nil {
		return err
	}
	subject, by := format.Groups(by...)
	if _, err := format.New(subject, out, format.Options{}); err != nil {
		return &usageError{err}
	}
	var workers []*grouper
	res, err := ct.DumpParallel(ctx, d, func() ct.Worker {
		w := &grouper{keep: choose.Match, by: by, groups: map[string]*flowGroup{}}
		workers = append(workers, w)
		return w
	})
	if err != nil {
		return err
	}
	a.dumpNote(res)
	all := map[string]*flowGroup{}
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
	list := make([]*flowGroup, 0, len(all))
	for _, g := range all {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *flowGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.key, b.key))
	})
	groups := len(list)
	if o.top > 0 && uint64(groups) > o.top {
		list = list[:o.top]
	}
	p, k, err := printTo(a, subject, out, format.Options{})
	if err != nil {
		return err
	}
	if a.quiet {
		a.total("%d groups", groups)
		return notFound(o.failEmpty, uint64(groups))
	}
	for _, g := range list {
		k.b = p.Append(k.b, &g.Group)
		if k.full() {
			if err := k.flush(); err != nil {
				return err
			}
		}
	}
	return cmp.Or(finishPrint(p, k), notFound(o.failEmpty, uint64(groups)))
}
