package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

func newExpect(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "expect",
		Aliases: []string{"exp"},
		Short:   "Expectations: connections that the kernel will take as related to another",
		Long: `An expectation tells the kernel of a connection that is to come: one that matches
it is related to its master, the connection that it was made for (as an FTP data
connection is to the control connection), and a rule for RELATED lets it in.
The kernel's helpers make expectations; so do these commands.`,
		Example: `  nfctl expect list
  nfctl expect create --master 'tcp 10.0.0.1:1000 > 10.0.0.2:21' 'tcp 10.0.0.1 > 10.0.0.2:5000' --timeout 10s
  nfctl expect delete --helper ftp`,
	}
	c.AddCommand(a.choose(1, []maker{
		{"list", newExpectList}, {"get", newExpectGet}, {"create", newExpectCreate}, {"update", newExpectUpdate}, {"delete", newExpectDelete},
		{"flush", newExpectFlush}, {"count", newExpectCount}, {"stats", newExpectStats}, {"watch", newExpectWatch},
	})...)
	return c
}

// expectFlags are the flags that choose expectations. As in conntrack(8) --orig-*
// is about the master, --tuple-* about the connection expected.
var expectFlags = []filterFlag[ct.Expect]{
	{name: "master", kind: "pattern", usage: "the connection that expects, as 'tcp 10.0.0.1 > :21'", make: masterFilter},
	{name: "proto", short: "p", aliases: []string{"protonum"}, kind: "protocols", usage: "protocol of the connection expected", paths: []string{"tuple.proto"}},
	{name: "orig-src", short: "s", aliases: []string{"src"}, kind: "addresses", usage: "source of the master", paths: []string{"master.src"}},
	{name: "orig-dst", short: "d", aliases: []string{"dst"}, kind: "addresses", usage: "destination of the master", paths: []string{"master.dst"}},
	{name: "orig-port-src", aliases: []string{"sport"}, kind: "ports", usage: "source port of the master", paths: []string{"master.sport"}},
	{name: "orig-port-dst", aliases: []string{"dport"}, kind: "ports", usage: "destination port of the master", paths: []string{"master.dport"}},
	{name: "tuple-src", kind: "addresses", usage: "source of the connection expected", paths: []string{"tuple.src"}},
	{name: "tuple-dst", kind: "addresses", usage: "destination of the connection expected", paths: []string{"tuple.dst"}},
	{name: "tuple-port-src", kind: "ports", usage: "source port of the connection expected", paths: []string{"tuple.sport"}},
	{name: "tuple-port-dst", kind: "ports", usage: "destination port of the connection expected", paths: []string{"tuple.dport"}},
	{name: "mask-src", kind: "addresses", usage: "which bits of the source count", paths: []string{"mask.src"}},
	{name: "mask-port-src", aliases: []string{"mask-sport"}, kind: "numbers", usage: "which bits of the source port count", paths: []string{"mask.sport"}, parse: portMasks},
	{name: "host", kind: "addresses", usage: "either end, of the master or of the connection expected", paths: []string{"tuple.src", "tuple.dst", "master.src", "master.dst"}},
	{name: "port", kind: "ports", usage: "port of either end, of the master or of the connection expected", paths: []string{"tuple.sport", "tuple.dport", "master.sport", "master.dport"}},
	{name: "family", short: "f", kind: "families", usage: "address family: ipv4 or ipv6", paths: []string{"family"}},
	{name: "helper", kind: "names", usage: "name of the helper: ftp", paths: []string{"helper"}},
	{name: "class", kind: "numbers", usage: "class: which of the helper's policies", paths: []string{"class"}},
	{name: "flags", kind: "flags", usage: "flags: permanent, inactive", paths: []string{"flags"}},
	{name: "timeout", short: "t", kind: "seconds", usage: "time left: 30s, or a range 0-5m", paths: []string{"timeout"}},
	{name: "id", kind: "numbers", usage: "id of the expectation", paths: []string{"id"}},
}

func portMasks(s string) (value.Set, error) { return value.Numbers("mask of a port", 65535)(s) }

// expectPaths are the fields that a flow in words speaks of: those of the tuple
// called "tuple" or "master".
func expectPaths(tuple string) pattern.Paths {
	at := func(name string) []string { return []string{tuple + "." + name} }
	return pattern.Paths{Proto: at("proto"), Src: at("src"), Dst: at("dst"), SPort: at("sport"), DPort: at("dport"),
		Type: at("type"), Code: at("code"), ID: at("id")}
}

func masterFilter(text string) ([]field.Cond, func(*ct.Expect) bool, error) {
	p, err := pattern.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	conds, err := p.Conds(expectPaths("master"))
	return conds, nil, err
}

func registerExpectFilter(c *cobra.Command, fo *filterOptions) {
	registerFilter(c, expectFlags, fo)
	_ = c.Flags().MarkHidden("labelmap")
}

// expectFilter reads the flags and arguments that choose expectations.
func expectFilter(fo *filterOptions, args []string) (*chooser[ct.Expect], error) {
	if err := fo.args(args); err != nil {
		return nil, err
	}
	return compileFilter(ct.ExpectFields, expectFlags, expectPaths("tuple"), fo)
}

// master returns the one connection that all chosen expectations belong to, so
// that the kernel need list no others; nil: there may be several.
func (o *filterOptions) master() *ct.Flow {
	for _, g := range o.given {
		if g.flag != "master" {
			continue
		}
		if w, err := pattern.ParseFlow(g.text); err == nil && w.Has&pattern.Ports != 0 {
			return ct.FlowOf(w)
		}
	}
	return nil
}

// eachExpect hands every chosen expectation to f.
func eachExpect(ctx context.Context, c *ct.Conn, fo *filterOptions, flt *chooser[ct.Expect], f func(*ct.Expect) error) (ct.DumpResult, error) {
	res, err := c.Expects(ctx, 0, fo.master(), func(e *ct.Expect) error {
		if !flt.keep(e) {
			return nil
		}
		return f(e)
	})
	if errors.Is(err, unix.ENOENT) && fo.master() != nil {
		err = nil // a master that is not there has no expectations
	}
	return res, err
}

// chosenExpects returns the chosen expectations: there are never many.
func chosenExpects(ctx context.Context, c *ct.Conn, fo *filterOptions, flt *chooser[ct.Expect]) (all []*ct.Expect, err error) {
	_, err = eachExpect(ctx, c, fo, flt, func(e *ct.Expect) error {
		all = append(all, e.Clone())
		return nil
	})
	return all, err
}
