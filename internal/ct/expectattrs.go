package ct

import (
	"net/netip"
	"slices"
	"unsafe"

	"nfctl/internal/field"
	"nfctl/internal/lazy"
	"nfctl/internal/value"
)

var probeExpect Expect // to see where functions point

func enum[N integer](bit ExpectHas, at func(*Expect) *N) access[Expect] {
	return access[Expect]{
		mem:    memory{numOp(unsafe.Sizeof(N(0))), offset(&probeExpect, at), uint64(bit)},
		num:    func(e *Expect) (uint64, bool) { return uint64(*at(e)), e.Present&bit != 0 },
		setNum: func(e *Expect, n uint64) { *at(e) = N(n); e.Present |= bit },
	}
}

func edata(bit ExpectHas, at func(*Expect) *[]byte) access[Expect] {
	return access[Expect]{
		mem:     memory{opText, offset(&probeExpect, at), uint64(bit)},
		data:    func(e *Expect) ([]byte, bool) { return *at(e), e.Present&bit != 0 },
		setData: func(e *Expect, d []byte) { *at(e) = d; e.Present |= bit },
	}
}

const (
	inExpect = "dump, new, destroy"
	expKey   = "no: the kernel finds the expectation by it"
	expFixed = "no: only the timeout of an expectation can be changed"
)

// ExpectAttrs returns the attribute table of expectations. Its order is that of JSON.
func ExpectAttrs() []Attr[Expect] { return expectTable.Get() }

var expectTable = lazy.Value[[]Attr[Expect]]{Make: expectAttrs}

var expectCodec = lazy.Value[*codec[Expect]]{Make: func() *codec[Expect] {
	at := func(tuple func(*Expect) *Tuple) uintptr { return offset(&probeExpect, tuple) }
	return newCodec(ExpectAttrs(), []object{
		{at: wire{ctaExpMaster}, op: opTuple, place: at(func(e *Expect) *Tuple { return &e.Master })},
		{at: wire{ctaExpTuple}, op: opTuple, place: at(func(e *Expect) *Tuple { return &e.Tuple })},
		{at: wire{ctaExpMask}, op: opTuple, place: at(func(e *Expect) *Tuple { return &e.Mask })},
		{at: wire{ctaExpNAT, ctaExpNATTuple}, op: opTuple, place: at(func(e *Expect) *Tuple { return &e.NATTuple })},
	}, 0)
}}

func expectAttrs() []Attr[Expect] {
	tuple := func(e *Expect) *Tuple { return &e.Tuple }
	mask := func(e *Expect) *Tuple { return &e.Mask }
	mast := func(e *Expect) *Tuple { return &e.Master }
	nat := func(e *Expect) *Tuple { return &e.NATTuple }
	return slices.Concat([]Attr[Expect]{
		{
			Path:   "kind",
			Kind:   field.Enum,
			Names:  kindNames,
			Doc:    "always expect",
			access: access[Expect]{num: func(*Expect) (uint64, bool) { return 1, true }},
		},
		{
			Path:   "event",
			Kind:   field.Enum,
			Names:  EventNames,
			Doc:    "what happened: new, destroy; existing: it was there before the stream began",
			access: access[Expect]{num: func(e *Expect) (uint64, bool) { return uint64(e.Event), e.Event != NoEvent }},
		},
		{
			Path:  "time",
			Kind:  field.Time,
			Parse: parseTimes,
			Doc:   "when the event was read",
			access: access[Expect]{num: func(e *Expect) (uint64, bool) {
				return e.Time, e.Time != 0 && e.Event != NoEvent
			}},
		},
		{
			Path:  "family",
			Kind:  field.Enum,
			Bits:  8,
			Names: value.Families,
			Parse: value.Families.ParseSet,
			Doc:   "address family",
			access: access[Expect]{num: func(e *Expect) (uint64, bool) {
				return uint64(e.Tuple.Family), e.Tuple.Has(TupleFamily)
			},
				setNum: func(e *Expect, n uint64) {
					for _, t := range []*Tuple{&e.Tuple, &e.Mask, &e.Master, &e.NATTuple} {
						t.Family, t.Present = uint8(n), t.Present|TupleFamily
					}
				}},
		},
		{
			Name:     "exp-timeout",
			Number:   3,
			Path:     "timeout",
			Kind:     field.Uint,
			Bits:     32,
			Parse:    value.Seconds,
			Netlink:  "CTA_EXPECT_TIMEOUT",
			At:       wire{ctaExpTimeout},
			Since:    "2.6.14",
			Readable: inExpect,
			Create:   "no: the helper's policy decides; a second request on the expectation sets it",
			Update:   "yes, the only thing that an update changes",
			Doc:      "seconds until the expectation ends",
			access:   enum(ExpectHasTimeout, func(e *Expect) *uint32 { return &e.Timeout }),
			setText: func(e *Expect, s string) error {
				n, err := parseSeconds(s)
				if err == nil {
					e.Timeout, e.Present = n, e.Present|ExpectHasTimeout
				}
				return err
			},
		},
		{
			Name:     "exp-expected",
			Number:   1,
			Kind:     field.String,
			Netlink:  "CTA_EXPECT_TUPLE",
			Since:    "2.6.14",
			Readable: inExpect,
			Create:   "yes, required",
			Update:   expKey,
			Doc:      "the connection expected",
			access:   access[Expect]{tuple: tuple},
		},
	}, tupleAttrs("tuple", "the connection expected", tuple), []Attr[Expect]{
		{
			Name:     "exp-mask",
			Number:   2,
			Kind:     field.String,
			Netlink:  "CTA_EXPECT_MASK",
			Since:    "2.6.14",
			Readable: inExpect,
			Update:   expFixed,
			Create:   "yes, required; source address and source port count, the kernel takes all else whole",
			Doc:      "which bits of the expected connection's source count",
			access:   access[Expect]{tuple: mask},
		},
	}, tupleAttrs("mask", "which bits count", mask), []Attr[Expect]{
		{
			Name:     "exp-master",
			Number:   0,
			Kind:     field.String,
			Netlink:  "CTA_EXPECT_MASTER",
			Since:    "2.6.14",
			Readable: inExpect,
			Create:   "yes, required; a connection in the table that has a helper",
			Update:   expFixed,
			Doc:      "the connection that expects, its original direction",
			access:   access[Expect]{tuple: mast},
		},
	}, tupleAttrs("master", "the connection that expects", mast), []Attr[Expect]{
		{
			Name:     "exp-helper-name",
			Number:   6,
			Path:     "helper",
			Kind:     field.String,
			Netlink:  "CTA_EXPECT_HELP_NAME",
			At:       wire{ctaExpHelpName},
			Since:    "2.6.38",
			Readable: inExpect,
			Create:   "yes, the master's (Linux 6.18 takes that whatever is named; others EOPNOTSUPP)",
			Update:   expFixed,
			Doc:      "the master's helper",
			access:   edata(ExpectHasHelper, func(e *Expect) *[]byte { return &e.Helper }),
		},
		{
			Name:     "exp-class",
			Number:   7,
			Path:     "class",
			Kind:     field.Uint,
			Bits:     32,
			Netlink:  "CTA_EXPECT_CLASS",
			At:       wire{ctaExpClass},
			Since:    "3.3",
			Readable: inExpect,
			Create:   "yes, up to the helper's last class (else EINVAL)",
			Update:   expFixed,
			Doc:      "which of the helper's policies: each has its limit and timeout",
			access:   enum(ExpectHasClass, func(e *Expect) *uint32 { return &e.Class }),
		},
		{
			Name:     "exp-flags",
			Number:   5,
			Path:     "flags",
			Kind:     field.Flags,
			Bits:     32,
			Names:    ExpectFlagNames,
			Netlink:  "CTA_EXPECT_FLAGS",
			At:       wire{ctaExpFlags},
			Since:    "2.6.38",
			Readable: inExpect,
			Create:   "yes, permanent and inactive; userspace is accepted and cleared; others EINVAL",
			Update:   expFixed,
			Doc:      "permanent, inactive, userspace",
			access:   enum(ExpectHasFlags, func(e *Expect) *uint32 { return &e.Flags }),
		},
		{
			Name:     "exp-zone",
			Number:   4,
			Path:     "zone",
			Kind:     field.Uint,
			Bits:     16,
			Parse:    value.Numbers("zone", 65535),
			Netlink:  "CTA_EXPECT_ZONE",
			At:       wire{ctaExpZone},
			Since:    "2.6.34",
			Readable: never,
			Create:   "yes, the master's zone",
			Update:   expKey,
			Doc:      "zone of the master, found by listing; absent in events",
			access:   enum(ExpectHasZone, func(e *Expect) *uint16 { return &e.Zone }),
		},
		{
			Name:     "exp-id",
			Number:   -1,
			Path:     "id",
			Kind:     field.Uint,
			Bits:     32,
			Hex:      true,
			Netlink:  "CTA_EXPECT_ID",
			At:       wire{ctaExpID},
			Since:    "2.6.14",
			Readable: inExpect,
			Create:   "no: the kernel picks it",
			Update:   expKey,
			Doc: "number of the expectation, a hash of 32 bits: with the tuple its own, alone another one may " +
				"have it too",
			access: enum(ExpectHasID, func(e *Expect) *uint32 { return &e.ID }),
		},
		{
			Name:     "exp-nat-dir",
			Number:   9,
			Path:     "nat.dir",
			Kind:     field.Enum,
			Bits:     32,
			Names:    DirNames,
			Parse:    DirNames.ParseSet,
			Netlink:  "CTA_EXPECT_NAT/CTA_EXPECT_NAT_DIR",
			At:       wire{ctaExpNAT, ctaExpNATDir},
			Since:    "3.3",
			Readable: inExpect + ", when an address or port was given",
			Create:   "yes, with exp-nat-tuple (alone: EINVAL)",
			Update:   expFixed,
			Doc:      "direction of the master that the translation belongs to",
			access:   enum(ExpectHasNATDir, func(e *Expect) *uint32 { return &e.NATDir }),
		},
		{
			Name:     "exp-nat-tuple",
			Number:   8,
			Kind:     field.String,
			Netlink:  "CTA_EXPECT_NAT/CTA_EXPECT_NAT_TUPLE",
			Since:    "3.3",
			Readable: inExpect + ", when an address or port was given",
			Create:   "yes, with exp-nat-dir; the kernel keeps the source",
			Update:   expFixed,
			Doc:      "source to translate to",
			access:   access[Expect]{tuple: nat},
		},
	}, tupleAttrs("nat", "source to translate to", nat), []Attr[Expect]{
		{
			Name:     "exp-fn",
			Number:   10,
			Path:     "fn",
			Kind:     field.String,
			Netlink:  "CTA_EXPECT_FN",
			At:       wire{ctaExpFn},
			Since:    "3.3",
			Readable: inExpect + ", when there is one",
			Create:   "yes, one that the kernel has (nat-follow-master, sip, callforwarding, Q.931), else EINVAL",
			Update:   expFixed,
			Doc:      "function that the kernel calls when the connection comes",
			access:   edata(ExpectHasFn, func(e *Expect) *[]byte { return &e.Fn }),
		},
		{
			Path:     "unknown",
			Kind:     field.String,
			Doc:      "attributes that this program does not know: number:bytes in hexadecimal",
			Readable: "newer kernels",
			access: access[Expect]{data: func(e *Expect) ([]byte, bool) {
				e.text = appendUnknown(e.text[:0], e.Unknown)
				return e.text, len(e.Unknown) > 0
			}},
		},
		{
			Path: "events",
			Kind: field.Bool,
			Doc: "false: the expectation was there before; if it was made when nobody listened, no event will come " +
				"when it ends",
			access: access[Expect]{num: func(e *Expect) (uint64, bool) { return 0, e.NoEvents }},
		},
		{
			Path: "by.portid",
			Kind: field.Uint,
			Bits: 32,
			Doc:  "netlink port of whoever caused the event; absent: traffic",
			access: access[Expect]{num: func(e *Expect) (uint64, bool) {
				return uint64(e.By.PortID), e.By.PortID != 0 && e.Event != NoEvent
			}},
		},
		{Path: "by.pid", Kind: field.Uint, Bits: 32, Doc: "the process that holds that port",
			access: access[Expect]{num: func(e *Expect) (uint64, bool) { return uint64(e.By.Pid), e.By.Pid != 0 }}},
		{Path: "by.comm", Kind: field.String, Doc: "the name of that process",
			access: access[Expect]{data: func(e *Expect) ([]byte, bool) { return e.By.Comm, e.By.Pid != 0 }}},
	})
}

// tupleAttrs are the parts of one of an expectation's tuples.
func tupleAttrs(path, doc string, tuple func(*Expect) *Tuple) []Attr[Expect] {
	addr := func(name string, at func(*Tuple) *netip.Addr) Attr[Expect] {
		return Attr[Expect]{
			Path:   path + "." + name,
			Kind:   field.Addr,
			Parse:  value.Addrs,
			Doc:    name + " address of " + doc,
			Number: -1,
			access: access[Expect]{addr: func(e *Expect) *netip.Addr { return at(tuple(e)) }},
		}
	}
	return []Attr[Expect]{
		addr("src", func(t *Tuple) *netip.Addr { return &t.Src }),
		addr("dst", func(t *Tuple) *netip.Addr { return &t.Dst }),
		part(path, "proto", doc, 8, tuple, TupleProto, tProto),
		part(path, "sport", doc, 16, tuple, TupleSport, tSport),
		part(path, "dport", doc, 16, tuple, TupleDport, tDport),
		part(path, "type", doc, 8, tuple, TupleType, tType),
		part(path, "code", doc, 8, tuple, TupleCode, tCode),
		part(path, "id", doc, 16, tuple, TupleID, tID),
		part(path, "zone", doc, 16, tuple, TupleZone, tZone),
	}
}

func part[N integer](path, name, doc string, bits int, tuple func(*Expect) *Tuple,
	bit TupleHas, at func(*Tuple) *N) Attr[Expect] {
	a := Attr[Expect]{
		Path:    path + "." + name,
		Number:  -1,
		Kind:    field.Uint,
		Bits:    bits,
		Network: true,
		Doc:     name + " of " + doc,
		access: access[Expect]{
			num:    func(e *Expect) (uint64, bool) { t := tuple(e); return uint64(*at(t)), t.Present&bit != 0 },
			setNum: func(e *Expect, n uint64) { t := tuple(e); *at(t) = N(n); t.Present |= bit }},
	}
	switch {
	case name == "proto" && path != "mask":
		a.Kind, a.Names, a.Parse = field.Enum, value.Protocols, value.Protocols.ParseSet
	case bit&(TupleSport|TupleDport) != 0:
		a.Parse = value.Ports
	}
	return a
}
