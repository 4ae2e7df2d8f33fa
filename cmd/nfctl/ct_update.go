package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/value"
)

// ctUpdateOptions are the flags of 'nfctl ct update'.
type ctUpdateOptions struct {
	filter             filterOptions
	sets               []string
	labelAdd, labelDel []string
	dryRun, failEmpty  bool
}

func newCtUpdate(a *app) *cobra.Command {
	o := &ctUpdateOptions{}
	c := &cobra.Command{
		Use:   "update [FLOW] --set NAME=VALUE",
		Short: "Change flows",
		Long: `Changes the flows that words, flags and expressions choose, and prints them as
they then are. What changes is said by --set, --label-add and --label-del alone;
every other flag chooses. 'nfctl attr list' tells what can be changed.

Under a mask, --set mark=V/M changes only the mark's bits in M. A helper can only
be removed, by an empty name: '--set helper='`,
		Example: `  nfctl ct update 'tcp > :22' --set mark=7
  nfctl ct update --mark 7 --set mark=0 --set timeout=1h
  nfctl ct update --src 10.0.0.0/8 --label-add internal --label-del 3`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.filter.args(args); err != nil {
				return err
			}
			return a.ctUpdate(c, o)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVar(&o.sets, "set", nil, "change an attribute: `NAME=VALUE`")
	f.StringArrayVar(&o.labelAdd, "label-add", nil, "add these `labels`")
	f.StringArrayVar(&o.labelDel, "label-del", nil, "take these `labels` away, or 'all'")
	registerFlowFilter(c, &o.filter)
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be changed, as it is")
	f.BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
}

// allLabels stands for every label where labels are taken away.
const allLabels = "all"

// A change is what an update does to flows; some of it depends on the protocol.
type change struct {
	o       *ctUpdateOptions
	byProto map[uint8]*ct.Flow
	errs    map[uint8]error
	next    ct.Flow  // of the flow at hand
	del     [16]byte // labels to take away
	onlyDel bool     // nothing else is asked for
}

func (o *ctUpdateOptions) change() (*change, error) {
	if err := onceEach(ct.FlowAttrs(), o.sets); err != nil {
		return nil, err
	}
	if len(o.sets) == 0 && len(o.labelAdd) == 0 && len(o.labelDel) == 0 {
		return nil, usagef("nothing to change: say what with --set NAME=VALUE, --label-add or --label-del")
	}
	c := &change{o: o, byProto: map[uint8]*ct.Flow{}, errs: map[uint8]error{}}
	c.onlyDel = len(o.sets) == 0 && len(o.labelAdd) == 0
	// Try it on protocols of all kinds: what fits none is a mistake.
	var err error
	for _, proto := range []uint8{ct.TCP, ct.SCTP, ct.DCCP} {
		if _, err = c.of(&ct.Flow{Orig: ct.Tuple{Proto: proto, Present: ct.TupleProto}}); err == nil {
			break
		}
	}
	if err != nil {
		_, err = c.of(&ct.Flow{Orig: ct.Tuple{Proto: ct.TCP, Present: ct.TupleProto}})
		return nil, &usageError{err}
	}
	return c, nil
}

// of returns the change for f. It is valid until the next call.
func (c *change) of(f *ct.Flow) (*ct.Flow, error) {
	proto := f.Orig.Proto
	if d := c.byProto[proto]; d != nil {
		c.next = *d
		c.next.Complete(f)
		return &c.next, nil
	}
	if err := c.errs[proto]; err != nil {
		return nil, err
	}
	d, err := c.make(proto)
	if err != nil {
		c.errs[proto] = err
		return nil, err
	}
	c.byProto[proto] = d
	return c.of(f)
}

func (c *change) make(proto uint8) (*ct.Flow, error) {
	d := &ct.Flow{Orig: ct.Tuple{Proto: proto, Present: ct.TupleProto}}
	for _, set := range c.o.sets {
		if err := ct.SetChange(d, set); err != nil {
			return nil, fmt.Errorf("--set %s: %w", set, err)
		}
	}
	for _, l := range []struct {
		flag string
		list []string
		add  bool
	}{{"--label-del", c.o.labelDel, false}, {"--label-add", c.o.labelAdd, true}} {
		for _, text := range l.list {
			bits, err := ct.ParseLabelBits(text)
			if text == allLabels && !l.add {
				for i := range bits {
					bits[i] = 0xff
				}
				err = nil
			} else if err == nil && bits == [16]byte{} {
				err = &value.Error{What: "label", Text: text, Valid: "a name or a number from 0 to 127"}
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l.flag, err)
			}
			for i, b := range bits {
				if l.add {
					d.Labels[i] |= b
				} else {
					c.del[i] |= b
				}
				d.LabelsMask[i] |= b
			}
			d.Present |= ct.HasLabels | ct.HasLabelsMask
		}
	}
	return d, nil
}

// idle reports whether f need not be changed: labels that it does not have cannot
// be taken away, and the kernel would refuse where nothing stores labels.
func (c *change) idle(f *ct.Flow) bool {
	if !c.onlyDel {
		return false
	}
	for i, b := range c.del {
		if f.Labels[i]&b != 0 {
			return false
		}
	}
	return true
}

func (a *app) ctUpdate(c *cobra.Command, o *ctUpdateOptions) error {
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	ch, err := o.change()
	if err != nil {
		return err
	}
	for _, d := range ch.byProto {
		if err := ct.CheckStatus(d.Status, false); err != nil {
			return named("--set", err)
		}
	}
	w, _, err := a.flowPrinter()
	if err != nil {
		return err
	}
	a.idleNote(choose)
	done := "updated"
	if o.dryRun {
		done = ""
	}
	ctx, stop := a.interruptible(c, done)
	defer stop()
	if o.dryRun {
		return a.only(ctx, choose, w, "changed", o.failEmpty)
	}
	matched, changed, err := a.updateEach(ctx, choose, ch, w)
	err = cmp.Or(err, w.end())
	a.total("%s updated", flows(changed))
	if err != nil {
		return ended(ctx, err)
	}
	return notFound(o.failEmpty, matched)
}

// updateEach changes what was chosen, and prints it as it then is.
func (a *app) updateEach(ctx context.Context, choose *chooser[ct.Flow], ch *change, w *flowPrinter) (matched, changed uint64, err error) {
	var conns [3]*ct.Conn
	for i := range conns {
		if conns[i], err = ct.Dial(); err != nil {
			return 0, 0, err
		}
		defer conns[i].Close()
	}
	edits, reads, single := conns[0], conns[1], conns[2]
	bad := &failures{a: a}
	var failed error // of output
	again := reads.NewBatch(batchSize, nil)
	again.Reply(func(f *ct.Flow) { failed = cmp.Or(failed, w.print(f)) })
	b := edits.NewBatch(batchSize, func(f *ct.Flow, err error) {
		if err != nil && !gone(err) { // by itself it gets a second try where that helps, and a reason
			d, _ := ch.of(f)
			err = single.Update(f, d)
		}
		switch {
		case gone(err):
		case err != nil:
			bad.add(err)
		default:
			a.changed.Add(1)
			if changed++; w != nil {
				failed = cmp.Or(failed, again.Get(f, false))
			}
		}
	})
	_, err = a.each(ctx, choose, func(f *ct.Flow) error {
		matched++
		d, err := ch.of(f)
		switch {
		case err != nil:
			bad.add(fmt.Errorf("%s: update: %w", ct.AppendTuple([]byte("flow "), &f.Orig), err))
		case ch.idle(f):
			changed++
			err = w.print(f)
			return err
		default:
			return cmp.Or(b.Update(f, d), failed)
		}
		return nil
	})
	err = cmp.Or(err, b.Flush())
	if err = cutShort(cmp.Or(err, again.Flush(), failed)); err == nil {
		err = bad.result()
	}
	return matched, changed, err
}

// only prints what was chosen, and says that it would be changed or deleted.
func (a *app) only(ctx context.Context, choose *chooser[ct.Flow], w *flowPrinter, done string, failEmpty bool) error {
	n, err := a.each(ctx, choose, w.print)
	if err = cmp.Or(err, w.end()); err != nil {
		return ended(ctx, err)
	}
	a.total("%s would be %s", flows(n), done)
	return notFound(failEmpty, n)
}

// each hands every flow that was chosen to f, and returns how many there were.
func (a *app) each(ctx context.Context, choose *chooser[ct.Flow], f func(*ct.Flow) error) (n uint64, err error) {
	res, err := ct.Dump(ctx, dumpOptions(choose), func(g *ct.Flow) error {
		if !choose.keep(g) {
			return nil
		}
		n++
		return f(g)
	})
	a.dumpNote(res)
	return n, err
}
