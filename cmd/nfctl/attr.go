package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

func newAttr(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "attr",
		Short: "The attribute table: what a flow and an expectation have, and single values of it",
		Long: `The attributes of flows and expectations, by the names that libnetfilter_conntrack
and netfilter-lua's scripts use: what there is, what can be set, and single values of a
flow for scripts. list, show, values, build, encode and decode take no privileges.`,
		Example: `  nfctl attr list --settable
  nfctl attr show tcp-state
  mark=$(nfctl attr get 'tcp 10.0.0.1:40000 > 10.0.0.2:22' mark)
  nfctl attr set 'tcp 10.0.0.1:40000 > 10.0.0.2:22' mark=7 timeout=1h`,
	}
	c.AddCommand(a.choose(1, []maker{
		{"list", (*app).attrList}, {"show", (*app).attrShow}, {"values", (*app).attrValues}, {"get", (*app).attrGet},
		{"set", (*app).attrSet}, {"build", (*app).attrBuild}, {"encode", (*app).attrEncode}, {"decode", (*app).attrDecode},
	})...)
	return c
}

// attrTable returns every attribute: of flows, of expectations, and groups.
func attrTable() []format.Attr {
	all := append(format.AttrTable("flow", ct.FlowAttrs()), format.AttrTable("expect", ct.ExpectAttrs())...)
	for _, g := range ct.Groups {
		row := format.Attr{Of: "group", Name: g.Name, Type: "group", Readable: "as its members",
			Create: "yes, as its members", Update: "yes, as its members"}
		row.Doc = strings.Join(g.Members, " and ")
		for _, m := range g.Members {
			attr := ct.Find(ct.FlowAttrs(), m)
			row.Bits += attr.Bits
			for update, why := range map[bool]*string{false: &row.Create, true: &row.Update} {
				if ok, reason := attr.Settable(update); !ok {
					*why = "no: " + reason
				}
			}
		}
		all = append(all, row)
	}
	return all
}

// attrNames returns all names and aliases.
func attrNames() (names []string) {
	for _, row := range attrTable() {
		names = append(append(names, row.Name), row.Aliases...)
	}
	return names
}

func (a *app) attrList() *cobra.Command {
	settable := false
	c := &cobra.Command{
		Use:   "list",
		Short: "All attributes: name, type, width, where they are read, whether they can be set",
		Example: `  nfctl attr list
  nfctl attr list --settable --fields name,aliases,type,bits,create,update -o table`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			rows := attrTable()
			if settable {
				rows = slices.DeleteFunc(rows, func(r format.Attr) bool {
					return !strings.HasPrefix(r.Create, "yes") && !strings.HasPrefix(r.Update, "yes")
				})
			}
			return printAll(a, format.Attrs, rows...)
		},
	}
	c.Flags().BoolVar(&settable, "settable", false, "only those that a new entry can have or that can be changed")
	a.prints(c, format.Generic, paths(format.Attrs.Fields))
	return c
}

func (a *app) attrShow() *cobra.Command {
	c := &cobra.Command{
		Use:   "show NAME...",
		Short: "All that is known of an attribute",
		Example: `  nfctl attr show mark
  nfctl attr show repl-port-src -o json`,
		Args:              atLeast(1, "the name of an attribute"),
		ValidArgsFunction: completeAttrs(""),
		RunE: func(_ *cobra.Command, args []string) error {
			var rows []format.Attr
			for _, name := range args {
				found := findAttrs(name)
				if len(found) == 0 {
					return unknownAttr(name)
				}
				rows = append(rows, found...)
			}
			o, err := a.outputOf(false)
			if err != nil {
				return err
			}
			if o.Format != format.Text && o.Format != format.Table || a.output != "" || a.fields != "" {
				return printAll(a, format.Attrs, rows...)
			}
			k := &sink{w: a.out}
			for i := range rows {
				k.b = appendAttr(k.b, &rows[i], i > 0)
			}
			return k.flush()
		},
	}
	a.prints(c, format.Generic, paths(format.Attrs.Fields))
	return c
}

// findAttrs returns the attributes with a name, alias or path.
func findAttrs(name string) (out []format.Attr) {
	for _, row := range attrTable() {
		if row.Name == name || slices.Contains(row.Aliases, name) {
			return []format.Attr{row}
		}
		if row.Path == name {
			out = append(out, row)
		}
	}
	return out
}

func unknownAttr(name string) error {
	return &value.Error{What: "attribute", Text: name, Valid: "a name of 'nfctl attr list'",
		Near: value.Nearest(name, attrNames())}
}

// appendAttr appends what is known of an attribute, a line for each thing.
func appendAttr(b []byte, r *format.Attr, more bool) []byte {
	if more {
		b = append(b, '\n')
	}
	kind := r.Type
	if r.Bits > 0 {
		kind += fmt.Sprintf(", %d bits", r.Bits)
	}
	for _, line := range [][2]string{
		{"name", r.Name}, {"aliases", strings.Join(r.Aliases, ", ")}, {"of", r.Of}, {"what", r.Doc}, {"type", kind}, {"path", r.Path},
		{"netlink", r.Netlink}, {"since", r.Since}, {"readable", r.Readable}, {"create", r.Create}, {"update", r.Update},
	} {
		if line[1] != "" {
			b = fmt.Appendf(b, "%-9s %s\n", line[0], line[1])
		}
	}
	return b
}

// A vocabulary is the words that an attribute takes.
type vocabulary struct {
	of    string
	names *value.Names
}

// vocabularies returns those of all attributes that have one.
func vocabularies() (out []vocabulary) {
	for i := range ct.FlowAttrs() {
		if at := &ct.FlowAttrs()[i]; at.Names != nil && at.Path != "kind" && at.Path != "event" {
			out = append(out, vocabulary{word(at.Name, at.Aliases, at.Path), at.Names})
		}
	}
	for i := range ct.ExpectAttrs() {
		if at := &ct.ExpectAttrs()[i]; at.Names != nil && at.Name != "" {
			out = append(out, vocabulary{at.Name, at.Names})
		}
	}
	return out
}

// word is how an attribute is called where its words are asked for: by the short
// form of its name.
func word(name string, aliases []string, path string) string {
	if len(aliases) > 0 {
		return aliases[0]
	}
	if name == "" {
		return path
	}
	return name
}

func (a *app) attrValues() *cobra.Command {
	c := &cobra.Command{
		Use:   "values [ATTRIBUTE]",
		Short: "The words that an attribute takes, with their numbers",
		Long: `The words that an attribute takes, with their numbers; of flags, their masks.
Without an attribute: which attributes have words. Where several words have one
number, the first is printed and all are read, in any case.`,
		Example: `  nfctl attr values tcp-state
  nfctl attr values l4proto -o json`,
		Args:              atMost(1),
		ValidArgsFunction: completeVocabularies,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				k := &sink{w: a.out}
				if a.output != "" || a.fields != "" || a.template != "" {
					return usagef("attr values: name an attribute to have its words in a format of your own")
				}
				for _, v := range append(vocabularies(), vocabulary{of: "connlabels"}) {
					k.b = append(append(k.b, v.of...), '\n')
				}
				return k.flush()
			}
			rows, err := valuesOf(args[0])
			if err != nil {
				return err
			}
			return printAll(a, format.Values, rows...)
		},
	}
	a.prints(c, format.Generic, paths(format.Values.Fields))
	return c
}

func valuesOf(name string) (rows []format.Value, err error) {
	if name == "connlabels" || name == "label" || name == "labels" {
		for n := range 128 {
			if w := ct.LabelName(n); w != "" {
				rows = append(rows, format.Value{Of: "connlabels", Name: w, Num: uint64(n)})
			}
		}
		return rows, nil
	}
	full := name
	if at := ct.Find(ct.FlowAttrs(), name); at != nil {
		full = word(at.Name, at.Aliases, at.Path)
	}
	var known []string
	for _, v := range vocabularies() {
		known = append(known, v.of)
		if v.of != full && v.of != name {
			continue
		}
		for _, n := range v.names.List() {
			if n.Word != "" {
				rows = append(rows, format.Value{Of: v.of, Name: n.Word, Num: n.Num})
			}
		}
		return rows, nil
	}
	return nil, &value.Error{What: "attribute with words", Text: name,
		Valid: strings.Join(slices.Compact(known), ", ") + " or connlabels", Near: value.Nearest(name, known)}
}

// flowArg reads an exact flow in words.
func flowArg(text string) (*ct.Flow, error) {
	w, err := pattern.ParseFlow(text)
	if err != nil {
		return nil, err
	}
	return ct.FlowOf(w), nil
}

// readFlow reads the entry of the flow that text names.
func readFlow(c *ct.Conn, text string) (*ct.Flow, error) {
	f, err := flowArg(text)
	if err != nil {
		return nil, err
	}
	got := &ct.Flow{}
	err = c.Get(f, got, false)
	if errors.Is(err, unix.ENOENT) { // named by the reply direction?
		f.Orig, f.Reply = ct.Tuple{}, f.Orig
		if c.Get(f, got, false) == nil {
			return got, nil
		}
	}
	return got, err
}

func (a *app) attrGet() *cobra.Command {
	raw := false
	c := &cobra.Command{
		Use:   "get FLOW NAME...",
		Short: "Values of a flow, alone, one a line, for $(...)",
		Long: `Prints attributes of a flow in the table, alone and one a line. The name may be an
attribute's, a JSON path or a group's, which prints its members. What the flow does
not have is an empty line, and exit status 3.`,
		Example: `  mark=$(nfctl attr get 'tcp 10.0.0.1:40000 > 10.0.0.2:22' mark)
  nfctl attr get 'udp 10.0.0.1:5353 > 10.0.0.2:53' timeout orig.bytes repl-ipv4-dst
  nfctl attr get 'tcp 10.0.0.1:40000 > 10.0.0.2:22' orig-port-dst --raw`,
		Args:              atLeast(2, "a flow in words and the name of an attribute"),
		ValidArgsFunction: completeAfterFlow(completeAttrs("")),
		RunE: func(_ *cobra.Command, args []string) error {
			var attrs []*ct.Attr[ct.Flow]
			for _, name := range args[1:] {
				found, err := flowAttrs(name)
				if err != nil {
					return err
				}
				attrs = append(attrs, found...)
			}
			if _, err := flowArg(args[0]); err != nil {
				return err
			}
			c, err := ct.Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			f, err := readFlow(c, args[0])
			if err != nil {
				return err
			}
			k := &sink{w: a.out}
			var missing []string
			for _, at := range attrs {
				if !at.Has(f) && at.Path != "mark" && at.Path != "zone" {
					missing = append(missing, word(at.Name, nil, at.Path))
				} else if raw {
					stored, ok := at.AppendStored(nil, f)
					if !ok && at.Bits > 0 { // mark and zone, not sent when 0
						stored = make([]byte, at.Bits/8)
					}
					k.b = hex.AppendEncode(k.b, stored)
				} else if at.Has(f) {
					k.b = at.AppendText(k.b, f)
				} else {
					k.b = append(k.b, '0')
				}
				k.b = append(k.b, '\n')
			}
			if err := k.flush(); err != nil {
				return err
			}
			if len(missing) > 0 {
				return &statusError{code: exitNotFound,
					err:  fmt.Errorf("flow %s: no %s", args[0], strings.Join(missing, ", ")),
					hint: "'nfctl attr show' says when the kernel sends an attribute"}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "the stored bytes in hexadecimal, as 'attr decode' reads them")
	return c
}

// flowAttrs returns the attributes of flows that a name means: one, or a group's.
func flowAttrs(name string) ([]*ct.Attr[ct.Flow], error) {
	for _, g := range ct.Groups {
		if g.Name == name {
			var out []*ct.Attr[ct.Flow]
			for _, m := range g.Members {
				out = append(out, ct.Find(ct.FlowAttrs(), m))
			}
			return out, nil
		}
	}
	if at := ct.Find(ct.FlowAttrs(), name); at != nil {
		return []*ct.Attr[ct.Flow]{at}, nil
	}
	if ct.Find(ct.ExpectAttrs(), name) != nil {
		return nil, &value.Error{What: "attribute of a flow", Text: name,
			Valid: "one of flows: it is an expectation's, see 'nfctl expect get'"}
	}
	return nil, unknownAttr(name)
}

func (a *app) attrSet() *cobra.Command {
	dryRun := false
	c := &cobra.Command{
		Use:   "set FLOW NAME=VALUE...",
		Short: "Change attributes of a flow in the table",
		Example: `  nfctl attr set 'tcp 10.0.0.1:40000 > 10.0.0.2:22' mark=0x1/0xff timeout=1h
  nfctl attr set 'tcp 10.0.0.1:40000 > 10.0.0.2:22' status=ASSURED --dry-run`,
		Args:              atLeast(2, "a flow in words and what to set, as mark=7"),
		ValidArgsFunction: completeAfterFlow(completeAttrs("=")),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := flowArg(args[0])
			if err != nil {
				return err
			}
			// The protocol tells which states there are.
			change := &ct.Flow{}
			change.Orig.Proto = f.Orig.Proto
			if err := table.OnceEach(ct.FlowAttrs(), args[1:]); err != nil {
				return err
			}
			for _, s := range args[1:] {
				if err := ct.SetChange(change, s); err != nil {
					return err
				}
				if err := ct.CheckStatus(change.Status, false); err != nil {
					return err
				}
			}
			c, err := ct.Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			if f, err = readFlow(c, args[0]); err != nil {
				return err
			}
			if dryRun {
				a.warn("flow %s: would set %s", args[0], strings.Join(args[1:], " "))
				return nil
			}
			change.Complete(f)
			return c.Update(f, change)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "look whether the flow is there and what is asked for can be set, "+
		"and change nothing")
	return c
}

// buildOptions are libnetfilter_conntrack's options of an object.
var buildOptions = []struct {
	name, doc string
	do        func(*ct.Flow)
}{
	{"setup-reply", "the reply direction becomes the mirror of the original one", (*ct.Flow).SetupReply},
	{"setup-original", "the other way round", (*ct.Flow).SetupOrig},
	{"undo-snat", "turn the source address translation that the tuples show into one to ask for", (*ct.Flow).UndoSNAT},
	{"undo-dnat", "the same for the destination address", (*ct.Flow).UndoDNAT},
	{"undo-spat", "the same for the source port", (*ct.Flow).UndoSPAT},
	{"undo-dpat", "the same for the destination port", (*ct.Flow).UndoDPAT},
}

func (a *app) attrBuild() *cobra.Command {
	var opts []func(*ct.Flow)
	var names []string
	long := `Makes a flow of attributes, without a kernel, and prints it: with -o save as the
command that makes it, with -o flow in words. --opt is applied after the attributes,
several in their order:

`
	for _, o := range buildOptions {
		names = append(names, o.name)
		long += fmt.Sprintf("  %-15s %s\n", o.name, o.doc)
	}
	c := &cobra.Command{
		Use:   "build NAME=VALUE...",
		Short: "Make a flow of attributes, without a kernel, and print it",
		Long:  long,
		Example: `  nfctl attr build l4proto=tcp ipv4-src=10.0.0.1 ipv4-dst=10.0.0.2 port-src=1000 port-dst=80 tcp-state=ESTABLISHED timeout=120 --opt setup-reply
  nfctl attr build l4proto=udp ipv4-src=10.0.0.1 ipv4-dst=10.0.0.2 port-src=1 port-dst=53 timeout=30 --opt setup-reply -o save`,
		Args:              atLeast(1, "an attribute and its value, as l4proto=tcp"),
		ValidArgsFunction: completeAttrs("="),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := buildFlow(args)
			if err != nil {
				return err
			}
			for _, do := range opts {
				do(f)
			}
			return printAll(a, format.Flows, *f)
		},
	}
	c.Flags().Var(&ordered{kind: "option", add: func(s string) error {
		for _, o := range buildOptions {
			if o.name == s {
				opts = append(opts, o.do)
				return nil
			}
		}
		return &value.Error{What: "option", Text: s, Valid: strings.Join(names, ", "), Near: value.Nearest(s, names)}
	}}, "opt", "what to do with the flow then: "+strings.Join(names, ", "))
	_ = c.RegisterFlagCompletionFunc("opt", fixed(names...))
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
}

// buildFlow makes a flow of NAME=VALUE, as netfilter-lua's set_attr functions do:
// in memory, so that also what no kernel would take can be set.
func buildFlow(args []string) (*ct.Flow, error) {
	f := &ct.Flow{}
	if err := table.OnceEach(ct.FlowAttrs(), args); err != nil {
		return nil, err
	}
	for _, s := range args {
		name, text, ok := strings.Cut(s, "=")
		at := ct.Find(ct.FlowAttrs(), name)
		switch {
		case !ok:
			return nil, &value.Error{What: "attribute to set", Text: s, Valid: "NAME=VALUE, as mark=7"}
		case at == nil && ct.Find(ct.ExpectAttrs(), name) != nil:
			return nil, &value.Error{What: "attribute of a flow", Text: name,
				Valid: "one of flows: it is an expectation's, see 'nfctl expect create'"}
		case at == nil:
			return nil, unknownAttr(name)
		}
		if err := setAny(f, at, text); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	complete(f)
	return f, nil
}

// setAny sets an attribute in memory. A path that several attributes share, as
// orig.src, is set by the first that takes the text.
func setAny(f *ct.Flow, at *ct.Attr[ct.Flow], text string) error {
	err := at.SetText(f, text)
	for i := range ct.FlowAttrs() {
		if other := &ct.FlowAttrs()[i]; err != nil && other != at && other.Path == at.Path {
			if other.SetText(f, text) == nil {
				return nil
			}
		}
	}
	return err
}

// complete gives the tuples that have addresses their family, and both directions
// one protocol, unless something else was said.
func complete(f *ct.Flow) {
	for _, t := range [][2]*ct.Tuple{{&f.Orig, &f.Reply}, {&f.Reply, &f.Orig}} {
		if from, to := t[0], t[1]; from.Has(ct.TupleProto) && !to.Has(ct.TupleProto) &&
			(to.Src.IsValid() || to.Dst.IsValid()) {
			to.Proto, to.Present = from.Proto, to.Present|ct.TupleProto
		}
	}
	for _, t := range []*ct.Tuple{&f.Orig, &f.Reply, &f.Master} {
		if t.Has(ct.TupleFamily) || !t.Src.IsValid() && !t.Dst.IsValid() {
			continue
		}
		t.Family = ct.IPv4
		if t.Src.Is6() || t.Dst.Is6() {
			t.Family = ct.IPv6
		}
		t.Present |= ct.TupleFamily
	}
}

func (a *app) attrEncode() *cobra.Command {
	return &cobra.Command{
		Use:   "encode NAME VALUE",
		Short: "The bytes in which libnetfilter_conntrack keeps a value, in hexadecimal",
		Long: `The bytes in which libnetfilter_conntrack keeps a value, in hexadecimal: addresses,
ports and ICMP ids in network byte order, other numbers in this machine's.`,
		Example: `  nfctl attr encode port-dst ssh      # 0016
  nfctl attr encode mark 0x10`,
		Args:              exactly(2, "the name of an attribute and a value"),
		ValidArgsFunction: completeAttrs(""),
		RunE: func(_ *cobra.Command, args []string) error {
			var stored []byte
			ok := false
			if at := ct.Find(ct.FlowAttrs(), args[0]); at != nil {
				var f ct.Flow
				if err := setAny(&f, at, args[1]); err != nil {
					return err
				}
				stored, ok = at.AppendStored(nil, &f)
			} else if at := ct.Find(ct.ExpectAttrs(), args[0]); at != nil {
				var e ct.Expect
				if err := at.SetText(&e, args[1]); err != nil {
					return err
				}
				stored, ok = at.AppendStored(nil, &e)
			} else {
				return unknownAttr(args[0])
			}
			if !ok {
				return usagef("attribute %s: it is not kept as bytes; 'nfctl attr show %s' says what it is", args[0],
					args[0])
			}
			_, err := fmt.Fprintf(a.out, "%x\n", stored)
			return err
		},
	}
}

func (a *app) attrDecode() *cobra.Command {
	return &cobra.Command{
		Use:   "decode NAME HEX",
		Short: "Read a value from the bytes in which libnetfilter_conntrack keeps it",
		Example: `  nfctl attr decode port-dst 0016      # 22
  nfctl attr decode ipv4-src 0a000001  # 10.0.0.1`,
		Args:              exactly(2, "the name of an attribute and bytes in hexadecimal"),
		ValidArgsFunction: completeAttrs(""),
		RunE: func(_ *cobra.Command, args []string) error {
			stored, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "").Replace(strings.TrimPrefix(args[1],
				"0x")))
			if err != nil {
				return &value.Error{What: "row of bytes", Text: args[1], Valid: "hexadecimal digits, two a byte"}
			}
			var text []byte
			if at := ct.Find(ct.FlowAttrs(), args[0]); at != nil {
				text, err = decodeStored(at, &ct.Flow{}, stored, args[1])
			} else if at := ct.Find(ct.ExpectAttrs(), args[0]); at != nil {
				text, err = decodeStored(at, &ct.Expect{}, stored, args[1])
			} else {
				return unknownAttr(args[0])
			}
			if err != nil {
				return err
			}
			_, err = a.out.Write(append(text, '\n'))
			return err
		},
	}
}

func decodeStored[T any](at *ct.Attr[T], t *T, stored []byte, text string) ([]byte, error) {
	if at.Bits > 0 && len(stored) != at.Bits/8 {
		return nil, &value.Error{What: "value of " + at.Name, Text: text, Valid: fmt.Sprintf("%d bytes", at.Bits/8)}
	}
	if !at.SetStored(t, stored) {
		return nil, usagef("attribute %s: it is not kept as bytes; 'nfctl attr show %s' says what it is", at.Name,
			at.Name)
	}
	return at.AppendText(nil, t), nil
}
