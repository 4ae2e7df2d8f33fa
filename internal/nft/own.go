package nft

import (
	"encoding/binary"
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
