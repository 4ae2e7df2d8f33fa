package format

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strings"
	"unsafe"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/lazy"
	"nfctl/internal/value"
)

// A LineError is a line that could not be read.
type LineError struct {
	Line int // from 1
	Text string
	Err  error
}

func (e *LineError) Error() string {
	text := e.Text
	if len(text) > 120 {
		text = text[:117] + "…"
	}
	return fmt.Sprintf("line %d: %v: %q", e.Line, e.Err, text)
}

func (e *LineError) Unwrap() error { return e.Err }

// A Saved is a line that was read: a flow, an expectation, or a record that stands
// between those of a stream.
type Saved struct {
	Line int
	Text string   // as the flow valid until the next line
	Flow *ct.Flow // reused; its Event is what the line tells of; nil: no flow
	// Expect is an expectation in JSON, with its event; Words are the arguments of
	// 'nfctl expect create' of a line that begins with ExpectLine.
	Expect *ct.Expect
	Words  []string
	Mark   string // the record's kind: existing, resync, resynced, lost
	Loss   Loss   // of lost
}

// maxLine bounds a line of a file of saved flows, in bytes.
const maxLine = 1 << 20

// Load reads saved flows and expectations: lines of -o save, ours and conntrack(8)'s,
// and of -o json, streams of events too, and listings of conntrack(8) and of the kernel
// (listed.go), in any mixture. Empty lines and lines that begin with '#' are passed
// over. A bad line comes as a *LineError, and the next ones follow; an error of
// the reader comes last. The flows are ready to be made: translations are asked
// for, and what nobody can set is gone.
func Load(r io.Reader) iter.Seq2[Saved, error] {
	return func(yield func(Saved, error) bool) {
		sc := bufio.NewScanner(r)
		sc.Buffer(make([]byte, 0, 64<<10), maxLine)
		var f ct.Flow
		var words []string
		var j *jsonFlow
		for line := 1; sc.Scan(); line++ {
			b := sc.Bytes()
			if line == 1 {
				b = bytes.TrimPrefix(b, []byte("\ufeff")) // byte order mark of some editors
			}
			b = bytes.TrimSpace(b)
			if len(b) == 0 || b[0] == '#' {
				continue
			}
			// A string for each line would be most of the garbage there is. The short
			// roads keep nothing of the text; the others do, in errors.
			text := unsafe.String(&b[0], len(b))
			f.Reset()
			var err error
			if text[0] == '{' {
				if j == nil {
					j = newJSONFlow()
				}
				if !j.plain(text, &f) {
					f.Reset()
					text = strings.Clone(text)
					if s, ok, err := parseAside(text); ok {
						if s.Line = line; err != nil {
							err = &LineError{line, text, err}
						}
						if !yield(s, err) {
							return
						}
						continue
					}
					err = j.parse(text, &f)
				}
			} else if strings.HasPrefix(text, ExpectLine+" ") {
				text = strings.Clone(text)
				s := Saved{Line: line, Text: text}
				if s.Words, err = Split(nil, text[len(ExpectLine):]); err != nil {
					err = &LineError{line, text, err}
				}
				if !yield(s, err) {
					return
				}
				continue
			} else if text[0] == '<' {
				if isDecoration(text) {
					continue
				}
				text = strings.Clone(text)
				err = parseXML(text, &f)
			} else if isListed(text) {
				text = strings.Clone(text)
				err = parseListed(text, &f)
			} else if !ParsePlain(text, &f) {
				f.Reset()
				text = strings.Clone(text)
				if words, err = Split(words[:0], text); err == nil {
					err = ParseSave(words, &f)
				}
			}
			if err == nil {
				if err = f.Orig.Complete(); err != nil {
					text = strings.Clone(text)
				}
			}
			s := Saved{Line: line, Text: text, Flow: &f}
			if err != nil {
				s.Flow, err = nil, &LineError{line, text, err}
			}
			if !yield(s, err) {
				return
			}
		}
		if err := sc.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("a line is longer than %d bytes", maxLine)
			}
			yield(Saved{}, err)
		}
	}
}

// parseAside reads what stands between the flows of a stream: an expectation, or a
// record.
func parseAside(text string) (s Saved, ok bool, err error) {
	if strings.HasPrefix(text, `{"kind":"flow"`) {
		return s, false, nil
	}
	var r struct {
		Kind, Where string
		Count       *uint64
	}
	if json.Unmarshal([]byte(text), &r) != nil {
		return s, false, nil
	}
	if r.Kind == Expects.Kind {
		s = Saved{Text: text, Expect: &ct.Expect{}}
		return s, true, parseExpect(text, s.Expect)
	}
	if _, ok = markWords.Lookup(r.Kind); !ok && r.Kind != Losses.Kind {
		return s, false, nil
	}
	s = Saved{Text: text, Mark: r.Kind, Loss: Loss{Where: r.Where, Queue: -1}}
	if r.Kind == Losses.Kind && r.Count != nil {
		s.Loss.Count, s.Loss.Known = *r.Count, true
	}
	return s, true, nil
}

// endsWord tells the octets at which a plain word ends or is no longer plain.
var endsWord = [256]bool{' ': true, '\t': true, '\'': true, '"': true, '\\': true}

// Split appends the words of a line as a shell would see them: separated by
// blanks, with '…' and "…" (in which \ stands before " and \) around blanks. A
// '#' at the start of a word begins a comment.
func Split(words []string, line string) ([]string, error) {
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == ' ' || c == '\t':
			i++
			continue
		case c == '#':
			return words, nil
		}
		start := i
		for i < len(line) && !endsWord[line[i]] {
			i++
		}
		if i == len(line) || line[i] == ' ' || line[i] == '\t' {
			words = append(words, line[start:i])
			continue
		}
		word := []byte(line[start:i])
		var quote byte
		for ; i < len(line) && (quote != 0 || line[i] != ' ' && line[i] != '\t'); i++ {
			c := line[i]
			switch {
			case c == '\\' && quote != '\'' && i+1 < len(line):
				i++
				word = append(word, line[i])
			case quote != 0 && c == quote:
				quote = 0
			case quote == 0 && (c == '\'' || c == '"'):
				quote = c
			default:
				word = append(word, c)
			}
		}
		if quote != 0 {
			return words, &value.Error{What: "line", Text: line, Valid: "an end of the quotation"}
		}
		words = append(words, string(word))
	}
	return words, nil
}

// lineFlag is what a flag of a line sets.
type lineFlag struct {
	name string            // attribute
	attr *ct.Attr[ct.Flow] // of addresses that of IPv4
	six  *ct.Attr[ct.Flow] // that of IPv6, or nil
}

// lineFlags finds what a flag sets, without its dashes.
var lineFlags = lazy.Value[map[string]lineFlag]{Make: func() map[string]lineFlag {
	m := map[string]lineFlag{}
	for i := range ct.FlowFlags {
		f := &ct.FlowFlags[i]
		if f.Sets == "" {
			continue
		}
		sets := lineFlagOf(f.Sets)
		names, letter := f.Names(true)
		for _, name := range names {
			m[name] = sets
		}
		if letter != "" {
			m[letter] = sets
		}
	}
	return m
}}

func lineFlagOf(name string) lineFlag {
	f := lineFlag{name: name, attr: flowAttrs.Get()[name]}
	if before, after, ok := strings.Cut(name, "ipv4"); ok {
		f.six = flowAttrs.Get()[before+"ipv6"+after]
	}
	return f
}

// flowAttrs finds attributes by name or JSON path.
var flowAttrs = lazy.Value[map[string]*ct.Attr[ct.Flow]]{Make: func() map[string]*ct.Attr[ct.Flow] {
	m := make(map[string]*ct.Attr[ct.Flow], 2*len(ct.FlowAttrs()))
	for i := range ct.FlowAttrs() {
		a := &ct.FlowAttrs()[i]
		if a.Name != "" {
			m[a.Name] = a
		}
		if m[a.Path] == nil {
			m[a.Path] = a
		}
	}
	return m
}}

// ParseSave reads the words of a line of -o save into f, which must be empty:
// -A, -I or --create, then conntrack(8)'s flags and --set NAME=VALUE.
func ParseSave(words []string, f *ct.Flow) error {
	if len(words) == 0 {
		return errors.New("empty line")
	}
	switch words[0] {
	case "-A", "-I", "--add", "--create":
	default:
		return &value.Error{What: "start of a line", Text: words[0],
			Valid: "-A or -I, a JSON object, or a line of conntrack -L"}
	}
	flags := lineFlags.Get()
	var state string // is read last: the protocol decides what it means
	for i := 1; i < len(words); i++ {
		flag, text, given := words[i], "", false
		name, long := strings.CutPrefix(flag, "--")
		if long {
			name, text, given = strings.Cut(name, "=")
		} else if name, long = strings.CutPrefix(flag, "-"); !long || len(name) != 1 {
			name = ""
		}
		set := flags[name]
		if set.attr == nil && name != "set" {
			return &value.Error{What: "flag", Text: flag, Valid: "a flag of conntrack -A, or --set NAME=VALUE"}
		}
		if !given {
			if i++; i == len(words) {
				return &value.Error{What: "line", Text: flag, Valid: flag + " with a value"}
			}
			text = words[i]
		}
		if name == "set" {
			attr, v, ok := strings.Cut(text, "=")
			if !ok {
				return &value.Error{What: "--set", Text: text, Valid: "NAME=VALUE"}
			}
			if set, text = lineFlagOf(attr), v; set.attr == nil {
				_, err := ct.FlowFields.Find(attr)
				if err == nil {
					err = &value.Error{What: "attribute", Text: attr,
						Valid: "one that can be set, see 'nfctl attr list'"}
				}
				return fmt.Errorf("--set: %w", err)
			}
			flag = "--set " + attr
		}
		if set.name == "state" {
			state = text
			continue
		}
		if err := setSaved(f, &set, text); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
		switch name {
		case "orig-vtag":
			f.SCTPVtagOrig = swapped(f.SCTPVtagOrig)
		case "reply-vtag":
			f.SCTPVtagReply = swapped(f.SCTPVtagReply)
		}
	}
	if state != "" {
		set := flags["state"]
		if err := setSaved(f, &set, state); err != nil {
			return fmt.Errorf("--state: %w", err)
		}
	}
	return finishSaved(f)
}

// setSaved sets an attribute from what a line says.
func setSaved(f *ct.Flow, set *lineFlag, text string) error {
	switch set.name {
	case "status":
		if strings.EqualFold(text, "UNSET") {
			f.Status, f.Present = 0, f.Present|ct.HasStatus
			return nil
		}
	case "snat-ipv4", "dnat-ipv4":
		if addr, port, ok := natPort(text); ok {
			if err := flowAttrs.Get()[set.name[:4]+"-port"].SetText(f, port); err != nil {
				return err
			}
			text = addr
		}
	}
	a := set.attr
	if set.six != nil && strings.Contains(text, ":") {
		a = set.six
	}
	if ok, why := a.Settable(false); a.Name != "" && !ok {
		return &value.Error{What: "attribute", Text: set.name, Why: "it cannot be set: " + why}
	}
	return a.SetText(f, text)
}

// natPort splits ADDRESS:PORT, with brackets around an IPv6 address.
func natPort(s string) (addr, port string, ok bool) {
	if rest, bracket := strings.CutPrefix(s, "["); bracket {
		addr, port, ok = strings.Cut(rest, "]:")
		return addr, port, ok
	}
	if strings.Count(s, ":") == 1 {
		return strings.Cut(s, ":")
	}
	return s, "", false
}

// finishSaved works out what a line leaves to be understood.
func finishSaved(f *ct.Flow) error {
	if err := completeSaved(f); err != nil {
		return err
	}
	// A line gives the address of a translation in place of the reply's, and
	// the translated port among the reply's.
	if f.SNAT.Addr.IsValid() && !f.Has(ct.HasSNATPort) && f.Reply.Has(ct.TupleDport) && f.Reply.Dport != f.Orig.Sport {
		f.UndoSPAT()
	}
	if f.DNAT.Addr.IsValid() && !f.Has(ct.HasDNATPort) && f.Reply.Has(ct.TupleSport) && f.Reply.Sport != f.Orig.Dport {
		f.UndoDPAT()
	}
	if f.Has(ct.HasSNATPort) {
		f.Reply.Dport = f.Orig.Sport
	}
	if f.Has(ct.HasDNATPort) {
		f.Reply.Sport = f.Orig.Dport
	}
	return nil
}

// completeSaved fills in the family, and the reply tuple where it was not given, and
// drops what the kernel would refuse or ignore.
func completeSaved(f *ct.Flow) error {
	o, r := &f.Orig, &f.Reply
	if !o.Src.IsValid() || !o.Dst.IsValid() || !o.Has(ct.TupleProto) {
		return &value.Error{What: "flow", Text: string(ct.AppendTuple(nil, o)),
			Valid: "a protocol and both addresses of the original direction"}
	}
	for _, a := range []netip.Addr{o.Dst, r.Src, r.Dst, f.SNAT.Addr, f.DNAT.Addr, f.Master.Src, f.Master.Dst} {
		if a.IsValid() && a.BitLen() != o.Src.BitLen() {
			return &value.Error{What: "address", Text: a.String(), Valid: "addresses of one family"}
		}
	}
	family := uint8(ct.IPv4)
	if o.Src.Is6() {
		family = ct.IPv6
	}
	if o.Has(ct.TupleFamily) && o.Family != family {
		return &value.Error{What: "family", Text: value.Families.Word(uint64(o.Family)), Valid: "that of the addresses"}
	}
	mirror := o.Reverse()
	for _, t := range []*ct.Tuple{o, r, &f.Master} {
		if t != &f.Master || !t.IsZero() {
			t.Family, t.Present = family, t.Present|ct.TupleFamily
		}
	}
	r.Proto, r.Present = o.Proto, r.Present|ct.TupleProto
	if !r.Src.IsValid() {
		r.Src = mirror.Src
	}
	if !r.Dst.IsValid() {
		r.Dst = mirror.Dst
	}
	for _, p := range []struct {
		part     ct.TupleHas
		to, from *uint16
	}{{ct.TupleSport, &r.Sport, &mirror.Sport}, {ct.TupleDport, &r.Dport, &mirror.Dport},
		{ct.TupleID, &r.ID, &mirror.ID}} {
		if !r.Has(p.part) && mirror.Has(p.part) {
			*p.to, r.Present = *p.from, r.Present|p.part
		}
	}
	if !r.Has(ct.TupleType) && mirror.Has(ct.TupleType) {
		r.Type, r.Present = mirror.Type, r.Present|ct.TupleType
	}
	if !r.Has(ct.TupleCode) && mirror.Has(ct.TupleCode) {
		r.Code, r.Present = mirror.Code, r.Present|ct.TupleCode
	}
	if f.Has(ct.HasStatus) { // without CONFIRMED the kernel refuses any status
		f.Status = f.Status&ct.StatusChangeable | ct.StatusConfirmed
	}
	f.MaskFlags()
	return nil
}

// nameless are the keys of JSON that can be set though no attribute has their
// name.
var nameless = map[string]bool{"state": true, "reply.type": true, "reply.code": true, "reply.id": true,
	"snat.addr_max": true, "dnat.addr_max": true, "snat.port_max": true, "dnat.port_max": true}

// A keyed is an attribute that a key of JSON sets.
type keyed struct {
	attr *ct.Attr[ct.Flow]
	key  int // in jsonKeys.paths
	six  int // 4, 6: only an address of that family; 0: whatever there is
}

// keySet is what the keys of a flow in JSON stand for.
type keySet struct {
	paths  map[string]int // keys, numbered
	groups map[string]bool
	attrs  []keyed // in the order in which they are to be set

	kind, event, status int // keys that are no attributes
}

var keySets = lazy.Value[*keySet]{Make: func() *keySet {
	k := &keySet{paths: map[string]int{}, groups: map[string]bool{}}
	for _, r := range ct.FlowFields.Rows() {
		k.paths[r.Path] = len(k.paths)
		if group, _, ok := strings.Cut(r.Path, "."); ok {
			k.groups[group] = true
		}
	}
	k.kind, k.event, k.status = k.paths["kind"], k.paths["event"], k.paths["status"]
	for i := range ct.FlowAttrs() {
		a := &ct.FlowAttrs()[i]
		if can, _ := a.Settable(false); a.Path == "" || a.Path == "status" || a.Name == "" && !nameless[a.Path] ||
			a.Name != "" && !can {
			continue
		}
		one := keyed{attr: a, key: k.paths[a.Path]}
		switch {
		case strings.Contains(a.Name, "ipv4"):
			one.six = 4
		case strings.Contains(a.Name, "ipv6"):
			one.six = 6
		}
		k.attrs = append(k.attrs, one)
	}
	return k
}}

// A jsonFlow reads flows in JSON. parse holds a flow's values as the texts that
// attributes are set by.
type jsonFlow struct {
	*keySet
	path  []byte
	texts []string // by number of the key
	there []bool

	// Of plain.
	top  plainKey
	last int // key read
	list []byte
	bits map[string]uint32 // of texts of the status
}

// manyBits bounds how many texts of a status are remembered: in what programs
// write, the same few come again and again.
const manyBits = 1000

func newJSONFlow() *jsonFlow {
	k := keySets.Get()
	return &jsonFlow{keySet: k, texts: make([]string, len(k.paths)), there: make([]bool, len(k.paths)),
		top: plainKey{within: k.plainKeys()}, bits: map[string]uint32{}}
}

// parse reads an object of -o json into f, which must be empty. Keys that nobody
// can set (counters, times, id) are passed over; a key that no flow has is an
// error.
func (j *jsonFlow) parse(text string, f *ct.Flow) error {
	k := j.keySet
	// Checked as a whole first, so that the walk need not look for mistakes.
	if line := []byte(text); !json.Valid(line) {
		var v any
		err := json.Unmarshal(line, &v)
		return fmt.Errorf("not a JSON object: %w", err)
	}
	clear(j.there)
	j.path = j.path[:0]
	if _, err := j.object(text, 0); err != nil {
		return err
	}
	for i := range k.attrs {
		one := &k.attrs[i]
		if !j.there[one.key] {
			continue
		}
		a, text := one.attr, j.texts[one.key]
		if one.six != 0 && strings.Contains(text, ":") != (one.six == 6) {
			continue
		}
		var err error
		if a.Kind == field.Bytes {
			var d []byte
			if d, err = base64.StdEncoding.DecodeString(text); err == nil {
				a.SetData(f, d)
			}
		} else {
			err = a.SetText(f, text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.Path, err)
		}
	}
	if j.there[k.event] {
		if err := setEvent(f, j.texts[k.event]); err != nil {
			return fmt.Errorf("event: %w", err)
		}
	}
	if j.there[k.status] {
		if err := j.setStatus(f, j.texts[k.status]); err != nil {
			return fmt.Errorf("status: %w", err)
		}
	}
	return finishJSON(f)
}

func setEvent(f *ct.Flow, text string) error {
	n, err := ct.EventNames.Parse(text)
	if err == nil && text == "" {
		err = &value.Error{What: "event", Valid: "new, update, destroy or existing"}
	}
	f.Event = ct.Event(n)
	return err
}

func (j *jsonFlow) setStatus(f *ct.Flow, text string) error {
	bits, known := j.bits[text]
	if !known && text != "" {
		n, err := ct.StatusNames.ParseBits(text)
		if err != nil {
			return err
		}
		if bits = uint32(n); len(j.bits) < manyBits {
			j.bits[strings.Clone(text)] = bits
		}
	}
	f.Status, f.Present = bits, f.Present|ct.HasStatus
	return nil
}

// finishJSON works out what the keys leave to be understood.
func finishJSON(f *ct.Flow) error {
	if f.Zone == 0 { // always written, and the same as none
		f.Present &^= ct.HasZone
	}
	f.AskNAT()
	return completeSaved(f)
}

// object reads the object at s[i:], which is valid JSON, and returns where it
// ends.
func (j *jsonFlow) object(s string, i int) (int, error) {
	prefix := len(j.path)
	for i++; ; {
		i = blank(s, i)
		switch s[i] {
		case '}':
			return i + 1, nil
		case ',':
			i++
			continue
		}
		key, end, err := stringAt(s, i)
		if err != nil {
			return 0, err
		}
		i = blank(s, blank(s, end)+1) // over the colon
		j.path = append(j.path[:prefix], key...)
		if s[i] == '{' {
			if !j.groups[string(j.path)] {
				return 0, unknownKey(string(j.path))
			}
			j.path = append(j.path, '.')
			if i, err = j.object(s, i); err != nil {
				return 0, err
			}
			continue
		}
		n, ok := j.paths[string(j.path)]
		if !ok {
			return 0, unknownKey(string(j.path))
		}
		if i, err = j.value(s, i, n); err != nil {
			return 0, err
		}
	}
}

// value reads the value at s[i:] as key n's.
func (j *jsonFlow) value(s string, i, n int) (end int, err error) {
	switch s[i] {
	case '"':
		j.there[n] = true
		if j.texts[n], end, err = stringAt(s, i); err == nil && n == j.kind && j.texts[n] != "flow" {
			err = &value.Error{What: "kind of object", Text: j.texts[n], Valid: "flow"}
		}
		return end, err
	case '[':
		var list []string
		for i++; ; {
			i = blank(s, i)
			switch s[i] {
			case ']':
				j.texts[n], j.there[n] = strings.Join(list, ","), true
				return i + 1, nil
			case ',':
				i++
				continue
			case '"':
			default:
				return 0, &value.Error{What: string(j.path), Text: s[i:min(i+20, len(s))],
					Valid: "strings in the array"}
			}
			one, end, err := stringAt(s, i)
			if err != nil {
				return 0, err
			}
			list, i = append(list, one), end
		}
	}
	end = i
	for !strings.ContainsRune(",}] \t\r\n", rune(s[end])) {
		end++
	}
	if c := s[i]; c == '-' || c >= '0' && c <= '9' { // null, true and false set nothing
		j.texts[n], j.there[n] = s[i:end], true
	}
	return end, nil
}

func blank(s string, i int) int {
	for s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r' {
		i++
	}
	return i
}

// stringAt reads the JSON string at s[i:] and returns where it ends.
func stringAt(s string, i int) (text string, end int, err error) {
	plain := true
	for end = i + 1; s[end] != '"'; end++ {
		if s[end] == '\\' {
			plain = false
			end++
		}
	}
	end++
	if plain {
		return s[i+1 : end-1], end, nil
	}
	err = json.Unmarshal([]byte(s[i:end]), &text)
	return text, end, err
}

func unknownKey(path string) error {
	for _, r := range ct.FlowFields.Rows() {
		if rest, ok := strings.CutPrefix(r.Path, path+"."); ok {
			return &value.Error{What: "key", Text: path, Why: fmt.Sprintf("it is an object, as {%q: …}", rest)}
		}
	}
	row, err := ct.FlowFields.Find(path)
	if err == nil {
		err = &value.Error{What: "key", Text: path, Valid: row.Path}
	}
	return err
}
