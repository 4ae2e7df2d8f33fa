package rule

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/packet"
	"nfctl/internal/queue"
	"nfctl/internal/say"
	"nfctl/internal/value"
)

// Expects carries out the action expect "REGEX" … of rules: a payload that
// matches makes an expectation of the packet's connection, from its client to the
// port that the expression captures, before the packet gets its verdict. What
// fails is counted and told of once a second at most; the packet goes on.
type Expects struct {
	Warn   func(error) // is told why one failed; the goroutine is a queue's
	DryRun bool        // make nothing

	mu    sync.Mutex
	conn  *ct.Conn // of all queues
	often say.Often

	made, there, evicted, failed atomic.Uint64
}

// An expectRule is one such action.
type expectRule struct {
	*Expects
	match     *regexp.Regexp
	timeout   uint32 // seconds; 0: the helper's
	proto     uint8  // 0: the connection's
	permanent bool
}

const expectForm = `expect "REGEX" [timeout DURATION] [proto PROTOCOL] [permanent]`

// Parse reads the words behind expect: see Options.Expect.
func (x *Expects) Parse(words []string) (Opener, int, error) {
	r := &expectRule{Expects: x}
	if len(words) == 0 {
		return Opener{}, 0, &value.Error{What: "action", Text: "expect", Valid: expectForm}
	}
	var err error
	if r.match, err = compileRegexp(regexText(words[0])); err != nil {
		return Opener{}, 0, err
	}
	if r.match.NumSubexp() == 0 {
		return Opener{}, 0, &value.Error{What: "regular expression here", Text: words[0],
			Valid: `one with a group that captures the port, as "port ([0-9]+)"`}
	}
	used := 1
	for ; used < len(words); used++ {
		word := words[used]
		if word == "permanent" {
			r.permanent = true
			continue
		}
		if word != "timeout" && word != "proto" {
			break
		}
		used++
		text := ""
		if used < len(words) {
			text = words[used]
		}
		switch word {
		case "timeout":
			d, err := value.Duration(text)
			if err == nil {
				r.timeout, err = value.WholeSeconds(d)
			}
			if err != nil {
				return Opener{}, 0, err
			}
		case "proto":
			n, err := value.Protocols.Parse(text)
			if err == nil && (n > 255 || !ct.HasPorts(uint8(n))) {
				err = &value.Error{What: "protocol here", Text: text, Valid: "one with ports: tcp, udp, sctp, udplite"}
			}
			if err != nil {
				return Opener{}, 0, err
			}
			r.proto = uint8(n)
		}
	}
	open := func() (Extension, error) { return r, nil }
	return Opener{Open: open, Needs: NeedsToJudge("payload")}, used, nil
}

// regexText takes the quotes off: inside them only \" is special, all else is the
// expression's own.
func regexText(word string) string {
	if len(word) < 2 || word[0] != '"' && word[0] != '\'' || word[len(word)-1] != word[0] {
		return word
	}
	quote := word[:1]
	return strings.ReplaceAll(word[1:len(word)-1], `\`+quote, quote)
}

func compileRegexp(text string) (*regexp.Regexp, error) {
	match, err := regexp.Compile(text)
	if err != nil {
		return nil, &value.Error{What: "regular expression", Text: text, Valid: "one of RE2's (" + err.Error() + ")"}
	}
	return match, nil
}

// Act implements Extension.
func (r *expectRule) Act(p *queue.Packet, _ *queue.Decision, _ *packet.Editor) (bool, error) {
	payload, ok := p.Headers().Payload()
	if !ok || len(payload) == 0 {
		return false, nil
	}
	found := r.match.FindSubmatch(payload)
	if found == nil {
		return false, nil
	}
	if err := r.expect(p, found[1:]); err != nil {
		r.failed.Add(1)
		r.complain(err)
	}
	return false, nil
}

// expect makes the expectation.
func (r *expectRule) expect(p *queue.Packet, groups [][]byte) error {
	port, err := capturedPort(groups)
	if err != nil {
		return err
	}
	if r.DryRun {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		if r.conn, err = ct.Dial(); err != nil {
			return err
		}
	}
	flow, err := r.connection(p)
	if err != nil {
		return err
	}
	e := &ct.Expect{Master: flow.Orig}
	if flow.Zone != 0 {
		e.Zone, e.Present = flow.Zone, e.Present|ct.ExpectHasZone
	}
	o := &flow.Orig
	all := o.Src.BitLen()
	has := ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport
	e.Tuple = ct.Tuple{Family: o.Family, Proto: o.Proto, Src: o.Src, Dst: o.Dst, Dport: port, Present: has}
	if r.proto != 0 {
		e.Tuple.Proto = r.proto
	}
	e.Mask = ct.Tuple{Family: o.Family, Proto: e.Tuple.Proto, Src: ct.PrefixMask(all, all),
		Dst: ct.PrefixMask(all, all), Dport: 0xffff, Present: has}
	if r.timeout != 0 {
		e.Timeout, e.Present = r.timeout, e.Present|ct.ExpectHasTimeout
	}
	if r.permanent {
		e.Flags, e.Present = ct.Permanent, e.Present|ct.ExpectHasFlags
	}
	if err := r.conn.ExpectKeepsPorts(e); err != nil {
		return err
	}
	res, err := r.conn.CreateExpect(e, true)
	if err != nil {
		return err
	}
	if res.Updated {
		r.there.Add(1)
	} else {
		r.made.Add(1)
	}
	r.evicted.Add(uint64(len(res.Evicted)))
	return nil
}

// connection returns the connection that a packet belongs to. The kernel finds it
// by the packet's tuple, whichever direction that is.
func (r *expectRule) connection(p *queue.Packet) (*ct.Flow, error) {
	if f := p.CT(); f != nil {
		return f, nil
	}
	h := p.Headers()
	src, okSrc := h.Src()
	dst, okDst := h.Dst()
	proto, okProto := h.Proto()
	sport, dport, okPorts := h.Ports()
	if !okSrc || !okDst || !okProto || !okPorts {
		return nil, errors.New("the packet has no ports, so it belongs to no connection that can expect one")
	}
	ask := &ct.Flow{}
	ask.Orig = ct.Tuple{Family: ct.IPv4, Proto: proto, Src: src, Dst: dst, Sport: sport, Dport: dport,
		Present: ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport}
	if src.Is6() {
		ask.Orig.Family = ct.IPv6
	}
	var got ct.Flow
	if err := r.conn.Get(ask, &got, false); err != nil {
		return nil, err
	}
	return &got, nil
}

// capturedPort reads the first group that captured something.
func capturedPort(groups [][]byte) (uint16, error) {
	for _, g := range groups {
		if len(g) == 0 {
			continue
		}
		n, err := strconv.ParseUint(string(g), 10, 16)
		if err != nil || n == 0 {
			return 0, &value.Error{What: "captured port", Text: string(g), Valid: "a number from 1 to 65535"}
		}
		return uint16(n), nil
	}
	return 0, &value.Error{What: "captured port", Text: "", Valid: "a number from 1 to 65535"}
}

// complain tells of a failure.
func (x *Expects) complain(err error) {
	left, ok := x.often.Ask(time.Now())
	if ok && left > 0 {
		err = fmt.Errorf("%w%s", err, say.Others(left))
	}
	if ok {
		x.Warn(err)
	}
}

// Totals returns what became of the payloads that matched: expectations made, there
// already, removed by the kernel to make room, and those that failed.
func (x *Expects) Totals() (made, there, evicted, failed uint64) {
	return x.made.Load(), x.there.Load(), x.evicted.Load(), x.failed.Load()
}
