package ct

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// An Attr is one row of an attribute table: all that is known of an attribute
// of T, a Flow or an Expect. Rows without a Name are fields that no netlink
// attribute carries by itself.
type Attr[T any] struct {
	Name    string // as libnetfilter_conntrack and the Lua modules call it: "orig-ipv4-src"
	Aliases []string
	Number  int    // libnetfilter_conntrack's ATTR_* number; -1: it has none
	Path    string // JSON path; several attributes may share one
	Kind    field.Kind
	Bits    int  // width; 0: a string or bytes
	Network bool // stored in network byte order by libnetfilter_conntrack

	Netlink  string // where it stands in the message, by the kernel's names
	At       wire   // the same by numbers; nil: part of a tuple or a translation, or of no message
	Byte     int    // of an attribute of two bytes, each a row: which it is, 1 or 2; 0: all of it
	With     uint64 // presence of attributes with which the kernel wants this one too, as zero
	Since    string // first kernel, when known
	Readable string // in which messages the kernel sends it
	Create   string // "yes", "yes, …", or "no: why"
	Update   string
	Doc      string

	Names     *value.Names
	Hex       bool // people read it as 0x…
	Parse     func(string) (value.Set, error)
	AppendNum func([]byte, uint64) []byte
	Bit       func(int) string
	Hidden    bool // not in JSON, a name only

	access[T]
	// setText reads what was typed where that takes more than the kind says.
	setText func(*T, string) error
	// more: setText sets more by a number than the number.
	more bool
	// always is a getter for the field where it differs from the attribute's.
	always func(*T) (uint64, bool)
	// ip is the getter of an address that is worked out.
	ip func(*T) (netip.Addr, bool)
}

// access is how an attribute's value is got and set. Only those of the row's
// kind are there.
type access[T any] struct {
	need    uint64 // bits of presence that it takes; 0: not said
	num     func(*T) (uint64, bool)
	setNum  func(*T, uint64)
	addr    func(*T) *netip.Addr
	data    func(*T) ([]byte, bool)
	setData func(*T, []byte)
	tuple   func(*T) *Tuple
	mem     memory // of those that are read and written by their row
}

// Settable reports whether a request can set the attribute, on create or on
// update, and with what reason or condition.
func (a *Attr[T]) Settable(update bool) (ok bool, why string) {
	s := a.Create
	if update {
		s = a.Update
	}
	verdict, why, _ := strings.Cut(s, ": ")
	if verdict == "yes" || strings.HasPrefix(verdict, "yes, ") {
		return true, strings.TrimPrefix(strings.TrimPrefix(s, "yes"), ", ")
	}
	return false, why
}

// Presence returns the bit of T's Present that tells of the attribute; 0 for the
// parts of tuples and for what is worked out.
func (a *Attr[T]) Presence() Has { return Has(a.mem.bit) }

// Num returns the value of a numeric attribute in host order, and whether t has
// it.
func (a *Attr[T]) Num(t *T) (uint64, bool) {
	if a.num == nil {
		return 0, false
	}
	return a.num(t)
}

// SetNum sets a numeric attribute, cutting n to its width. It reports false for
// attributes that are not numeric or cannot be set in memory.
func (a *Attr[T]) SetNum(t *T, n uint64) bool {
	if a.setNum == nil {
		return false
	}
	a.setNum(t, n)
	return true
}

// Plain reports whether SetText of decimal digits is SetNum of the number, and up
// to which one; SetText refuses larger ones.
func (a *Attr[T]) Plain() (max uint64, ok bool) {
	return 1<<a.Bits - 1, a.setNum != nil && a.Kind == field.Uint && a.Names == nil && !a.more
}

// Addr returns the value of an address attribute. An attribute of one family
// does not have an address of the other.
func (a *Attr[T]) Addr(t *T) (netip.Addr, bool) {
	if a.ip != nil {
		return a.ip(t)
	}
	if a.addr == nil {
		return netip.Addr{}, false
	}
	p := *a.addr(t)
	return p, p.IsValid() && (a.Bits == 0 || p.BitLen() == a.Bits)
}

// SetAddr sets an address attribute; it reports false when the attribute is
// none or of the other family.
func (a *Attr[T]) SetAddr(t *T, p netip.Addr) bool {
	if a.addr == nil || a.Bits != 0 && p.BitLen() != a.Bits {
		return false
	}
	*a.addr(t) = p
	return true
}

// Data returns the value of a string, bytes or bit string attribute. It is valid
// until t changes.
func (a *Attr[T]) Data(t *T) ([]byte, bool) {
	if a.data == nil {
		return nil, false
	}
	return a.data(t)
}

// SetData sets a string, bytes or bit string attribute; t keeps d.
func (a *Attr[T]) SetData(t *T, d []byte) bool {
	if a.setData == nil {
		return false
	}
	a.setData(t, d)
	return true
}

// Has reports whether t has the attribute.
func (a *Attr[T]) Has(t *T) bool {
	switch {
	case a.num != nil:
		_, ok := a.num(t)
		return ok
	case a.addr != nil || a.ip != nil:
		_, ok := a.Addr(t)
		return ok
	case a.data != nil:
		_, ok := a.data(t)
		return ok
	case a.tuple != nil:
		return !a.tuple(t).IsZero()
	}
	return false
}

// AppendStored appends the value as libnetfilter_conntrack keeps it in memory:
// addresses, ports and ICMP ids in network byte order, other numbers in the
// host's, strings as they are. It reports false when t does not have it.
func (a *Attr[T]) AppendStored(b []byte, t *T) ([]byte, bool) {
	if p, ok := a.Addr(t); ok {
		return append(b, p.AsSlice()...), true
	}
	if d, ok := a.Data(t); ok {
		return append(b, d...), true
	}
	n, ok := a.Num(t)
	if !ok {
		return b, false
	}
	switch {
	case a.Bits == 8:
		return append(b, byte(n)), true
	case a.Bits == 16 && a.Network:
		return binary.BigEndian.AppendUint16(b, uint16(n)), true
	case a.Bits == 16:
		return binary.NativeEndian.AppendUint16(b, uint16(n)), true
	case a.Bits == 32:
		return binary.NativeEndian.AppendUint32(b, uint32(n)), true
	}
	return binary.NativeEndian.AppendUint64(b, n), true
}

// SetStored sets the value from bytes as AppendStored gives them. Missing bytes
// are zero, surplus ones are ignored.
func (a *Attr[T]) SetStored(t *T, stored []byte) bool {
	var w [16]byte
	copy(w[:], stored)
	switch {
	case a.addr != nil && a.Bits == 32:
		return a.SetAddr(t, netip.AddrFrom4([4]byte(w[:4])))
	case a.addr != nil:
		return a.SetAddr(t, netip.AddrFrom16(w))
	case a.setData != nil:
		return a.SetData(t, clone(stored))
	case a.setNum == nil:
		return false
	case a.Bits == 8:
		return a.SetNum(t, uint64(w[0]))
	case a.Bits == 16 && a.Network:
		return a.SetNum(t, uint64(binary.BigEndian.Uint16(w[:])))
	case a.Bits == 16:
		return a.SetNum(t, uint64(binary.NativeEndian.Uint16(w[:])))
	case a.Bits == 32:
		return a.SetNum(t, uint64(binary.NativeEndian.Uint32(w[:])))
	}
	return a.SetNum(t, binary.NativeEndian.Uint64(w[:]))
}

// AppendText appends the value as people read and type it, and nothing when t
// does not have it.
func (a *Attr[T]) AppendText(b []byte, t *T) []byte {
	if p, ok := a.Addr(t); ok {
		return p.AppendTo(b)
	}
	if d, ok := a.Data(t); ok {
		switch a.Kind {
		case field.Bits:
			return appendBits(b, d, a.Bit)
		case field.Bytes:
			return hex.AppendEncode(b, d)
		}
		return append(b, d...)
	}
	if a.tuple != nil {
		return AppendTuple(b, a.tuple(t))
	}
	n, ok := a.Num(t)
	switch {
	case !ok:
		return b
	case a.Kind == field.Time:
		return value.AppendTime(b, n)
	case a.Kind == field.Flags:
		return AppendFlags(b, a.Names, n, ',')
	case a.AppendNum != nil:
		return a.AppendNum(b, n)
	case a.Names != nil:
		return a.Names.Append(b, n)
	case a.Hex:
		return value.AppendHex(b, n)
	}
	return strconv.AppendUint(b, n, 10)
}

// AppendFlags appends the words of the bits in n, joined by sep, a bit without
// a word as 0x….
func AppendFlags(b []byte, names *value.Names, n uint64, sep byte) []byte {
	for first := true; n != 0; first = false {
		bit := n & -n
		n &^= bit
		if !first {
			b = append(b, sep)
		}
		if w := names.Word(bit); w != "" {
			b = append(b, w...)
		} else {
			b = value.AppendHex(b, bit)
		}
	}
	return b
}

func appendBits(b, bits []byte, name func(int) string) []byte {
	first := true
	for n := range 8 * len(bits) {
		if bits[n/8]>>(n%8)&1 == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		if w := bitName(name, n); w != "" {
			b = append(b, w...)
		} else {
			b = strconv.AppendInt(b, int64(n), 10)
		}
	}
	return b
}

func bitName(name func(int) string, n int) string {
	if name == nil {
		return ""
	}
	return name(n)
}

// SetText sets the attribute from what a user typed: what AppendText writes, and
// what the field's flag reads. Errors are *value.Error.
func (a *Attr[T]) SetText(t *T, text string) error {
	switch {
	case a.setText != nil:
		return a.setText(t, text)
	case a.addr != nil:
		p, err := value.Address(text)
		if err == nil && !a.SetAddr(t, p) {
			err = &value.Error{What: a.word(), Text: text,
				Valid: map[int]string{32: "an IPv4 address", 128: "an IPv6 address"}[a.Bits]}
		}
		return err
	case a.setData != nil && a.Kind == field.Bytes:
		d, err := hex.DecodeString(text)
		if err != nil {
			return &value.Error{What: a.word(), Text: text, Valid: "bytes in hexadecimal"}
		}
		a.setData(t, d)
		return nil
	case a.setData != nil:
		a.setData(t, []byte(text))
		return nil
	case a.setNum == nil:
		return &value.Error{What: a.word(), Text: text, Why: "it cannot be set"}
	}
	n, err := a.parseNum(text)
	if err == nil {
		a.setNum(t, n)
	}
	return err
}

func (a *Attr[T]) word() string {
	if a.Name != "" {
		return a.Name
	}
	return a.Path
}

func (a *Attr[T]) parseNum(text string) (uint64, error) {
	max := uint64(1)<<a.Bits - 1 // all ones for 64
	switch {
	case a.Kind == field.Time:
		return value.Time(text)
	case a.Kind == field.Flags:
		return parseFlags(a.Names, text, max)
	case a.Names != nil:
		return a.Names.Parse(text)
	}
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil || n > max {
		return 0, &value.Error{What: a.word(), Text: text, Valid: "a number from 0 to " + strconv.FormatUint(max, 10)}
	}
	return n, nil
}

// parseFlags reads words of bits joined by ',' or '|', or a number.
func parseFlags(names *value.Names, text string, max uint64) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := names.ParseBits(strings.ReplaceAll(text, "|", ","))
	if err == nil && n > max {
		err = &value.Error{What: names.What, Text: text, Valid: "bits up to " + strconv.FormatUint(max, 10)}
	}
	return n, err
}

// row makes the field of an attribute. Attributes that share a path make one
// field, of which addr serves both families.
func (a *Attr[T]) row() field.Row[T] {
	r := field.Row[T]{Path: a.Path, Kind: a.Kind, Doc: a.Doc, Names: a.Names, Parse: a.Parse,
		AppendNum: a.AppendNum, Bit: a.Bit, Hidden: a.Hidden, Data: a.data, Num: a.num, Need: a.need}
	if a.Name != "" {
		r.Aliases = append([]string{a.Name}, a.Aliases...)
	} else {
		r.Aliases = a.Aliases
	}
	if a.Bits > 0 && a.Bits < 64 {
		r.Max = 1<<a.Bits - 1
	}
	if a.Hex && r.AppendNum == nil {
		r.AppendNum = value.AppendHex
	}
	if a.always != nil {
		r.Num, r.Need = a.always, 0
	}
	if a.ip != nil {
		r.IP = a.ip
	}
	if at := a.addr; at != nil {
		r.Max = 0
		r.IP = func(t *T) (netip.Addr, bool) { p := *at(t); return p, p.IsValid() }
	}
	return r
}

// rows makes the fields of a table, in its order.
func rows[T any](table []Attr[T]) []field.Row[T] {
	var out []field.Row[T]
	at := map[string]int{}
	for i := range table {
		a := &table[i]
		if a.Path == "" {
			continue
		}
		if have, ok := at[a.Path]; ok {
			out[have].Aliases = append(out[have].Aliases, a.row().Aliases...)
			continue
		}
		at[a.Path] = len(out)
		out = append(out, a.row())
	}
	return out
}

// Find returns the row of a table with a name, alias or JSON path, or nil.
func Find[T any](table []Attr[T], name string) *Attr[T] {
	for i := range table {
		a := &table[i]
		if a.Name != "" && a.Name == name {
			return a
		}
	}
	for i := range table {
		a := &table[i]
		if a.Path == name {
			return a
		}
		for _, alias := range a.Aliases {
			if alias == name {
				return a
			}
		}
	}
	return nil
}

// Set sets an attribute of t from "NAME=VALUE", as a user types it: a name, alias
// or path of the table, and what SetText reads. An attribute that a request cannot
// set, on create or on update, is refused with the reason.
func Set[T any](table []Attr[T], t *T, text string, update bool) error {
	name, val, ok := strings.Cut(text, "=")
	if xor, is := strings.CutSuffix(name, "^"); is && ok {
		if f, flow := any(t).(*Flow); flow && strings.TrimSpace(xor) == "mark" && update {
			return flipMark(f, val)
		}
		return &value.Error{What: "attribute to flip bits of", Text: xor, Valid: "mark, of flows that are there"}
	}
	a := Find(table, strings.TrimSpace(name))
	if !ok || a == nil {
		e := &value.Error{What: "attribute", Text: text, Valid: "NAME=VALUE, with a name of 'nfctl attr list'"}
		if ok {
			e.Text, e.Near = name, value.Nearest(name, names(table))
		}
		return e
	}
	if ok, why := a.Settable(update); !ok {
		if why == "" {
			why = "it is no attribute of its own"
		}
		return &value.Error{What: "attribute", Text: name, Why: "it cannot be set: " + why}
	}
	if a.Kind == field.Flags && strings.TrimSpace(val) == "" {
		return &value.Error{What: a.Name, Text: val, Valid: "at least one name of 'nfctl attr values " + a.Name + "'"}
	}
	err := a.SetText(t, val)
	for i := range table { // attributes of other families may share the path
		b := &table[i]
		if err == nil || b.Path != a.Path || b == a || name == a.Name {
			continue
		}
		err = b.SetText(t, val)
	}
	return err
}

func names[T any](table []Attr[T]) (out []string) {
	for i := range table {
		out = append(out, table[i].Aliases...)
		for _, w := range []string{table[i].Name, table[i].Path} {
			if w != "" {
				out = append(out, w)
			}
		}
	}
	return out
}

// A Group is several attributes read or written in one call, under one name.
type Group struct {
	Name    string
	Number  int
	Members []string
}

// Groups are libnetfilter_conntrack's. The last four have a member for each
// family, of which a flow has one.
var Groups = []Group{
	{"grp-orig-ipv4", 0, []string{"orig-ipv4-src", "orig-ipv4-dst"}},
	{"grp-repl-ipv4", 1, []string{"repl-ipv4-src", "repl-ipv4-dst"}},
	{"grp-orig-ipv6", 2, []string{"orig-ipv6-src", "orig-ipv6-dst"}},
	{"grp-repl-ipv6", 3, []string{"repl-ipv6-src", "repl-ipv6-dst"}},
	{"grp-orig-port", 4, []string{"orig-port-src", "orig-port-dst"}},
	{"grp-repl-port", 5, []string{"repl-port-src", "repl-port-dst"}},
	{"grp-icmp", 6, []string{"icmp-id", "icmp-code", "icmp-type"}},
	{"grp-master-ipv4", 7, []string{"master-ipv4-src", "master-ipv4-dst"}},
	{"grp-master-ipv6", 8, []string{"master-ipv6-src", "master-ipv6-dst"}},
	{"grp-master-port", 9, []string{"master-port-src", "master-port-dst"}},
	{"grp-orig-counters", 10, []string{"orig-counter-packets", "orig-counter-bytes"}},
	{"grp-repl-counters", 11, []string{"repl-counter-packets", "repl-counter-bytes"}},
	{"grp-orig-addr-src", 12, []string{"orig-ipv4-src", "orig-ipv6-src"}},
	{"grp-orig-addr-dst", 13, []string{"orig-ipv4-dst", "orig-ipv6-dst"}},
	{"grp-repl-addr-src", 14, []string{"repl-ipv4-src", "repl-ipv6-src"}},
	{"grp-repl-addr-dst", 15, []string{"repl-ipv4-dst", "repl-ipv6-dst"}},
}
