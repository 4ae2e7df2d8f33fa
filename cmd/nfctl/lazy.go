package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// A maker makes one command. A command line runs one of some forty, and making
// them all takes longer than most of them run: so only the commands are made
// whose names stand first on the command line, and all of them where that is not
// plain (flags in front, help, completion, a mistake).
type maker struct {
	names string // name and aliases, with blanks between them
	make  func(*app) *cobra.Command
}

// choose makes the commands at a depth of the tree, 0 for those right below nfctl.
func (a *app) choose(depth int, makers []maker) []*cobra.Command {
	if a.lazy && depth < len(a.words) {
		for _, m := range makers {
			if slices.Contains(strings.Fields(m.names), a.words[depth]) {
				return []*cobra.Command{m.make(a)}
			}
		}
	}
	a.lazy = false
	var out []*cobra.Command
	for _, m := range makers {
		out = append(out, m.make(a))
	}
	return out
}
