package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/lua"
)

func newLua(a *app) *cobra.Command {
	o, keep := lua.Options{}, false
	c := &cobra.Command{
		Use:   "lua SCRIPT [ARGS...]",
		Short: "Run a netfilter-lua script: the modules nfq and nfct, without a C library",
		Long: `Runs a script in Lua 5.1 with netfilter-lua's modules nfq (verdicts on queued
packets) and nfct (connection tracking). Scripts written for netfilter-lua run as
they are; what is behind SCRIPT is theirs, in the table arg. "-" reads the script
from standard input, as does nothing at all.

Modules are looked for beside the script, then where LUA_PATH says. Scripts may
begin with '#!/usr/bin/env -S nfctl lua'.

--untrusted takes os, io, debug, dofile and loadfile away, and modules come from
the script's folder alone. Such a script still decides on packets and changes
the connection tracking table.

Before the script runs, nfctl gives up all capabilities but CAP_NET_ADMIN, for good:
as root it still reads and writes root's files, but not everybody's, and programs
that it starts have no more. --keep-privileges leaves all.`,
		Example: `  nfctl lua events.lua conntrack
  nfctl lua -e 'print(nfct.htons(80))'
  nfctl queue --attach 'output udp > :53' --rule 'lua decide.lua'`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeFiles,
		RunE: func(c *cobra.Command, args []string) error {
			o.In, o.Out, o.Err = a.in, a.out, a.stderr()
			o.Warn = func(text string) { a.warn("lua: %s", text) }
			if !keep {
				o.Loaded = func() { a.lessPrivileges(unix.CAP_NET_ADMIN) }
			}
			if c.Flags().Changed("execute") {
				o.Args = args
				return luaStatus(lua.Run(o))
			}
			switch {
			case len(args) > 0:
				o.File, o.Args = args[0], args[1:]
			case isTerminalInput(a.in):
				return usagef("which script? nfctl lua SCRIPT [ARGS...], nfctl lua -e CODE, or a script on " +
					"standard input")
			default:
				o.File = "-"
			}
			return luaStatus(lua.Run(o))
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&o.Code, "execute", "e", "", "run this `code` instead of a script")
	keepPrivilegesFlag(f, &keep)
	f.BoolVar(&o.Untrusted, "untrusted", false, "take os and io away, and load modules from the script's folder alone")
	return c
}

func isTerminalInput(in any) bool {
	f, ok := in.(*os.File)
	return ok && isTerminal(f)
}

// luaStatus keeps the status of a failed script apart from those of requests: a
// script that ends with an error ends with 1.
func luaStatus(err error) error {
	var script *lua.Error
	if errors.As(err, &script) && exitCode(err) != exitOK {
		return &statusError{code: exitFailed, err: err}
	}
	return err
}
