package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"nfctl/internal/lua"
	"nfctl/internal/rule"
)

// extensions gives the rule language the actions that other packages provide.
func (a *app) extensions(r *queueRun) {
	r.lua = &lua.Rules{Timeout: r.o.lua, Out: a.err, Warn: func(text string) { a.warn("lua: %s", text) }}
	r.Rules.Lua = r.lua.Open
	r.expect = &rule.Expects{DryRun: r.DryRun || r.Rules.Simulated, Warn: func(err error) {
		a.warn("expect: %v", err)
		if errors.Is(err, unix.EOPNOTSUPP) {
			a.warn("hint: a rule must give the connection a helper at its birth: iptables -t raw -A " +
				"PREROUTING -p tcp " +
				"--dport 7 -j CT --helper ftp; irc, with 8 at a time, serves several")
		}
	}}
	r.Rules.Expect = r.expect.Parse
}

// expectTotals prints what became of the payloads that matched an action expect, if
// any did.
func (a *app) expectTotals(x *rule.Expects) {
	if made, there, evicted, failed := x.Totals(); made+there+failed > 0 {
		a.total("expect: %d made, %d there already, %d removed by the kernel to make room, %d failed", made, there,
			evicted, failed)
	}
}
