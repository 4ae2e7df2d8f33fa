package nft

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/mark"
	"nfctl/internal/nl"
)

// An Own is a table that some nfctl has in force.
type Own struct {
	Name     string
	Families []uint8 // NFPROTO_…, one table each
	Owner    uint32  // the port id of the socket with which it goes; 0: it stays when its nfctl is killed
	Chains   []OwnChain

	Marks   uint32 // bits of packets' marks that it takes for itself
	Tested  uint32 // bits of connections' marks in which it finds what was decided for flows
	Written uint32 // bits of connections' marks that it changes
}

// An OwnChain is where packets enter an Own.
type OwnChain struct {
	Hook     Hook
	Priority int32
}

// tableOwnerPort is NFTA_TABLE_OWNER (linux/netfilter/nf_tables.h).
const tableOwnerPort = 7

// prefix is what the names of nfctl's tables begin with.
const prefix = "nfctl-"

// Owns returns nfctl's own tables in the calling thread's network namespace, those of
// all its processes.
func Owns() ([]Own, error) {
	var list []Own
	of := map[place]int{} // place in list by family and name: in different ones a name may be used twice
	err := dump(unix.NFT_MSG_GETTABLE, func(m *nl.Msg) {
		o := Own{Families: []uint8{m.Family()}}
		for a := range nl.Attrs(m.Body()) {
			switch a.Type {
			case unix.NFTA_TABLE_NAME:
				o.Name = string(a.Text())
			case tableOwnerPort:
				o.Owner, _ = a.U32()
			}
		}
		if !strings.HasPrefix(o.Name, prefix) {
			return
		}
		i := slices.IndexFunc(list, func(l Own) bool { return l.Name == o.Name && l.Owner == o.Owner })
		if i < 0 {
			i = len(list)
			list = append(list, o)
		} else {
			list[i].Families = append(list[i].Families, m.Family())
		}
		of[place{family: m.Family(), table: o.Name}] = i
	})
	if err != nil || len(list) == 0 {
		return nil, nl.Error("list", "nf_tables tables", err)
	}
	find := func(p place) *Own {
		if i, ok := of[place{family: p.family, table: p.table}]; ok {
			return &list[i]
		}
		return nil
	}
	err = dump(unix.NFT_MSG_GETCHAIN, func(m *nl.Msg) {
		p, c, base := readChain(m)
		o := find(p)
		if o == nil || !base || slices.Contains(o.Chains, c) || strings.HasSuffix(p.chain, behindSuffix) {
			return
		}
		o.Chains = append(o.Chains, c)
	})
	if err != nil {
		return nil, nl.Error("list", "nf_tables chains", err)
	}
	rules, err := kernelRules()
	for i := range rules {
		if o := find(rules[i].place); o != nil {
			o.read(rules[i].exprs)
		}
	}
	return list, err
}

// readChain reads the kernel's message about a chain; base: packets enter it from a hook.
func readChain(m *nl.Msg) (p place, c OwnChain, base bool) {
	p.family = m.Family()
	for a := range nl.Attrs(m.Body()) {
		switch a.Type {
		case unix.NFTA_CHAIN_TABLE:
			p.table = string(a.Text())
		case unix.NFTA_CHAIN_NAME:
			p.chain = string(a.Text())
		case unix.NFTA_CHAIN_HOOK:
			base = true
			for h := range nl.Attrs(a.Data) {
				n, _ := h.U32()
				switch h.Type {
				case unix.NFTA_HOOK_HOOKNUM:
					c.Hook = Hook(n)
				case unix.NFTA_HOOK_PRIORITY:
					c.Priority = int32(n)
				}
			}
		}
	}
	return p, c, base
}

// A Marker is a chain of others whose rules write connections' marks.
type Marker struct {
	Family       uint8 // NFPROTO_…
	Table, Chain string
	Bits         uint32 // those that they write
}

func (m Marker) String() string {
	return fmt.Sprintf("rules in %s table %s, chain %s, write bits %#x of connections' marks", FamilyName(m.Family),
		m.Table,
		m.Chain, m.Bits)
}

// FamilyName is what nft(8) calls an NFPROTO_….
func FamilyName(f uint8) string {
	names := map[uint8]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6",
		unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge"}
	return names[f]
}

// Markers returns the chains of nf_tables, but nfctl's own, whose rules write some of these bits of
// connections' marks: rules of nft and, of iptables-nft, those with the target CONNMARK.
func Markers(bits uint32) ([]Marker, error) {
	rules, err := kernelRules()
	var list []Marker
	for i := range rules {
		r := &rules[i]
		w := written(r.exprs)
		if w&bits == 0 || strings.HasPrefix(r.table, prefix) {
			continue
		}
		if n := len(list); n > 0 && list[n-1].Family == r.family && list[n-1].Table == r.table &&
			list[n-1].Chain == r.chain {
			list[n-1].Bits |= w
			continue
		}
		list = append(list, Marker{Family: r.family, Table: r.table, Chain: r.chain, Bits: w})
	}
	return list, err
}

// written returns the bits of connections' marks that a rule writes.
func written(exprs []byte) (bits uint32) {
	const all = ^uint32(0)
	keeps := uint32(0) // bits of the connection's mark that are in register 1 as they were
	for e := range nl.Attrs(exprs) {
		name, data := expression(e.Data)
		num := map[uint16]uint32{}
		for a := range nl.Attrs(data) {
			num[a.Type], _ = a.U32()
		}
		switch name {
		case "ct":
			_, sets := num[unix.NFTA_CT_SREG]
			mark := num[unix.NFTA_CT_KEY] == unix.NFT_CT_MARK
			switch {
			case sets && mark:
				bits |= ^keeps
			case !sets && mark:
				keeps = all
			case !sets:
				keeps = 0
			}
		case "bitwise":
			if m := dataOf(data, unix.NFTA_BITWISE_MASK); len(m) == 4 {
				keeps &= binary.NativeEndian.Uint32(m)
			}
		case "target":
			bits |= connmarkTarget(data)
		case "meta", "payload", "immediate":
			keeps = 0
		}
	}
	return bits
}

// connmarkTarget returns the bits that the xt target CONNMARK writes: struct
// xt_connmark_tginfo1, ctmark, ctmask, nfmask, mode (linux/netfilter/xt_connmark.h).
func connmarkTarget(data []byte) uint32 {
	const restore = 2 // XT_CONNMARK_RESTORE: the packet's mark, not the connection's
	name, rev, info := target(data)
	mode := 12
	if rev >= 2 { // struct xt_connmark_tginfo2 has two bytes for a shift in front of it
		mode = 14
	}
	if name != "CONNMARK" || len(info) <= mode || info[mode] == restore {
		return 0
	}
	return binary.NativeEndian.Uint32(info[4:])
}

// read finds which bits of marks a rule of nfctl's looks at and changes.
func (o *Own) read(exprs []byte) {
	var loaded, mask uint32 // what register 1 holds: a key of ct (with bit 31) or of meta
	const ofCT = 1 << 31
	for e := range nl.Attrs(exprs) {
		name, data := expression(e.Data)
		num := numbersIn(data)
		switch name {
		case "meta":
			if _, sets := num[unix.NFTA_META_SREG]; sets && num[unix.NFTA_META_KEY] == unix.NFT_META_MARK {
				o.Marks |= ^mask
			}
			loaded, mask = num[unix.NFTA_META_KEY], ^uint32(0)
		case "ct":
			if _, sets := num[unix.NFTA_CT_SREG]; sets && num[unix.NFTA_CT_KEY] == unix.NFT_CT_MARK {
				o.Written |= ^mask
			}
			loaded, mask = ofCT|num[unix.NFTA_CT_KEY], ^uint32(0)
		case "bitwise":
			if m := dataOf(data, unix.NFTA_BITWISE_MASK); len(m) == 4 {
				mask = binary.NativeEndian.Uint32(m)
			}
		case "cmp":
			if loaded == ofCT|unix.NFT_CT_MARK {
				o.Tested |= mask
			}
		}
	}
}

// Clash returns bits of marks that a table of specs and codes and another nfctl's would
// both use for themselves, so that one undid or decided for the other; 0: none. Bits of
// packets' marks alone may be used twice where no packet is under way in both tables.
func (o *Own) Clash(specs []Spec, codes *mark.Codes) uint32 {
	if codes == nil {
		return 0
	}
	var tested, written uint32
	if codes.Flow() {
		tested = codes.FlowMask()
		written = tested
	}
	for _, m := range codes.List {
		written |= m.Mask
	}
	bits := tested&(o.Tested|o.Written) | written&o.Tested
	for _, c := range o.Chains {
		for i := range specs {
			if s := &specs[i]; s.Hook == c.Hook && s.Priority-1 <= c.Priority && c.Priority <= s.Priority+1 {
				return bits | codes.Mask&o.Marks
			}
		}
	}
	return bits
}
