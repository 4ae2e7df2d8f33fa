package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nfctl/internal/ct"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// filterOptions are the flags and arguments that choose objects.
type filterOptions struct{ table.Filter }

// registerFilter adds the flags that choose objects to a command.
func registerFilter(c *cobra.Command, flags []ct.Flag, o *filterOptions) {
	registerFlags(c, flags, o)
	f := c.Flags()
	f.StringArrayVar(&o.Exprs, "filter", nil, "only what an `expression` holds for, see 'nfctl help expressions'")
	f.StringVar(&o.Labelmap, "labelmap", "", "read the names of labels from this `file` (default "+ct.LabelFile+")")
}

// registerFlags adds flags that choose objects to a command.
func registerFlags(c *cobra.Command, flags []ct.Flag, o *filterOptions) {
	for i := range flags {
		ff := &flags[i]
		if ff.Choose.Kind == "" {
			continue
		}
		names, letter := ff.Names(false)
		for _, p := range addGiven(c.Flags(), names, letter, ff.Choose, func(name, text string) {
			o.Given = append(o.Given, table.Given{Flag: name, Text: text})
		}) {
			if ff.Bare {
				p.NoOptDefVal = table.AnyValue
			}
		}
	}
}

// addGiven adds a flag under all its names, of which help has the first; each use
// calls add.
func addGiven(f *pflag.FlagSet, names []string, short string, help ct.FlagHelp,
	add func(name, text string)) (all []*pflag.Flag) {
	for i, name := range names {
		p := f.VarPF(&ordered{kind: help.Kind, add: func(text string) error {
			add(name, text)
			return nil
		}}, name, short, help.Text)
		p.Hidden = i > 0 || help.Text == ""
		all, short = append(all, p), ""
	}
	return all
}

// words is what was typed to choose objects, to show it.
func (o *filterOptions) words() []string {
	var all []string
	if o.Pattern != "" {
		all = append(all, o.Pattern)
	}
	for _, g := range o.Given {
		if all = append(all, "--"+g.Flag); g.Text != table.AnyValue {
			all = append(all, g.Text)
		}
	}
	for _, text := range o.Exprs {
		all = append(all, "--filter", text)
	}
	return all
}

// args takes a command's arguments: at most one flow in words. An address
// behind a flag that may stand without one, as conntrack(8)'s users type it, is
// that flag's.
func (o *filterOptions) args(args []string) error {
	for _, arg := range args {
		if strings.Contains(arg, ">") {
			if o.Pattern != "" {
				return usagef("unexpected argument %q: one flow in words at a time", arg)
			}
			o.Pattern = arg
			continue
		}
		bare := slices.IndexFunc(o.Given, func(g table.Given) bool {
			return g.Text == table.AnyValue && strings.HasSuffix(g.Flag, "-nat")
		})
		if bare < 0 {
			return table.Unquoted(arg)
		}
		if err := table.CheckNAT(arg); err != nil {
			flag := o.Given[bare].Flag
			return usagef("unexpected argument %q: the value of --%s is written behind '=', --%s=%s, and must be a "+
				"valid one: %w", arg, flag, flag, arg, err)
		}
		o.Given[bare].Text = arg
	}
	return nil
}

// idleNote says on what it rests that flows are chosen by how long they are idle.
func (a *app) idleNote() {
	t := ct.LoadTimeouts()
	text := "idle rests on the time left and the settings of this namespace (nf_conntrack_*_timeout*)"
	if t.Ages {
		text += ", and is told where the flow is as old"
	} else {
		text += "; with nf_conntrack_timestamp=0 no flow's age confirms it"
	}
	if t.LoadPolicies() == nil {
		var names []byte
		for _, p := range t.Policies() {
			names = value.Protocols.Append(append(names, ", "...), uint64(p))
		}
		if names != nil {
			text += "; timeout policies leave it unknown of " + string(names[2:])
		}
	}
	a.warn("%s: nfctl help timeouts", text)
}
