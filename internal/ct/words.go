package ct

import (
	"strconv"

	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// Words returns the tuple as a flow in words, which has what the tuple knows.
func (t *Tuple) Words() pattern.Flow {
	w := pattern.Flow{Proto: t.Proto, Src: t.Src, Dst: t.Dst, SPort: t.Sport, DPort: t.Dport, Type: t.Type,
		Code: t.Code, ID: t.ID, Zone: t.Zone}
	for _, p := range []struct {
		has  TupleHas
		word pattern.Parts
	}{{TupleProto, pattern.Proto}, {TupleSport | TupleDport, pattern.Ports}, {TupleType, pattern.Type},
		{TupleCode, pattern.Code}, {TupleID, pattern.ID}, {TupleZone, pattern.Zone}} {
		if t.Has(p.has) {
			w.Has |= p.word
		}
	}
	return w
}

// TupleOf returns the tuple that a flow in words names. The zone is the flow's,
// not the tuple's: see FlowOf.
func TupleOf(w pattern.Flow) Tuple {
	t := Tuple{Proto: w.Proto, Src: w.Src, Dst: w.Dst, Sport: w.SPort, Dport: w.DPort, Type: w.Type, Code: w.Code,
		ID: w.ID, Present: TupleProto}
	if w.Src.IsValid() {
		t.Family, t.Present = familyOf(w.Src), t.Present|TupleFamily
	}
	switch {
	case pattern.HasEnds(w.Proto):
		t.Present |= TupleSport | TupleDport
	case pattern.HasICMP(w.Proto):
		t.Present |= TupleType | TupleCode | TupleID
	}
	return t
}

// FlowOf returns the flow that words name: its original tuple, the reply tuple
// that mirrors it, and its zone or zones.
func FlowOf(w pattern.Flow) *Flow {
	f := &Flow{Orig: TupleOf(w)}
	f.Reply = f.Orig.Reverse()
	if w.Zone != 0 {
		f.Zone, f.Present = w.Zone, HasZone
	}
	f.Orig.setZone(w.OrigZone)
	f.Reply.setZone(w.ReplyZone)
	return f
}

// setZone gives the tuple a zone of its own, unless it is 0.
func (t *Tuple) setZone(n uint16) {
	if n != 0 {
		t.Zone, t.Present = n, t.Present|TupleZone
	}
}

// AppendFlow appends a flow in the words that read back: its original tuple and its
// zones.
func AppendFlow(b []byte, f *Flow) []byte { return appendFlow(b, f, &f.Orig) }

// appendFlow is AppendFlow by one of its tuples.
func appendFlow(b []byte, f *Flow, t *Tuple) []byte {
	one := *t
	one.Zone, one.Present = 0, one.Present&^TupleZone
	b = AppendTuple(b, &one)
	for _, z := range [...]struct {
		word string
		has  bool
		n    uint16
	}{{" zone ", f.Has(HasZone), f.Zone}, {" orig-zone ", f.Orig.Has(TupleZone), f.Orig.Zone},
		{" reply-zone ", f.Reply.Has(TupleZone), f.Reply.Zone}} {
		if z.has && z.n != 0 {
			b = strconv.AppendUint(append(b, z.word...), uint64(z.n), 10)
		}
	}
	return b
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
