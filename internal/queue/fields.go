package queue

import (
	"slices"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/packet"
	"nfctl/internal/value"
)

// Hooks are the places where packets can be queued (NF_INET_*,
// include/uapi/linux/netfilter.h), as nft calls them.
var Hooks = value.NewNames("hook", 255,
	value.Name{Word: "prerouting", Num: 0}, value.Name{Word: "input", Num: 1}, value.Name{Word: "forward", Num: 2},
	value.Name{Word: "output", Num: 3}, value.Name{Word: "postrouting", Num: 4},
	value.Name{Word: "PRE_ROUTING", Num: 0}, value.Name{Word: "LOCAL_IN", Num: 1}, value.Name{Word: "LOCAL_OUT", Num: 3},
	value.Name{Word: "POST_ROUTING", Num: 4})

// CtInfos say how a packet belongs to its connection (enum ip_conntrack_info,
// include/uapi/linux/netfilter/nf_conntrack_common.h).
var CtInfos = value.NewWords("conntrack relation", 7,
	"established", "related", "new", "established_reply", "related_reply", "", "", "untracked")

type row = field.Row[Packet]

// num loads a number that came with the packet when has says so.
func num(get func(*Packet) uint64, has Has) func(*Packet) (uint64, bool) {
	return func(p *Packet) (uint64, bool) { return get(p), p.Has&has != 0 }
}

// dev is the row of an interface's name: null when only its number is known.
func dev(path, doc string, index func(*Packet) uint32) row {
	return row{Path: path, Kind: field.String, Doc: doc,
		Data: func(p *Packet) ([]byte, bool) { b := p.names.get(index(p)); return b, b != nil },
		Null: func(p *Packet) bool { i := index(p); return i != 0 && p.names.get(i) == nil },
	}
}

func bytesOf(get func(*Packet) []byte) func(*Packet) ([]byte, bool) {
	return func(p *Packet) ([]byte, bool) { b := get(p); return b, b != nil }
}

func flag(bit uint32) func(*Packet) (uint64, bool) {
	return func(p *Packet) (uint64, bool) {
		if p.SkbInfo&bit != 0 {
			return 1, true
		}
		return 0, true
	}
}

// Fields are the fields of a packet.
var Fields = &field.Registry[Packet]{Make: fields, Reserve: reserved}

func reserved(path string) string {
	switch path {
	case "verdict", "rule", "why", "dry_run":
		return "it is not known while rules decide"
	}
	return ""
}

func fields() []row {
	return slices.Concat([]row{
		{Path: "time", Kind: field.Time, Doc: "when the kernel received the packet, else when nfctl did", Parse: parseTime,
			Num: func(p *Packet) (uint64, bool) { return uint64(p.Time), p.Time > 0 }},
		{Path: "queue", Kind: field.Uint, Max: 0xffff, Doc: "number of the queue",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.Queue), true }},
		{Path: "id", Kind: field.Uint, Max: 1<<32 - 1, Doc: "number of the packet in its queue, from 1",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.ID), true }},
		{Path: "hook", Kind: field.Enum, Names: Hooks, Max: 255, Doc: "hook that queued the packet",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.Hook), true }},
		{Path: "family", Kind: field.Enum, Names: value.Families, Max: 255, Doc: "address family",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.Family), true }},
		dev("indev", "interface that the packet came in by", func(p *Packet) uint32 { return p.In }),
		dev("outdev", "interface that the packet is to leave by", func(p *Packet) uint32 { return p.Out }),
		dev("physindev", "bridge port that the packet came in by", func(p *Packet) uint32 { return p.PhysIn }),
		dev("physoutdev", "bridge port that the packet is to leave by", func(p *Packet) uint32 { return p.PhysOut }),
		{Path: "hwaddr", Kind: field.String, Doc: "sender's link layer address", Data: (*Packet).hwText},
		{Path: "vlan", Kind: field.Uint, Max: 4095, Doc: "VLAN id",
			Num: num(func(p *Packet) uint64 { return uint64(p.VLANTCI & 0xfff) }, HasVLAN)},
		{Path: "mark", Kind: field.Uint, Max: 1<<32 - 1, Doc: "packet mark, as the kernel's rules see it", Parse: value.Mark, AppendNum: value.AppendHex,
			Num: func(p *Packet) (uint64, bool) { return uint64(p.Mark), true }},
		{Path: "priority", Kind: field.Uint, Max: 1<<32 - 1, Doc: "queueing priority (skb->priority)",
			Num: num(func(p *Packet) uint64 { return uint64(p.Priority) }, HasPriority)},
		{Path: "uid", Kind: field.Uint, Max: 1<<32 - 1, Doc: "user of the local socket; with --uid-gid",
			Num: num(func(p *Packet) uint64 { return uint64(p.UID) }, HasUID)},
		{Path: "gid", Kind: field.Uint, Max: 1<<32 - 1, Doc: "group of the local socket; with --uid-gid",
			Num: num(func(p *Packet) uint64 { return uint64(p.GID) }, HasGID)},
		{Path: "secctx", Kind: field.String, Doc: "security context of the local socket; with --secctx",
			Data: bytesOf(func(p *Packet) []byte { return p.SecCtx })},
		{Path: "length", Kind: field.Uint, Max: 1<<32 - 1, Doc: "length of the packet from the IP header on, bytes",
			Num: num(func(p *Packet) uint64 { return uint64(p.Length) }, HasLength)},
		{Path: "captured", Kind: field.Uint, Max: 0xffff, Doc: "bytes of the packet that were copied",
			Num: func(p *Packet) (uint64, bool) { return uint64(len(p.Data)), true }},
		{Path: "gso", Kind: field.Bool, Max: 1, Hidden: true, Doc: "many segments at once, which the kernel will cut apart", Num: flag(GSO)},
		{Path: "csum_ready", Kind: field.Bool, Max: 1, Hidden: true, Doc: "the transport checksum is in the packet, not left to the device",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.SkbInfo&CsumNotReady) ^ 1, true }},
	},
		field.Lift("", packet.Rows(), (*Packet).Headers),
		[]row{{Path: "ctinfo", Kind: field.Enum, Names: CtInfos, Max: 7, Hidden: true, Doc: "relation to the connection: new, established, related, …",
			Num: num(func(p *Packet) uint64 { return uint64(p.CtInfo) }, HasCtInfo)}},
		field.Lift("ct.", ct.FlowFields.Rows(), (*Packet).CT),
		[]row{
			{Path: "verdict", Kind: field.String, Doc: "what was decided: drop, accept, repeat, stop, queue N",
				Data: func(p *Packet) ([]byte, bool) {
					p.scratch = p.Verdict.Append(p.scratch[:0])
					return p.scratch, p.Decided
				}},
			{Path: "rule", Kind: field.Uint, Max: 1<<32 - 1, Doc: "number of the rule that decided, from 1; absent when none did",
				Num: func(p *Packet) (uint64, bool) { return uint64(p.Rule), p.Decided && p.Rule > 0 }},
			{Path: "why", Kind: field.String, Doc: "why the rule's edit could not be made, so that --on-uneditable decided",
				Data: func(p *Packet) ([]byte, bool) {
					p.scratch = append(p.scratch[:0], p.Why...)
					return p.scratch, p.Why != ""
				}},
			{Path: "dry_run", Kind: field.Bool, Max: 1, Doc: "true with --dry-run: the packet went on as it was, whatever the verdict; else absent",
				Num: func(p *Packet) (uint64, bool) { return 1, p.DryRun }},
		},
	)
}

func parseTime(s string) (value.Set, error) {
	n, err := value.Time(s)
	return value.Single(n), err
}

const hexDigits = "0123456789abcdef"

// hwText writes the link layer address as aa:bb:cc:dd:ee:ff.
func (p *Packet) hwText() ([]byte, bool) {
	if len(p.HwAddr) == 0 {
		return nil, false
	}
	b := p.scratch[:0]
	for i, c := range p.HwAddr {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	p.scratch = b
	return b, true
}
