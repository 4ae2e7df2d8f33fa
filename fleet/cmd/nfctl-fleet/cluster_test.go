package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"nfctl/fleet/internal/fleettest"
	"nfctl/internal/nstest"
)

// A leader of three that dies under load loses nothing, doubles nothing and changes
// no order.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	n := fleettest.NewNet(t)
	machines := []*fleettest.Machine{n.Machine(), n.Machine(), n.Machine()}
	var routes, urls []string
	for _, m := range machines {
		routes = append(routes, "nats://"+m.Addr+":6222")
		urls = append(urls, "nats://"+m.Addr+":4222")
	}
	servers := map[string]*fleettest.Server{}
	for i, m := range machines {
		name := fmt.Sprintf("s%d", i)
		servers[name] = m.Start(t, "", "--cluster_name", "c", "--cluster", "nats://0.0.0.0:6222", "-n", name,
			"--routes",
			strings.Join(routes, ","))
	}
	all := *servers["s0"]
	all.URL = strings.Join(urls, ",")
	b := newBedAt(t, n, &all, "--replicas", "3")
	leader := func() string {
		out, _, _ := b.reader.Exec(b.bin, "status", "--from", all.URL, "--wait", "1ms", "-o", "json")
		first, _, _ := strings.Cut(out, "\n")
		var s streamStatus
		if json.Unmarshal([]byte(first), &s) != nil {
			return ""
		}
		return s.Leader
	}
	fol := b.follow("--seq", "1")
	b.waves(3, 5000, func(int) {
		var name string
		nstest.Until(t, "there is a leader", func() bool { name = leader(); return servers[name] != nil })
		servers[name].Kill()
		servers[name].Up()
	})
	b.arrives(fol, 30000)
	b.ends()
	got, _, records := events(t, fol.Stdout())
	same(t, got, b.want())
	if strings.Contains(strings.Join(records, ","), "lost") {
		t.Errorf("records %q", records)
	}
}
