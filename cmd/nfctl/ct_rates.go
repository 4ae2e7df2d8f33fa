package main

import (
	"cmp"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// ctRates lists flows or groups again and again, with what they grew by a second.
func (a *app) ctRates(c *cobra.Command, o *ctListOptions, out format.Output, choose *table.Choice[ct.Flow],
	d ct.DumpOptions) error {
	if out.Format == format.XML || out.Format == format.Save {
		return usagef("--interval: want -o text, table, json, csv, tsv, flow or a template")
	}
	r := &table.Repeat{Choose: choose, Dump: d, Limit: o.limit}
	var groups *format.Subject[format.Group]
	var err error
	switch {
	case c.Flags().Changed("group-by"):
		groups, r.By, r.GroupOrder, err = o.groups(out)
	case o.sort != "":
		r.Order, err = table.FlowOrder(o.sort)
	}
	if err != nil {
		return err
	}
	flows := &rounds[ct.Flow]{a: a, subject: format.Flows, out: out}
	sums := &rounds[format.Group]{a: a, subject: groups, out: out}
	st := o.stream.start(a, c.Context(), func() {}, endPatience)
	defer st.Stop()
	for {
		began, n := time.Now(), uint64(0)
		round, err := r.Next(st, func(f *ct.Flow) error {
			if n++; o.limit > 0 && n > o.limit {
				return nil
			}
			return flows.print(f)
		})
		if err != nil && st.Err() == nil {
			return err
		}
		if st.Err() != nil {
			break
		}
		a.dumpNote(round.Dump)
		if round.Rated && st.Take() {
			for _, f := range round.Flows {
				err = cmp.Or(err, flows.print(f))
			}
			if most := cmp.Or(o.top, o.limit); most > 0 && uint64(len(round.Groups)) > most {
				round.Groups = round.Groups[:most]
			}
			for i := range round.Groups {
				err = cmp.Or(err, sums.print(&round.Groups[i]))
			}
			if err = cmp.Or(err, flows.end(), sums.end()); err != nil {
				if errors.Is(err, unix.EPIPE) {
					return nil
				}
				return err
			}
		}
		select {
		case <-st.Done():
		case <-time.After(time.Until(began.Add(o.interval))):
			continue
		}
		break
	}
	return o.stream.result(st)
}

// A rounds prints the objects of one listing after the other: a table has its head over
// each, and a blank line between them, csv and tsv have one head.
type rounds[T any] struct {
	a       *app
	subject *format.Subject[T]
	out     format.Output
	p       *format.Printer[T]
	k       *sink
	later   bool // there was a listing
}

func (r *rounds[T]) print(t *T) error {
	if r.a.quiet {
		return nil
	}
	if r.p == nil {
		p, err := format.New(r.subject, r.out, format.Options{Color: r.a.colored(), Rates: true})
		if err != nil {
			return &usageError{err}
		}
		if r.p = p; r.k == nil {
			r.k = &sink{w: r.a.out}
		}
		if !r.later {
			r.k.b = p.Begin(r.k.b)
		} else if r.out.Format == format.Table {
			r.k.b = append(r.k.b, '\n')
		}
		r.later = true
	}
	if r.k.b = r.p.Append(r.k.b, t); r.k.full() {
		return r.k.flush()
	}
	return nil
}

// end ends a listing.
func (r *rounds[T]) end() error {
	if r.p == nil {
		return nil
	}
	r.k.b = r.p.Flush(r.k.b)
	err := cmp.Or(r.k.flush(), r.p.Err())
	if r.out.Format == format.Table {
		r.p = nil
	}
	return err
}
