package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// expectOptions are the flags of 'nfctl expect create'.
type expectOptions struct {
	zone    zoneFlag
	master  string
	words   []given // conntrack(8)'s --orig-…, --tuple-…, --mask-…
	icmp    string  // behind the flows in words that these make
	timeout time.Duration

	permanent, inactive, userspace bool
	helper, fn, nat, natDir        string
	class                          uint32

	createMaster, orUpdate, ifMissing, dryRun bool
	masterTimeout                             time.Duration
}

// createFlags are conntrack(8)'s flags that describe an expectation part by part.
var createFlags = []struct {
	name, short, kind, usage string
	aliases                  []string
}{
	{"proto", "p", "protocol", "protocol of master and connection expected, beside --orig-… and --tuple-…", []string{"protonum"}},
	{"orig-src", "s", "address", "source of the master", []string{"src"}},
	{"orig-dst", "d", "address", "destination of the master", []string{"dst"}},
	{"orig-port-src", "", "port", "source port of the master", []string{"sport", "srckey", "orig-key-src"}},
	{"orig-port-dst", "", "port", "destination port of the master", []string{"dport", "dstkey", "orig-key-dst"}},
	{"tuple-src", "", "address", "source of the connection expected", nil},
	{"tuple-dst", "", "address", "destination of the connection expected", nil},
	{"tuple-port-src", "", "port", "source port of the connection expected", []string{"tuple-key-src"}},
	{"tuple-port-dst", "", "port", "destination port of the connection expected", []string{"tuple-key-dst"}},
	{"mask-src", "", "mask", "which bits of the source count, as 255.255.255.0", nil},
	{"mask-port-src", "", "mask", "which bits of the source port count: 0 or 65535 or between", []string{"mask-sport", "mask-key-src"}},
	{"mask-dst", "", "mask", "", nil},
	{"mask-port-dst", "", "mask", "", []string{"mask-dport", "mask-key-dst"}},
}

func newExpectCreate(a *app) *cobra.Command {
	o := &expectOptions{}
	c := &cobra.Command{
		Use:   "create --master 'FLOW' 'PATTERN'",
		Short: "Expect a connection",
		Long: `Makes an expectation of a connection that is in the table and has a helper. What
is expected is a flow in words: protocol and destination are compared whole; of
the source what is missing or * may be anything, and a prefix is a mask.

The first connection that matches uses the expectation up, unless --permanent is
given. When its master ends it ends too. The kernel takes a timeout of the
helper's at first; --timeout sets it with a second request. A helper limits how
many expectations a connection has; beyond that the kernel removes the oldest,
and nfctl says which.

A connection has a helper from its birth: by a rule (iptables -t raw -A PREROUTING
-p tcp --dport 21 -j CT --helper ftp; nft ct helper set), or because
--create-master --helper NAME makes it.`,
		Example: `  nfctl expect create --master 'tcp 10.0.0.1:1000 > 10.0.0.2:21' 'tcp 10.0.0.1 > 10.0.0.2:5000' --timeout 10s
  nfctl expect create --master 'tcp 10.0.0.1:1000 > 10.0.0.2:21' 'tcp 10.0.0.0/24 > 10.0.0.2:5000' --permanent
  nfctl expect create --create-master --helper ftp --master 'tcp 10.0.0.1:1000 > 10.0.0.2:21' 'tcp > 10.0.0.2:5000'`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error { return a.expectCreate(c.Context(), o, args) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.master, "master", "", "the connection that expects, as a `flow` in words with all its parts")
	f.VarP(&parsed[time.Duration]{dst: &o.timeout, parse: someTime, kind: "duration"}, "timeout", "t", "how long to wait for the connection (default: the helper's policy)")
	f.BoolVar(&o.permanent, "permanent", false, "keep it when it was met, until its timeout or its master's end")
	f.BoolVar(&o.inactive, "inactive", false, "store it, but let nothing meet it")
	f.BoolVar(&o.userspace, "userspace", false, "mark it as a userspace helper's; current kernels clear this")
	f.StringVar(&o.helper, "helper", "", "`name` of the helper that the master must have")
	varFlag(f, &o.class, "class", "number", "", func(s string) (uint32, error) { n, err := number("class", s, 0, 1<<32-1); return uint32(n), err }, "which of the helper's policies limits it")
	f.StringVar(&o.fn, "fn", "", "`function` of the kernel to call when the connection comes: nat-follow-master, sip, …")
	f.StringVar(&o.nat, "nat", "", "`address:port` to translate the source of the connection to, see --nat-dir")
	f.StringVar(&o.natDir, "nat-dir", "", "`direction` of the master that --nat belongs to: orig or reply")
	f.BoolVar(&o.createMaster, "create-master", false, "make the master with --helper when it is not in the table")
	durationFlag(f, &o.masterTimeout, "master-timeout", "timeout of a master that is made (default: 5m, and at least --timeout)")
	f.BoolVar(&o.orUpdate, "or-update", false, "set the timeout of one that is there already")
	f.BoolVar(&o.ifMissing, "if-missing", false, "do nothing, and succeed, when it is there already")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be made, and make nothing")
	o.zone.register(c)
	for _, cf := range createFlags {
		for _, name := range append([]string{cf.name}, cf.aliases...) {
			short := cf.short
			if name != cf.name {
				short = ""
			}
			f.VarPF(&ordered{kind: cf.kind, add: func(s string) error {
				o.words = append(o.words, given{cf.name, s})
				return nil
			}}, name, short, cf.usage).Hidden = name != cf.name || cf.usage == ""
		}
	}
	_ = c.RegisterFlagCompletionFunc("proto", fixed("tcp", "udp"))
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

// word returns what was typed beside one of conntrack(8)'s flags, or "".
func (o *expectOptions) word(name string) string {
	for _, g := range slices.Backward(o.words) {
		if g.flag == name {
			return g.text
		}
	}
	return ""
}

// flow writes a flow in words from the flags whose names begin with prefix.
func (o *expectOptions) flow(prefix string) string {
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
	return strings.TrimSpace(o.word("proto")+" "+end("src", "port-src")+" > "+end("dst", "port-dst")) + o.icmp
}

func (o *expectOptions) given(prefix string) bool {
	return slices.ContainsFunc(o.words, func(g given) bool { return strings.HasPrefix(g.flag, prefix) })
}

// expect reads flags and argument.
func (o *expectOptions) expect(args []string) (*ct.Expect, error) {
	e := &ct.Expect{}
	words, master := "", o.master
	switch {
	case len(args) == 1 && o.given("tuple-"):
		return nil, usagef("unexpected argument %q: --tuple-… says what to expect", args[0])
	case len(args) == 1:
		words = args[0]
	case o.given("tuple-"):
		words = o.flow("tuple-")
	default:
		return nil, usagef("what to expect is missing, as 'tcp 10.0.0.1 > 10.0.0.2:5000'")
	}
	switch {
	case master != "" && o.given("orig-"):
		return nil, usagef("--master: --orig-… says the same")
	case o.given("orig-"):
		master = o.flow("orig-")
	case master == "":
		return nil, usagef("--master is missing: the connection that expects, as 'tcp 10.0.0.1:1000 > 10.0.0.2:21'")
	}
	if len(args) == 1 && !strings.Contains(words, ">") {
		return nil, unquoted(words)
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
		return nil, named("--master", err)
	}
	f := ct.FlowOf(w)
	e.Master = f.Orig
	if e.Master.Family != e.Tuple.Family {
		return nil, usagef("flow '%s': a connection and its master are of one address family", words)
	}
	if f.Has(ct.HasZone) && f.Zone != 0 {
		if e.Has(ct.ExpectHasZone) && e.Zone != f.Zone {
			return nil, usagef("flow '%s': a connection and its master are of one zone", words)
		}
		e.Zone, e.Present = f.Zone, e.Present|ct.ExpectHasZone
	}
	if err := o.zone.set(e); err != nil {
		return nil, err
	}
	if err := o.masks(e); err != nil {
		return nil, err
	}
	return e, o.rest(e)
}

// masks reads --mask-….
func (o *expectOptions) masks(e *ct.Expect) error {
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
			return named("--"+m.flag, err)
		case addr.Is4() != e.Tuple.Dst.Is4():
			return usagef("--%s: mask %s is of another address family", m.flag, text)
		case m.whole && addr != *m.at:
			return usagef("--%s %s: the kernel compares the destination whole: leave it out or give all ones", m.flag, text)
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
		n, err := number("mask of a port", text, 0, 65535)
		switch {
		case err != nil:
			return named("--"+m.flag, err)
		case !pattern.HasEnds(e.Tuple.Proto):
			return usagef("--%s: the protocol has no ports", m.flag)
		case m.whole && uint16(n) != *m.at:
			return usagef("--%s %s: the kernel compares the destination whole: leave it out or give 65535", m.flag, text)
		}
		*m.at = uint16(n)
	}
	return nil
}

// rest reads what is neither tuple nor mask.
func (o *expectOptions) rest(e *ct.Expect) error {
	if o.timeout > 0 {
		secs, err := value.WholeSeconds(o.timeout)
		if err != nil {
			return named("--timeout", err)
		}
		e.Timeout, e.Present = secs, e.Present|ct.ExpectHasTimeout
	}
	for _, fl := range []struct {
		on  bool
		bit uint32
	}{{o.permanent, ct.Permanent}, {o.inactive, ct.Inactive}, {o.userspace, ct.Userspace}} {
		if fl.on {
			e.Flags, e.Present = e.Flags|fl.bit, e.Present|ct.ExpectHasFlags
		}
	}
	if o.helper != "" {
		e.Helper, e.Present = []byte(o.helper), e.Present|ct.ExpectHasHelper
	}
	if o.class != 0 {
		e.Class, e.Present = o.class, e.Present|ct.ExpectHasClass
	}
	if o.fn != "" {
		e.Fn, e.Present = []byte(o.fn), e.Present|ct.ExpectHasFn
	}
	if o.createMaster && o.helper == "" {
		return usagef("--create-master: --helper NAME says which helper the master is to have")
	}
	if (o.nat == "") != (o.natDir == "") {
		return usagef("--nat and --nat-dir go together: --nat 10.0.0.9:5000 --nat-dir orig")
	}
	if o.nat == "" {
		return nil
	}
	dir, err := ct.DirNames.Parse(o.natDir)
	if err != nil {
		return named("--nat-dir", err)
	}
	p, err := pattern.Parse(string(value.Protocols.Append(nil, uint64(e.Tuple.Proto))) + " > " + o.nat)
	addr, ok := p0(p, err)
	if !ok || p.Has != pattern.Proto || strings.ContainsAny(o.nat, " >") {
		return named("--nat", &value.Error{What: "translation", Text: o.nat, Valid: "an address or address:port, as 10.0.0.9:5000 or [fd00::9]:5000"})
	}
	if addr.Is4() != e.Tuple.Dst.Is4() {
		return usagef("--nat: address %s is of another address family", addr)
	}
	e.NATDir, e.Present = uint32(dir), e.Present|ct.ExpectHasNATDir
	e.NATTuple = ct.Tuple{Family: e.Tuple.Family, Proto: e.Tuple.Proto, Src: addr, Present: ct.TupleFamily | ct.TupleProto}
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

func (a *app) expectCreate(ctx context.Context, o *expectOptions, args []string) error {
	e, err := o.expect(args)
	if err != nil {
		return err
	}
	if o.orUpdate && o.ifMissing {
		return usagef("--or-update changes what is there, --if-missing leaves it: one of them")
	}
	if _, err := a.outputOf(false); err != nil {
		return err
	}
	if o.dryRun {
		if o.createMaster {
			a.warn("would make the master %s with helper %s if it is not there", ct.AppendTuple(nil, &e.Master), o.helper)
		}
		return a.printExpects(e)
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	var made *ct.Flow
	if o.createMaster {
		if made, err = a.makeMaster(conn, o, e); err != nil {
			return err
		}
	}
	res, err := conn.CreateExpect(e, o.orUpdate)
	switch {
	case err != nil && made != nil:
		return errors.Join(createHint(err, o), conn.Delete(made))
	case errors.Is(err, unix.EEXIST) && o.ifMissing:
		a.warn("%s is there already", expectWords(e))
		return nil
	case err != nil:
		return createHint(err, o)
	}
	for _, x := range res.Evicted {
		a.warn("%s had to go: the helper's limit of expectations for this master is reached", expectWords(x))
	}
	if o.userspace && res.Stored != nil && res.Stored.Flags&ct.Userspace == 0 {
		a.warn("the kernel cleared the flag userspace")
	}
	switch {
	case res.Stored == nil: // met or ended already
		a.warn("%s was made, and is gone already", expectWords(e))
		return nil
	case res.Updated && !e.Has(ct.ExpectHasTimeout):
		a.warn("%s was there already; without --timeout nothing of it changes", expectWords(e))
	}
	return a.printExpects(res.Stored)
}

// createHint adds to a refusal what to do about it.
func createHint(err error, o *expectOptions) error {
	var refused *ct.Refusal
	if !errors.As(err, &refused) {
		return err
	}
	hint := ""
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && o.helper == "":
		hint = "with --create-master --helper ftp nfctl makes the master itself; else a rule must give it a helper: iptables -t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp"
	case errors.Is(err, unix.EOPNOTSUPP):
		hint = "the helper is the master's own, and belongs to a family and a protocol; 'nfctl doctor' shows which this kernel has"
	case errors.Is(err, unix.ENOENT):
		hint = "'nfctl ct list' shows what is there; --create-master --helper NAME makes the master; --zone N when it is in another zone"
	case errors.Is(err, unix.EEXIST):
		hint = "--or-update sets its timeout, --if-missing leaves it as it is"
	case errors.Is(err, unix.EBUSY):
		hint = "'nfctl expect list' shows which; delete it first, or say more of the source"
	}
	if hint == "" {
		return err
	}
	return &statusError{code: exitCode(err), err: err, hint: hint}
}

// makeMaster makes the master of e with a helper, unless it is there and has it.
func (a *app) makeMaster(conn *ct.Conn, o *expectOptions, e *ct.Expect) (*ct.Flow, error) {
	f := &ct.Flow{Orig: e.Master}
	if e.Has(ct.ExpectHasZone) {
		f.Zone, f.Present = e.Zone, f.Present|ct.HasZone
	}
	var got ct.Flow
	switch err := conn.Get(f, &got, false); {
	case err == nil && string(got.Helper) == o.helper:
		return nil, nil
	case err == nil && len(got.Helper) > 0:
		return nil, &statusError{code: exitExists, err: errors.New("master " + string(ct.AppendTuple(nil, &e.Master)) + ": it has another helper, " + string(got.Helper))}
	case err == nil:
		return nil, &statusError{code: exitExists, err: errors.New("master " + string(ct.AppendTuple(nil, &e.Master)) + ": it is there without a helper, and gets one only at its birth"),
			hint: "delete it ('nfctl ct delete') and give it a helper when it is made: by a rule, or by --create-master"}
	case !errors.Is(err, unix.ENOENT):
		return nil, err
	}
	timeout := uint32(300)
	if o.masterTimeout > 0 {
		secs, err := value.WholeSeconds(o.masterTimeout)
		if err != nil {
			return nil, named("--master-timeout", err)
		}
		timeout = secs
	} else if e.Has(ct.ExpectHasTimeout) {
		timeout = max(timeout, e.Timeout)
	}
	f.SetupReply()
	f.Timeout, f.Status, f.Helper = timeout, ct.StatusSeenReply|ct.StatusAssured, []byte(o.helper)
	f.Present |= ct.HasTimeout | ct.HasStatus | ct.HasHelper
	if e.Master.Proto == ct.TCP {
		f.TCPState, f.Present = ct.TCPEstablished, f.Present|ct.HasTCPState
	}
	if err := conn.Create(f, false); err != nil {
		return nil, createHint(err, o)
	}
	return f, nil
}
