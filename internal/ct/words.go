package ct

import (
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// Words returns the tuple as a flow in words, which has what the tuple knows.
func (t *Tuple) Words() pattern.Flow {
	w := pattern.Flow{Proto: t.Proto, Src: t.Src, Dst: t.Dst, SPort: t.Sport, DPort: t.Dport, Type: t.Type, Code: t.Code, ID: t.ID, Zone: t.Zone}
	for _, p := range []struct {
		has  TupleHas
		word pattern.Parts
	}{{TupleProto, pattern.Proto}, {TupleSport | TupleDport, pattern.Ports}, {TupleType, pattern.Type}, {TupleCode, pattern.Code}, {TupleID, pattern.ID}, {TupleZone, pattern.Zone}} {
		if t.Has(p.has) {
			w.Has |= p.word
		}
	}
	return w
}

// TupleOf returns the tuple that a flow in words names. The zone is the flow's,
// not the tuple's: see FlowOf.
func TupleOf(w pattern.Flow) Tuple {
	t := Tuple{Proto: w.Proto, Src: w.Src, Dst: w.Dst, Sport: w.SPort, Dport: w.DPort, Type: w.Type, Code: w.Code, ID: w.ID, Present: TupleProto}
	if w.Src.IsValid() {
		t.Family, t.Present = familyOf(w.Src), t.Present|TupleFamily
	}
	switch {
	case pattern.HasPorts(w.Proto):
		t.Present |= TupleSport | TupleDport
	case pattern.HasICMP(w.Proto):
		t.Present |= TupleType | TupleCode | TupleID
	}
	return t
}

// FlowOf returns the flow that words name: its original tuple, the reply tuple
// that mirrors it, and its zone.
func FlowOf(w pattern.Flow) *Flow {
	f := &Flow{Orig: TupleOf(w)}
	f.Reply = f.Orig.Reverse()
	if w.Zone != 0 {
		f.Zone, f.Present = w.Zone, HasZone
	}
	return f
}

// AppendTuple appends a tuple in words: "tcp 10.0.0.1:1000 > 10.0.0.2:21", which
// reads back. What is not known is '*'.
func AppendTuple(b []byte, t *Tuple) []byte {
	if t.Has(TupleProto) && t.Src.IsValid() && t.Dst.IsValid() {
		w := t.Words()
		return pattern.Append(b, &w)
	}
	if t.Has(TupleProto) {
		b = value.Protocols.Append(b, uint64(t.Proto))
	} else {
		b = append(b, '*')
	}
	end := func(known bool, text func([]byte) []byte) {
		if b = append(b, ' '); known {
			b = text(b)
		} else {
			b = append(b, '*')
		}
	}
	end(t.Src.IsValid(), t.Src.AppendTo)
	b = append(b, " >"...)
	end(t.Dst.IsValid(), t.Dst.AppendTo)
	return b
}
