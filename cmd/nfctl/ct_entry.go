package main

import (
	"strings"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// entryOptions are the flags and arguments that describe one flow.
type entryOptions struct {
	table.Entry
	q bool // -q was conntrack(8)'s letter, not --quiet
}

// register adds the flags, those by which the kernel finds a flow first; key: only these.
func (o *entryOptions) register(c *cobra.Command, key bool) {
	f := c.Flags()
	for _, part := range []bool{true, false} {
		for i := range ct.FlowFlags {
			e := &ct.FlowFlags[i]
			if e.Describe.Kind == "" || e.Key != part || key && !part {
				continue
			}
			names, letter := e.Names(true)
			if letter == "q" { // --quiet's: see args
				letter = ""
			}
			for _, p := range addGiven(f, names, letter, e.Describe, func(name, text string) {
				o.Given = append(o.Given, table.Given{Flag: name, Text: text})
			}) {
				p.Hidden = p.Hidden && p.Name != "label-add"
			}
		}
	}
	if !key {
		f.StringVar(&o.Labelmap, "labelmap", "", "read the names of labels from this `file` (default "+ct.LabelFile+")")
	}
}

// args takes the arguments: one flow in words, or none. -q, which is --quiet, is
// also conntrack(8)'s letter for the reply's destination, and stands so in lines
// of -o save: an address behind it is that.
func (o *entryOptions) args(a *app, args []string) error {
	for _, arg := range args {
		switch {
		case strings.Contains(arg, ">") && o.Flow == "":
			o.Flow = arg
		case strings.Contains(arg, ">"):
			return usagef("unexpected argument %q: one flow at a time", arg)
		case a.quiet && !o.q && isAddress(arg):
			o.Given = append(o.Given, table.Given{Flag: "reply-dst", Text: arg})
			o.q = true
		default:
			return table.Unquoted(arg)
		}
	}
	return nil
}

func isAddress(s string) bool {
	_, err := value.Address(s)
	return err == nil
}
