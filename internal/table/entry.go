package table

import (
	"cmp"
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
)

// An Entry describes one flow: in words, by conntrack(8)'s flags, and by NAME=VALUE. It
// keeps what was typed; Read reads it.
type Entry struct {
	Flow     string
	Given    []Given
	Labelmap string
}

// An EntryFlag is a flag that describes a flow, as lines of -o save have it.
type EntryFlag struct {
	Name, Short string
	Aliases     []string
	Kind, Usage string
	Key         bool // part of what the kernel finds the flow by
	Orig        bool // said by a flow in words, too
}

// EntryFlags are conntrack(8)'s, and --set.
var EntryFlags = []EntryFlag{
	{Name: "proto", Short: "p", Aliases: []string{"protonum"}, Kind: "protocol", Usage: "transport protocol", Key: true, Orig: true},
	{Name: "src", Short: "s", Aliases: []string{"orig-src"}, Kind: "address", Usage: "source of the original direction", Key: true, Orig: true},
	{Name: "dst", Short: "d", Aliases: []string{"orig-dst"}, Kind: "address", Usage: "destination of the original direction", Key: true, Orig: true},
	{Name: "sport", Aliases: []string{"orig-port-src"}, Kind: "port", Usage: "source port of the original direction", Key: true, Orig: true},
	{Name: "dport", Aliases: []string{"orig-port-dst"}, Kind: "port", Usage: "destination port of the original direction", Key: true, Orig: true},
	{Name: "icmp-type", Aliases: []string{"icmpv6-type"}, Kind: "number", Usage: "ICMP or ICMPv6 type", Key: true, Orig: true},
	{Name: "icmp-code", Aliases: []string{"icmpv6-code"}, Kind: "number", Usage: "ICMP or ICMPv6 code", Key: true, Orig: true},
	{Name: "icmp-id", Aliases: []string{"icmpv6-id"}, Kind: "number", Usage: "ICMP or ICMPv6 identifier", Key: true, Orig: true},
	{Name: "srckey", Aliases: []string{"src-key", "orig-key-src"}, Kind: "key", Usage: "GRE key of the source", Key: true, Orig: true},
	{Name: "dstkey", Aliases: []string{"dst-key", "orig-key-dst"}, Kind: "key", Usage: "GRE key of the destination", Key: true, Orig: true},
	{Name: "family", Short: "f", Kind: "family", Usage: "address family; the addresses say it", Key: true},
	{Name: "zone", Short: "w", Kind: "number", Usage: "zone of both directions", Key: true, Orig: true},
	{Name: "orig-zone", Kind: "number", Usage: "zone of the original direction alone", Key: true, Orig: true},
	{Name: "reply-zone", Kind: "number", Usage: "zone of the reply direction alone", Key: true, Orig: true},
	{Name: "reply-src", Short: "r", Kind: "address", Usage: "source of the reply direction (default: the original destination)"},
	{Name: "reply-dst", Kind: "address", Usage: "destination of the reply direction (default: the original source)"},
	{Name: "reply-port-src", Kind: "port", Usage: "source port of the reply direction"},
	{Name: "reply-port-dst", Kind: "port", Usage: "destination port of the reply direction"},
	{Name: "reply-key-src", Kind: "key", Usage: "GRE key of the reply's source"},
	{Name: "reply-key-dst", Kind: "key", Usage: "GRE key of the reply's destination"},
	{Name: "timeout", Short: "t", Kind: "duration", Usage: "time left (default: what a packet would give it)"},
	{Name: "state", Kind: "state", Usage: "state of the protocol (default: ESTABLISHED)"},
	{Name: "status", Short: "u", Kind: "status", Usage: "status bits: SEEN_REPLY, ASSURED, FIXED_TIMEOUT"},
	{Name: "mark", Short: "m", Kind: "mark", Usage: "mark"},
	{Name: "label", Short: "l", Aliases: []string{"label-add"}, Kind: "labels", Usage: "connection labels, by name or number"},
	{Name: "helper", Kind: "name", Usage: "helper: ftp, sip, …"},
	{Name: "src-nat", Short: "n", Kind: "address", Usage: "translate the source to this address[:port], or one of a range"},
	{Name: "dst-nat", Short: "g", Kind: "address", Usage: "translate the destination to this address[:port], or one of a range"},
	{Name: "orig-vtag", Kind: "number", Usage: "SCTP verification tag of the original direction, as conntrack(8) writes it"},
	{Name: "reply-vtag", Kind: "number", Usage: "SCTP verification tag of the reply direction, as conntrack(8) writes it"},
	{Name: "role", Kind: "role", Usage: "DCCP role: client or server"},
	{Name: "secmark", Short: "c", Kind: "number"},
	{Name: "set", Kind: "NAME=VALUE", Usage: "set any attribute that 'nfctl attr list' calls settable on create"},
}

// Read returns the flow that the entry describes, its reply tuple worked out.
func (o *Entry) Read() (*ct.Flow, error) {
	if o.Labelmap != "" {
		if err := ct.LoadLabels(o.Labelmap); err != nil {
			return nil, named("--labelmap", err)
		}
	}
	f := &ct.Flow{}
	if o.Flow != "" {
		w, err := pattern.ParseFlow(o.Flow)
		if err != nil {
			return nil, &UsageError{err}
		}
		f = ct.FlowOf(w)
		f.Reply = ct.Tuple{Zone: f.Reply.Zone, Present: f.Reply.Present & ct.TupleZone} // the rest is worked out below
	}
	words := []string{"-A"}
	var sets []string
	flags := map[string]bool{}
	for _, g := range o.Given {
		if g.Flag == "set" {
			sets = append(sets, g.Text)
		} else if len(g.Flag) > 1 && g.Flag != "label-add" && !flags[g.Flag] { // a flag's last one counts
			flags[g.Flag] = true
			sets = append(sets, g.Flag+"="+g.Text)
		}
	}
	if err := OnceEach(ct.FlowAttrs(), sets); err != nil {
		return nil, err
	}
	for _, g := range o.Given {
		e := EntryFlags[slices.IndexFunc(EntryFlags, func(e EntryFlag) bool { return e.Name == g.Flag || slices.Contains(e.Aliases, g.Flag) })]
		said := true // by the words; a zone only where they have it
		switch e.Name {
		case "zone":
			said = f.Has(ct.HasZone)
		case "orig-zone":
			said = f.Orig.Has(ct.TupleZone)
		case "reply-zone":
			said = f.Reply.Has(ct.TupleZone)
		}
		if o.Flow != "" && e.Orig && said {
			return nil, usagef("--%s: the flow in words says that already", g.Flag)
		}
		if len(o.Given) > 0 && e.Name == "label" { // several add up, while each of a line replaces
			continue
		}
		name := "--" + g.Flag
		if e.Name == "srckey" || e.Name == "dstkey" {
			name = "--" + e.Name
		}
		words = append(words, name, g.Text)
	}
	if labels := o.labels(); labels != "" {
		words = append(words, "--label-add", labels)
	}
	if err := format.ParseSave(words, f); err != nil {
		return nil, &UsageError{err}
	}
	if !f.Has(ct.HasTCPFlagsOrig | ct.HasTCPFlagsReply) { // lines of -o save say all of it
		f.Complete(&ct.Flow{})
	}
	return f, nil
}

// Check refuses what was asked for and cannot be had, which Read passes over, as
// conntrack(8) does: attributes of another protocol, and status bits that saved
// flows have and that nobody can set.
func (o *Entry) Check(f *ct.Flow) error {
	attrs := map[string]string{"status": "status", "orig-vtag": "sctp-vtag-orig", "reply-vtag": "sctp-vtag-repl", "role": "dccp-role"}
	status := ct.Find(ct.FlowAttrs(), "status")
	for _, g := range o.Given {
		name, attr, text := "--"+g.Flag, attrs[g.Flag], g.Text
		if g.Flag == "set" {
			attr, text, _ = strings.Cut(g.Text, "=")
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
func (o *Entry) labels() string {
	var all []string
	for _, g := range o.Given {
		if g.Flag == "label" || g.Flag == "label-add" {
			all = append(all, g.Text)
		}
	}
	return strings.Join(all, ",")
}

// OnceEach refuses NAME=VALUE pairs of which two set the same attribute, by
// whatever names: the last would win without a word.
func OnceEach[T any](table []ct.Attr[T], sets []string) error {
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
