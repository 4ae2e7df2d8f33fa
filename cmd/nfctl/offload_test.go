package main

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nfctl/internal/nstest"
)

// TestOffloadedFailover saves, flushes and loads the table of a router three times
// during a transfer that it translates and that its flowtable has taken over, of
// which the kernel tells neither state nor window scale. No packet may become
// INVALID.
func TestOffloadedFailover(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft", "ip")
	client, router, server := nstest.New(t), nstest.New(t), nstest.New(t)
	nf := nstest.Build(t)
	for i, n := range []*nstest.NS{client, server} {
		net, dev := []string{"10.1.0", "10.2.0"}[i], []string{"in0", "out0"}[i]
		router.Run("ip", "link", "add", dev, "type", "veth", "peer", "name", "eth0", "netns", n.Path())
		router.Run("ip", "addr", "add", net+".1/24", "dev", dev)
		router.Run("ip", "link", "set", dev, "up")
		n.Run("ip", "addr", "add", net+".2/24", "dev", "eth0")
		n.Run("ip", "link", "set", "eth0", "up")
		n.Run("ip", "route", "add", "default", "via", net+".1")
	}
	router.Do(func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	})
	_, words, status := router.Exec("nft", `table inet f {
		flowtable ft { hook ingress priority 0; devices = { in0, out0 }; }
		counter invalid { }
		chain held { type filter hook prerouting priority -400; }
		chain forward { type filter hook forward priority 0; ct state invalid counter name "invalid" drop; ip protocol tcp flow add @ft; }
	}
	table ip n { chain out { type nat hook postrouting priority 100; oifname "out0" masquerade; }; }`)
	switch {
	case status != 0 && os.Getenv("NFCTL_TEST_VM") != "":
		t.Fatal(words)
	case status != 0:
		t.Skip("this kernel has no flowtables; make vmtest has kernels that do: " + words)
	}
	l := server.ListenTCP("10.2.0.2:5001")
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		piece := make([]byte, 64<<10) // more than a window without its scale
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}()
	c, err := client.Dial("tcp", "10.2.0.2:5001", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got atomic.Int64
	go func() {
		b := make([]byte, 256<<10)
		for {
			n, err := c.Read(b)
			got.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	goesOn := func() {
		t.Helper()
		from := got.Load()
		nstest.Until(t, "the transfer goes on", func() bool { return got.Load() >= from+2<<20 })
	}
	for i, form := range []string{"save", "json", "save"} {
		goesOn()
		nstest.Until(t, "the flowtable has the flow", func() bool {
			return strings.Contains(router.Run(nf, "ct", "list", "-o", "json"), `"OFFLOAD"`)
		})
		saved := router.Run(nf, "ct", "save", "-o", form)
		if strings.Contains(saved, "ESTABLISHED") {
			t.Errorf("the state is told, so this shows nothing: %s", saved)
		}
		router.Run("nft", "add rule inet f held drop")
		router.Run(nf, "ct", "flush", "--all")
		if i == 2 { // whoever takes over may have no flowtable, which would pass over windows too
			router.Run("nft", "flush chain inet f forward; delete flowtable inet f ft; add rule inet f forward ct "+
				"state invalid counter name invalid drop")
		}
		if _, errs, status := pipeTo(router, saved, nf, "ct", "load"); status != 0 {
			t.Fatalf("load: status %d: %s", status, errs)
		}
		router.Run("nft", "flush chain inet f held")
		goesOn()
	}
	if out := router.Run("nft", "list counter inet f invalid"); !strings.Contains(out, "packets 0 ") {
		t.Errorf("INVALID packets: %s", out)
	}
}
