package table

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/value"
)

// An Order is by which fields objects are sorted.
type Order[T any] struct {
	keys []orderKey[T]
	tie  func(a, b *T) int // tells objects apart that the fields do not; nil: nothing does
}

type orderKey[T any] struct {
	compare func(a, b *T) int
	has     func(*T) bool
	desc    bool
}

// ParseOrder reads FIELD[:asc|:desc] with commas between several, the first of which
// counts most: "orig.src,bytes:desc". What lacks a field comes behind what has it. Names
// and texts are sorted by their letters, everything else by its number.
func ParseOrder[T any](reg *field.Registry[T], text string) (*Order[T], error) {
	o := &Order[T]{}
	for word := range strings.SplitSeq(text, ",") {
		name, way, _ := strings.Cut(strings.TrimSpace(word), ":")
		row, err := reg.Find(name)
		if err != nil {
			return nil, Named("--sort", err)
		}
		if way != "" && way != "asc" && way != "desc" {
			return nil, Named("--sort", &value.Error{What: "order", Text: word,
				Valid: "a field, alone or with :asc or :desc behind it"})
		}
		o.keys = append(o.keys, orderKey[T]{comparison(row), row.Has, way == "desc"})
	}
	return o, nil
}

// FlowOrder is ParseOrder for flows; flows that the fields do not tell apart are in the
// order of their addresses and ports.
func FlowOrder(text string) (*Order[ct.Flow], error) {
	o, err := ParseOrder(ct.FlowFields, text)
	if err == nil {
		o.tie = byTuple
	}
	return o, err
}

func byTuple(a, b *ct.Flow) int {
	x, y := &a.Orig, &b.Orig
	return cmp.Or(cmp.Compare(x.Proto, y.Proto), x.Src.Compare(y.Src), cmp.Compare(x.Sport, y.Sport),
		x.Dst.Compare(y.Dst), cmp.Compare(x.Dport, y.Dport), cmp.Compare(x.Type, y.Type),
		cmp.Compare(x.Code, y.Code), cmp.Compare(x.ID, y.ID), cmp.Compare(a.Zone, b.Zone),
		cmp.Compare(x.Zone, y.Zone), cmp.Compare(a.ID, b.ID))
}

// comparison compares two objects that both have the field.
func comparison[T any](r *field.Row[T]) func(a, b *T) int {
	switch {
	case r.Kind == field.Enum && r.Names != nil:
		return func(a, b *T) int {
			m, _ := r.Num(a)
			n, _ := r.Num(b)
			if m == n {
				return 0
			}
			return cmp.Or(strings.Compare(r.Names.Word(m), r.Names.Word(n)), cmp.Compare(m, n))
		}
	case r.Num != nil:
		return func(a, b *T) int {
			m, _ := r.Num(a)
			n, _ := r.Num(b)
			return cmp.Compare(m, n)
		}
	case r.IP != nil:
		return func(a, b *T) int {
			m, _ := r.IP(a)
			n, _ := r.IP(b)
			return m.Compare(n)
		}
	}
	return func(a, b *T) int {
		m, _ := r.Data(a)
		n, _ := r.Data(b)
		return bytes.Compare(m, n)
	}
}

// Compare is negative where a comes before b.
func (o *Order[T]) Compare(a, b *T) int {
	for i := range o.keys {
		k := &o.keys[i]
		has, other := k.has(a), k.has(b)
		switch {
		case has && other:
			if c := k.compare(a, b); c != 0 {
				if k.desc {
					return -c
				}
				return c
			}
		case has:
			return -1
		case other:
			return 1
		}
	}
	if o.tie != nil {
		return o.tie(a, b)
	}
	return 0
}

// A Keeper keeps the first n objects of an order, or all, of those that it is given.
type Keeper[T any] struct {
	order *Order[T]
	n     uint64            // 0: all
	copy  func(to, from *T) // makes to an object of its own, like from
	kept  []*T              // with n a heap, the last of them on top
}

// NewFlowKeeper returns a keeper of flows: the first n, or with 0 all.
func NewFlowKeeper(o *Order[ct.Flow], n uint64) *Keeper[ct.Flow] {
	return &Keeper[ct.Flow]{order: o, n: n, copy: func(to, from *ct.Flow) { to.Copy(from) }}
}

// Add looks at an object, which may change afterwards.
func (k *Keeper[T]) Add(t *T) error {
	if k.n == 0 || uint64(len(k.kept)) < k.n {
		own := new(T)
		k.copy(own, t)
		if k.kept = append(k.kept, own); k.n > 0 {
			k.up(len(k.kept) - 1)
		}
		return nil
	}
	if k.order.Compare(t, k.kept[0]) < 0 {
		k.copy(k.kept[0], t)
		k.down()
	}
	return nil
}

// up moves what is at i of the heap to its place, on the way to the top.
func (k *Keeper[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if k.order.Compare(k.kept[parent], k.kept[i]) >= 0 {
			return
		}
		k.kept[parent], k.kept[i] = k.kept[i], k.kept[parent]
		i = parent
	}
}

// down moves what is on top of the heap to its place.
func (k *Keeper[T]) down() {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(k.kept) {
			return
		}
		if r := child + 1; r < len(k.kept) && k.order.Compare(k.kept[r], k.kept[child]) > 0 {
			child = r
		}
		if k.order.Compare(k.kept[i], k.kept[child]) >= 0 {
			return
		}
		k.kept[i], k.kept[child] = k.kept[child], k.kept[i]
		i = child
	}
}

// Sorted returns what several keepers of one order and number have kept, in order.
func Sorted[T any](keepers ...*Keeper[T]) []*T {
	var all []*T
	for _, k := range keepers {
		all = append(all, k.kept...)
	}
	if len(keepers) == 0 {
		return nil
	}
	first := keepers[0]
	slices.SortFunc(all, first.order.Compare)
	if first.n > 0 && uint64(len(all)) > first.n {
		all = all[:first.n]
	}
	return all
}
