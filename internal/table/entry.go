package table

import (
	"cmp"
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
	// HostTags: --orig-vtag and --reply-vtag are numbers as conntrack(8) writes them,
	// not the tags of packets.
	HostTags bool
}

// Read returns the flow that the entry describes, its reply tuple worked out.
func (o *Entry) Read() (*ct.Flow, error) {
	if o.Labelmap != "" {
		if err := ct.LoadLabels(o.Labelmap); err != nil {
			return nil, Named("--labelmap", err)
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
		e := ct.FindFlag(ct.FlowFlags, g.Flag, true)
		if e == nil {
			return nil, Usagef("unknown flag --%s", g.Flag)
		}
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
			return nil, Usagef("--%s: the flow in words says that already", g.Flag)
		}
		if len(o.Given) > 0 && e.Name == "label" { // several add up, while each of a line replaces
			continue
		}
		if strings.HasSuffix(e.Name, "-vtag") && !o.HostTags { // lines have their bytes in another order
			words = append(words, "--set", e.Sets+"="+g.Text)
			continue
		}
		words = append(words, "--"+g.Flag, g.Text)
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
	status := ct.Find(ct.FlowAttrs(), "status")
	for _, g := range o.Given {
		name, attr, text := "--"+g.Flag, "", g.Text
		switch g.Flag {
		case "status", "orig-vtag", "reply-vtag", "role":
			attr = ct.FindFlag(ct.FlowFlags, g.Flag, true).Sets
		}
		if g.Flag == "set" {
			attr, text, _ = strings.Cut(g.Text, "=")
			name = "--set " + attr
		}
		if attr == "" {
			continue
		}
		if err := ct.CheckProto(attr, f.Orig.Proto); err != nil {
			return Named(name, err)
		}
		var asked ct.Flow
		if ct.Find(ct.FlowAttrs(), attr) != status || status.SetText(&asked, text) != nil { // or UNSET
			continue
		}
		if err := ct.CheckStatus(asked.Status, !f.Master.IsZero()); err != nil {
			return Named(name, err)
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
			return Usagef("%s is set twice: %s and %s", name, before, s)
		}
		seen[key] = s
	}
	return nil
}
