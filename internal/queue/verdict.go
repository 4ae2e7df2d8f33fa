package queue

import (
	"encoding/binary"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// A Verdict is what becomes of a packet: the kernel's verdict word
// (include/uapi/linux/netfilter.h), for queue with a number and the bypass bit.
type Verdict uint32

const (
	Drop   Verdict = 0 // the packet is gone
	Accept Verdict = 1 // it goes on behind the rule that queued it
	Repeat Verdict = 4 // it enters the same hook again, from the first chain on
	Stop   Verdict = 5 // it skips the rest of the hook, conntrack's confirm too

	// Reject is none of the kernel's: the packet goes on with a code by which the table
	// behind the queue refuses it.
	Reject Verdict = 6

	queueVerdict  Verdict = 3
	verdictBypass Verdict = 0x8000
	verdictMask   Verdict = 0xff
)

// ToQueue hands the packet on to queue n. With bypass it is accepted when
// nothing has bound that queue, without it is dropped then.
func ToQueue(n uint16, bypass bool) Verdict {
	v := Verdict(n)<<16 | queueVerdict
	if bypass {
		v |= verdictBypass
	}
	return v
}

// A Kind is a verdict without its details, an index into Stats.Verdicts.
type Kind uint8

// The kinds but reject have the kernel's numbers; 2 (stolen) is not for user space.
const (
	KindDrop Kind = iota
	KindAccept
	_
	KindQueue
	KindRepeat
	KindStop
	KindReject
	Kinds // how many
)

var kindWords = [Kinds]string{"drop", "accept", "stolen", "queue", "repeat", "stop", "reject"}

// String returns the kind's word.
func (k Kind) String() string {
	if k < Kinds {
		return kindWords[k]
	}
	return strconv.Itoa(int(k))
}

// Kind returns the verdict's kind.
func (v Verdict) Kind() Kind { return Kind(v & verdictMask) }

// Append appends the verdict as rules write it: "drop", "queue 5 bypass".
func (v Verdict) Append(b []byte) []byte {
	b = append(b, v.Kind().String()...)
	if v.Kind() == KindQueue {
		b = strconv.AppendUint(append(b, ' '), uint64(v>>16), 10)
		if v&verdictBypass != 0 {
			b = append(b, " bypass"...)
		}
	}
	return b
}

func (v Verdict) String() string { return string(v.Append(nil)) }

// A Decision is what was decided on a packet. It is reused: the queue sets it to
// its default verdict before each packet.
type Decision struct {
	Verdict Verdict
	Flow    bool // it holds for the rest of the flow: accept, drop and reject alone
	Rule    int  // which of the decider's rules gave the verdict, from 1; 0: none did

	SetMark     bool // Mark replaces the packet's mark
	SetConnmark bool // Connmark is written to the connection under ConnmarkMask
	Log         bool // a rule asked for the packet to be shown
	// Why is not nil when an edit could not be made, and says why not: the verdict is
	// the one for such packets.
	Why          error
	Mark         uint32
	Connmark     uint32
	ConnmarkMask uint32 // 0: all bits

	// Data replaces the packet, from its IP header on; nil leaves it as it is. It
	// is valid until the next packet is decided.
	Data []byte

	// Due is when the packet goes on, by Packet.Now: it waits until then (see
	// Config.Hold), behind those of its flow that wait. 0: it goes at once. For verdicts
	// by which packets go on.
	Due       int64
	Unordered bool // it goes when it is due, whatever of its flow waits
	Duplicate bool // a copy goes after it
	Late      bool // it was dropped since it would have had to wait too long

	// Matched are the rules that acted on the packet and did not decide, from 1.
	// They are counted too.
	Matched []int
}

// A Decider gives verdicts. Each queue has one of its own: nothing in it is used
// by two goroutines, but for what it shares read-only with others.
type Decider interface {
	// Decide decides on p by changing d, which holds the default verdict.
	Decide(p *Packet, d *Decision)
	// Rules returns how many rules there are; that does not change.
	Rules() int
	// Rule names rule n, from 1.
	Rule(n int) RuleName
}

// A RuleName says which rule one is.
type RuleName struct {
	Text string // as typed
	File string // where it stands, "" where in no file
	Line int
}

// shownText bounds how much of a rule's text is shown, in bytes.
const shownText = 100

// String returns the name as messages and totals have it: "FILE:LINE: text", of a
// long text the beginning.
func (r RuleName) String() string {
	text := r.Text
	if len(text) > shownText {
		end := shownText
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + "…"
	}
	if r.File == "" {
		return text
	}
	return r.File + ":" + strconv.Itoa(r.Line) + ": " + text
}

// None is the Decider without rules.
type None struct{}

// Decide leaves the default verdict.
func (None) Decide(*Packet, *Decision) {}

// Rules returns 0.
func (None) Rules() int { return 0 }

// Rule is not called.
func (None) Rule(int) RuleName { return RuleName{} }

// Messages and attributes of include/uapi/linux/netfilter/nfnetlink_queue.h that
// go-nfqueue does not export.
const (
	msgPacket       = nl.SubsysQueue << 8
	msgVerdict      = nl.SubsysQueue<<8 | 1
	msgConfig       = nl.SubsysQueue<<8 | 2
	msgVerdictBatch = nl.SubsysQueue<<8 | 3

	attrPacketHdr  = 1
	attrVerdictHdr = 2
	attrMark       = 3
	attrTimestamp  = 4
	attrInDev      = 5
	attrOutDev     = 6
	attrPhysInDev  = 7
	attrPhysOutDev = 8
	attrHwAddr     = 9
	attrPayload    = 10
	attrCt         = 11
	attrCtInfo     = 12
	attrCapLen     = 13
	attrSkbInfo    = 14
	attrUID        = 16
	attrGID        = 17
	attrSecCtx     = 18
	attrVLAN       = 19
	attrL2         = 20
	attrPriority   = 21

	attrVLANProto = 1
	attrVLANTCI   = 2

	ctaMark     = 8 // conntrack's, inside attrCt
	ctaMarkMask = 21
)

// Lengths of what a verdict is made of.
const (
	verdictLen = nl.HeaderLen + 12 // header and attrVerdictHdr
	smallRun   = 4                 // fewer packets are answered one by one
	segment    = 8                 // packets that one verdict and one batch verdict settle
	longRun    = 16                // a run of more is one segment: under load the processor counts
	// answers are sent when so much is waiting; a send holds at most net.core.wmem_default
	sendAt      = 64 << 10
	answerSpace = sendAt + 70<<10 // what the buffer can hold without growing
)

// answers builds verdict messages. Verdicts need not be sent packet by packet:
// a batch verdict settles every pending packet up to an id. So packets that go
// on alike, one after the other, make a run that one batch verdict ends. Drops
// have no order to keep: they are answered at once, ahead of the run that they
// stand in. Where most packets are dropped it is the other way round: what goes
// on is answered one by one, in order, and one batch verdict drops the rest.
//
// A batch verdict of which some packets have vanished is no error to the kernel.
// So that a loss does not go unseen, a run is settled in segments, the first
// packet of each by itself: of all that vanish at one time then only those in one
// segment with packets that came later are not known by number.
//
// The port id in a verdict's header is free for our use and comes back in the
// kernel's error: it carries the number of packets, and above 16 bits how many
// more the batch verdict behind it settles.
type answers struct {
	queue uint16
	out   []byte

	ids []uint32 // of the run
	run struct {
		verdict Verdict
		mark    uint32
		setMark bool
	}

	single         bool     // this batch is answered one by one: packets wait among its own
	dropLast       bool     // this batch drops at its end, with one verdict
	dropped        []uint32 // ids that it is to drop
	drops, goingOn int      // of this batch
}

// begin starts a batch: which way it takes follows from what the last one held.
func (a *answers) begin(single bool) {
	a.single = single
	a.dropLast = a.drops > a.goingOn && !single
	a.drops, a.goingOn = 0, 0
}

// add answers packet id by d.
func (a *answers) add(id uint32, d *Decision) {
	if a.single {
		a.one(id, d)
		return
	}
	if d.Verdict == Drop {
		a.drops++
		if a.dropLast {
			a.dropped = append(a.dropped, id)
		} else {
			a.one(id, d)
		}
		return
	}
	a.goingOn++
	if a.dropLast || d.Data != nil || d.SetConnmark {
		a.endRun()
		a.one(id, d)
		return
	}
	r := &a.run
	if len(a.ids) > 0 && (r.verdict != d.Verdict || r.setMark != d.SetMark || r.setMark && r.mark != d.Mark) {
		a.endRun()
	}
	if len(a.ids) == 0 {
		r.verdict, r.mark, r.setMark = d.Verdict, d.Mark, d.SetMark
	}
	a.ids = append(a.ids, id)
}

// finish ends the batch: out then answers every packet that was added.
func (a *answers) finish() {
	a.endRun()
	d := Decision{Verdict: Drop}
	a.settle(a.dropped, &d)
	a.dropped = a.dropped[:0]
}

func (a *answers) endRun() {
	d := Decision{Verdict: a.run.verdict, SetMark: a.run.setMark, Mark: a.run.mark}
	a.settle(a.ids, &d)
	a.ids = a.ids[:0]
}

// settle answers packets that share a decision and have no unanswered packet
// with another one before the last of them.
func (a *answers) settle(ids []uint32, d *Decision) {
	segment := segment
	if len(ids) > longRun {
		segment = len(ids)
	}
	for len(ids) > 0 {
		n := min(segment, len(ids))
		if n < smallRun {
			for _, id := range ids[:n] {
				a.one(id, d)
			}
		} else {
			rest := uint32(n - 1)
			at := len(a.out)
			a.one(ids[0], d)
			binary.NativeEndian.PutUint32(a.out[at+12:], 1|rest<<16)
			at = len(a.out)
			a.header(msgVerdictBatch, ids[rest], rest, d.Verdict)
			if d.SetMark {
				a.out = nl.AppendU32(a.out, attrMark, d.Mark)
			}
			nl.Finish(a.out, at)
		}
		ids = ids[n:]
	}
}

// one answers one packet.
func (a *answers) one(id uint32, d *Decision) {
	at := len(a.out)
	a.header(msgVerdict, id, 1, d.Verdict)
	if d.SetMark {
		a.out = nl.AppendU32(a.out, attrMark, d.Mark)
	}
	if d.SetConnmark {
		var ct int
		a.out, ct = nl.Begin(a.out, attrCt)
		a.out = nl.AppendU32(a.out, ctaMark, d.Connmark)
		if d.ConnmarkMask != 0 {
			a.out = nl.AppendU32(a.out, ctaMarkMask, d.ConnmarkMask)
		}
		nl.End(a.out, ct)
	}
	if d.Data != nil {
		a.out = nl.AppendAttr(a.out, attrPayload, d.Data)
	}
	nl.Finish(a.out, at)
}

// header appends a message's header and struct nfqnl_msg_verdict_hdr.
func (a *answers) header(typ uint16, id, count uint32, v Verdict) {
	b := a.out
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, 0)     // nlmsg_seq
	b = binary.NativeEndian.AppendUint32(b, count) // nlmsg_pid
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, a.queue)
	b = binary.NativeEndian.AppendUint16(b, 12)
	b = binary.NativeEndian.AppendUint16(b, attrVerdictHdr)
	b = binary.BigEndian.AppendUint32(b, uint32(v))
	a.out = binary.BigEndian.AppendUint32(b, id)
}
