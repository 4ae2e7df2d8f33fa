package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/resolve"
	"nfctl/internal/table"
)

// namesPatience is how long a list waits for the names of its hosts.
const namesPatience = 3 * time.Second

// resolveFlag adds --resolve to a command that prints flows or expectations.
func (a *app) resolveFlag(c *cobra.Command) {
	c.Flags().BoolVar(&a.resolve, "resolve", false,
		"show names of hosts (DNS), services and protocols; in JSON beside the numbers. Nothing waits\n"+
			"for a name: a list has those that came within 3s, a stream shows the "+
			"number until the name is known")
}

// names makes who knows names, where they are asked for.
func (a *app) resolver() *resolve.Resolver {
	if a.names == nil && a.resolve {
		a.names = resolve.New()
	}
	return a.names
}

// learn looks up the names of the hosts of what was chosen, for no longer than
// namesPatience.
func (k *kind[T]) learn(ctx context.Context, a *app, choose *table.Choice[T]) error {
	r := a.resolver()
	if r == nil {
		return nil
	}
	ask := func(addr netip.Addr) { r.Host(addr) }
	_, err := k.each(ctx, choose, func(t *T) error {
		k.addrs(t, ask)
		return ctx.Err()
	})
	r.Wait(ctx, namesPatience)
	return err
}

// learnOne is learn for one object.
func (k *kind[T]) learnOne(ctx context.Context, a *app, t *T) {
	if r := a.resolver(); r != nil {
		k.addrs(t, func(addr netip.Addr) { r.Host(addr) })
		r.Wait(ctx, namesPatience)
	}
}
