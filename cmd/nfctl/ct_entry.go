package main

import (
	"strings"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// entryOptions are the flags and arguments that describe one flow.
type entryOptions struct{ table.Entry }

// register adds the flags; Key: only those by which the kernel finds a flow.
func (o *entryOptions) register(c *cobra.Command, key bool) {
	f := c.Flags()
	for i := range table.EntryFlags {
		e := &table.EntryFlags[i]
		if key && !e.Key {
			continue
		}
		for _, name := range append([]string{e.Name}, e.Aliases...) {
			short := ""
			if name == e.Name {
				short = e.Short
			}
			p := f.VarPF(&ordered{kind: e.Kind, add: func(text string) error {
				o.Given = append(o.Given, table.Given{Flag: name, Text: text})
				return nil
			}}, name, short, e.Usage)
			p.Hidden = name != e.Name && name != "label-add" || e.Usage == ""
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
		case a.quiet && isAddress(arg):
			o.Given = append(o.Given, table.Given{Flag: "reply-dst", Text: arg})
			a.quiet = false
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
