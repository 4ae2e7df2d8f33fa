package table

import (
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// A ZoneMap says which zone takes another's place, so that flows can be copied from one
// to the other. nil: each stays.
type ZoneMap map[uint16]uint16

// ParseZoneMap reads pairs of zones: 11:12 or 11:12,0:5.
func ParseZoneMap(text string) (ZoneMap, error) {
	m := ZoneMap{}
	for pair := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(pair), ":")
		a, err := value.NumberIn("zone", from, 0, 65535)
		b, err2 := value.NumberIn("zone", to, 0, 65535)
		_, twice := m[uint16(a)]
		if !ok || err != nil || err2 != nil || twice {
			return nil, &value.Error{What: "pair of zones", Text: pair,
				Valid: "FROM:TO, each from 0 to 65535 and each FROM once: 11:12,0:5"}
		}
		m[uint16(a)] = uint16(b)
	}
	return m, nil
}

// Flow puts f into its new zones: that of both directions, or those of each.
func (m ZoneMap) Flow(f *ct.Flow) {
	if len(m) == 0 {
		return
	}
	if (f.Orig.Present|f.Reply.Present)&ct.TupleZone == 0 {
		m.set(&f.Zone, func(zone uint16) {
			if f.Present &^= ct.HasZone; zone != 0 {
				f.Present |= ct.HasZone
			}
		})
	}
	for _, t := range [...]*ct.Tuple{&f.Orig, &f.Reply, &f.Master} {
		if t.Has(ct.TupleZone) {
			m.set(&t.Zone, func(uint16) {})
		}
	}
}

// Expect puts e into its new zone.
func (m ZoneMap) Expect(e *ct.Expect) {
	if len(m) > 0 && e.Has(ct.ExpectHasZone) {
		m.set(&e.Zone, func(uint16) {})
	}
}

func (m ZoneMap) set(zone *uint16, then func(uint16)) {
	if to, ok := m[*zone]; ok {
		*zone = to
		then(to)
	}
}
