// Package rule is the rule language of nfctl queue, and the engine that decides
// on packets by rules. Rules are tried in order, and the first that decides wins.
//
// A rule is one line:
//
//	rule = action {action} {when} [PATTERN] ["if" EXPRESSION]
//
// Actions returns the actions there are. At most one of a rule decides. The others
// change the packet or tell of it, and the next rule is tried. A rule is for packets
// that both its pattern (a flow in words) and its expression match, and of these for
// those that its whens choose (Whens): they count and draw, and are asked last, from
// left to right, each about what those before it chose.
package rule

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/packet"
	"nfctl/internal/pattern"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// A Rule is one rule, read and checked. It is not changed by use.
type Rule struct {
	Text string // as typed, for output and totals
	File string // where it stands, if it came from a file
	Line int

	decides bool
	flow    bool // the verdict is for the rest of the flow too
	verdict queue.Verdict

	// Lists may hold a million rules that have no more than this: a pattern of single
	// values is kept as its shape and key.
	shape *shape // nil: conds are what the pattern asks for
	key   string
	*more
}

// A more is what rules may have besides, which many share that have nothing.
type more struct {
	actions []action
	asks    Needs                         // of the actions
	conds   []field.Cond                  // of the pattern or flag; all must hold
	expr    *filter.Program[queue.Packet] // nil: none
	whens   []choice
}

// nothing is what plain rules share. It is never changed.
var nothing more

// share has a rule that has nothing more share that with others. It returns the memory
// that is free then, or nil.
func (r *Rule) share() *more {
	m := r.more
	if len(m.actions)+len(m.conds)+len(m.whens) > 0 || m.expr != nil || m.asks != (Needs{}) {
		return nil
	}
	r.more, *m = &nothing, more{}
	return m
}

// conditions returns what the pattern or flag asks for.
func (r *Rule) conditions() []field.Cond {
	if r.shape == nil {
		return r.conds
	}
	return r.shape.conds(r.key)
}

func (r *Rule) name() queue.RuleName { return queue.RuleName{Text: r.Text, File: r.File, Line: r.Line} }

// Decides reports whether the rule gives a verdict.
func (r *Rule) Decides() bool { return r.decides }

// An Extension is an action from outside: a script, say. One made by an Opener
// belongs to one queue.
type Extension interface {
	// Act handles a packet that the rule matches. It may change d, and edit the
	// packet by e; decided ends the rules with d's verdict. An error is one of
	// the packet: it could not be edited.
	Act(p *queue.Packet, d *queue.Decision, e *packet.Editor) (decided bool, err error)
}

// An Opener makes an Extension for one queue, and says what it needs.
type Opener struct {
	Open  func() (Extension, error)
	Needs Needs
}

// An Options says how rules are read and what they do.
type Options struct {
	// OnUneditable is the verdict on packets that should be edited and cannot be.
	OnUneditable queue.Verdict

	// Proto is the one transport protocol of all packets that come; 0: of any.
	Proto uint8

	// Seed is what chance begins with: with one queue, the same packets are chosen of
	// the same ones.
	Seed uint64
	// MaxFlows is how many flows, or values of a field, each when remembers; 0:
	// DefaultMaxFlows.
	MaxFlows int
	// Table says that a table of nfctl's own is behind the queue, which marks
	// connections.
	Table bool

	// Simulated says that no kernel gives a flow's verdict to its later packets: the
	// engine does, as long as it remembers the flow.
	Simulated bool
	// Copies says that packets which wait may have to wait as copies, and so must be
	// copied whole.
	Copies bool

	// Lua and Expect read the arguments of the actions of these names; nil: the
	// action is refused. Expect is given all words up to "if", quoted ones with
	// their quotes, and says how many of them are its arguments.
	Lua    func(file string) (Opener, error)
	Expect func(words []string) (o Opener, used int, err error)
}

// DefaultMaxFlows is how many flows are remembered if nobody says.
const DefaultMaxFlows = 65536

func (o *Options) maxFlows() int { return cmp.Or(o.MaxFlows, DefaultMaxFlows) }

// packetPaths names a packet's fields for patterns. Those of ICMP depend on the
// protocol.
var packetPaths = pattern.Paths{
	Proto: []string{"ip.proto"}, Src: []string{"ip.src"}, Dst: []string{"ip.dst"},
	SPort: []string{"sport"}, DPort: []string{"dport"},
}

// patternConds returns what a flow in words asks of a packet.
func patternConds(text string) ([]field.Cond, error) {
	p, err := pattern.Parse(text)
	if err != nil {
		return nil, err
	}
	return condsOf(p)
}

// Matcher returns the test of packets by a flow in words.
func Matcher(p *pattern.Pattern) (func(*queue.Packet) bool, error) {
	conds, err := condsOf(p)
	if err != nil {
		return nil, err
	}
	return filter.Conds(queue.Fields, conds...)
}

func condsOf(p *pattern.Pattern) ([]field.Cond, error) {
	paths := packetPaths
	if p.Has&pattern.Proto != 0 {
		switch p.Proto {
		case packet.ProtoICMP, packet.ProtoICMPv6:
			name := "icmp."
			if p.Proto == packet.ProtoICMPv6 {
				name = "icmpv6."
			}
			paths.Type, paths.Code, paths.ID = []string{name + "type"}, []string{name + "code"}, []string{name + "id"}
		case packet.ProtoGRE:
			paths.SPort, paths.DPort = nil, nil // a packet has one key, not one for each end
		}
	}
	return p.Conds(paths)
}

// flagPaths are the fields of the flags --accept-port and the like.
func flagPaths(what string) []string {
	switch what {
	case "port":
		return []string{"sport", "dport"}
	case "sport", "dport":
		return []string{what}
	case "proto", "src", "dst":
		return []string{"ip." + what}
	}
	return nil
}

// Flag makes the rule of a flag: action is "accept" or "drop"; what is "port",
// "sport", "dport", "proto", "src" or "dst", "if" for an expression, or "" for a
// pattern; text is the flag's value. Port stands for either end. Errors are of
// type *value.Error, *pattern.Error and *filter.Error.
func Flag(action, what, text string) (Rule, error) {
	r := Rule{decides: true, verdict: queue.Accept, more: new(more)}
	if action == "drop" {
		r.verdict = queue.Drop
	}
	var err error
	switch what {
	case "":
		r.Text = action + " " + text
		r.conds, err = patternConds(text)
	case "if":
		r.Text = action + " if " + text
		r.expr, err = filter.Compile(queue.Fields, text)
	default:
		paths := flagPaths(what)
		if paths == nil {
			return r, fmt.Errorf("no rule flag --%s-%s", action, what)
		}
		r.Text = action + "-" + what + " " + text
		var set value.Set
		if set, err = queue.Fields.Row(paths[0]).ParseSet(text); err == nil {
			r.conds = []field.Cond{{Paths: paths, Set: set}}
		}
	}
	return r, err
}

// Needs is what rules must be given of each packet.
type Needs struct {
	CopyRange uint32 // bytes; 0: only what comes with a packet
	Conntrack bool   // its connection
	Connmark  bool   // that connection marks can be set
	UIDGID    bool
	SecCtx    bool
	Edits     bool // that packets can be given back changed
	Apart     bool // each datagram of UDP as a packet of its own: see apart
	Uncut     bool // segments as they are: a rule asks for gso itself
}

// headerCopy holds the IP and transport headers of any packet but those with
// long chains of extension headers.
const headerCopy = 256

// Add joins two needs.
func (n Needs) Add(o Needs) Needs {
	return Needs{max(n.CopyRange, o.CopyRange), n.Conntrack || o.Conntrack, n.Connmark || o.Connmark,
		n.UIDGID || o.UIDGID, n.SecCtx || o.SecCtx, n.Edits || o.Edits, n.Apart || o.Apart, n.Uncut || o.Uncut}
}

// Config returns c with what n needs added.
func (n Needs) Config(c queue.Config) queue.Config {
	c.CopyRange = max(c.CopyRange, n.CopyRange)
	c.Conntrack = c.Conntrack || n.Conntrack
	c.Connmark = c.Connmark || n.Connmark
	c.UIDGID = c.UIDGID || n.UIDGID
	c.SecCtx = c.SecCtx || n.SecCtx
	c.Edits = c.Edits || n.Edits
	c.Apart = c.Apart || n.Apart && !n.Uncut
	return c
}

// NeedsOf returns what has to be copied of packets so that fields can be read,
// given by path, alias or group.
func NeedsOf(fields ...string) Needs {
	var bits uint16
	for _, f := range fields {
		bits |= queue.Fields.Asks(f)
	}
	n := Needs{Conntrack: bits&queue.AsksConntrack != 0, UIDGID: bits&queue.AsksUIDGID != 0,
		SecCtx: bits&queue.AsksSecCtx != 0}
	switch {
	case bits&queue.AsksPayload != 0:
		n.CopyRange = queue.MaxCopy
	case bits&queue.AsksHeaders != 0:
		n.CopyRange = headerCopy
	case bits&queue.AsksLength != 0:
		n.CopyRange = 1
	}
	return n
}

type actionKind uint8

const (
	actMark actionKind = iota
	actConnmark
	actSet
	actNumber
	actReplace
	actLog
	actExtension
	actHold
)

// An action is what a rule does besides deciding.
type action struct {
	kind       actionKind
	mark, mask uint32
	edit       *packet.Edit
	number     *filter.Integer[queue.Packet] // what is set, up to most
	most       uint64
	opener     Opener
	hold       *hold
}

var errNoMark = errors.New("repeat wants a mark other than 0 in the same rule, by which the rule that queues leaves " +
	"the packet out: repeat mark 0x10/0x10")

// proto returns the one transport protocol that all packets have which the rule is
// for, or 0: that it names, or whose fields it compares.
func (r *Rule) proto() uint8 {
	conds := r.conditions()
	if r.expr != nil {
		of, _ := r.expr.Conds()
		conds = append(slices.Clip(conds), of...)
	}
	for i := range conds {
		c := &conds[i]
		if len(c.Paths) != 1 {
			continue
		}
		if c.Paths[0] == "ip.proto" {
			if n, one := c.Set.Num(); one && c.Set.Mask == 0 {
				return uint8(n)
			}
		}
		head, _, of := strings.Cut(c.Paths[0], ".") // no packet of another protocol has such a field
		if n, ok := value.Protocols.Lookup(head); ok && of && head != "ip" {
			return uint8(n)
		}
	}
	return 0
}

// never returns why an edit of the rule can never be made on the packets that it is
// for, where all that come are of one protocol (0: of any).
func (r *Rule) never(proto uint8) error {
	for i := range r.actions {
		a := &r.actions[i]
		if a.edit == nil {
			continue
		}
		if p := r.proto(); p != 0 {
			proto = p
		}
		if proto == 0 {
			return nil
		}
		if err := a.edit.Never(proto); err != nil {
			return fmt.Errorf("%s can never be done on %s: %w", a.edit.Text, value.Protocols.Append(nil, uint64(proto)),
				err)
		}
	}
	return nil
}
