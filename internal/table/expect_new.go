package table

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// A NewExpect describes an expectation to make. It keeps what was typed; Read reads it.
type NewExpect struct {
	Zone    Zone
	Master  string        // the flow that expects, in words
	Words   []Given       // conntrack(8)'s --orig-…, --tuple-…, --mask-…
	Behind  string        // stands behind the flows in words that these make
	Timeout time.Duration // 0: the helper's

	Permanent, Inactive, Userspace bool
	Helper, Fn, NAT, NATDir        string
	Class                          uint32
	CreateMaster                   bool          // Helper is that of a master to make
	MasterTimeout                  time.Duration // of a master to make; 0: five minutes, and at least Timeout

	masterSeconds uint32
}

// A Zone is the zone of a master, said beside a flow in words.
type Zone struct {
	Num   uint16
	Given bool
}

// Set gives e the zone, which must not differ from the one in words.
func (z *Zone) Set(e *ct.Expect) error {
	if !z.Given {
		return nil
	}
	if e.Has(ct.ExpectHasZone) && e.Zone != z.Num {
		return Usagef("--zone %d: the flow says zone %d", z.Num, e.Zone)
	}
	e.Zone, e.Present = z.Num, e.Present|ct.ExpectHasZone
	return nil
}

// word returns what was typed beside one of conntrack(8)'s flags, or "".
func (o *NewExpect) word(name string) string {
	for _, g := range slices.Backward(o.Words) {
		if g.Flag == name {
			return g.Text
		}
	}
	return ""
}

// Flow writes a flow in words from the flags whose names begin with prefix.
func (o *NewExpect) Flow(prefix string) string {
	end := func(addr, port string) string {
		host, p := o.word(prefix+addr), o.word(prefix+port)
		if p == "" {
			return host
		}
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return host + ":" + p
	}
	return strings.TrimSpace(o.word("proto")+" "+end("src", "port-src")+" > "+end("dst", "port-dst")) + o.Behind
}

func (o *NewExpect) given(prefix string) bool {
	return slices.ContainsFunc(o.Words, func(g Given) bool { return strings.HasPrefix(g.Flag, prefix) })
}

// Read returns the expectation that the flags describe, and at most one argument: what
// to expect, in words.
func (o *NewExpect) Read(args []string) (*ct.Expect, error) {
	e := &ct.Expect{}
	words, master := "", o.Master
	switch {
	case len(args) == 1 && o.given("tuple-"):
		return nil, Usagef("unexpected argument %q: --tuple-… says what to expect", args[0])
	case len(args) == 1:
		words = args[0]
	case o.given("tuple-"):
		words = o.Flow("tuple-")
	default:
		return nil, Usagef("what to expect is missing, as 'tcp 10.0.0.1 > 10.0.0.2:5000'")
	}
	switch {
	case master != "" && o.given("orig-"):
		return nil, Usagef("--master: --orig-… says the same")
	case o.given("orig-"):
		master = o.Flow("orig-")
	case master == "":
		return nil, Usagef("--master is missing: the connection that expects, as 'tcp 10.0.0.1:1000 > 10.0.0.2:21'")
	}
	if len(args) == 1 && !strings.Contains(words, ">") {
		return nil, Unquoted(words)
	}
	p, err := pattern.Parse(words)
	if err != nil {
		return nil, err
	}
	if err := setTuple(e, p); err != nil {
		return nil, err
	}
	w, err := pattern.ParseFlow(master)
	if err != nil {
		return nil, Named("--master", err)
	}
	f := ct.FlowOf(w)
	e.Master = f.Orig
	if e.Master.Family != e.Tuple.Family {
		return nil, Usagef("flow '%s': a connection and its master are of one address family", words)
	}
	if f.Has(ct.HasZone) && f.Zone != 0 {
		if e.Has(ct.ExpectHasZone) && e.Zone != f.Zone {
			return nil, Usagef("flow '%s': a connection and its master are of one zone", words)
		}
		e.Zone, e.Present = f.Zone, e.Present|ct.ExpectHasZone
	}
	if err := o.Zone.Set(e); err != nil {
		return nil, err
	}
	if err := o.masks(e); err != nil {
		return nil, err
	}
	return e, o.rest(e)
}

// masks reads --mask-….
func (o *NewExpect) masks(e *ct.Expect) error {
	for _, m := range []struct {
		flag  string
		at    *netip.Addr
		whole bool
	}{{"mask-src", &e.Mask.Src, false}, {"mask-dst", &e.Mask.Dst, true}} {
		text := o.word(m.flag)
		if text == "" {
			continue
		}
		addr, err := value.Address(text)
		switch {
		case err != nil:
			return Named("--"+m.flag, err)
		case addr.Is4() != e.Tuple.Dst.Is4():
			return Usagef("--%s: mask %s is of another address family", m.flag, text)
		case m.whole && addr != *m.at:
			return Usagef("--%s %s: the kernel compares the destination whole: leave it out or give all ones", m.flag,
				text)
		}
		*m.at = addr
	}
	for _, m := range []struct {
		flag  string
		at    *uint16
		whole bool
	}{{"mask-port-src", &e.Mask.Sport, false}, {"mask-port-dst", &e.Mask.Dport, true}} {
		text := o.word(m.flag)
		if text == "" {
			continue
		}
		n, err := value.NumberIn("mask of a port", text, 0, 65535)
		switch {
		case err != nil:
			return Named("--"+m.flag, err)
		case !pattern.HasEnds(e.Tuple.Proto):
			return Usagef("--%s: the protocol has no ports", m.flag)
		case m.whole && uint16(n) != *m.at:
			return Usagef("--%s %s: the kernel compares the destination whole: leave it out or give 65535", m.flag,
				text)
		}
		*m.at = uint16(n)
	}
	return nil
}

// rest reads what is neither tuple nor mask.
func (o *NewExpect) rest(e *ct.Expect) error {
	if o.Timeout > 0 {
		secs, err := value.WholeSeconds(o.Timeout)
		if err != nil {
			return Named("--timeout", err)
		}
		e.Timeout, e.Present = secs, e.Present|ct.ExpectHasTimeout
	}
	if o.MasterTimeout > 0 {
		secs, err := value.WholeSeconds(o.MasterTimeout)
		if err != nil {
			return Named("--master-timeout", err)
		}
		o.masterSeconds = secs
	}
	for _, fl := range []struct {
		on  bool
		bit uint32
	}{{o.Permanent, ct.Permanent}, {o.Inactive, ct.Inactive}, {o.Userspace, ct.Userspace}} {
		if fl.on {
			e.Flags, e.Present = e.Flags|fl.bit, e.Present|ct.ExpectHasFlags
		}
	}
	if o.Helper != "" {
		e.Helper, e.Present = []byte(o.Helper), e.Present|ct.ExpectHasHelper
	}
	if o.Class != 0 {
		e.Class, e.Present = o.Class, e.Present|ct.ExpectHasClass
	}
	if o.Fn != "" {
		e.Fn, e.Present = []byte(o.Fn), e.Present|ct.ExpectHasFn
	}
	if o.CreateMaster && o.Helper == "" {
		return Usagef("--create-master: --helper NAME says which helper the master is to have")
	}
	if (o.NAT == "") != (o.NATDir == "") {
		return Usagef("--nat and --nat-dir go together: --nat 10.0.0.9:5000 --nat-dir orig")
	}
	if o.NAT == "" {
		return nil
	}
	dir, err := ct.DirNames.Parse(o.NATDir)
	if err != nil {
		return Named("--nat-dir", err)
	}
	p, err := pattern.Parse(string(value.Protocols.Append(nil, uint64(e.Tuple.Proto))) + " > " + o.NAT)
	addr, ok := p0(p, err)
	if !ok || p.Has != pattern.Proto || strings.ContainsAny(o.NAT, " >") {
		return Named("--nat", &value.Error{What: "translation", Text: o.NAT,
			Valid: "an address or address:port, as 10.0.0.9:5000 or [fd00::9]:5000"})
	}
	if addr.Is4() != e.Tuple.Dst.Is4() {
		return Usagef("--nat: address %s is of another address family", addr)
	}
	e.NATDir, e.Present = uint32(dir), e.Present|ct.ExpectHasNATDir
	e.NATTuple = ct.Tuple{Family: e.Tuple.Family, Proto: e.Tuple.Proto, Src: addr,
		Present: ct.TupleFamily | ct.TupleProto}
	if pattern.HasEnds(e.Tuple.Proto) {
		port, _ := p.Dst.Ports.Num()
		e.NATTuple.Sport = uint16(port)
		e.NATTuple.Present |= ct.TupleSport
	}
	return nil
}

// p0 returns the single address of a pattern's destination.
func p0(p *pattern.Pattern, err error) (netip.Addr, bool) {
	if err != nil {
		return netip.Addr{}, false
	}
	if n := len(p.Dst.Ports.Nums); n > 0 {
		if _, one := p.Dst.Ports.Num(); !one {
			return netip.Addr{}, false
		}
	}
	return p.Dst.Addrs.Addr()
}
