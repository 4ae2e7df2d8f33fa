package main

import (
	"cmp"
	"context"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// ctGroups prints how many flows there are of each combination of fields.
func (a *app) ctGroups(ctx context.Context, o *ctListOptions, out format.Output, choose *table.Choice[ct.Flow],
	d ct.DumpOptions) error {
	subject, by, order, err := o.groups(out)
	if err != nil {
		return err
	}
	list, res, err := table.Groups(ctx, choose, d, by, order)
	if err != nil {
		return err
	}
	a.dumpNote(res)
	groups := uint64(len(list))
	if most := cmp.Or(o.top, o.limit); most > 0 && groups > most {
		list = list[:most]
	}
	p, k, err := printTo(a, subject, out, format.Options{})
	if err != nil {
		return err
	}
	if a.quiet {
		a.total("%d groups", groups)
		return notFound(o.failEmpty, groups)
	}
	for i := range list {
		k.b = p.Append(k.b, &list[i])
		if k.full() {
			if err := k.flush(); err != nil {
				return err
			}
		}
	}
	return cmp.Or(finishPrint(p, k), notFound(o.failEmpty, groups))
}

// groups reads --group-by and the --sort of groups.
func (o *ctListOptions) groups(out format.Output) (subject *format.Subject[format.Group], by []*field.Row[ct.Flow],
	order *table.Order[format.Group], err error) {
	if by, err = table.GroupFields(o.groupBy); err != nil {
		return nil, nil, nil, err
	}
	subject, by = format.Groups(by...)
	if _, err := format.New(subject, out, format.Options{}); err != nil {
		return nil, nil, nil, &usageError{err}
	}
	if o.sort != "" {
		order, err = table.ParseOrder(subject.Fields, o.sort)
	}
	return subject, by, order, err
}
