package main

// extensions gives the rule language the actions that other packages provide.
func (a *app) extensions(r *queueRun) {
	r.lua = &luaRules{timeout: r.o.lua, warn: a.warn, out: a.err}
	r.rules.Lua = r.lua.open
	r.expect = &expectRules{warn: a.warn, dryRun: r.o.dryRun}
	r.rules.Expect = r.expect.parse
}
