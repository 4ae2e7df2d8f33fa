package queue

import (
	"slices"
	"unsafe"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/lazy"
	"nfctl/internal/packet"
	"nfctl/internal/value"
)

// Hooks are the places where packets can be queued (NF_INET_*,
// include/uapi/linux/netfilter.h), as nft calls them.
var Hooks = value.NewNames("hook", 255,
	value.Name{Word: "prerouting", Num: 0}, value.Name{Word: "input", Num: 1}, value.Name{Word: "forward", Num: 2},
	value.Name{Word: "output", Num: 3}, value.Name{Word: "postrouting", Num: 4},
	value.Name{Word: "PRE_ROUTING", Num: 0}, value.Name{Word: "LOCAL_IN", Num: 1},
	value.Name{Word: "LOCAL_OUT", Num: 3},
	value.Name{Word: "POST_ROUTING", Num: 4})

// CtInfos say how a packet belongs to its connection (enum ip_conntrack_info,
// include/uapi/linux/netfilter/nf_conntrack_common.h).
var CtInfos = value.NewWords("conntrack relation", 7,
	"established", "related", "new", "established_reply", "related_reply", "", "", "untracked")

// What the rows' Asks stand for: what a queue must be asked for, or how much of
// each packet must be copied. Fields that ask for nothing come with every packet.
const (
	AsksHeaders   = packet.AsksHeaders
	AsksPayload   = packet.AsksPayload
	AsksApart     = packet.AsksApart // to judge by it, Config.Apart
	AsksLength    = 1 << (iota + 6)  // any copy: the kernel says the length only beside one
	AsksConntrack                    // Config.Conntrack
	AsksUIDGID                       // Config.UIDGID
	AsksSecCtx                       // Config.SecCtx
	AsksUncut                        // to judge by it, segments as they are
)

type row = field.Row[Packet]

// A messageRow is the row of what a message says beside the packet.
type messageRow struct {
	row
	// attr is the attribute (NFQA_*) that holds it, when that is a number of 32 bits
	// and no more; 0: another one, which decode knows.
	attr uint16
	// at is where a Packet keeps it; nil: in one of its spare numbers.
	at  func(*Packet) *uint32
	has Has // its presence; 0: it counts as there, and is 0 when the kernel sends none
}

// A word is where decode puts a number of a message.
type word struct {
	place uintptr // in bytes from the Packet's beginning; 0: nowhere
	has   Has
}

// messageWords are the words by their attributes' numbers.
var messageWords = lazy.Value[*[64]word]{Make: func() *[64]word {
	out := &[64]word{attrSkbInfo: {unsafe.Offsetof(Packet{}.SkbInfo), 0}} // its bits have rows
	for _, r := range messageRows() {
		if r.attr != 0 {
			var p Packet
			out[r.attr] = word{uintptr(unsafe.Pointer(r.at(&p))) - uintptr(unsafe.Pointer(&p)), r.has}
		}
	}
	return out
}}

// dev is the row of an interface's name: null when only its number is known.
func dev(path string, attr uint16, doc string, index func(*Packet) *uint32) messageRow {
	return messageRow{attr: attr, at: index, row: row{Path: path, Kind: field.String, Doc: doc,
		Data: func(p *Packet) ([]byte, bool) { b := p.names.get(*index(p)); return b, b != nil },
		Null: func(p *Packet) bool { i := *index(p); return i != 0 && p.names.get(i) == nil },
	}}
}

// messageRows returns the rows of what a message says beside the packet, in their
// order, those of numbers with a place in a Packet and a loader.
func messageRows() []messageRow {
	rows := messageTable()
	spare := 0
	for i := range rows {
		r := &rows[i]
		if r.attr == 0 {
			continue
		}
		if r.at == nil && spare < maxSpare {
			slot := spare
			r.at, r.has = func(p *Packet) *uint32 { return &p.spare[slot] }, firstSpare<<spare
			spare++
		}
		if r.Num == nil && r.Data == nil {
			at, has := r.at, r.has
			r.Num = func(p *Packet) (uint64, bool) { return uint64(*at(p)), p.Has&has == has }
		}
	}
	return rows
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

// Decided are Fields for expressions about packets on which rules have decided.
var Decided = &field.Registry[Packet]{Make: fields}

func reserved(path string) string {
	switch path {
	case "verdict", "rule", "why", "dry_run", "held":
		return "it is not known while rules decide"
	}
	return ""
}

func messageTable() []messageRow {
	return []messageRow{
		{row: row{
			Path:  "time",
			Kind:  field.Time,
			Doc:   "when the kernel received the packet, else when nfctl did",
			Parse: parseTime,
			Num:   func(p *Packet) (uint64, bool) { return uint64(p.Time), p.Time > 0 },
		}},
		{row: row{Path: "queue", Kind: field.Uint, Max: 0xffff, Doc: "number of the queue",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.Queue), true }}},
		{row: row{Path: "id", Kind: field.Uint, Max: 1<<32 - 1, Doc: "number of the packet in its queue, from 1",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.ID), true }}},
		{row: row{Path: "hook", Kind: field.Enum, Names: Hooks, Max: 255, Doc: "hook that queued the packet",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.Hook), true }}},
		{row: row{Path: "family", Kind: field.Enum, Names: value.Families, Max: 255, Doc: "address family",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.Family), true }}},
		dev("indev", attrInDev, "interface that the packet came in by", func(p *Packet) *uint32 { return &p.In }),
		dev("outdev", attrOutDev, "interface that the packet is to leave by",
			func(p *Packet) *uint32 { return &p.Out }),
		dev("physindev", attrPhysInDev, "bridge port that the packet came in by",
			func(p *Packet) *uint32 { return &p.PhysIn }),
		dev("physoutdev", attrPhysOutDev, "bridge port that the packet is to leave by",
			func(p *Packet) *uint32 { return &p.PhysOut }),
		{row: row{Path: "hwaddr", Kind: field.String, Doc: "sender's link layer address", Data: (*Packet).hwText}},
		{row: row{Path: "vlan", Kind: field.Uint, Max: 4095, Doc: "VLAN id",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.VLANTCI & 0xfff), p.Has&HasVLAN != 0 }}},
		{attr: attrMark, at: func(p *Packet) *uint32 { return &p.Mark },
			row: row{Path: "mark", Kind: field.Uint, Max: 1<<32 - 1, Doc: "packet mark, as the kernel's rules see it",
				Parse: value.Mark, AppendNum: value.AppendHex}},
		{attr: attrPriority, at: func(p *Packet) *uint32 { return &p.Priority }, has: HasPriority,
			row: row{Path: "priority", Kind: field.Uint, Max: 1<<32 - 1, Doc: "queueing priority (skb->priority)"}},
		{
			attr: attrUID,
			at:   func(p *Packet) *uint32 { return &p.UID },
			has:  HasUID,
			row: row{
				Path: "uid",
				Kind: field.Uint,
				Max:  1<<32 - 1,
				Asks: AsksUIDGID,
				Doc:  "user of the local socket; with --uid-gid",
			},
		},
		{
			attr: attrGID,
			at:   func(p *Packet) *uint32 { return &p.GID },
			has:  HasGID,
			row: row{
				Path: "gid",
				Kind: field.Uint,
				Max:  1<<32 - 1,
				Asks: AsksUIDGID,
				Doc:  "group of the local socket; with --uid-gid",
			},
		},
		{row: row{
			Path: "secctx",
			Kind: field.String,
			Asks: AsksSecCtx,
			Doc:  "security context of the local socket; with --secctx",
			Data: bytesOf(func(p *Packet) []byte { return p.SecCtx }),
		}},
		{attr: attrCapLen, at: func(p *Packet) *uint32 { return &p.Length }, has: HasLength,
			row: row{Path: "length", Kind: field.Uint, Max: 1<<32 - 1, Asks: AsksLength | AsksApart,
				Doc: "length of the packet from the IP header on, bytes"}},
		{row: row{
			Path: "captured",
			Kind: field.Uint,
			Max:  0xffff,
			Asks: AsksApart,
			Doc:  "bytes of the packet that were copied",
			Num:  func(p *Packet) (uint64, bool) { return uint64(len(p.Data)), true },
		}},
		{row: row{
			Path:   "gso",
			Kind:   field.Bool,
			Max:    1,
			Hidden: true,
			Asks:   AsksUncut,
			Doc:    "many segments at once, which the kernel will cut apart",
			Num:    flag(GSO),
		}},
		{row: row{Path: "csum_ready", Kind: field.Bool, Max: 1, Hidden: true,
			Doc: "the transport checksum is in the packet, not left to the device",
			Num: func(p *Packet) (uint64, bool) { return uint64(p.SkbInfo&CsumNotReady) ^ 1, true }}},
		{attr: attrCtInfo, at: func(p *Packet) *uint32 { return &p.CtInfo }, has: HasCtInfo,
			row: row{Path: "ctinfo", Kind: field.Enum, Names: CtInfos, Max: 7, Hidden: true, Asks: AsksConntrack,
				Doc: "relation to the connection: new, established, related, …"}},
	}
}

func fields() []row {
	var message []row
	for _, r := range messageRows() {
		message = append(message, r.row)
	}
	connection := field.Lift("ct.", ct.FlowFields.Rows(), (*Packet).CT)
	for i := range connection {
		connection[i].Asks = AsksConntrack
	}
	return slices.Concat(message, field.Lift("", packet.Rows(), (*Packet).Headers), connection,
		[]row{
			{Path: "verdict", Kind: field.String, Doc: "what was decided: drop, accept, reject, repeat, stop, queue N",
				Data: func(p *Packet) ([]byte, bool) {
					p.scratch = p.Verdict.Append(p.scratch[:0])
					return p.scratch, p.Decided
				}},
			{
				Path: "scope",
				Kind: field.String,
				Doc:  "flow: the verdict holds for the rest of the flow; else absent",
				Data: func(p *Packet) ([]byte, bool) {
					p.scratch = append(p.scratch[:0], "flow"...)
					return p.scratch, p.Decided && p.Flow
				},
			},
			{
				Path: "rule",
				Kind: field.Uint,
				Max:  1<<32 - 1,
				Doc:  "number of the rule that decided, from 1; absent when none did",
				Num:  func(p *Packet) (uint64, bool) { return uint64(p.Rule), p.Decided && p.Rule > 0 },
			},
			{
				Path: "held",
				Kind: field.Lasting,
				Doc:  "how long the packet waits before it goes on, seconds; absent when it goes at once",
				Num:  func(p *Packet) (uint64, bool) { return uint64(p.Held), p.Held > 0 },
			},
			{
				Path: "why",
				Kind: field.String,
				Doc:  "why the rule's edit could not be made, so that --on-uneditable decided",
				Data: func(p *Packet) ([]byte, bool) {
					p.scratch = append(p.scratch[:0], p.Why...)
					return p.scratch, p.Why != ""
				},
			},
			{
				Path: "dry_run",
				Kind: field.Bool,
				Max:  1,
				Doc:  "true with --dry-run: the packet went on as it was, whatever the verdict; else absent",
				Num:  func(p *Packet) (uint64, bool) { return 1, p.DryRun },
			},
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
