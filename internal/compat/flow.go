package compat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// chooser compiles what chooses flows.
func (r *runner) chooser(c *Command) (*table.Choice[ct.Flow], error) {
	choose, err := table.Flows(&table.Filter{Given: givens(c.Choose), Exprs: c.Exprs})
	if err != nil {
		return nil, labelError(err, labels(c.Choose)...)
	}
	for _, m := range c.Masks {
		choose.And(masked(m))
	}
	return choose, nil
}

func givens(flags []Flag) []table.Given {
	list := make([]table.Given, 0, len(flags))
	for _, f := range flags {
		list = append(list, table.Given{Flag: f.Name, Text: f.Text})
	}
	return list
}

// labelError says in conntrack(8)'s words which of these labels, several with
// commas between them, has no such name; it returns err when all have one.
func labelError(err error, lists ...string) error {
	for _, list := range lists {
		for l := range strings.SplitSeq(list, ",") {
			if _, bad := ct.ParseLabelBits(l); bad != nil && l != AllLabels {
				return &Error{Status: 2, Text: fmt.Sprintf("unknown label '%s'", l)}
			}
		}
	}
	return err
}

// labels returns what the flags that name labels say.
func labels(flags []Flag) (lists []string) {
	for _, f := range flags {
		if f.Name == "label" || f.Name == "label-add" {
			lists = append(lists, f.Text)
		}
	}
	return lists
}

// masked reports whether an address of a flow is another one under a mask.
func masked(m Mask) func(*ct.Flow) bool {
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
	*printer
	whole bool
	n     uint64
}

func (r *runner) fragment(verb byte, out format.Output, whole bool) (*fragment, error) {
	p, err := format.New(flowForm(verb), out, format.Options{})
	if err != nil {
		return nil, &table.UsageError{Err: err}
	}
	return &fragment{printer: &printer{p, &sink{w: r.Out}}, whole: whole}, nil
}

func (w *fragment) flow(f *ct.Flow) error {
	if w.n == 0 && w.whole {
		w.b = w.p.Begin(w.b)
	}
	w.n++
	return w.print(f)
}

func (w *fragment) close() error {
	switch {
	case !w.whole:
		w.b = w.p.Flush(w.b)
	case w.n > 0:
		w.b = w.p.End(w.b)
	}
	return w.flush()
}

func (r *runner) list(ctx context.Context, c *Command, out format.Output) error {
	choose, err := r.chooser(c)
	if err != nil {
		return err
	}
	w, err := r.fragment('L', out, true)
	if err != nil {
		return err
	}
	d := table.DumpOptions(choose)
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
		if !choose.Keep(f) {
			return nil
		}
		return w.flow(f)
	})
	if err = cmp.Or(err, w.close()); err != nil {
		return err
	}
	r.dumpNote(res)
	r.done(w.n, flowEntries, "shown")
	return ended(ctx, nil)
}

// entry reads what describes one flow.
func (r *runner) entry(c *Command) (*ct.Flow, error) {
	o := &table.Entry{Given: givens(c.Entry), HostTags: true}
	f, err := o.Read()
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

func (r *runner) get(c *Command, out format.Output) error {
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
	if found.Src == f.Orig.Src && found.Dst == f.Orig.Dst && choose.Keep(got) {
		err = w.flow(got)
	}
	if err = cmp.Or(err, w.close()); err != nil {
		return err
	}
	r.done(w.n, flowEntries, "shown")
	return some(w.n)
}

func (r *runner) create(c *Command) error {
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
		r.warn("%v", err)
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
func (r *runner) deleted(ctx context.Context, c *Command, out format.Output) (uint64, error) {
	choose, err := r.chooser(c)
	if err != nil {
		return 0, err
	}
	w, err := r.fragment('D', out, false)
	if err != nil {
		return 0, err
	}
	bad := &failures{r: r}
	done, err := table.Delete(ctx, choose, table.Edit[ct.Flow]{Edited: r.Edited, Done: w.flow, Failed: bad.add})
	return done.Done, r.edited(ctx, done.Dump, w, bad, err)
}

// edited ends the output of an edit, and returns what went wrong: the edit as a whole,
// the output, or single flows.
func (r *runner) edited(ctx context.Context, d ct.DumpResult, w *fragment, bad *failures, err error) error {
	r.dumpNote(d)
	if errors.Is(err, unix.EPIPE) { // a reader that has gone kept it from doing all
		err = &Error{1, "standard output was closed: not all was done"}
	}
	if w != nil {
		if e := w.close(); err == nil {
			err = e
		}
	}
	if err == nil {
		err = bad.result()
	}
	return ended(ctx, err)
}

func (r *runner) delete(ctx context.Context, c *Command, out format.Output) error {
	n, err := r.deleted(ctx, c, out)
	if err != nil {
		return err
	}
	r.done(n, flowEntries, "deleted")
	return some(n)
}

// updated changes and prints what was chosen and is not so already, and returns
// how many there were.
func (r *runner) updated(ctx context.Context, c *Command, out format.Output) (uint64, error) {
	choose, err := r.chooser(c)
	if err != nil {
		return 0, err
	}
	if len(c.Sets)+len(c.LabelAdd)+len(c.LabelDel) == 0 {
		return 0, nil
	}
	ch, err := table.NewChange(c.Sets, c.LabelAdd, c.LabelDel)
	if err != nil {
		return 0, labelError(err, slices.Concat(c.LabelAdd, c.LabelDel)...)
	}
	ch.Always() // else it would pass over flows that have other labels
	ch.Amend(ct.TCP, relax)
	choose.And(func(f *ct.Flow) bool {
		d, err := ch.Of(f)
		return err == nil && !isSo(f, d)
	})
	w, err := r.fragment('U', out, false)
	if err != nil {
		return 0, err
	}
	bad := &failures{r: r}
	done, err := table.Update(ctx, choose, ch, table.Edit[ct.Flow]{Edited: r.Edited, Done: w.flow, Failed: bad.add})
	return done.Done, r.edited(ctx, done.Dump, w, bad, err)
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
		state(ct.HasTCPState, f.TCPState, d.TCPState) && state(ct.HasSCTPState, f.SCTPState, d.SCTPState) &&
		state(ct.HasDCCPState, f.DCCPState, d.DCCPState)
}

func (r *runner) update(ctx context.Context, c *Command, out format.Output) error {
	n, err := r.updated(ctx, c, out)
	if err != nil {
		return err
	}
	r.done(n, flowEntries, "updated")
	return some(n)
}

// flushed empties the table of flows, or deletes those of a family.
func (r *runner) flushed(ctx context.Context, c *Command) error {
	if c.Family == "" {
		conn, err := r.dial()
		if err != nil {
			return err
		}
		return conn.Flush(0, ct.KernelFilter{})
	}
	choose, err := table.Flows(&table.Filter{Given: []table.Given{{Flag: "family", Text: c.Family}}})
	if err != nil {
		return err
	}
	bad := &failures{r: r}
	done, err := table.FlushOrDelete(ctx, choose, table.Edit[ct.Flow]{Edited: r.Edited, Failed: bad.add})
	return r.edited(ctx, done.Dump, nil, bad, err)
}
