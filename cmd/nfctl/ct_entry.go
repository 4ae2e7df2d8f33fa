package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

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
	{name: "orig-zone", kind: "number", usage: "zone of the original direction alone", key: true, orig: true},
	{name: "reply-zone", kind: "number", usage: "zone of the reply direction alone", key: true, orig: true},
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
		f.Reply = ct.Tuple{Zone: f.Reply.Zone, Present: f.Reply.Present & ct.TupleZone} // the rest is worked out below
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
		said := true // by the words; a zone only where they have it
		switch e.name {
		case "zone":
			said = f.Has(ct.HasZone)
		case "orig-zone":
			said = f.Orig.Has(ct.TupleZone)
		case "reply-zone":
			said = f.Reply.Has(ct.TupleZone)
		}
		if o.flow != "" && e.orig && said {
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
	if !f.Has(ct.HasTCPFlagsOrig | ct.HasTCPFlagsReply) { // lines of -o save say all of it
		f.Complete(&ct.Flow{})
	}
	return f, nil
}

// check refuses what was asked for and cannot be had, which read passes over, as
// conntrack(8) does: attributes of another protocol, and status bits that saved
// flows have and that nobody can set.
func (o *entryOptions) check(f *ct.Flow) error {
	attrs := map[string]string{"status": "status", "orig-vtag": "sctp-vtag-orig", "reply-vtag": "sctp-vtag-repl", "role": "dccp-role"}
	status := ct.Find(ct.FlowAttrs(), "status")
	for _, g := range o.given {
		name, attr, text := "--"+g.flag, attrs[g.flag], g.text
		if g.flag == "set" {
			attr, text, _ = strings.Cut(g.text, "=")
			name = "--set " + attr
		}
		if attr == "" {
			continue
		}
		if err := ct.CheckProto(attr, f.Orig.Proto); err != nil {
			return named(name, err)
		}
		var asked ct.Flow
		if ct.Find(ct.FlowAttrs(), attr) != status || status.SetText(&asked, text) != nil { // or UNSET
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

// onceEach refuses NAME=VALUE pairs of which two set the same attribute, by
// whatever names: the last would win without a word.
func onceEach[T any](table []ct.Attr[T], sets []string) error {
	seen := map[string]string{}
	for _, s := range sets {
		name, _, _ := strings.Cut(s, "=")
		at := ct.Find(table, strings.TrimSpace(strings.TrimSuffix(name, "^")))
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
