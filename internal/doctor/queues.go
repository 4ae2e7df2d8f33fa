package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nft"
	"nfctl/internal/nl"
	"nfctl/internal/queue"
)

// queues compares the queues that are bound with those that rules feed.
func (d *doctor) queues() {
	list, listErr := queue.List()
	waiting := uint32(0)
	if listErr != nil {
		d.add(Unknown, "bound queues", "it takes root or CAP_DAC_READ_SEARCH", "the kernel's list cannot be read: %v",
			listErr)
	} else {
		for _, q := range list {
			waiting += q.Depth
			d.holder(&q)
		}
		if len(list) == 0 {
			d.add(OK, "bound queues", "", "none")
		}
	}
	feeders, err := nft.Feeders()
	if err != nil {
		d.unknown("rules that queue", err)
	}
	legacy := legacyTables()
	if listErr == nil && err == nil {
		d.match(list, feeders, legacy)
	}
	d.refusals(feeders)
	d.own(feeders)
	d.legacy(legacy)
	d.chains(waiting)
}

func (d *doctor) holder(q *queue.Info) {
	check := fmt.Sprintf("queue %d", q.Num)
	who := fmt.Sprintf("the socket with port id %d (its process cannot be seen)", q.Owner.Port)
	if q.Owner.PID != 0 {
		who = fmt.Sprintf("process %d (%s)", q.Owner.PID, q.Owner.Comm)
	}
	text := fmt.Sprintf("bound by %s, %d packets wait", who, q.Depth)
	if q.QueueDropped+q.UserDropped > 0 {
		d.add(Warn, check, "raise --max-len and --buffer, ask for less of each packet (--snaplen), or use --fail-open",
			"%s; dropped so far: %d because it was full, %d because its owner's socket was", text, q.QueueDropped,
			q.UserDropped)
		return
	}
	d.add(OK, check, "", "%s", text)
}

// match reports queues that a rule feeds and nobody has bound, and the reverse.
func (d *doctor) match(list []queue.Info, feeders []nft.Feeder, legacy []string) {
	bound := map[uint16]bool{}
	for _, q := range list {
		bound[q.Num] = true
	}
	fed := map[uint16]bool{}
	computed := false
	for _, f := range feeders {
		computed = computed || f.Computed
		var open []string
		for n := int(f.First); n <= int(f.Last) && !f.Computed; n++ {
			fed[uint16(n)] = true
			if !bound[uint16(n)] {
				open = append(open, fmt.Sprint(n))
			}
		}
		if len(open) == 0 {
			continue
		}
		if len(open) > 8 {
			open = append(open[:8], "…")
		}
		check := "fed queue " + strings.Join(open, ",")
		where := fmt.Sprintf("a rule in %s table %s, chain %s", nft.FamilyName(f.Family), f.Table, f.Chain)
		if f.Bypass {
			d.add(OK, check, "", "%s feeds it and nobody has bound it: its packets pass (bypass)", where)
		} else {
			d.add(Warn, check, "nfctl queue --num "+open[0]+", or remove the rule, or give it bypass",
				"%s feeds it and nobody has bound it: its packets are dropped", where)
		}
	}
	for _, q := range list {
		switch check := fmt.Sprintf("queue %d", q.Num); {
		case fed[q.Num], q.Waiting: // a queue's verdicts feed it
		case computed || len(legacy) > 0:
			d.add(Unknown, check, "", "no rule that can be read feeds it; there are others")
		default:
			d.add(Warn, check, "nfctl queue --attach, or a rule: iptables -j NFQUEUE --queue-num, nft queue",
				"bound, but no rule feeds it")
		}
	}
}

// refusals names the chains whose rules queue what a rule that rejects sends back:
// the kernel drops it instead, and who was to be refused waits.
func (d *doctor) refusals(feeders []nft.Feeder) {
	type chain struct {
		family      uint8
		table, name string
	}
	said := map[chain]bool{}
	for _, f := range feeders {
		c := chain{f.Family, f.Table, f.Chain}
		if !f.Refusals || said[c] {
			continue
		}
		said[c] = true
		hint := fmt.Sprintf("in front of it: nft insert rule %s %s %s 'ct direction reply ct status & confirmed == "+
			"0 accept'", nft.FamilyName(f.Family), f.Table, f.Chain)
		if program := map[uint8]string{unix.NFPROTO_IPV4: "iptables",
			unix.NFPROTO_IPV6: "ip6tables"}[f.Family]; program != "" && f.Chain == strings.ToUpper(f.Chain) {
			hint = fmt.Sprintf("in front of it: %s -t %s -I %s -m conntrack --ctdir REPLY ! --ctstatus CONFIRMED "+
				"-j ACCEPT", program, f.Table, f.Chain)
		}
		d.add(Warn, "refusals", hint, "a rule in %s table %s, chain %s queues what rules that reject send back; where "+
			"connections are tracked the kernel drops that instead: who was to be refused waits",
			nft.FamilyName(f.Family),
			f.Table, f.Chain)
	}
}

// legacyTables are the tables of the old iptables that are in use, as "ip filter".
func legacyTables() (out []string) {
	for file, family := range map[string]string{"ip_tables_names": "ip", "ip6_tables_names": "ip6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		for _, t := range strings.Fields(string(b)) {
			out = append(out, family+" "+t)
		}
	}
	slices.Sort(out)
	return out
}

func (d *doctor) legacy(tables []string) {
	if len(tables) > 0 {
		d.add(Unknown, "legacy iptables", "iptables-legacy-save, ip6tables-legacy-save",
			"what its rules queue cannot be seen from here; tables in use: %s", strings.Join(tables, ", "))
	}
}

func (d *doctor) chains(waiting uint32) {
	const check = "base chains"
	n, err := nft.BaseChains()
	if err != nil {
		d.unknown(check, err)
		return
	}
	text := fmt.Sprintf("removing any base chain of this namespace (%d in nf_tables) makes the kernel drop what all "+
		"its queues hold (%d packets now)", n, waiting)
	hint := ""
	if waiting > 0 && n > 0 {
		hint = "end programs and reload firewalls when queues are empty; nfctl's own end waits for that"
	}
	d.add(OK, check, hint, "%s", text)
}

// tracking sends itself a datagram over the loopback and looks for its flow: the
// kernel tracks only in namespaces where some rule makes it.
func (d *doctor) tracking() {
	const check = "tracking here"
	if !d.can(unix.CAP_NET_ADMIN) {
		d.add(Unknown, check, "", "looking takes CAP_NET_ADMIN")
		return
	}
	yes, err := tracks()
	switch {
	case err != nil:
		d.add(Unknown, check, "", "a datagram over the loopback did not arrive: %v", err)
	case yes:
		d.add(OK, check, "", "traffic of this namespace is tracked")
	default:
		d.add(Warn, check, "any rule that looks at connections makes it so: iptables -A INPUT -m conntrack --ctstate "+
			"INVALID, nft … ct state invalid",
			"a datagram over the loopback left no entry: nothing tracks here, or a rule exempts it")
	}
}

func tracks() (bool, error) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return false, err
	}
	defer server.Close()
	client, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return false, err
	}
	defer client.Close()
	if _, err := client.Write([]byte("nfctl doctor")); err != nil {
		return false, err
	}
	_ = server.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := server.Read(make([]byte, 16)); err != nil {
		return false, err
	}
	from, to := client.LocalAddr().(*net.UDPAddr), server.LocalAddr().(*net.UDPAddr)
	f := &ct.Flow{Orig: ct.Tuple{Family: ct.IPv4, Proto: ct.UDP,
		Src: netip.AddrFrom4([4]byte(from.IP.To4())), Dst: netip.AddrFrom4([4]byte(to.IP.To4())),
		Sport: uint16(from.Port), Dport: uint16(to.Port),
		Present: ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport}}
	c, err := ct.Dial()
	if err != nil {
		return false, err
	}
	defer c.Close()
	var got ct.Flow
	err = c.Get(f, &got, false)
	var op *nl.OpError
	switch {
	case err == nil:
		_ = c.Delete(&got)
		return true, nil
	case errors.As(err, &op) && errors.Is(err, unix.ENOENT):
		return false, nil
	}
	return false, err
}
