package main

import (
	"cmp"
	"context"
	"net/netip"
	"sync"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// A kind is a sort of objects that commands choose, list, count, delete and update in
// the same way: flows or expectations.
type kind[T any] struct {
	noun    string // one of them
	without string // why there may be none
	subject *format.Subject[T]
	fields  *field.Registry[T]
	flags   []ct.Flag // that choose some
	choose  func(*table.Filter) (*table.Choice[T], error)
	each    func(context.Context, *table.Choice[T], func(*T) error) (table.Edited, error)
	edited  func(*tally) // counts one that was changed
	addrs   func(*T, func(netip.Addr))
}

var flowKind = kind[ct.Flow]{"flow", "the kernel fills the table only where a rule uses conntrack; 'nfctl doctor' " +
	"says whether one does here", format.Flows, ct.FlowFields, ct.FlowFlags, table.Flows, table.Each,
	(*tally).flow, (*ct.Flow).Addrs}

var expectKind = kind[ct.Expect]{"expectation", "a helper makes them, for a flow that was given one",
	format.Expects, ct.ExpectFields, ct.ExpectFlags, table.Expects, table.EachExpect,
	(*tally).expect, (*ct.Expect).Addrs}

// A choosing is the flags of a command that chooses objects and changes them, or not.
type choosing struct {
	filter                 filterOptions
	all, dryRun, failEmpty bool
	zoneMap                table.ZoneMap // of what is saved

	elsewhere bool // not in the table itself: that it is empty says nothing
}

// register adds the flags that choose.
func (k *kind[T]) register(c *cobra.Command, o *choosing) {
	c.Flags().SortFlags = false
	k.registerFilter(c, &o.filter)
}

func (k *kind[T]) registerFilter(c *cobra.Command, o *filterOptions) {
	registerFilter(c, k.flags, o)
	if k.noun == expectKind.noun { // which have no labels
		_ = c.Flags().MarkHidden("labelmap")
	}
}

// registerFailEmpty adds the flag that makes an empty choice a failure.
func (o *choosing) registerFailEmpty(c *cobra.Command) {
	c.Flags().BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
}

// chosen reads a command's arguments and flags.
func (k *kind[T]) chosen(o *choosing, args []string) (*table.Choice[T], error) {
	if err := o.filter.args(args); err != nil {
		return nil, err
	}
	return k.choose(&o.filter.Filter)
}

// A printer prints objects in one format, gathering what it writes. nil prints none.
type printer[T any] struct {
	p *format.Printer[T]
	*sink
}

// printer begins a command's output of objects, unless it is to be quiet.
func (k *kind[T]) printer(a *app, quiet bool) (*printer[T], error) {
	out, err := a.outputOf(false)
	if err != nil {
		return nil, err
	}
	p, s, err := printTo(a, k.subject, out, format.Options{})
	if err != nil || quiet {
		return nil, err
	}
	return &printer[T]{p, s}, nil
}

func (w *printer[T]) print(t *T) error {
	if w == nil {
		return nil
	}
	if w.b = w.p.Append(w.b, t); w.full() {
		return w.flush()
	}
	return nil
}

func (w *printer[T]) end() error {
	if w == nil {
		return nil
	}
	return finishPrint(w.p, w.sink)
}

// list prints what read hands to the functions that reader returns, one for each
// goroutine, and returns how many there were.
func (k *kind[T]) list(
	ctx context.Context, a *app, out format.Output, o *choosing,
	read func(reader func() func(*T) error, failed func(error)) (uint64, ct.DumpResult, error),
) error {
	l := &lister[T]{a: a, subject: k.subject, out: out}
	if err := l.begin(); err != nil {
		return err
	}
	reader := l.reader
	if a.quiet {
		reader = nil
	}
	bad := &failures{a: a, noun: k.noun}
	n, res, err := read(reader, bad.add)
	err = cmp.Or(err, bad.result(), ctx.Err())
	if !a.quiet {
		err = cmp.Or(err, l.end())
	}
	if err != nil {
		return ended(ctx, err)
	}
	a.dumpNote(res)
	switch {
	case a.quiet || a.verbose > 0:
		a.total("%s", plural(n, k.noun))
	case n > 0:
	case o.filter.Any():
		a.nothing("no %s matches", k.noun)
	case o.elsewhere:
		a.nothing("no %ss", k.noun)
	default:
		a.nothing("no %ss: %s", k.noun, k.without)
	}
	return notFound(o.failEmpty, n)
}

// nothing says on a terminal, where a table has not even a head then, why it shows
// nothing.
func (a *app) nothing(format string, args ...any) {
	if !a.quiet && isTerminal(a.out) {
		a.warn(format, args...)
	}
}

// A lister prints objects that several goroutines read.
type lister[T any] struct {
	a        *app
	subject  *format.Subject[T]
	out      format.Output
	mu       sync.Mutex // standard output
	printers []*printer[T]
}

// reader returns what prints the objects that one goroutine reads.
func (l *lister[T]) reader() func(*T) error {
	p, _ := format.New(l.subject, l.out, format.Options{Color: l.a.colored()}) // begin tried it
	w := &printer[T]{p, &sink{w: l.a.out, mu: &l.mu}}
	l.printers = append(l.printers, w)
	return w.print
}

// begin writes what stands before the first object.
func (l *lister[T]) begin() error {
	_, k, err := printTo(l.a, l.subject, l.out, format.Options{})
	if err != nil || l.a.quiet || l.out.Format == format.Table {
		return err
	}
	return k.flush()
}

// end writes what is held back, and what stands behind the last object.
func (l *lister[T]) end() error {
	if len(l.printers) == 0 {
		l.reader() // also an empty document has its end
	}
	for i, w := range l.printers {
		if i == len(l.printers)-1 {
			return w.end()
		}
		w.b = w.p.Flush(w.b)
		if err := cmp.Or(w.flush(), w.p.Err()); err != nil {
			return err
		}
	}
	return nil
}

// count prints how many read counts of the objects, and of how many there may be.
func (k *kind[T]) count(
	a *app, c *cobra.Command, failEmpty bool, read func(context.Context) (n, most uint64, res ct.DumpResult, err error),
) error {
	if _, err := a.outputOf(false); err != nil {
		return err
	}
	ctx, stop := a.interruptible(c, k.noun, "")
	defer stop()
	n, most, res, err := read(ctx)
	if err != nil {
		return ended(ctx, err)
	}
	a.dumpNote(res)
	if err := printAll(a, format.Counts, format.Count{Of: k.noun + "s", Count: n, Max: most}); err != nil {
		return err
	}
	return notFound(failEmpty, n)
}

// change does to what was chosen what edit does, says so, and prints it as w; did is
// what is done to each: "deleted".
func (k *kind[T]) change(
	a *app, c *cobra.Command, choose *table.Choice[T], o *choosing, did string,
	edit func(context.Context, table.Edit[T]) (table.Edited, error),
) error {
	w, err := k.printer(a, a.quiet)
	if err != nil {
		return err
	}
	if choose.Looks("idle") {
		a.idleNote()
	}
	doing := did
	if o.dryRun {
		doing = ""
	}
	ctx, stop := a.interruptible(c, k.noun, doing)
	defer stop()
	if o.dryRun {
		return ended(ctx, k.only(ctx, a, choose, w, did, o.failEmpty))
	}
	return ended(ctx, k.edit(a, w, did, o.failEmpty, func(how table.Edit[T]) (table.Edited, error) {
		return edit(ctx, how)
	}))
}

// edit runs an edit and says what it did; w prints what was edited.
func (k *kind[T]) edit(
	a *app, w *printer[T], did string, failEmpty bool, edit func(table.Edit[T]) (table.Edited, error),
) error {
	bad := &failures{a: a, noun: k.noun}
	how := table.Edit[T]{Edited: func() { k.edited(&a.changed) }, Failed: bad.add}
	if w != nil {
		how.Done = w.print
	}
	done, err := edit(how)
	if done.Flushed {
		if err == nil {
			a.total("the kernel %s what matched", did)
		}
		return err
	}
	a.dumpNote(done.Dump)
	err = cutShort(err)
	err = cmp.Or(err, w.end())
	err = cmp.Or(err, bad.result())
	a.total("%s %s", plural(done.Done, k.noun), did)
	if err != nil {
		return err
	}
	return notFound(failEmpty, done.Matched)
}

// only prints what was chosen, and says that it would be changed or deleted.
func (k *kind[T]) only(
	ctx context.Context, a *app, choose *table.Choice[T], w *printer[T], did string, failEmpty bool,
) error {
	got, err := k.each(ctx, choose, w.print)
	a.dumpNote(got.Dump)
	if e := w.end(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	a.total("%s would be %s", plural(got.Matched, k.noun), did)
	return notFound(failEmpty, got.Matched)
}
