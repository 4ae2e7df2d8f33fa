package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// expectOptions are the flags of 'nfctl expect create'.
type expectOptions struct {
	table.NewExpect
	orUpdate, ifMissing, dryRun bool
}

func newExpectCreate(a *app) *cobra.Command {
	o := &expectOptions{}
	c := &cobra.Command{
		Use:   "create --master FLOW FLOW",
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
	f.StringVar(&o.Master, "master", "", "the connection that expects, as a `flow` in words with all its parts")
	f.VarP(&parsed[time.Duration]{dst: &o.Timeout, parse: someTime, kind: "duration"}, "timeout", "t",
		"how long to wait for the connection (default: the helper's policy)")
	f.BoolVar(&o.Permanent, "permanent", false, "keep it when it was met, until its timeout or its master's end")
	f.BoolVar(&o.Inactive, "inactive", false, "store it, but let nothing meet it")
	f.BoolVar(&o.Userspace, "userspace", false, "mark it as a userspace helper's; current kernels clear this")
	f.StringVar(&o.Helper, "helper", "", "`name` of the helper that the master must have")
	varFlag(f, &o.Class, "class", "number", "", func(s string) (uint32, error) {
		n, err := value.NumberIn("class", s, 0, 1<<32-1)
		return uint32(n), err
	}, "which of the helper's policies limits it")
	f.StringVar(&o.Fn, "fn", "", "`function` of the kernel to call when the connection comes: nat-follow-master, "+
		"sip, …")
	f.StringVar(&o.NAT, "nat", "", "`address:port` to translate the source of the connection to, see --nat-dir")
	f.StringVar(&o.NATDir, "nat-dir", "", "`direction` of the master that --nat belongs to: orig or reply")
	f.BoolVar(&o.CreateMaster, "create-master", false, "make the master with --helper when it is not in the table")
	durationFlag(f, &o.MasterTimeout, "master-timeout",
		"timeout of a master that is made (default: 5m, and at least --timeout)")
	f.BoolVar(&o.orUpdate, "or-update", false, "set the timeout of one that is there already")
	f.BoolVar(&o.ifMissing, "if-missing", false, "do nothing, and succeed, when it is there already")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be made, and make nothing")
	registerZone(c, &o.Zone)
	for i := range ct.ExpectFlags {
		if ef := &ct.ExpectFlags[i]; ef.Describe.Kind != "" {
			names, letter := ef.Names(true)
			addGiven(f, names, letter, ef.Describe, func(_, text string) {
				o.Words = append(o.Words, table.Given{Flag: ef.Name, Text: text})
			})
		}
	}
	_ = c.RegisterFlagCompletionFunc("proto", fixed("tcp", "udp"))
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

func (a *app) expectCreate(ctx context.Context, o *expectOptions, args []string) error {
	e, err := o.Read(args)
	if err != nil {
		return err
	}
	if o.orUpdate && o.ifMissing {
		return usagef("--or-update changes what is there, --if-missing leaves it: one of them")
	}
	w, err := expectKind.printer(a, a.quiet)
	if err != nil {
		return err
	}
	if o.dryRun {
		if o.CreateMaster {
			a.warn("would make the master %s with helper %s if it is not there", ct.AppendTuple(nil, &e.Master),
				o.Helper)
		}
		return cmp.Or(w.print(e), w.end())
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	res, err := o.Make(conn, e, o.orUpdate)
	switch {
	case errors.Is(err, unix.EEXIST) && o.ifMissing:
		a.warn("%s is there already", expectWords(e))
		return nil
	case err != nil:
		return expectHint(err, o.Helper)
	}
	for _, x := range res.Evicted {
		a.warn("%s had to go: the helper's limit of expectations for this master is reached", expectWords(x))
	}
	if o.Userspace && res.Stored != nil && res.Stored.Flags&ct.Userspace == 0 {
		a.warn("the kernel cleared the flag userspace")
	}
	if e.Has(ct.ExpectHasClass) && res.Stored != nil && !res.Updated && res.Stored.Class != e.Class {
		a.warn("the kernel made it of class %d: it takes no class here", res.Stored.Class)
	}
	switch {
	case res.Stored == nil: // met or ended already
		a.warn("%s was made, and is gone already", expectWords(e))
		return nil
	case res.Updated && !e.Has(ct.ExpectHasTimeout):
		a.warn("%s was there already; without --timeout nothing of it changes", expectWords(e))
	}
	return cmp.Or(w.print(res.Stored), w.end())
}

// expectHint adds to the refusal of an expectation what to do about it; helper is that
// which was named.
func expectHint(err error, helper string) error {
	var refused *ct.Refusal
	if !errors.As(err, &refused) {
		return err
	}
	hint := ""
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && helper == "":
		hint = "with --create-master --helper ftp nfctl makes the master itself; else a rule must give it a helper: " +
			"iptables -t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp"
	case errors.Is(err, unix.EOPNOTSUPP):
		hint = "the helper is the master's own, and belongs to a family and a protocol; 'nfctl doctor' shows " +
			"which this " +
			"kernel has"
	case errors.Is(err, unix.ENOENT):
		hint = "'nfctl ct list' shows what is there; --create-master --helper NAME makes the master; --zone N " +
			"when it is " +
			"in another zone"
	case errors.Is(err, unix.EEXIST):
		hint = "--or-update sets its timeout, --if-missing leaves it as it is"
	case errors.Is(err, unix.EBUSY):
		hint = "'nfctl expect list' shows which; delete it first, or say more of the source"
	default:
		return err
	}
	return &statusError{code: exitCode(err), err: err, hint: hint}
}

// expectWords names an expectation in messages.
func expectWords(e *ct.Expect) string {
	b := ct.AppendTuple([]byte("expectation "), &e.Tuple)
	if e.Has(ct.ExpectHasID) {
		b = fmt.Appendf(b, " (id %d)", e.ID)
	}
	return string(b)
}
