package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/format"
	"nfctl/internal/natlog"
	"nfctl/internal/value"
)

func newCtWho(a *app) *cobra.Command {
	var q natlog.Query
	c := &cobra.Command{
		Use:   "who PROTO ADDR:PORT FILE...",
		Short: "Find in logs of address translations who had an address and port",
		Long: `Finds in logs of 'nfctl ct watch --nat-log' which inside hosts had an outside address
and port, and prints each such translation: Linux gives one outside port to several
hosts at once, for different destinations. A log that was rotated is named by its
file; its pieces are found beside it, compressed or not. For ICMP the port is the
identifier.

When the logs do not tell of all of that time, because nfctl did not run, events were
lost or a piece is missing, each such gap is printed too, and the exit status is 1:
there may have been others. Nobody is status 3.`,
		Example: `  nfctl ct who tcp 203.0.113.1:40000 --at 2026-12-01T05:00:00Z /var/log/nfctl/nat.log
  nfctl ct who udp 203.0.113.1:40000 --to 198.51.100.7:53 --at 2026-12-01T05:00:00Z±30s nat.log -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 {
				return usagef("want a protocol, an address with a port, and one log or more, as " +
					"'nfctl ct who tcp 203.0.113.1:40000 nat.log'")
			}
			proto, err := value.Protocols.Parse(args[0])
			if err != nil {
				return &usageError{err}
			}
			at, err := netip.ParseAddrPort(args[1])
			if err != nil {
				return &usageError{&value.Error{What: "address and port", Text: args[1],
					Valid: "as 203.0.113.1:40000 or [2001:db8::1]:40000"}}
			}
			q.Proto, q.Outside = uint8(proto), natlog.Place{Addr: at.Addr(), Port: at.Port()}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.who(&q, args[2:]) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.Var(&parsed[struct{}]{dst: new(struct{}), kind: "time", parse: func(s string) (struct{}, error) {
		var err error
		q.From, q.Until, err = around(s)
		return struct{}{}, err
	}}, "at", "when: RFC 3339 or seconds since the epoch, and how far from it, as 2026-12-01T05:00:00Z±30s "+
		"(default: whenever)")
	f.Var(&parsed[struct{}]{dst: new(struct{}), kind: "address", parse: func(s string) (struct{}, error) {
		var err error
		q.To, q.ToPort, err = otherEnd(s)
		return struct{}{}, err
	}}, "to", "only translations towards this address, with or without a port")
	a.prints(c, format.Generic, paths(natlog.Fields))
	return c
}

// around reads a time and how far from it.
func around(s string) (from, until uint64, err error) {
	at, off, ok := strings.Cut(s, "±")
	if !ok {
		at, off, ok = strings.Cut(s, "+-")
	}
	t, err := value.Time(strings.TrimSpace(at))
	if err != nil || t == 0 {
		return 0, 0, &value.Error{What: "time", Text: s,
			Valid: "RFC 3339 or seconds since the epoch, perhaps with ±DURATION: 2026-12-01T05:00:00Z±30s"}
	}
	var d time.Duration
	if ok {
		if d, err = value.Duration(strings.TrimSpace(off)); err != nil {
			return 0, 0, err
		}
	}
	return t - min(t, uint64(d)), t + uint64(d), nil
}

// otherEnd reads an address, with or without a port.
func otherEnd(s string) (netip.Addr, uint16, error) {
	if at, err := netip.ParseAddrPort(s); err == nil {
		return at.Addr(), at.Port(), nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		err = &value.Error{What: "address", Text: s, Valid: "an address, with or without a port, as " +
			"198.51.100.7:53 or [2001:db8::1]:53"}
	}
	return addr, 0, err
}

// who prints the translations that a query finds.
func (a *app) who(q *natlog.Query, files []string) error {
	out, err := a.outputOf(false)
	if err != nil {
		return err
	}
	p, k, err := printTo(a, format.Translations, out, format.Options{})
	if err != nil {
		return err
	}
	matches, gaps, err := natlog.Search(files, q, func(r *natlog.Record) error {
		k.b = p.Append(k.b, r)
		if k.full() {
			return k.flush()
		}
		return nil
	})
	if err := errors.Join(err, finishPrint(p, k)); err != nil {
		return err
	}
	switch {
	case gaps > 0:
		return &statusError{code: exitFailed, err: fmt.Errorf("%s in what the logs tell of that time: "+
			"%s found, and there may have been others", plural(uint64(gaps), "gap"), strconv.Itoa(matches))}
	case matches == 0:
		return &statusError{code: exitNotFound, err: errors.New("nobody had it then")}
	}
	return nil
}
