package rule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nfctl/internal/filter"
	"nfctl/internal/packet"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// An Action is something that a rule can do.
type Action struct {
	Word    string
	Args    string // what follows the word, as help writes it; "": nothing
	Doc     string
	Decides bool // it gives a verdict, which ends the rules
}

// An actionRow is one action. Parser, help, completion and suggestions are made
// of the table of these.
type actionRow struct {
	Action
	needs   Needs         // of packets that the rule is tried on
	verdict queue.Verdict // where it decides and read gives no other
	waits   bool          // packets have to wait for it
	flows   bool          // with the word flow behind it holds for the rest of the flow
	// read takes the arguments behind the word; nil: there are none.
	read func(p *parser, r *Rule, o Options) error
}

// actionTable has the actions in the order in which help lists them.
var actionTable = [...]actionRow{
	{Action: Action{"accept", "[flow]", "let the packet go on; with flow the rest of its flow too, which comes up no more", true}, verdict: queue.Accept, flows: true},
	{Action: Action{"drop", "[flow]", "drop the packet; with flow the rest of its flow too", true}, verdict: queue.Drop, flows: true},
	{Action: Action{"reject", "[flow]", "drop the packet and tell the sender: TCP by a reset, all else by ICMP port unreachable; with flow the rest of its flow too", true}, verdict: queue.Reject, flows: true},
	{Action: Action{"repeat", "mark V[/M]", "send the packet through its hook again, with a mark by which the rule that queues leaves it out", true},
		verdict: queue.Repeat},
	{Action: Action{"stop", "", "let the packet go on and skip the rest of its hook", true}, verdict: queue.Stop},
	{Action: Action{"queue", "N [bypass]", "hand the packet to queue N; with bypass it goes on when nobody has bound that queue", true}, read: readQueue},
	{Action: Action{"mark", "V[/M]", "set the packet's mark, under the mask M", false}, read: readMark},
	{Action: Action{"connmark", "V[/M]", "set the connection's mark, under the mask M", false}, needs: Needs{Connmark: true}, read: readConnmark},
	{Action: Action{"set", "FIELD=VALUE…", "change header fields, as ip.ttl=64 or tcp.mss=\"min(tcp.mss, 1200)\"; 'nfctl help fields' names them", false}, needs: edits, read: readSet},
	{Action: Action{"replace", `[regex] "A" "B" [pad "C" | resize]`, "put B in the place of each A in the payload, with regex of what A matches; pad keeps the length, with resize TCP payloads may change theirs", false},
		needs: Needs{CopyRange: queue.MaxCopy, Edits: true, Apart: true}, read: readReplace},
	{Action: Action{"option", "strip OPTION,…", "overwrite TCP options with no-operations: " + optionNames + " or numbers", false}, needs: edits, read: readOption},
	{Action: Action{"delay", "D [jitter J] [reorder]", "let the packet wait for D, as 100ms, and J more or less; packets of a flow keep their order unless reorder", false},
		needs: Needs{CopyRange: headerCopy}, waits: true, read: readDelay},
	{Action: Action{"rate", "R [burst SIZE] [wait D]", "let packets go as by a link of R, as 500kbit or 1mbit, at once up to SIZE after a pause; what would wait longer than D is dropped", false},
		needs: Needs{CopyRange: headerCopy}, waits: true, read: readRate},
	{Action: Action{"duplicate", "", "send a copy after the packet", false}, needs: Needs{CopyRange: queue.MaxCopy}, read: readDuplicate},
	{Action: Action{"corrupt", "", "flip one bit behind the IP header, chosen by chance, and leave the checksums", false}, needs: edits, read: readCorrupt},
	{Action: Action{"log", "", "print the packet; then only packets that a log met are printed", false}, read: readLog},
	{Action: Action{"expect", `"REGEX" [timeout D] [proto P] [permanent]`, "make an expectation for the port that the expression captures in the payload", false}, read: readExpect},
	{Action: Action{"lua", "FILE", "ask a Lua script", false}, read: readLua},
}

// optionNames stands for them in the table, which is to need no code at the start.
const optionNames = "OPTIONS"

// edits is what actions need that change packets.
var edits = Needs{CopyRange: queue.MaxCopy, Edits: true}

// Actions returns all actions in the order of help.
func Actions() []Action {
	list := make([]Action, len(actionTable))
	for i := range actionTable {
		list[i] = actionTable[i].Action
		list[i].Doc = strings.Replace(list[i].Doc, optionNames, strings.Join(packet.OptionNames(), ", "), 1)
	}
	return list
}

// actionOf returns the row of an action's word, nil when there is none.
func actionOf(word string) *actionRow {
	for i := range actionTable {
		if actionTable[i].Word == word {
			return &actionTable[i]
		}
	}
	return nil
}

// actionWords returns the words of all actions, or of those that decide.
func actionWords(deciding bool) (words []string) {
	for i := range actionTable {
		if a := &actionTable[i]; a.Decides || !deciding {
			words = append(words, a.Word)
		}
	}
	return words
}

// flowWords names the actions that can be for a whole flow.
func flowWords() string {
	var words []string
	for i := range actionTable {
		if a := &actionTable[i]; a.flows {
			words = append(words, a.Word)
		}
	}
	return strings.Join(words, ", ")
}

func readQueue(p *parser, r *Rule, _ Options) error {
	const valid = "the number of a queue, 0 to 65535"
	w, err := p.argument("queue", valid)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(w, 10, 16)
	if err != nil {
		return &value.Error{What: "queue", Text: w, Valid: valid}
	}
	bypass := p.peek() == "bypass"
	if bypass {
		p.next()
	}
	r.verdict = queue.ToQueue(uint16(n), bypass)
	return nil
}

func readMark(p *parser, r *Rule, _ Options) error { return p.mark(r, "mark", actMark) }

func readConnmark(p *parser, r *Rule, _ Options) error { return p.mark(r, "connmark", actConnmark) }

func (p *parser) mark(r *Rule, word string, kind actionKind) error {
	w, err := p.argument(word, "a mark, as 0x1 or 0x1/0xff")
	if err != nil {
		return err
	}
	a := action{kind: kind}
	if a.mark, a.mask, err = value.MarkMask(w); err != nil {
		return err
	}
	r.actions = append(r.actions, a)
	return nil
}

func readLog(_ *parser, r *Rule, _ Options) error {
	r.actions = append(r.actions, action{kind: actLog})
	return nil
}

func readSet(p *parser, r *Rule, _ Options) error {
	for some := false; ; some = true {
		name, text, ok := strings.Cut(p.peek(), "=")
		if !ok || strings.ContainsAny(name, "\"' ") {
			if some {
				return nil
			}
			return &value.Error{What: "change", Text: p.peek(), Valid: "FIELD=VALUE, as ip.ttl=64"}
		}
		p.next()
		a, err := setting(name, unquoted(text))
		if err != nil {
			return err
		}
		if r.sets(a.edit.Field()) {
			return &value.Error{What: "change", Text: name + "=" + text,
				Why: "the rule sets " + a.edit.Field() + " already"}
		}
		if a.number != nil {
			r.asks = r.asks.Add(NeedsToJudge(a.number.Fields()...))
		}
		r.actions = append(r.actions, a)
	}
}

// sets reports whether the rule sets a field.
func (r *Rule) sets(field string) bool {
	return slices.ContainsFunc(r.actions, func(a action) bool {
		return (a.kind == actSet || a.kind == actNumber) && a.edit.Field() == field
	})
}

// setting reads a change of a field: a value of its, or else a number to compute.
func setting(name, text string) (action, error) {
	e, err := packet.Set(name, text)
	if err == nil {
		return action{kind: actSet, edit: e}, nil
	}
	e, most, ok := packet.SetNumber(name, text)
	if !ok {
		return action{}, err
	}
	n, bad := filter.CompileInteger(queue.Fields, text)
	switch {
	case bad == nil && len(n.Fields()) > 0:
		return action{kind: actNumber, edit: e, number: n, most: most}, nil
	case bad != nil && (strings.ContainsAny(text, "+*/()") || slices.ContainsFunc(strings.Fields(text), isField)):
		return action{}, fmt.Errorf("%s to set: %w", name, bad)
	}
	return action{}, err // a value that is none
}

func isField(word string) bool { return queue.Fields.Row(word) != nil }

func readOption(p *parser, r *Rule, _ Options) error {
	if w := p.peek(); w != "strip" {
		return &value.Error{What: "option", Text: w, Near: value.Nearest(w, []string{"strip"}),
			Valid: "strip and TCP options, as option strip timestamps"}
	}
	p.next()
	w, err := p.argument("TCP option", "one to strip, as mss, timestamps or 19")
	if err != nil {
		return err
	}
	e, err := packet.StripOptions(w)
	if err != nil {
		return err
	}
	r.actions = append(r.actions, action{kind: actSet, edit: e})
	return nil
}

func readReplace(p *parser, r *Rule, _ Options) error {
	var e *packet.Edit
	var err error
	if p.peek() == "regex" {
		e, err = p.replaceRegexp()
	} else {
		e, err = p.replace()
	}
	if err != nil {
		return err
	}
	r.actions = append(r.actions, action{kind: actReplace, edit: e})
	return nil
}

func (p *parser) replace() (*packet.Edit, error) {
	old, err := p.quoted("text to replace")
	if err != nil {
		return nil, err
	}
	with, err := p.quoted("replacement")
	if err != nil {
		return nil, err
	}
	fit, err := p.fit()
	if err != nil {
		return nil, err
	}
	return packet.Replace(old, with, fit)
}

func (p *parser) replaceRegexp() (*packet.Edit, error) {
	p.next()
	var words [2]string
	for i, what := range [...]string{"regular expression to replace", "replacement"} {
		w := p.peek()
		if len(w) < 2 || w[0] != '"' && w[0] != '\'' || quotedLen(w) != len(w) {
			return nil, &value.Error{What: what, Text: w,
				Valid: `a text in quotes, as replace regex "(?i)get /([a-z]*)" "GET /${1}"`}
		}
		words[i] = regexText(p.next())
	}
	match, err := compileRegexp(words[0])
	if err != nil {
		return nil, err
	}
	fit, err := p.fit()
	if err != nil {
		return nil, err
	}
	return packet.ReplaceRegexp(match, words[1], fit)
}

// fit takes what stands behind a replacement.
func (p *parser) fit() (packet.Fit, error) {
	switch p.peek() {
	case "resize":
		p.next()
		return packet.Fit{Resize: true}, nil
	case "pad":
		p.next()
		w := p.peek()
		with, err := p.quoted("byte to pad with")
		if err != nil || len(with) != 1 {
			return packet.Fit{}, &value.Error{What: "byte to pad with", Text: w,
				Valid: `one byte in double quotes, as " " or "\x00"`}
		}
		return packet.Fit{Pad: true, Byte: with[0]}, nil
	}
	return packet.Fit{}, nil
}

func readLua(p *parser, r *Rule, o Options) error {
	w, err := p.argument("lua", "the name of a script")
	if err != nil {
		return err
	}
	if o.Lua == nil {
		return notHere("lua")
	}
	open, err := o.Lua(unquoted(w))
	if err != nil {
		return err
	}
	r.actions = append(r.actions, action{kind: actExtension, opener: open})
	return nil
}

func readExpect(p *parser, r *Rule, o Options) error {
	if o.Expect == nil {
		return notHere("expect")
	}
	before := p.rest
	var words []string
	for w := p.peek(); w != "" && w != "if"; w = p.peek() {
		words = append(words, p.next())
	}
	open, used, err := o.Expect(words)
	if err != nil {
		return err
	}
	p.rest = before
	for range min(used, len(words)) {
		p.next()
	}
	r.actions = append(r.actions, action{kind: actExtension, opener: open})
	return nil
}

// notHere is the error of an action that the caller of Parse does not provide.
func notHere(word string) error {
	return &value.Error{What: "action here", Text: word, Valid: "another action"}
}
