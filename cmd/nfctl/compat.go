package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/compat"
	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/nl"
)

func newCompat(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "compat",
		Short:   "Command lines of other programs",
		Long:    "Takes the command line of another program, and prints and ends as that program does.",
		Example: "  nfctl compat conntrack -L -p tcp --dport 443",
	}
	c.AddCommand(&cobra.Command{
		Use:   "conntrack [ARGS…]",
		Short: "Do what conntrack(8) does with these arguments",
		Long: `Takes conntrack(8)'s own command line, prints what it prints and ends with its
status. nfctl called by the name conntrack, through a link, does the same.`,
		Example: `  nfctl compat conntrack -L -p tcp --dport 443
  ln -s nfctl /usr/local/sbin/conntrack; conntrack -D -s 10.0.0.1`,
		DisableFlagParsing: true,
		RunE:               func(c *cobra.Command, args []string) error { return a.conntrack(c, args) },
	})
	return c
}

// conntrack does what conntrack(8) does with these arguments.
func (a *app) conntrack(c *cobra.Command, args []string) error {
	r := &compatRun{a: a, cmd: c}
	defer r.close()
	return r.result(r.main(args))
}

// A compatRun does one command line of conntrack(8).
type compatRun struct {
	a    *app
	cmd  *cobra.Command
	conn *ct.Conn // see dial
}

// dial returns the connection of the whole command line.
func (r *compatRun) dial() (conn *ct.Conn, err error) {
	if r.conn == nil {
		r.conn, err = ct.Dial()
	}
	return r.conn, err
}

func (r *compatRun) close() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// result prints what went wrong as conntrack(8) does, and makes its exit status
// of it: 1, or 2 when it was the command line.
func (r *compatRun) result(err error) error {
	var line *compat.Error
	var status *statusError
	switch {
	case err == nil, errors.Is(err, unix.EPIPE):
		return nil
	case errors.As(err, &line):
	case errors.As(err, &status) && status.err == nil:
		return err
	case exitCode(err) == exitUsage:
		line = &compat.Error{Status: 2, Text: err.Error()}
	default:
		line = &compat.Error{Status: 1, Text: err.Error()}
	}
	fmt.Fprintf(r.a.err, "%s: %s\n", compat.Name, line.Text)
	if line.Status == exitUsage {
		fmt.Fprintln(r.a.err, "Try `conntrack -h' or 'conntrack --help' for more information.")
	}
	return &statusError{code: line.Status}
}

// failed says in conntrack(8)'s words why an operation failed. Its reasons are
// matched by programs; what the kernel said beyond them follows.
func failed(verb byte, err error) error {
	if err == nil || errors.Is(err, unix.EPIPE) || exitCode(err) == exitUsage {
		return err
	}
	var writing writeError
	var status *statusError
	var said *compat.Error
	if errors.As(err, &writing) || errors.As(err, &status) || errors.As(err, &said) {
		return err
	}
	text := ""
	switch {
	case errors.Is(err, unix.EPERM):
		text = "sorry, you must be root or get CAP_NET_ADMIN capability to do this"
	case errors.Is(err, unix.EEXIST):
		text = "Such conntrack exists, try -U to update"
	case errors.Is(err, unix.ENOENT) && verb == 'x':
		text = "master conntrack not found"
	case errors.Is(err, unix.ENOENT):
		text = "such conntrack doesn't exist"
	default:
		text = err.Error()
	}
	return &compat.Error{Status: 1, Text: "Operation failed: " + text}
}

// done prints how many there were, in the line that programs match.
func (r *compatRun) done(n uint64, what, verb string) {
	fmt.Fprintf(r.a.err, "%s: %d %s have been %s.\n", compat.Name, n, what, verb)
}

// some is the status of a command that found nothing to do.
func some(n uint64) error {
	if n == 0 {
		return &statusError{code: exitFailed}
	}
	return nil
}

const flowEntries = "flow entries"

func (r *compatRun) main(args []string) error {
	r.a.name = compat.Name
	for len(args) > 1 && args[0] == "--netns" { // given to nfctl, in front of the command
		r.a.netns, args = args[1], args[2:]
		if err := nl.EnterNamespace(r.a.netns, r.a.args); err != nil {
			return err
		}
	}
	c, err := compat.Parse(args)
	if err != nil {
		return err
	}
	if c.Verb == 'R' {
		return r.load(c.File)
	}
	return r.run(c)
}

func (r *compatRun) run(c *compat.Command) error {
	for _, w := range c.Warnings {
		fmt.Fprintf(r.a.err, "WARNING: %s\n", w)
	}
	out, err := format.ParseOutput(cmp.Or(c.Output, "text"))
	if err != nil {
		return &usageError{err}
	}
	if c.Labels() || out.Labels { // whoever names labels sees them
		out.Labels = true
		if _, err := os.Stat(ct.LabelFile); err != nil {
			fmt.Fprintln(r.a.err, "nfct_labelmap_new: No such file or directory")
		}
	}
	ctx, stop := interruptible(r.cmd)
	defer stop()
	expect := c.Table == "expect"
	switch c.Verb {
	case 'V':
		_, err = fmt.Fprintln(r.a.out, compat.Name)
	case 'h':
		_, err = io.WriteString(r.a.out, compat.Help(c.Proto))
	case 'C':
		err = r.count(ctx, expect)
	case 'S':
		err = r.stats(expect)
	case 'F':
		err = r.flush(ctx, c, expect)
	case 'E':
		stop()
		return r.watch(c, out, expect)
	case 'L':
		if expect {
			err = r.listExpects(ctx, c, out)
		} else {
			err = r.list(ctx, c, out)
		}
	case 'G':
		if expect {
			return failed('G', r.getExpect(c, out))
		}
		err = r.get(c, out)
	case 'D':
		if expect {
			return failed('G', r.deleteExpect(c))
		}
		err = r.delete(ctx, c, out)
	case 'U':
		err = r.update(ctx, c, out)
	default: // I, A
		if expect {
			return failed('x', r.createExpect(c))
		}
		err = r.create(c)
	}
	return failed(c.Verb, err)
}

// chooser compiles what chooses flows.
func (r *compatRun) chooser(c *compat.Command) (*chooser[ct.Flow], error) {
	o := &filterOptions{given: givens(c.Choose), exprs: c.Exprs}
	choose, err := flowFilter(o)
	if err != nil {
		return nil, labelError(c.Choose, err)
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

// labelError says in conntrack(8)'s words that a label has no such name.
func labelError(flags []compat.Flag, err error) error {
	for _, f := range flags {
		if f.Name == "label" || f.Name == "label-add" {
			for _, l := range strings.Split(f.Text, ",") {
				if _, bad := ct.ParseLabelBits(l); bad != nil {
					return &compat.Error{Status: 2, Text: fmt.Sprintf("unknown label '%s'", l)}
				}
			}
		}
	}
	return err
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

// expectPrinter prints expectations as conntrack(8) does: of the parts of -o only
// xml and timestamp say something of them, and who caused an event is not said.
func expectPrinter(out format.Output, opt format.Options) (*format.Printer[ct.Expect], error) {
	o := format.Output{Format: format.Text, Timestamp: out.Timestamp}
	if out.Format == format.XML {
		o.Format = format.XML
	}
	form := *format.Expects
	anonymous := func(b []byte, e *ct.Expect, appendTo func([]byte, *ct.Expect) []byte) []byte {
		by := e.By
		e.By = ct.By{}
		b = appendTo(b, e)
		e.By = by
		return b
	}
	text, xml := form.Text, form.XML
	form.Text = func(o *format.Output, opt format.Options) func([]byte, *ct.Expect) []byte {
		appendText := text(o, opt)
		return func(b []byte, e *ct.Expect) []byte { return anonymous(b, e, appendText) }
	}
	form.XML = func(o *format.Output, opt format.Options) func([]byte, *ct.Expect) []byte {
		appendXML := xml(o, opt)
		return func(b []byte, e *ct.Expect) []byte { return anonymous(b, e, appendXML) }
	}
	p, err := format.New(&form, o, opt)
	if err != nil {
		return nil, &usageError{err}
	}
	return p, nil
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
		return nil, labelError(c.Entry, err)
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
	const sackPerm, closeInit, beLiberal, timeWait = 2, 4, 8, 7
	if !f.Has(ct.HasTCPState) {
		return
	}
	flags := uint8(sackPerm | beLiberal)
	if f.TCPState >= timeWait {
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
		return 0, labelError([]compat.Flag{{Name: "label", Text: strings.Join(append(slices.Clip(c.LabelAdd), slices.DeleteFunc(slices.Clone(c.LabelDel), func(s string) bool { return s == compat.AllLabels })...), ",")}}, err)
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

func (r *compatRun) flush(ctx context.Context, c *compat.Command, expect bool) error {
	if !expect {
		if err := r.flushed(ctx, c); err != nil {
			return err
		}
		fmt.Fprintf(r.a.err, "%s: connection tracking table has been emptied.\n", compat.Name)
		return nil
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	if err := conn.FlushExpects(); err != nil {
		return err
	}
	fmt.Fprintf(r.a.err, "%s: expectation table has been emptied.\n", compat.Name)
	return nil
}

func (r *compatRun) count(ctx context.Context, expect bool) error {
	conn, err := r.dial()
	if err != nil {
		return err
	}
	if !expect {
		n, _, err := conn.Count()
		if errors.Is(err, unix.EPERM) { // monitors without privileges count all the same
			if b, perr := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count"); perr == nil {
				_, err = r.a.out.Write(b)
				return err
			}
		}
		if err == nil {
			_, err = fmt.Fprintln(r.a.out, n)
		}
		return err
	}
	n := 0
	if _, err = conn.Expects(ctx, ct.IPv4, nil, func(*ct.Expect) error { n++; return nil }); err == nil {
		_, err = fmt.Fprintln(r.a.out, n)
	}
	return err
}

func (r *compatRun) stats(expect bool) error {
	conn, err := r.dial()
	if err != nil {
		return err
	}
	read, form := conn.Stats, format.FlowStats()
	if expect {
		read, form = conn.ExpectStats, format.ExpectStats()
	}
	cpus, err := read()
	if errors.Is(err, unix.EPERM) {
		if b, perr := os.ReadFile("/proc/net/stat/nf_conntrack"); perr == nil {
			_, err = r.a.out.Write(appendProcStats(nil, string(b)))
			return err
		}
	}
	if err != nil {
		return err
	}
	p, err := format.New(form, format.Output{Format: format.Text}, format.Options{})
	if err != nil {
		return err
	}
	k := &sink{w: r.a.out}
	for _, s := range statLines(cpus, nil, 0) {
		if s.CPU < 0 { // the sum of all
			continue
		}
		k.b = p.Append(k.b, &s)
	}
	return finishPrint(p, k)
}

// appendProcStats appends the counters of /proc, a line of names and one of numbers
// for each CPU, as conntrack(8) prints them for those who may not ask the kernel.
func appendProcStats(b []byte, table string) []byte {
	head, rest, _ := strings.Cut(table, "\n")
	names := strings.Fields(head)
	cpu := 0
	for line := range strings.Lines(rest) {
		b = fmt.Appendf(b, "cpu=%-4d\t", cpu)
		cpu++
		for i, f := range strings.Fields(line) {
			if n, err := strconv.ParseUint(f, 16, 64); err == nil && i < len(names) {
				b = fmt.Appendf(b, "%s=%d ", names[i], n)
			}
		}
		b = append(b, '\n')
	}
	return b
}

// watch shows events until a signal comes.
func (r *compatRun) watch(c *compat.Command, out format.Output, expect bool) error {
	events := ct.AllEvents
	if c.Events != "" {
		var err error
		if events, err = parseEvents(c.Events, "ALL, NEW, UPDATES, DESTROY"); err != nil {
			return err
		}
	}
	w := &watchRun{a: r.a, o: &watchFlags{buffer: uint64(c.Buffer)}}
	what := "flow events"
	if expect {
		what = "expectation events"
	}
	w.summary = func() { r.done(w.shown.Load(), what, "shown") }
	opt := format.Options{Stream: true}
	lost := w.lost.Load
	if expect {
		w.opt.Expects = events
		p, err := expectPrinter(out, opt)
		if err != nil {
			return err
		}
		watchInto(w, p, choice[ct.Expect]{}, &w.h.Expect)
	} else {
		choose, err := r.chooser(c)
		if err != nil {
			return err
		}
		w.opt.Flows = events
		p, err := format.New(flowForm('E'), out, opt)
		if err != nil {
			return &usageError{err}
		}
		watchInto(w, p, choice[ct.Flow]{show: choose.match}, &w.h.Flow)
	}
	if c.Buffer > 0 {
		w.opened = func(size int) { // the kernel counts double what is asked for
			fmt.Fprintf(r.a.err, "NOTICE: Netlink socket buffer size has been set to %d bytes.\n", 2*size)
		}
	}
	err := w.run(r.cmd.Context(), out)
	if lost() > 0 {
		fmt.Fprintf(r.a.err, "WARNING: We have hit ENOBUFS! %d events were lost: the netlink socket buffer is too small, see --buffer-size.\n", lost())
	}
	if errors.Is(err, unix.EPERM) {
		return &compat.Error{Status: 1, Text: "Can't open netlink socket: " + failed('E', err).Error()}
	}
	return err
}

// watchInto has a watch print objects as p does. Its head comes with the first.
func watchInto[T any](w *watchRun, p *format.Printer[T], c choice[T], handle *func(*T) error) {
	none := func(b []byte) []byte { return b }
	w.prints(none, p.Flush, func(b []byte) []byte {
		if w.shown.Load() == 0 {
			return b
		}
		return p.End(b)
	}, p.Err)
	show := watching(w, p, c)
	*handle = func(t *T) error {
		if w.shown.Load() == 0 && (c.show == nil || c.show(t)) {
			w.k.b = p.Begin(w.k.b)
		}
		return show(t)
	}
}

func (r *compatRun) listExpects(ctx context.Context, c *compat.Command, out format.Output) error {
	p, err := expectPrinter(out, format.Options{})
	if err != nil {
		return err
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	family := uint8(ct.IPv4)
	if c.Family == "ipv6" {
		family = ct.IPv6
	}
	k, n := &sink{w: r.a.out}, uint64(0)
	_, err = conn.Expects(ctx, family, nil, func(e *ct.Expect) error {
		if n == 0 {
			k.b = p.Begin(k.b)
		}
		n++
		k.b = p.Append(k.b, e)
		if k.full() {
			return k.flush()
		}
		return nil
	})
	if n > 0 {
		k.b = p.End(k.b)
	}
	if err = cmp.Or(err, k.flush()); err != nil {
		return err
	}
	r.done(n, "expectations", "shown")
	return nil
}

// expectOptionsOf gathers conntrack(8)'s flags about a master and what it expects.
func expectOptionsOf(c *compat.Command) (*expectOptions, error) {
	o := &expectOptions{}
	for _, f := range c.Entry {
		switch f.Name {
		case "timeout":
			d, err := number("timeout", f.Text, 1, 1<<32-1)
			if err != nil {
				return nil, err
			}
			o.timeout = seconds(d)
		default:
			o.words = append(o.words, given{f.Name, f.Text})
		}
	}
	return o, nil
}

func (r *compatRun) createExpect(c *compat.Command) error {
	o, err := expectOptionsOf(c)
	if err != nil {
		return err
	}
	e, err := o.expect(nil)
	if err != nil {
		return err
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	_, err = conn.CreateExpect(e, false)
	return err
}

// expectNamed reads the expectation that -G or -D of conntrack(8) name.
func expectNamed(c *compat.Command) (*ct.Expect, error) {
	o, err := expectOptionsOf(c)
	if err != nil {
		return nil, err
	}
	return expectKey(o.flow("orig-"))
}

func (r *compatRun) getExpect(c *compat.Command, out format.Output) error {
	key, err := expectNamed(c)
	if err != nil {
		return err
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	var got ct.Expect
	if err := conn.GetExpect(key, &got); err != nil {
		return noSuch(err)
	}
	p, err := expectPrinter(out, format.Options{})
	if err != nil {
		return err
	}
	k := &sink{w: r.a.out}
	k.b = p.Append(p.Begin(k.b), &got)
	return finishPrint(p, k)
}

func (r *compatRun) deleteExpect(c *compat.Command) error {
	key, err := expectNamed(c)
	if err != nil {
		return err
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	if err := conn.DeleteExpect(key); err != nil {
		return noSuch(err)
	}
	r.done(1, "expectations", "deleted")
	return nil
}

// noSuch is what conntrack(8) says of an expectation that is not there.
func noSuch(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return &compat.Error{Status: 1, Text: "Operation failed: No such file or directory"}
	}
	return err
}

// A compatLine is a line of a file for -R.
type compatLine struct {
	number int
	c      *compat.Command
	flow   *ct.Flow // of -I and -A
}

// load does what the lines of a file say. All are read first, and nothing is done
// when one of them cannot be; one that fails does not keep the next ones from
// being done.
func (r *compatRun) load(file string) error {
	in := r.a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return &compat.Error{Status: 2, Text: fmt.Sprintf("Failed to open file %s for reading", file)}
		}
		defer f.Close()
		in = f
	}
	// The lines are kept until all are read, so that collecting garbage again and
	// again among them finds little.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	lines, err := r.lines(in)
	if err != nil || len(lines) == 0 {
		return err
	}
	ctx, stop := interruptible(r.cmd)
	defer stop()
	conn, err := r.dial()
	if err != nil {
		return err
	}
	bad := 0
	fail := func(n int, err error) {
		bad++
		fmt.Fprintf(r.a.err, "%s: line %d: %v\n", compat.Name, n, err)
	}
	var waiting []*compatLine // whose requests are on their way
	batch := conn.NewBatch(batchSize, func(_ *ct.Flow, err error) {
		l := waiting[0]
		waiting = waiting[1:]
		if err != nil && !(l.c.Verb == 'A' && errors.Is(err, unix.EEXIST)) {
			fail(l.number, failed(l.c.Verb, err))
		}
	})
	for i := range lines {
		l := &lines[i]
		if l.flow != nil {
			waiting = append(waiting, l)
			if err := batch.Create(l.flow, false); err != nil {
				return err
			}
			l.flow = nil
			continue
		}
		if err := batch.Flush(); err != nil {
			return err
		}
		if err := r.do(ctx, l.c); err != nil {
			fail(l.number, failed(l.c.Verb, err))
		}
		if ctx.Err() != nil {
			return ended(ctx, nil)
		}
	}
	if err := batch.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return &statusError{code: exitFailed}
	}
	return nil
}

// do does what a line says, without the summary that a command ends with.
func (r *compatRun) do(ctx context.Context, c *compat.Command) error {
	out, err := format.ParseOutput(cmp.Or(c.Output, "text"))
	if err != nil {
		return err
	}
	switch c.Verb {
	case 'D':
		_, err = r.deleted(ctx, c, out)
	case 'U':
		_, err = r.updated(ctx, c, out)
	default:
		if err = r.flushed(ctx, c); err == nil {
			fmt.Fprintf(r.a.err, "%s: connection tracking table has been emptied.\n", compat.Name)
		}
	}
	return err
}

// maxLoadLine bounds a line of a file for -R, in bytes.
const maxLoadLine = 1 << 20

func (r *compatRun) lines(in io.Reader) (lines []compatLine, err error) {
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, maxLoadLine)
	var words []string
	for n := 1; sc.Scan(); n++ {
		text := strings.TrimSpace(sc.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		l := compatLine{number: n}
		if f := new(ct.Flow); format.ParsePlain(text, f) {
			relax(f)
			l.c, l.flow = made(text[1]), f
		} else {
			if words, err = format.Split(words[:0], text); err == nil {
				l.c, err = compat.ParseLine(words)
			}
			if err == nil && (l.c.Verb == 'I' || l.c.Verb == 'A') {
				l.flow, err = r.entry(l.c)
				l.c = made(l.c.Verb) // the rest was read
			}
		}
		if err != nil {
			return nil, &compat.Error{Status: 2, Text: fmt.Sprintf("line %d: %v", n, err)}
		}
		lines = append(lines, l)
	}
	if err = sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		err = fmt.Errorf("a line is longer than %d bytes", maxLoadLine)
	}
	return lines, err
}

// made returns what is left of -I or -A once its flow was read.
func made(verb byte) *compat.Command {
	if verb == 'I' {
		return &madeI
	}
	return &madeA
}

var madeI, madeA = compat.Command{Verb: 'I'}, compat.Command{Verb: 'A'}

func seconds(n uint64) time.Duration { return time.Duration(n) * time.Second }
