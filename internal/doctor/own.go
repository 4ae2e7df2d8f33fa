package doctor

import (
	"fmt"
	"slices"
	"strings"

	"nfctl/internal/nft"
)

// own tells of the tables of nfctl's own that are in force: where they are, what they feed,
// which bits of marks they use, and of two that use the same.
func (d *doctor) own(feeders []nft.Feeder) {
	list, err := nft.Owns()
	if err != nil {
		d.unknown("tables of nfctl", err)
		return
	}
	var tested uint32
	for i := range list {
		o := &list[i]
		var families, places, queues []string
		for _, f := range o.Families {
			families = append(families, nft.FamilyName(f))
		}
		for _, c := range o.Chains {
			places = append(places, fmt.Sprintf("%s priority %d", c.Hook, c.Priority))
		}
		for _, f := range feeders {
			if f.Table == o.Name && slices.Contains(o.Families, f.Family) {
				q := fmt.Sprint(f.First)
				if f.Last != f.First {
					q += fmt.Sprintf("-%d", f.Last)
				}
				queues = append(queues, q)
			}
		}
		text := fmt.Sprintf("in force (%s) at %s", strings.Join(families, ", "), strings.Join(places, ", "))
		if slices.Sort(queues); len(queues) > 0 {
			text += ", feeds queue " + strings.Join(slices.Compact(queues), ", ")
		}
		for _, m := range []struct {
			bits uint32
			what string
		}{
			{o.Marks, "uses bits %#x of packets' marks"}, {o.Tested, "keeps verdicts on flows in bits %#x of connections' marks"},
			{o.Written &^ o.Tested, "sets bits %#x of connections' marks"},
		} {
			if m.bits != 0 {
				text += ", " + fmt.Sprintf(m.what, m.bits)
			}
		}
		status, hint := OK, ""
		for k := range list[:i] {
			if bits := o.Tested & list[k].Tested; bits != 0 {
				status, hint = Warn, "end one of them, and start it anew with other bits (--flow-mark)"
				text += fmt.Sprintf("; table %s uses bits %#x too: each takes the other's verdicts for its own",
					list[k].Name, bits)
			}
		}
		d.add(status, "table "+o.Name, hint, "%s", text)
		tested |= o.Tested
	}
	if tested == 0 {
		return
	}
	writers, err := nft.Markers(tested)
	if err != nil {
		d.unknown("verdicts on flows", err)
	}
	for _, w := range writers {
		d.add(Warn, "verdicts on flows", fmt.Sprintf("give them a mask without %#x, or nfctl other bits "+
			"(--flow-mark)", tested),
			"%s, among them those by which nfctl's tables know what was decided for flows", w)
	}
}
