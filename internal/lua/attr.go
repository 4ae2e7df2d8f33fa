package lua

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"
	"syscall"

	lua "github.com/yuin/gopher-lua"

	"nfctl/internal/ct"
	"nfctl/internal/lazy"
	"nfctl/internal/value"
)

// An attribute is what a name stands for: an attribute of a flow or of an
// expectation, or a group of a flow's.
type attribute struct {
	flow    *ct.Attr[ct.Flow]
	expect  *ct.Attr[ct.Expect]
	members []*ct.Attr[ct.Flow]
	group   bool
	inert   bool // setting it only marks it as present, with 0
}

// attributes returns all names: those of the attribute tables, their aliases, and
// the groups. The names that end the C tables are there too, as groups of nothing.
var attributes = lazy.Value[map[string]*attribute]{Make: func() map[string]*attribute {
	all := map[string]*attribute{"grp-max": {group: true}}
	for i := range ct.FlowAttrs() {
		a := &ct.FlowAttrs()[i]
		if a.Name == "" || a.Number < 0 {
			continue
		}
		x := &attribute{flow: a, inert: a.Name == "use" || strings.Contains(a.Name, "-counter-")}
		all[a.Name] = x
		for _, alias := range a.Aliases {
			all[alias] = x
		}
	}
	for i := range ct.Groups {
		g := &ct.Groups[i]
		x := &attribute{group: true}
		for _, m := range g.Members {
			x.members = append(x.members, ct.Find(ct.FlowAttrs(), m))
		}
		all[g.Name] = x
	}
	for i := range ct.ExpectAttrs() {
		if a := &ct.ExpectAttrs()[i]; a.Name != "" {
			all[a.Name] = &attribute{expect: a}
		}
	}
	return all
}}

// attr returns the attribute that argument n names and that the object of
// argument 1 can have.
func attr(L *lua.LState) (*attribute, *ctObject, *expObject) {
	if u, ok := L.Get(1).(*lua.LUserData); ok {
		if e, ok := u.Value.(*expObject); ok && e.alive() {
			if a := attributes.Get()[text(L, 2)]; a != nil && a.expect != nil {
				return a, nil, e
			}
			argError(L, 2, "invalid option '%s'", text(L, 2))
		}
	}
	c := handle[*ctObject](L, 1, "conntrack")
	name := text(L, 2)
	a := attributes.Get()[name]
	if a == nil || a.expect != nil {
		argError(L, 2, "invalid option '%s'", name)
	}
	return a, c, nil
}

// A number's width and order in a getter's or setter's name.
type numType struct {
	bytes   int
	network bool
}

// Stored are network order and, of what has none, the processor's own.
func (t numType) read(stored []byte) uint64 {
	var b [8]byte
	copy(b[:t.bytes], stored)
	n := binary.LittleEndian.Uint64(b[:])
	if t.network || bigEndian {
		n = bits.ReverseBytes64(n) >> (64 - 8*t.bytes)
	}
	return n
}

func (t numType) write(n uint64) []byte {
	if t.network || bigEndian {
		n = bits.ReverseBytes64(n << (64 - 8*t.bytes))
	}
	return binary.LittleEndian.AppendUint64(nil, n)[:t.bytes]
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// getNum is get_attr_u8 and its kin. What is not set is 0; a group has a value for
// each member.
func getNum(t numType) lua.LGFunction {
	return func(L *lua.LState) int {
		a, c, e := attr(L)
		var buf [64]byte
		if e != nil {
			stored, _ := a.expect.AppendStored(buf[:0], e.expect)
			L.Push(lua.LNumber(t.read(stored)))
			return 1
		}
		if a.group {
			if len(a.members) == 0 {
				L.Push(lua.LNumber(0))
				return 1
			}
			for _, m := range a.members {
				stored, _ := m.AppendStored(buf[:0], c.flow)
				L.Push(lua.LNumber(t.read(stored)))
			}
			return len(a.members)
		}
		stored, _ := a.flow.AppendStored(buf[:0], c.flow)
		L.Push(lua.LNumber(t.read(stored)))
		return 1
	}
}

// setNum is set_attr_u8 and its kin.
func setNum(t numType) lua.LGFunction {
	return func(L *lua.LState) int {
		a, c, e := attr(L)
		switch {
		case e != nil:
			a.expect.SetStored(e.expect, t.write(integer(number(L, 3))))
		case a.group:
			for i, m := range a.members {
				m.SetStored(c.flow, t.write(integer(number(L, 3+i))))
			}
		default:
			n := integer(number(L, 3))
			if a.inert {
				a.flow.SetNum(c.flow, 0)
			} else {
				a.flow.SetStored(c.flow, t.write(n))
			}
		}
		L.Push(L.Get(1))
		return 1
	}
}

// getAddr is get_attr_ipv4 and get_attr_ipv6, for addresses of so many bytes.
func getAddr(size int) lua.LGFunction {
	push := func(L *lua.LState, stored []byte) {
		var b [16]byte
		copy(b[:], stored)
		p := netip.AddrFrom16(b)
		if size == 4 {
			p = netip.AddrFrom4([4]byte(b[:4]))
		}
		L.Push(lua.LString(value.AppendAddr(nil, p)))
	}
	return func(L *lua.LState) int {
		a, c, e := attr(L)
		list := a.members
		if e != nil {
			stored, ok := a.expect.AppendStored(nil, e.expect)
			if !ok {
				return failErrno(L, syscall.ENODATA)
			}
			push(L, stored)
			return 1
		}
		if !a.group {
			list = []*ct.Attr[ct.Flow]{a.flow}
		}
		n := 0
		for _, m := range list {
			if stored, ok := m.AppendStored(nil, c.flow); ok {
				push(L, stored)
				n++
			}
		}
		if n == 0 {
			return failErrno(L, syscall.ENODATA)
		}
		return n
	}
}

// setAddr is set_attr_ipv4 and set_attr_ipv6. A text that is no address sets
// nothing.
func setAddr(size int) lua.LGFunction {
	return func(L *lua.LState) int {
		a, c, e := attr(L)
		if e != nil {
			argError(L, 2, "invalid option '%s'", text(L, 2))
		}
		list := a.members
		if !a.group {
			list = []*ct.Attr[ct.Flow]{a.flow}
		}
		addrs := make([]netip.Addr, len(list))
		for i := range list {
			p, err := netip.ParseAddr(text(L, 3+i))
			if err != nil || p.Zone() != "" || p.Is4() != (size == 4) {
				return failErrno(L, syscall.EINVAL)
			}
			addrs[i] = p
		}
		for i, m := range list {
			m.SetStored(c.flow, addrs[i].AsSlice())
		}
		L.Push(L.Get(1))
		return 1
	}
}

// A words table names numbers as the C modules do: exactly, the first name wins.
type words struct {
	num  map[string]uint64
	word map[uint64]string
}

func wordsOf(names *value.Names, without ...string) *words {
	w := &words{map[string]uint64{}, map[uint64]string{}}
list:
	for _, n := range names.List() {
		for _, no := range without {
			if n.Word == no {
				continue list
			}
		}
		if n.Num > 255 {
			continue
		}
		w.num[n.Word] = n.Num
		if w.word[n.Num] == "" {
			w.word[n.Num] = n.Word
		}
	}
	return w
}

var (
	families  = lazy.Value[*words]{Make: func() *words { return wordsOf(value.Families, "ipv4", "ipv6") }}
	protocols = lazy.Value[*words]{Make: func() *words { return wordsOf(value.Protocols) }}
)

// lookup returns the number that argument n names.
func (w *words) lookup(L *lua.LState, n int) uint64 {
	s := text(L, n)
	num, ok := w.num[s]
	if !ok {
		argError(L, n, "invalid option '%s'", s)
	}
	return num
}

// getWord is get_attr_pf and get_attr_ipproto: a number without a name is returned
// as it is.
func getWord(names func() *words) lua.LGFunction {
	get := getNum(numType{bytes: 1})
	return func(L *lua.LState) int {
		n := get(L)
		for i := -n; i < 0; i++ {
			num, _ := L.Get(i).(lua.LNumber)
			if w := names().word[uint64(num)]; w != "" {
				L.Replace(L.GetTop()+1+i, lua.LString(w))
			}
		}
		return n
	}
}

func setWord(names func() *words) lua.LGFunction {
	set := setNum(numType{bytes: 1})
	return func(L *lua.LState) int {
		attr(L) // its errors come first
		for i := 3; i <= max(3, L.GetTop()); i++ {
			L.Replace(i, lua.LNumber(names().lookup(L, i)))
		}
		return set(L)
	}
}

// swap16 is ntohs and htons.
func swap16(L *lua.LState) int {
	n := uint16(integer(number(L, 1)))
	if !bigEndian {
		n = bits.ReverseBytes16(n)
	}
	L.Push(lua.LNumber(n))
	return 1
}
