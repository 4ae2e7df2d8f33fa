package compat

import (
	"fmt"
	"strings"

	"nfctl/internal/value"
)

// Version is the version of conntrack(8) whose command line this is. Programs
// match the line that Name begins.
const (
	Version = "1.4.8"
	Name    = "conntrack v" + Version + " (conntrack-tools)"
)

// Help is the text of -h: made of the tables that Parse reads by. With a
// protocol, as -p names it, its options stand at the end.
func Help(proto string) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "nfctl, as conntrack(8). Version %s\nUsage: conntrack [commands] [options]\n\nCommands:\n", Version)
	for _, c := range commands {
		line := fmt.Sprintf("-%c, --%s %s", c.letter, c.name, c.table)
		fmt.Fprintf(b, "  %-36s %s\n", strings.TrimSpace(line), c.doc)
	}
	fmt.Fprintf(b, "  %-36s %s\n\nTables: %s\n\nParameters and options:\n", "-R, --load-file file|-",
		"do what the lines of a file say: -I -A -U -D -F", strings.Join(tables, ", "))
	for _, o := range options {
		if !o.extra {
			writeOption(b, &o)
		}
	}
	b.WriteByte('\n')
	if proto == "" {
		return b.String()
	}
	n, err := value.Protocols.Parse(strings.ToLower(proto))
	if p := findProtocol(uint8(n)); err == nil && p != nil {
		fmt.Fprintf(b, "Proto `%s' help:\n", p.name)
		for _, o := range p.opts {
			writeOption(b, &o)
		}
		if len(p.states) > 0 {
			fmt.Fprintf(b, "  states: %s\n", strings.Join(p.states, " "))
		}
		return b.String()
	}
	name := value.Protocols.Word(n)
	if name == "" {
		name = "unknown"
	}
	fmt.Fprintf(b, "Proto `%s' help:\n  no options (unsupported)\n", strings.ToLower(name))
	return b.String()
}

func writeOption(b *strings.Builder, o *option) {
	s := "    "
	if o.letter != 0 {
		s = "-" + string(o.letter) + ", "
	}
	for i, n := range o.names {
		if i > 0 {
			s += ", "
		}
		s += "--" + n
	}
	fmt.Fprintf(b, "  %-40s %s\n", strings.TrimRight(s+" "+o.kind, " "), o.doc)
}
