package table

import (
	"context"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/rate"
)

// A Repeat lists flows again and again, and knows how much each grew a second since the
// listing before. Its fields may be changed between two listings.
type Repeat struct {
	Choose *Choice[ct.Flow]
	Dump   ct.DumpOptions
	Order  *Order[ct.Flow] // nil: the kernel's
	Limit  uint64          // flows kept of an order; 0: all

	// By are the fields to group by; none: flows are listed. Groups are sorted by
	// GroupOrder; nil: those with the most flows come first.
	By         []*field.Row[ct.Flow]
	GroupOrder *Order[format.Group]

	store rate.Store
	begun bool
}

// A Round is what one listing found.
type Round struct {
	Time   time.Time      // when it began
	Rated  bool           // there was one before
	Flows  []*ct.Flow     // of an order
	Groups []format.Group // with By
	Chosen uint64         // how many flows were chosen
	Rate   ct.Rate        // of those together
	// Of the table, or what the kernel sent of it: the flows there are, those that the
	// listing before did not have, and those of that one that are gone.
	Seen, Began, Ended uint64
	Dump               ct.DumpResult
}

// Next lists the flows once. Without an order and groups each flow is handed to each, in
// the kernel's order, from the second listing on; nil: to nobody.
func (r *Repeat) Next(ctx context.Context, each func(*ct.Flow) error) (Round, error) {
	out := Round{Time: time.Now(), Rated: r.begun}
	have, _, err := Count()
	if err != nil {
		return out, err
	}
	r.store.Begin(out.Time, have)
	d, at := r.Dump, uint64(out.Time.UnixNano())
	d.Before = func(f *ct.Flow) {
		r.store.Add(f)
		f.Time, f.Listed = at, true
		if before := r.Dump.Before; before != nil {
			before(f)
		}
	}
	switch {
	case len(r.By) > 0:
		out.Groups, out.Dump, err = Groups(ctx, r.Choose, d, r.By, r.GroupOrder)
		for i := range out.Groups {
			g := &out.Groups[i]
			g.Time = at
			out.Chosen += g.Count
			out.add(g.Rate)
		}
	case r.Order == nil:
		how := Listing{Dump: d, InOrder: true, Reader: func() func(*ct.Flow) error {
			return func(f *ct.Flow) error {
				if out.add(f.Rate); each != nil && out.Rated {
					return each(f)
				}
				return nil
			}
		}}
		out.Chosen, out.Dump, err = List(ctx, r.Choose, how)
	default:
		var keepers []*Keeper[ct.Flow]
		var rates []*Round
		how := Listing{Dump: d, Reader: func() func(*ct.Flow) error {
			k, sum := NewFlowKeeper(r.Order, r.Limit), &Round{}
			keepers, rates = append(keepers, k), append(rates, sum)
			return func(f *ct.Flow) error {
				sum.add(f.Rate)
				return k.Add(f)
			}
		}}
		out.Chosen, out.Dump, err = List(ctx, r.Choose, how)
		for _, sum := range rates {
			out.add(sum.Rate)
		}
		out.Flows = Sorted(keepers...)
	}
	if err != nil {
		return out, err
	}
	r.begun = true
	out.Seen, out.Began, out.Ended = r.store.End()
	return out, nil
}

func (r *Round) add(of ct.Rate) { r.Rate = joined(r.Rate, of) }
