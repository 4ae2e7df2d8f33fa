package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// entryOptions describe one flow: in words, by conntrack(8)'s flags, and by
// NAME=VALUE. They keep what was typed; read reads it.
type entryOptions struct {
	flow     string
	given    []given
	labelmap string
}

// An entryFlag is a flag that describes a flow, as lines of -o save have it.
type entryFlag struct {
	name, short string
	aliases     []string
	kind, usage string
	key         bool // part of what the kernel finds the flow by
	orig        bool // said by a flow in words, too
}

var entryFlags = []entryFlag{
	{name: "proto", short: "p", aliases: []string{"protonum"}, kind: "protocol", usage: "transport protocol", key: true, orig: true},
	{name: "src", short: "s", aliases: []string{"orig-src"}, kind: "address", usage: "source of the original direction", key: true, orig: true},
	{name: "dst", short: "d", aliases: []string{"orig-dst"}, kind: "address", usage: "destination of the original direction", key: true, orig: true},
	{name: "sport", aliases: []string{"orig-port-src"}, kind: "port", usage: "source port of the original direction", key: true, orig: true},
	{name: "dport", aliases: []string{"orig-port-dst"}, kind: "port", usage: "destination port of the original direction", key: true, orig: true},
	{name: "icmp-type", aliases: []string{"icmpv6-type"}, kind: "number", usage: "ICMP or ICMPv6 type", key: true, orig: true},
	{name: "icmp-code", aliases: []string{"icmpv6-code"}, kind: "number", usage: "ICMP or ICMPv6 code", key: true, orig: true},
	{name: "icmp-id", aliases: []string{"icmpv6-id"}, kind: "number", usage: "ICMP or ICMPv6 identifier", key: true, orig: true},
	{name: "srckey", aliases: []string{"src-key", "orig-key-src"}, kind: "key", usage: "GRE key of the source", key: true, orig: true},
	{name: "dstkey", aliases: []string{"dst-key", "orig-key-dst"}, kind: "key", usage: "GRE key of the destination", key: true, orig: true},
	{name: "family", short: "f", kind: "family", usage: "address family; the addresses say it", key: true},
	{name: "zone", short: "w", kind: "number", usage: "zone of both directions", key: true, orig: true},
	{name: "orig-zone", kind: "number", usage: "zone of the original direction alone", key: true},
	{name: "reply-zone", kind: "number", usage: "zone of the reply direction alone", key: true},
	{name: "reply-src", short: "r", kind: "address", usage: "source of the reply direction (default: the original destination)"},
	{name: "reply-dst", kind: "address", usage: "destination of the reply direction (default: the original source)"},
	{name: "reply-port-src", kind: "port", usage: "source port of the reply direction"},
	{name: "reply-port-dst", kind: "port", usage: "destination port of the reply direction"},
	{name: "reply-key-src", kind: "key", usage: "GRE key of the reply's source"},
	{name: "reply-key-dst", kind: "key", usage: "GRE key of the reply's destination"},
	{name: "timeout", short: "t", kind: "duration", usage: "time left (default: what a packet would give it)"},
	{name: "state", kind: "state", usage: "state of the protocol (default: ESTABLISHED)"},
	{name: "status", short: "u", kind: "status", usage: "status bits: SEEN_REPLY, ASSURED, FIXED_TIMEOUT"},
	{name: "mark", short: "m", kind: "mark", usage: "mark"},
	{name: "label", short: "l", aliases: []string{"label-add"}, kind: "labels", usage: "connection labels, by name or number"},
	{name: "helper", kind: "name", usage: "helper: ftp, sip, …"},
	{name: "src-nat", short: "n", kind: "address", usage: "translate the source to this address[:port], or one of a range"},
	{name: "dst-nat", short: "g", kind: "address", usage: "translate the destination to this address[:port], or one of a range"},
	{name: "orig-vtag", kind: "number", usage: "SCTP verification tag of the original direction, as conntrack(8) writes it"},
	{name: "reply-vtag", kind: "number", usage: "SCTP verification tag of the reply direction, as conntrack(8) writes it"},
	{name: "role", kind: "role", usage: "DCCP role: client or server"},
	{name: "secmark", short: "c", kind: "number"},
	{name: "set", kind: "NAME=VALUE", usage: "set any attribute that 'nfctl attr list' calls settable on create"},
}

// register adds the flags; key: only those by which the kernel finds a flow.
func (o *entryOptions) register(c *cobra.Command, key bool) {
	f := c.Flags()
	for i := range entryFlags {
		e := &entryFlags[i]
		if key && !e.key {
			continue
		}
		for _, name := range append([]string{e.name}, e.aliases...) {
			short := ""
			if name == e.name {
				short = e.short
			}
			p := f.VarPF(&ordered{kind: e.kind, add: func(text string) error {
				o.given = append(o.given, given{name, text})
				return nil
			}}, name, short, e.usage)
			p.Hidden = name != e.name && name != "label-add" || e.usage == ""
		}
	}
	if !key {
		f.StringVar(&o.labelmap, "labelmap", "", "read the names of labels from this `file` (default "+ct.LabelFile+")")
	}
}

// args takes the arguments: one flow in words, or none. -q, which is --quiet, is
// also conntrack(8)'s letter for the reply's destination, and stands so in lines
// of -o save: an address behind it is that.
func (o *entryOptions) args(a *app, args []string) error {
	for _, arg := range args {
		switch {
		case strings.Contains(arg, ">") && o.flow == "":
			o.flow = arg
		case strings.Contains(arg, ">"):
			return usagef("unexpected argument %q: one flow at a time", arg)
		case a.quiet && isAddress(arg):
			o.given = append(o.given, given{"reply-dst", arg})
			a.quiet = false
		default:
			return unquoted(arg)
		}
	}
	return nil
}

func isAddress(s string) bool {
	_, err := value.Address(s)
	return err == nil
}

// read returns the flow that the options describe, its reply tuple worked out.
func (o *entryOptions) read() (*ct.Flow, error) {
	if o.labelmap != "" {
		if err := ct.LoadLabels(o.labelmap); err != nil {
			return nil, named("--labelmap", err)
		}
	}
	f := &ct.Flow{}
	if o.flow != "" {
		w, err := pattern.ParseFlow(o.flow)
		if err != nil {
			return nil, &usageError{err}
		}
		f = ct.FlowOf(w)
		f.Reply = ct.Tuple{} // worked out below
	}
	words := []string{"-A"}
	var sets []string
	flags := map[string]bool{}
	for _, g := range o.given {
		if g.flag == "set" {
			sets = append(sets, g.text)
		} else if len(g.flag) > 1 && g.flag != "label-add" && !flags[g.flag] { // a flag's last one counts
			flags[g.flag] = true
			sets = append(sets, g.flag+"="+g.text)
		}
	}
	if err := onceEach(ct.FlowAttrs(), sets); err != nil {
		return nil, err
	}
	for _, g := range o.given {
		e := entryFlags[slices.IndexFunc(entryFlags, func(e entryFlag) bool { return e.name == g.flag || slices.Contains(e.aliases, g.flag) })]
		if o.flow != "" && e.orig && (e.name != "zone" || f.Has(ct.HasZone)) {
			return nil, usagef("--%s: the flow in words says that already", g.flag)
		}
		if len(o.given) > 0 && e.name == "label" { // several add up, while each of a line replaces
			continue
		}
		name := "--" + g.flag
		if e.name == "srckey" || e.name == "dstkey" {
			name = "--" + e.name
		}
		words = append(words, name, g.text)
	}
	if labels := o.labels(); labels != "" {
		words = append(words, "--label-add", labels)
	}
	if err := format.ParseSave(words, f); err != nil {
		return nil, &usageError{err}
	}
	if err := o.check(f); err != nil {
		return nil, err
	}
	if !f.Has(ct.HasTCPFlagsOrig | ct.HasTCPFlagsReply) { // lines of -o save say all of it
		f.Complete(&ct.Flow{})
	}
	return f, nil
}

// check refuses what was asked for and cannot be had, which ParseSave passes over:
// attributes of another protocol, and status bits that saved flows have and that
// nobody can set.
func (o *entryOptions) check(f *ct.Flow) error {
	attrs := map[string]string{"status": "status", "orig-vtag": "sctp-vtag-orig", "reply-vtag": "sctp-vtag-repl", "role": "dccp-role"}
	status := ct.Find(ct.FlowAttrs(), "status")
	for _, g := range o.given {
		name, attr, text := "--"+g.flag, attrs[g.flag], g.text
		if g.flag == "set" {
			attr, text, _ = strings.Cut(g.text, "=")
			name = "--set " + attr
		}
		if err := ct.CheckProto(attr, f.Orig.Proto); err != nil {
			return named(name, err)
		}
		var asked ct.Flow
		if attr == "" || ct.Find(ct.FlowAttrs(), attr) != status || status.SetText(&asked, text) != nil { // or UNSET
			continue
		}
		if err := ct.CheckStatus(asked.Status, !f.Master.IsZero()); err != nil {
			return named(name, err)
		}
	}
	return nil
}

// labels returns all that were given, joined.
func (o *entryOptions) labels() string {
	var all []string
	for _, g := range o.given {
		if g.flag == "label" || g.flag == "label-add" {
			all = append(all, g.text)
		}
	}
	return strings.Join(all, ",")
}

// ctCreateOptions are the flags of 'nfctl ct create'.
type ctCreateOptions struct {
	flow      entryOptions
	orUpdate  bool
	ifMissing bool
	dryRun    bool
}

func newCtCreate(a *app) *cobra.Command {
	o := &ctCreateOptions{}
	c := &cobra.Command{
		Use:     "create FLOW",
		Aliases: []string{"add"},
		Short:   "Make a flow",
		Long: `Makes an entry of the table. What is not said is worked out: the reply is the
mirror of the original direction, a TCP connection is ESTABLISHED and has had
answers, the timeout is what a packet would give it. The entry is printed as the
kernel then keeps it.

Flags describe the new entry; lines of -o save without their -A are such flags.`,
		Example: `  nfctl ct create 'tcp 10.0.0.1:1000 > 10.0.0.2:22'
  nfctl ct create 'udp 10.0.0.1:1000 > 192.0.2.9:53' --dst-nat 10.0.0.2:5353 --timeout 5m
  nfctl ct create 'tcp 10.0.0.1:1000 > 10.0.0.2:21' --helper ftp --mark 7 --label 3
  nfctl ct create 'tcp 10.0.0.1:1000 > 10.0.0.2:21 zone 5' --state SYN_SENT`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.flow.args(a, args); err != nil {
				return err
			}
			return a.ctCreate(o)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	o.flow.register(c, false)
	f.BoolVar(&o.orUpdate, "or-update", false, "change the entry to be so when it is there already")
	f.BoolVar(&o.ifMissing, "if-missing", false, "leave the entry alone when it is there already")
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be made")
	return c
}

func (a *app) ctCreate(o *ctCreateOptions) error {
	if o.orUpdate && o.ifMissing {
		return usagef("--or-update and --if-missing: one of them")
	}
	f, err := o.flow.read()
	if err != nil {
		return err
	}
	w, _, err := a.flowPrinter("ct create")
	if err != nil {
		return err
	}
	if err := creatable(f); err != nil {
		return err
	}
	if f.Has(ct.HasTimeout) && f.Timeout == 0 {
		return named("--timeout", &value.Error{What: "timeout", Text: "0", Valid: "a second or more: the entry would be gone at once"})
	}
	defaults(f, ct.LoadTimeouts())
	if o.dryRun {
		return cmp.Or(w.print(f), w.end())
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.KeepsPorts(f); err != nil {
		return err
	}
	err = conn.Create(f, o.orUpdate)
	switch {
	case errors.Is(err, unix.EEXIST) && o.ifMissing:
		a.warn("it is there already, and was left alone")
	case err != nil && !errors.Is(err, ct.ErrLabelsDropped):
		return err
	}
	got := &ct.Flow{}
	return cmp.Or(printStored(conn, f, got, w), w.end(), labelsDropped(err))
}

// creatable tells what the kernel would refuse without a reason.
func creatable(f *ct.Flow) error {
	switch f.Orig.Proto {
	case ct.TCP, ct.UDP, ct.UDPLite, ct.SCTP, ct.DCCP:
		if !f.Orig.Has(ct.TupleSport) || !f.Orig.Has(ct.TupleDport) {
			return usagef("--sport and --dport: a flow of this protocol is made with both")
		}
	}
	return nil
}

func printStored(conn *ct.Conn, f, got *ct.Flow, w *flowPrinter) error {
	if w == nil {
		return nil
	}
	if err := conn.Get(f, got, false); err != nil {
		return err
	}
	return w.print(got)
}

// labelsDropped gives the error about labels that were not stored its hint.
func labelsDropped(err error) error {
	if !errors.Is(err, ct.ErrLabelsDropped) {
		return nil
	}
	return &statusError{code: exitFailed, err: err, hint: "the entry was made all the same; make a rule that uses labels, as iptables -m connlabel or nft ct label, and repeat with --or-update"}
}

// fallbackTimeout is for what the kernel gives no timeout, in seconds.
const fallbackTimeout = 600

// defaults sets state, status and timeout of a new entry where they are missing.
func defaults(f *ct.Flow, t *ct.Timeouts) {
	const answered = ct.StatusSeenReply | ct.StatusAssured
	if f.Orig.Proto == ct.TCP && !f.Has(ct.HasTCPState) {
		f.TCPState = stateEstablished
		if f.Has(ct.HasStatus) && f.Status&ct.StatusSeenReply == 0 {
			f.TCPState = stateSynSent
		}
		f.Present |= ct.HasTCPState
	}
	if f.Orig.Proto == ct.SCTP && !f.Has(ct.HasSCTPState) && f.Has(ct.HasSCTPVtagOrig|ct.HasSCTPVtagReply) {
		f.SCTPState, f.Present = stateSCTPEstablished, f.Present|ct.HasSCTPState // wants both tags
	}
	if !f.Has(ct.HasStatus) {
		f.Status = ct.StatusConfirmed
		if f.Orig.Proto == ct.TCP && f.TCPState >= stateEstablished && f.TCPState <= stateTimeWait || f.Orig.Proto == ct.SCTP && f.Has(ct.HasSCTPState) && f.SCTPState >= stateSCTPEstablished {
			f.Status |= answered
		}
		f.Present |= ct.HasStatus
	}
	if !f.Has(ct.HasTimeout) {
		if f.Timeout = t.Of(f); f.Timeout == 0 {
			f.Timeout = fallbackTimeout
		}
		f.Present |= ct.HasTimeout
	}
}

// States in the kernel's numbers.
const (
	stateSynSent         = 1
	stateEstablished     = 3
	stateTimeWait        = 7
	stateSCTPEstablished = 4
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

// onceEach refuses NAME=VALUE pairs of which two set the same attribute, by
// whatever names: the last would win without a word.
func onceEach[T any](table []ct.Attr[T], sets []string) error {
	seen := map[string]string{}
	for _, s := range sets {
		name, _, _ := strings.Cut(s, "=")
		at := ct.Find(table, strings.TrimSpace(name))
		if at == nil {
			continue // is refused elsewhere
		}
		// Attributes of the two families share a path.
		key := cmp.Or(at.Path, at.Name)
		if before, twice := seen[key]; twice {
			return usagef("%s is set twice: %s and %s", name, before, s)
		}
		seen[key] = s
	}
	return nil
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
	w, _, err := a.flowPrinter("ct update")
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
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
	if err = cmp.Or(err, again.Flush(), failed); err == nil {
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

// ctDeleteOptions are the flags of 'nfctl ct delete'.
type ctDeleteOptions struct {
	filter            filterOptions
	all               bool
	dryRun, failEmpty bool
}

func newCtDelete(a *app) *cobra.Command {
	o := &ctDeleteOptions{}
	c := &cobra.Command{
		Use:   "delete [FLOW]",
		Short: "Delete flows",
		Long: `Deletes the flows that words, flags and expressions choose, and prints each. A
flow is deleted only if it is still the one that was read: its id is part of the
request.

With -q, where family, mark, status and zone say it all, the kernel deletes by
itself, if a try in a network namespace of nfctl's own shows that this kernel
heeds them; it does not tell how many flows it deleted.`,
		Example: `  nfctl ct delete 'tcp 10.0.0.1 > :22'
  nfctl ct delete -p udp --status UNREPLIED --dry-run
  nfctl ct delete --filter 'idle > 3600' -q`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.filter.args(args); err != nil {
				return err
			}
			return a.ctDelete(c, o)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	registerFlowFilter(c, &o.filter)
	f.BoolVar(&o.all, "all", false, "without a filter: delete everything, unasked")
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be deleted")
	f.BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	return c
}

func (a *app) ctDelete(c *cobra.Command, o *ctDeleteOptions) error {
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	if !o.filter.any() && !o.dryRun {
		if err := a.confirm(o.all, "Delete every flow of this network namespace?"); err != nil {
			return err
		}
	}
	w, out, err := a.flowPrinter("ct delete")
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	if o.dryRun {
		return a.only(ctx, choose, w, "deleted", o.failEmpty)
	}
	if a.quiet && !o.failEmpty {
		done, err := a.kernelFlush(choose)
		if done && err == nil {
			a.total("the kernel deleted what matched")
		}
		if done {
			return err
		}
	}
	if w != nil { // deleteEach writes; this only begins
		if err := w.flush(); err != nil {
			return err
		}
	}
	return ended(ctx, a.deleteEach(ctx, choose, out, o.failEmpty))
}

// kernelFlush has the kernel delete what was chosen, where its filter says all of
// it and a probe showed that this kernel heeds it. It reports whether it did.
func (a *app) kernelFlush(choose *chooser[ct.Flow]) (done bool, err error) {
	family, k, exact := flushFilter(choose)
	if !exact {
		return false, nil
	}
	conn, err := ct.Dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if family != 0 || !k.IsZero() {
		if ok, err := ct.CanFlush(family != 0, k); err != nil || !ok {
			return false, nil // by hand, then
		}
	}
	return true, conn.Flush(family, k)
}

// flushFilter returns the filter of a flush that says all that was chosen.
func flushFilter(choose *chooser[ct.Flow]) (family uint8, k ct.KernelFilter, exact bool) {
	if choose.tests > 0 {
		return 0, k, false
	}
	seen := map[string]bool{}
	for _, c := range choose.conds {
		if len(c.Paths) != 1 || c.Set.Not || seen[c.Paths[0]] {
			return 0, k, false
		}
		switch path := c.Paths[0]; path {
		case "mark", "status", "zone", "family":
			if _, single := c.Set.Num(); !single {
				return 0, k, false
			}
			seen[path] = true
		default:
			return 0, k, false
		}
	}
	k, families := ct.FilterFrom(choose.conds)
	if len(families) == 1 {
		family = families[0]
	} else if seen["family"] {
		return 0, k, false
	}
	// What was said must be in the filter, which cannot say zone 0.
	return family, k, k.MarkMask != 0 == seen["mark"] && k.StatusMask != 0 == seen["status"] && k.Zone != 0 == seen["zone"]
}

// deleteEach reads what was chosen and deletes it, flow by flow.
func (a *app) deleteEach(ctx context.Context, choose *chooser[ct.Flow], out format.Output, failEmpty bool) error {
	matched, deleted, err := a.deleteListed(ctx, &lister{a: a, choose: choose, out: out, silent: a.quiet})
	a.total("%s deleted", flows(deleted))
	return cmp.Or(err, notFound(failEmpty, matched))
}

// deleteListed deletes what l would list, and prints it as l would. One dump is
// read for it, not one for each family side by side: the kernel deletes one flow
// at a time anyway, and reading goes on meanwhile.
func (a *app) deleteListed(ctx context.Context, l *lister) (matched, deleted uint64, err error) {
	conn, err := ct.Dial()
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	bad := &failures{a: a}
	w := newDeleter(conn, l.worker(), l.choose, bad)
	l.result, err = ct.Dump(ctx, dumpOptions(l.choose), w.flow)
	err = cmp.Or(err, w.batch.Flush())
	err = cmp.Or(err, w.failed, l.end())
	a.dumpNote(l.result)
	if err == nil {
		err = bad.result()
	}
	return w.matched, w.deleted, err
}

// A deleter deletes flows and prints those that it deleted.
type deleter struct {
	batch            *ct.Batch
	choose           *chooser[ct.Flow]
	failed           error
	matched, deleted uint64
}

func newDeleter(conn *ct.Conn, print *listWorker, choose *chooser[ct.Flow], bad *failures) *deleter {
	print.keep = nil
	w := &deleter{choose: choose}
	w.batch = conn.NewBatch(batchSize, func(f *ct.Flow, err error) {
		switch {
		case err == nil:
			w.deleted++
			w.failed = cmp.Or(w.failed, print.Flow(f))
		case !gone(err):
			bad.add(err)
		}
	})
	return w
}

func (w *deleter) flow(f *ct.Flow) error {
	if !w.choose.keep(f) {
		return nil
	}
	w.matched++
	return cmp.Or(w.batch.Delete(f), w.failed)
}

// ctFlushOptions are the flags of 'nfctl ct flush'.
type ctFlushOptions struct {
	filter      filterOptions
	all, dryRun bool
}

func newCtFlush(a *app) *cobra.Command {
	o := &ctFlushOptions{}
	c := &cobra.Command{
		Use:   "flush --all | --family F | --zone N | --mark V[/M] | --status S",
		Short: "Delete all flows, or those of a family, zone, mark or status, by one request",
		Long: `Deletes all flows of the network namespace, or those of a family, a zone, a mark
or a status, by one request to the kernel. Kernels that ignore such a filter would
delete everything (Linux 6.1 ignores the zone): whether this one heeds it is tried
first, in a network namespace of nfctl's own, and where it does not, or where that
cannot be tried, the flows are read and deleted one by one.`,
		Example: `  nfctl ct flush --all
  nfctl ct flush --family ipv6
  nfctl ct flush --zone 11`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.ctFlush(c, o) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&o.all, "all", false, "delete everything, unasked")
	var some []filterFlag[ct.Flow]
	for _, ff := range flowFlags {
		if slices.Contains([]string{"family", "zone", "mark", "status"}, ff.name) {
			some = append(some, ff)
		}
	}
	registerFlags(c, some, &o.filter)
	f.BoolVar(&o.dryRun, "dry-run", false, "only say how many flows would be deleted")
	return c
}

func (a *app) ctFlush(c *cobra.Command, o *ctFlushOptions) error {
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	if o.all && o.filter.any() {
		return usagef("--all deletes everything: it does not go with a filter")
	}
	if _, err := a.outputOf("ct flush", false); err != nil && a.output+a.fields+a.template != "" {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	if o.dryRun {
		n, err := a.each(ctx, choose, func(*ct.Flow) error { return nil })
		if err == nil {
			a.total("%s would be deleted", flows(n))
		}
		return ended(ctx, err)
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if !o.filter.any() {
		n, _, err := conn.Count()
		if err != nil {
			return err
		}
		if err := a.confirm(o.all, fmt.Sprintf("Delete all of %s of this network namespace?", flows(uint64(n)))); err != nil {
			return err
		}
		if err := conn.Flush(0, ct.KernelFilter{}); err != nil {
			return err
		}
		a.total("flushed, of %s", flows(uint64(n)))
		return nil
	}
	if done, err := a.kernelFlush(choose); done || err != nil {
		if err == nil {
			a.total("flushed what matched")
		}
		return err
	}
	if a.verbose > 0 {
		a.warn("this kernel is not known to heed the filter of a flush: deleting one by one")
	}
	a.quiet = true
	return ended(ctx, a.deleteEach(ctx, choose, format.Output{Format: format.Text}, false))
}
