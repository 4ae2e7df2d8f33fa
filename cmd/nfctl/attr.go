package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nfctl/internal/attrs"
	"nfctl/internal/ct"
	"nfctl/internal/format"
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

func (a *app) attrList() *cobra.Command {
	settable := false
	c := &cobra.Command{
		Use:   "list",
		Short: "All attributes: name, type, width, where they are read, whether they can be set",
		Example: `  nfctl attr list
  nfctl attr list --settable --fields name,aliases,type,bits,create,update -o table`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			rows := attrs.Table()
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
				found, err := attrs.Find(name)
				if err != nil {
					return err
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
				k.b = format.AppendAttr(k.b, &rows[i], i > 0)
			}
			return k.flush()
		},
	}
	a.prints(c, format.Generic, paths(format.Attrs.Fields))
	return c
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
				for _, v := range attrs.Vocabularies() {
					k.b = append(append(k.b, v.Of...), '\n')
				}
				return k.flush()
			}
			rows, err := attrs.Values(args[0])
			if err != nil {
				return err
			}
			return printAll(a, format.Values, rows...)
		},
	}
	a.prints(c, format.Generic, paths(format.Values.Fields))
	return c
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
			var wanted []*ct.Attr[ct.Flow]
			for _, name := range args[1:] {
				found, err := attrs.OfFlow(name)
				if err != nil {
					return err
				}
				wanted = append(wanted, found...)
			}
			if _, err := attrs.Flow(args[0]); err != nil {
				return err
			}
			c, err := ct.Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			f, err := attrs.ReadFlow(c, args[0])
			if err != nil {
				return err
			}
			k := &sink{w: a.out}
			var missing []string
			for _, at := range wanted {
				lacks := ""
				if k.b, lacks = attrs.AppendValue(k.b, at, f, raw); lacks != "" {
					missing = append(missing, lacks)
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
			f, err := attrs.Flow(args[0])
			if err != nil {
				return err
			}
			change, err := attrs.Change(f, args[1:])
			if err != nil {
				return err
			}
			c, err := ct.Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			if f, err = attrs.ReadFlow(c, args[0]); err != nil {
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

func (a *app) attrBuild() *cobra.Command {
	var opts []func(*ct.Flow)
	var names []string
	long := `Makes a flow of attributes, without a kernel, and prints it: with -o save as the
command that makes it, with -o flow in words. --opt is applied after the attributes,
several in their order:

`
	for _, o := range attrs.Options {
		names = append(names, o.Name)
		long += fmt.Sprintf("  %-15s %s\n", o.Name, o.Doc)
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
			f, err := attrs.Build(args)
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
		for _, o := range attrs.Options {
			if o.Name == s {
				opts = append(opts, o.Do)
				return nil
			}
		}
		return &value.Error{What: "option", Text: s, Valid: strings.Join(names, ", "), Near: value.Nearest(s, names)}
	}}, "opt", "what to do with the flow then: "+strings.Join(names, ", "))
	_ = c.RegisterFlagCompletionFunc("opt", fixed(names...))
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
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
			stored, err := attrs.Encode(args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%x\n", stored)
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
			text, err := attrs.Decode(nil, args[0], args[1])
			if err != nil {
				return err
			}
			_, err = a.out.Write(append(text, '\n'))
			return err
		},
	}
}
