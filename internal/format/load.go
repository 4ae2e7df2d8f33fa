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
	"sync"

	"nfctl/internal/ct"
	"nfctl/internal/field"
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

// A Saved is a flow that was read, and where.
type Saved struct {
	Line int
	Text string
	Flow *ct.Flow // reused
}

// maxLine bounds a line of a file of saved flows, in bytes.
const maxLine = 1 << 20

// Load reads saved flows: lines of -o save, ours and conntrack(8)'s, and of
// -o json, in any mixture. Empty lines and lines that begin with '#' are passed
// over. A bad line comes as a *LineError, and the next ones follow; an error of
// the reader comes last. The flows are ready to be made: translations are asked
// for, and what nobody can set is gone.
func Load(r io.Reader) iter.Seq2[Saved, error] {
	return func(yield func(Saved, error) bool) {
		sc := bufio.NewScanner(r)
		sc.Buffer(make([]byte, 0, 64<<10), maxLine)
		var f ct.Flow
		var words []string
		for line := 1; sc.Scan(); line++ {
			text := strings.TrimSpace(sc.Text())
			if text == "" || text[0] == '#' {
				continue
			}
			f.Reset()
			var err error
			if text[0] == '{' {
				err = ParseJSON([]byte(text), &f)
			} else if words, err = Split(words[:0], text); err == nil {
				err = ParseSave(words, &f)
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
		for i < len(line) && !strings.ContainsRune(" \t'\"\\", rune(line[i])) {
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

// lineFlags maps the flags of a line to the attributes that they set. Addresses
// name the attribute of IPv4; see setSaved.
var lineFlags = sync.OnceValue(func() map[string]string {
	return map[string]string{
		"t": "timeout", "timeout": "timeout", "u": "status", "status": "status", "m": "mark", "mark": "mark",
		"c": "secmark", "secmark": "secmark", "w": "zone", "zone": "zone", "orig-zone": "orig-zone", "reply-zone": "repl-zone",
		"s": "orig-ipv4-src", "src": "orig-ipv4-src", "orig-src": "orig-ipv4-src",
		"d": "orig-ipv4-dst", "dst": "orig-ipv4-dst", "orig-dst": "orig-ipv4-dst",
		"r": "repl-ipv4-src", "reply-src": "repl-ipv4-src", "q": "repl-ipv4-dst", "reply-dst": "repl-ipv4-dst",
		"n": "snat-ipv4", "src-nat": "snat-ipv4", "g": "dnat-ipv4", "dst-nat": "dnat-ipv4",
		"p": "orig-l4proto", "proto": "orig-l4proto", "protonum": "orig-l4proto", "f": "orig-l3proto", "family": "orig-l3proto",
		"l": "connlabels", "label": "connlabels", "label-add": "connlabels", "helper": "helper-name",
		"sport": "orig-port-src", "orig-port-src": "orig-port-src", "dport": "orig-port-dst", "orig-port-dst": "orig-port-dst",
		"reply-port-src": "repl-port-src", "reply-port-dst": "repl-port-dst",
		"srckey": "orig-port-src", "orig-key-src": "orig-port-src", "dstkey": "orig-port-dst", "orig-key-dst": "orig-port-dst",
		"reply-key-src": "repl-port-src", "reply-key-dst": "repl-port-dst",
		"icmp-type": "icmp-type", "icmp-code": "icmp-code", "icmp-id": "icmp-id",
		"icmpv6-type": "icmp-type", "icmpv6-code": "icmp-code", "icmpv6-id": "icmp-id",
		"state": "state", "orig-vtag": "sctp-vtag-orig", "reply-vtag": "sctp-vtag-repl", "role": "dccp-role",
	}
})

// sixth returns the attribute of IPv6 beside one of IPv4, or "".
func sixth(name string) string {
	if before, after, ok := strings.Cut(name, "ipv4"); ok {
		return before + "ipv6" + after
	}
	return ""
}

// flowAttrs finds attributes by name or JSON path.
var flowAttrs = sync.OnceValue(func() map[string]*ct.Attr[ct.Flow] {
	m := make(map[string]*ct.Attr[ct.Flow], 2*len(ct.FlowAttrs))
	for i := range ct.FlowAttrs {
		a := &ct.FlowAttrs[i]
		if a.Name != "" {
			m[a.Name] = a
		}
		if m[a.Path] == nil {
			m[a.Path] = a
		}
	}
	return m
})

// ParseSave reads the words of a line of -o save into f, which must be empty:
// -A, -I or --create, then conntrack(8)'s flags and --set NAME=VALUE.
func ParseSave(words []string, f *ct.Flow) error {
	if len(words) == 0 {
		return errors.New("empty line")
	}
	switch words[0] {
	case "-A", "-I", "--add", "--create":
	default:
		return &value.Error{What: "start of a line", Text: words[0], Valid: "-A or -I, or a JSON object"}
	}
	var state string // is read last: the protocol decides what it means
	for i := 1; i < len(words); i++ {
		flag, text, given := words[i], "", false
		name, long := strings.CutPrefix(flag, "--")
		if long {
			name, text, given = strings.Cut(name, "=")
		} else if name, long = strings.CutPrefix(flag, "-"); !long || len(name) != 1 {
			name = ""
		}
		attr := lineFlags()[name]
		if attr == "" && name != "set" {
			return &value.Error{What: "flag", Text: flag, Valid: "a flag of conntrack -A, or --set NAME=VALUE"}
		}
		if !given {
			if i++; i == len(words) {
				return &value.Error{What: "line", Text: flag, Valid: flag + " with a value"}
			}
			text = words[i]
		}
		if name == "set" {
			var ok bool
			if attr, text, ok = strings.Cut(text, "="); !ok {
				return &value.Error{What: "--set", Text: attr, Valid: "NAME=VALUE"}
			}
			if flowAttrs()[attr] == nil {
				_, err := ct.FlowFields.Find(attr)
				if err == nil {
					err = &value.Error{What: "attribute", Text: attr, Valid: "one that can be set, see 'nfctl attr list'"}
				}
				return fmt.Errorf("--set: %w", err)
			}
			flag = "--set " + attr
		}
		if attr == "state" {
			state = text
			continue
		}
		if err := setSaved(f, attr, text); err != nil {
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
		if err := setSaved(f, "state", state); err != nil {
			return fmt.Errorf("--state: %w", err)
		}
	}
	return finishSaved(f)
}

// setSaved sets an attribute from what a line says.
func setSaved(f *ct.Flow, name, text string) error {
	switch name {
	case "status":
		if strings.EqualFold(text, "UNSET") {
			f.Status, f.Present = 0, f.Present|ct.HasStatus
			return nil
		}
	case "snat-ipv4", "dnat-ipv4":
		if addr, port, ok := natPort(text); ok {
			if err := flowAttrs()[name[:4]+"-port"].SetText(f, port); err != nil {
				return err
			}
			text = addr
		}
	}
	a := flowAttrs()[name]
	if strings.Contains(text, ":") {
		if other := sixth(name); other != "" {
			a = flowAttrs()[other]
		}
	}
	if ok, why := a.Settable(false); a.Name != "" && !ok {
		return &value.Error{What: "attribute to set", Text: name, Valid: "one that can be set: " + why}
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
	if err := complete(f); err != nil {
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

// complete fills in the family, and the reply tuple where it was not given, and
// drops what the kernel would refuse or ignore.
func complete(f *ct.Flow) error {
	o, r := &f.Orig, &f.Reply
	if !o.Src.IsValid() || !o.Dst.IsValid() || !o.Has(ct.TupleProto) {
		return &value.Error{What: "flow", Text: string(ct.AppendTuple(nil, o)), Valid: "a protocol and both addresses of the original direction"}
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
	}{{ct.TupleSport, &r.Sport, &mirror.Sport}, {ct.TupleDport, &r.Dport, &mirror.Dport}, {ct.TupleID, &r.ID, &mirror.ID}} {
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
	// The kernel sends flags without a mask; to be set they want one.
	if f.Has(ct.HasTCPFlagsOrig) && f.TCPMaskOrig == 0 {
		f.TCPMaskOrig, f.Present = f.TCPFlagsOrig, f.Present|ct.HasTCPMaskOrig
	}
	if f.Has(ct.HasTCPFlagsReply) && f.TCPMaskReply == 0 {
		f.TCPMaskReply, f.Present = f.TCPFlagsReply, f.Present|ct.HasTCPMaskReply
	}
	return nil
}

// nameless are the keys of JSON that can be set though no attribute has their
// name.
var nameless = map[string]bool{"state": true, "reply.type": true, "reply.code": true, "reply.id": true,
	"snat.addr_max": true, "dnat.addr_max": true, "snat.port_max": true, "dnat.port_max": true}

// ParseJSON reads an object of -o json into f, which must be empty. Keys that
// nobody can set (counters, times, id) are passed over; a key that no flow has
// is an error.
func ParseJSON(line []byte, f *ct.Flow) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var top map[string]any
	if err := d.Decode(&top); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	if d.More() {
		return errors.New("more than one JSON object")
	}
	if kind, ok := top["kind"]; ok && kind != "flow" {
		return &value.Error{What: "kind of object", Text: fmt.Sprint(kind), Valid: "flow"}
	}
	flat := make(map[string]string, 32)
	if err := flatten(flat, "", top); err != nil {
		return err
	}
	status, hasStatus := flat["status"]
	delete(flat, "status")
	for i := range ct.FlowAttrs {
		a := &ct.FlowAttrs[i]
		text, ok := flat[a.Path]
		if !ok || a.Name == "" && !nameless[a.Path] {
			continue
		}
		if can, _ := a.Settable(false); a.Name != "" && !can {
			continue
		}
		if strings.Contains(a.Name, "ipv4") && strings.Contains(text, ":") || strings.Contains(a.Name, "ipv6") && !strings.Contains(text, ":") {
			continue
		}
		err := error(nil)
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
	if f.Zone == 0 { // always written, and the same as none
		f.Present &^= ct.HasZone
	}
	var bits uint64
	if hasStatus && status != "" {
		var err error
		if bits, err = ct.StatusNames.ParseBits(status); err != nil {
			return fmt.Errorf("status: %w", err)
		}
	}
	f.Status = uint32(bits)
	if hasStatus {
		f.Present |= ct.HasStatus
	}
	f.AskNAT()
	return complete(f)
}

// flatten turns nested objects into paths, and values into the texts that
// attributes are set by.
func flatten(out map[string]string, prefix string, v map[string]any) error {
	for k, v := range v {
		path := prefix + k
		switch v := v.(type) {
		case map[string]any:
			if !ct.FlowFields.Group(path) {
				_, err := ct.FlowFields.Find(path)
				return err
			}
			if err := flatten(out, path+".", v); err != nil {
				return err
			}
			continue
		case nil:
			continue
		case string:
			out[path] = v
		case json.Number:
			out[path] = v.String()
		case bool:
			continue
		case []any:
			var list []string
			for _, one := range v {
				s, ok := one.(string)
				if !ok {
					return &value.Error{What: path, Text: fmt.Sprint(one), Valid: "strings in the array"}
				}
				list = append(list, s)
			}
			out[path] = strings.Join(list, ",")
		}
		if row := ct.FlowFields.Row(path); row == nil || row.Path != path {
			_, err := ct.FlowFields.Find(path)
			if err == nil {
				err = &value.Error{What: "key", Text: path, Valid: row.Path}
			}
			return err
		}
	}
	return nil
}
