package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/compat"
	"nfctl/internal/ct"
	"nfctl/internal/format"
)

// chooser compiles what chooses flows.
func (r *compatRun) chooser(c *compat.Command) (*chooser[ct.Flow], error) {
	o := &filterOptions{given: givens(c.Choose), exprs: c.Exprs}
	choose, err := flowFilter(o)
	if err != nil {
		return nil, labelError(err, labels(c.Choose)...)
	}
	for _, m := range c.Masks {
		choose.match = and(choose.match, masked(m))
	}
	return choose, nil
}

func givens(flags []compat.Flag) []given {
	list := make([]given, 0, len(flags))
	for _, f := range flags {
		list = append(list, given{f.Name, f.Text})
	}
	return list
}

// labelError says in conntrack(8)'s words which of these labels, several with
// commas between them, has no such name; it returns err when all have one.
func labelError(err error, lists ...string) error {
	for _, list := range lists {
		for l := range strings.SplitSeq(list, ",") {
			if _, bad := ct.ParseLabelBits(l); bad != nil && l != compat.AllLabels {
				return &compat.Error{Status: 2, Text: fmt.Sprintf("unknown label '%s'", l)}
			}
		}
	}
	return err
}

// labels returns what the flags that name labels say.
func labels(flags []compat.Flag) (lists []string) {
	for _, f := range flags {
		if f.Name == "label" || f.Name == "label-add" {
			lists = append(lists, f.Text)
		}
	}
	return lists
}

// masked reports whether an address of a flow is another one under a mask.
func masked(m compat.Mask) func(*ct.Flow) bool {
	row := ct.FlowFields.Row(m.Path)
	want, mask := m.Addr.AsSlice(), m.Mask.AsSlice()
	return func(f *ct.Flow) bool {
		a, ok := row.IP(f)
		return ok && a.BitLen() == m.Addr.BitLen() && same(a, want, mask)
	}
}

func same(a netip.Addr, want, mask []byte) bool {
	for i, b := range a.AsSlice() {
		if (b^want[i])&mask[i] != 0 {
			return false
		}
	}
	return true
}

// flowForm are flows as conntrack(8) prints them: with -o save an event, or a
// deletion, is the command that would do the same.
func flowForm(verb byte) *format.Subject[ct.Flow] {
	s := *format.Flows
	s.Save = func(*format.Output, format.Options) func([]byte, *ct.Flow) []byte {
		return func(b []byte, f *ct.Flow) []byte {
			at := len(b) + 1
			b = format.AppendSave(b, f)
			switch {
			case verb == 'D', f.Event == ct.Destroy:
				b[at] = 'D'
			case f.Event == ct.Update:
				b[at] = 'U'
			}
			return b
		}
	}
	s.XML = func(o *format.Output, opt format.Options) func([]byte, *ct.Flow) []byte {
		appendXML := format.Flows.XML(o, opt)
		return func(b []byte, f *ct.Flow) []byte {
			by := f.By // of which conntrack(8)'s XML says nothing
			f.By = ct.By{}
			b = appendXML(b, f)
			f.By = by
			return b
		}
	}
	return &s
}

// A fragment prints flows without a head and end of their own, but lists in XML
// have them when there is something to list.
type fragment struct {
	*flowPrinter
	whole bool
	n     uint64
}

func (r *compatRun) fragment(verb byte, out format.Output, whole bool) (*fragment, error) {
	p, err := format.New(flowForm(verb), out, format.Options{})
	if err != nil {
		return nil, &usageError{err}
	}
	return &fragment{flowPrinter: &flowPrinter{p, &sink{w: r.a.out}}, whole: whole}, nil
}

func (w *fragment) flow(f *ct.Flow) error {
	if w.n == 0 && w.whole {
		w.b = w.p.Begin(w.b)
	}
	w.n++
	return w.print(f)
}

func (w *fragment) close() error {
	if w.n > 0 && w.whole {
		w.b = w.p.End(w.b)
	}
	return w.flush()
}

func (r *compatRun) list(ctx context.Context, c *compat.Command, out format.Output) error {
	choose, err := r.chooser(c)
	if err != nil {
		return err
	}
	w, err := r.fragment('L', out, true)
	if err != nil {
		return err
	}
	d := dumpOptions(choose)
	d.Zero = c.Zero
	switch c.Table {
	case "dying":
		d.Table = ct.Dying
	case "unconfirmed":
		d.Table = ct.Unconfirmed
	}
	// One dump of both families, not one of each side by side: the order is the
	// kernel's then, as conntrack(8) prints it.
	res, err := ct.Dump(ctx, d, func(f *ct.Flow) error {
		if !choose.keep(f) {
			return nil
		}
		return w.flow(f)
	})
	if err = cmp.Or(err, w.close()); err != nil {
		return err
	}
	r.a.dumpNote(res)
	r.done(w.n, flowEntries, "shown")
	return ended(ctx, nil)
}

// entry reads what describes one flow.
func (r *compatRun) entry(c *compat.Command) (*ct.Flow, error) {
	o := &entryOptions{given: givens(c.Entry)}
	f, err := o.read()
	if err != nil {
		return nil, labelError(err, labels(c.Entry)...)
	}
	relax(f)
	if c.Role != "" { // kernels without DCCP tracking pass over it
		role, _ := ct.DCCPRoleNames.Parse(c.Role)
		f.DCCPRole, f.Present = uint8(role), f.Present|ct.HasDCCPRole
	}
	return f, nil
}

// relax sets the flags of a TCP connection that conntrack(8) sets with its state:
// the kernel then does not look at windows, of which it has seen nothing, and knows
// that a connection that ends has been closed.
func relax(f *ct.Flow) {
	const sackPerm, closeInit, beLiberal = 2, 4, 8
	if !f.Has(ct.HasTCPState) {
		return
	}
	flags := uint8(sackPerm | beLiberal)
	if f.TCPState >= ct.TCPTimeWait {
		flags |= closeInit
	}
	if !f.Has(ct.HasTCPFlagsOrig) {
		f.TCPFlagsOrig, f.TCPMaskOrig, f.Present = flags, flags, f.Present|ct.HasTCPFlagsOrig|ct.HasTCPMaskOrig
	}
	if !f.Has(ct.HasTCPFlagsReply) {
		f.TCPFlagsReply, f.TCPMaskReply, f.Present = flags, flags, f.Present|ct.HasTCPFlagsReply|ct.HasTCPMaskReply
	}
}

func (r *compatRun) get(c *compat.Command, out format.Output) error {
	f, err := r.entry(c)
	if err != nil {
		return err
	}
	choose, err := r.chooser(c)
	if err != nil {
		return err
	}
	w, err := r.fragment('G', out, true)
	if err != nil {
		return err
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	got := &ct.Flow{}
	if err := conn.Get(f, got, false); err != nil {
		return err
	}
	found := got.Orig // the kernel looks for a tuple in both directions
	if c.Reply {
		found = got.Reply
	}
	if found.Src == f.Orig.Src && found.Dst == f.Orig.Dst && choose.keep(got) {
		err = w.flow(got)
	}
	if err = cmp.Or(err, w.close()); err != nil {
		return err
	}
	r.done(w.n, flowEntries, "shown")
	return some(w.n)
}

func (r *compatRun) create(c *compat.Command) error {
	f, err := r.entry(c)
	if err != nil {
		return err
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	done := map[byte]string{'I': "created", 'A': "added"}[c.Verb]
	err = conn.Create(f, false)
	switch {
	case errors.Is(err, ct.ErrLabelsDropped):
		r.a.warn("%v", err)
	case c.Verb == 'A' && errors.Is(err, unix.EEXIST):
		r.done(0, flowEntries, done)
		return nil
	case err != nil:
		return err
	}
	r.done(1, flowEntries, done)
	return nil
}

// deleted deletes and prints what was chosen, and returns how many there were.
func (r *compatRun) deleted(ctx context.Context, c *compat.Command, out format.Output) (uint64, error) {
	choose, err := r.chooser(c)
	if err != nil {
		return 0, err
	}
	l := &lister{a: r.a, choose: choose, out: out, bare: true, form: flowForm('D')}
	_, n, err := r.a.deleteListed(ctx, l)
	return n, ended(ctx, err)
}

func (r *compatRun) delete(ctx context.Context, c *compat.Command, out format.Output) error {
	n, err := r.deleted(ctx, c, out)
	if err != nil {
		return err
	}
	r.done(n, flowEntries, "deleted")
	return some(n)
}

// updated changes and prints what was chosen and is not so already, and returns
// how many there were.
func (r *compatRun) updated(ctx context.Context, c *compat.Command, out format.Output) (uint64, error) {
	choose, err := r.chooser(c)
	if err != nil {
		return 0, err
	}
	if len(c.Sets)+len(c.LabelAdd)+len(c.LabelDel) == 0 {
		return 0, nil
	}
	o := &ctUpdateOptions{sets: c.Sets, labelAdd: c.LabelAdd, labelDel: c.LabelDel}
	ch, err := o.change()
	if err != nil {
		return 0, labelError(err, slices.Concat(c.LabelAdd, c.LabelDel)...)
	}
	ch.onlyDel = false // it would pass over flows that have other labels
	if d := ch.byProto[ct.TCP]; d != nil {
		relax(d)
	}
	choose.match = and(choose.match, func(f *ct.Flow) bool {
		d, err := ch.of(f)
		return err == nil && !isSo(f, d)
	})
	w, err := r.fragment('U', out, false)
	if err != nil {
		return 0, err
	}
	_, n, err := r.a.updateEach(ctx, choose, ch, w.flowPrinter)
	return n, ended(ctx, cmp.Or(err, w.close()))
}

// isSo reports whether f has already what the change d would give it.
func isSo(f, d *ct.Flow) bool {
	state := func(has ct.Has, a, b uint8) bool { return !d.Has(has) || f.Has(has) && a == b }
	mask := uint32(1<<32 - 1)
	if d.Has(ct.HasMarkMask) {
		mask = d.MarkMask
	}
	// Labels are always added, and taken away from flows that have some.
	if d.Has(ct.HasLabels) && (d.Labels != [len(d.Labels)]byte{} || f.Has(ct.HasLabels)) {
		return false
	}
	return (!d.Has(ct.HasTimeout) || f.Timeout == d.Timeout) &&
		(!d.Has(ct.HasMark) || f.Mark&^mask^d.Mark == f.Mark) &&
		(!d.Has(ct.HasStatus) || f.Status&d.Status == d.Status) &&
		state(ct.HasTCPState, f.TCPState, d.TCPState) && state(ct.HasSCTPState, f.SCTPState, d.SCTPState) && state(ct.HasDCCPState, f.DCCPState, d.DCCPState)
}

func (r *compatRun) update(ctx context.Context, c *compat.Command, out format.Output) error {
	n, err := r.updated(ctx, c, out)
	if err != nil {
		return err
	}
	r.done(n, flowEntries, "updated")
	return some(n)
}

// flushed empties the table of flows, or deletes those of a family.
func (r *compatRun) flushed(ctx context.Context, c *compat.Command) error {
	if c.Family == "" {
		conn, err := r.dial()
		if err != nil {
			return err
		}
		return conn.Flush(0, ct.KernelFilter{})
	}
	choose, err := flowFilter(&filterOptions{given: []given{{"family", c.Family}}})
	if err != nil {
		return err
	}
	if done, err := r.a.kernelFlush(choose); done || err != nil {
		return err
	}
	_, _, err = r.a.deleteListed(ctx, &lister{a: r.a, choose: choose, out: format.Output{Format: format.Text}, silent: true, bare: true})
	return ended(ctx, err)
}
