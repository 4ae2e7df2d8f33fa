package lua

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// A matcher tries a pattern of Lua 5.1 at places of a text. It is our own because
// the interpreter's cannot be stopped: a pattern may take hours on a short text,
// and here a rule's time limit is looked at every lookEvery steps. Zero bytes are
// bytes like others, in patterns too.
//
// The pattern is taken item by item as it stands; p is a place in it and s one in
// the text, -1 no match. Only what may have to be tried again calls match anew, so
// that calls are nested no deeper than the pattern is long.
type matcher struct {
	L        *lua.LState // where errors are raised
	limit    *limit      // nil: none
	most     int         // a text that a replacement may make, in bytes
	src, pat string
	captures [maxCaptures]capture
	level    int // captures begun
	depth    int // calls of match under way
	steps    int // until the next look at the time
}

// A capture is a part of the text, or one of the lengths below.
type capture struct{ start, length int }

const (
	unclosed = -1
	position = -2 // "()": a number
)

const (
	maxCaptures = 32 // as in Lua
	maxDepth    = 8 << 10
	lookEvery   = 8 << 10
)

// newMatcher makes a matcher of text and pattern, arguments 1 and 2.
func (v *vm) newMatcher(L *lua.LState) matcher {
	return matcher{L: L, limit: v.limit, most: v.longest, src: text(L, 1), pat: text(L, 2)}
}

// at matches at s from p on and returns where the match ends.
func (m *matcher) at(s, p int) int {
	m.level, m.depth = 0, 0
	return m.match(s, p)
}

// took counts n steps.
func (m *matcher) took(n int) {
	if m.steps -= n; m.steps < 0 {
		m.steps = lookEvery
		if m.limit.over() {
			m.L.RaiseError("%s", errLate.Error())
		}
	}
}

func (m *matcher) match(s, p int) int {
	if m.depth++; m.depth > maxDepth {
		raise(m.L, "pattern too complex")
	}
	s = m.items(s, p)
	m.depth--
	return s
}

func (m *matcher) items(s, p int) int {
	for p < len(m.pat) {
		m.took(1)
		next := m.peek(p + 1)
		switch c := m.pat[p]; {
		case c == '(' && next == ')':
			return m.open(s, p+2, position)
		case c == '(':
			return m.open(s, p+1, unclosed)
		case c == ')':
			return m.close(s, p+1)
		case c == '$' && p+1 == len(m.pat):
			if s == len(m.src) {
				return s
			}
			return -1
		case c == '%' && next == 'b':
			if s = m.balanced(s, p+2); s < 0 {
				return -1
			}
			p += 4
			continue
		case c == '%' && next == 'f':
			if p += 2; m.peek(p) != '[' {
				raise(m.L, "missing '[' after '%%f' in pattern")
			}
			end := m.itemEnd(p)
			if m.inSet(m.byteAt(s-1), p, end) || !m.inSet(m.byteAt(s), p, end) {
				return -1
			}
			p = end
			continue
		case c == '%' && '0' <= next && next <= '9':
			if s = m.again(s, int(next-'1')); s < 0 {
				return -1
			}
			p += 2
			continue
		}
		end := m.itemEnd(p)
		switch m.peek(end) {
		case '?':
			if m.one(s, p, end) {
				if to := m.match(s+1, end+1); to >= 0 {
					return to
				}
			}
			p = end + 1
		case '*':
			return m.longest(s, s, p, end)
		case '+':
			return m.longest(s, s+1, p, end)
		case '-':
			return m.shortest(s, p, end)
		default:
			if !m.one(s, p, end) {
				return -1
			}
			s, p = s+1, end
		}
	}
	return s
}

// peek returns the pattern's byte at p, -1 behind its end.
func (m *matcher) peek(p int) int {
	if p < len(m.pat) {
		return int(m.pat[p])
	}
	return -1
}

// byteAt returns the text's byte at s, 0 before and behind it.
func (m *matcher) byteAt(s int) byte {
	if s >= 0 && s < len(m.src) {
		return m.src[s]
	}
	return 0
}

// itemEnd returns where the single character item at p ends.
func (m *matcher) itemEnd(p int) int {
	c := m.pat[p]
	p++
	switch c {
	case '%':
		if p == len(m.pat) {
			raise(m.L, "malformed pattern (ends with '%%')")
		}
		return p + 1
	case '[':
		if m.peek(p) == '^' {
			p++
		}
		for first := true; first || m.peek(p) != ']'; first = false {
			switch m.peek(p) {
			case -1:
				raise(m.L, "malformed pattern (missing ']')")
			case '%':
				p++
			}
			p++
			m.took(1)
		}
		return p + 1
	}
	return p
}

// one reports whether the item from p to end matches the text's byte at s.
func (m *matcher) one(s, p, end int) bool {
	m.took(1)
	if s >= len(m.src) {
		return false
	}
	c := m.src[s]
	switch m.pat[p] {
	case '.':
		return true
	case '%':
		return inClass(c, m.pat[p+1])
	case '[':
		return m.inSet(c, p, end)
	default:
		return m.pat[p] == c
	}
}

// inSet reports whether c is in the set "[...]" from p to end.
func (m *matcher) inSet(c byte, p, end int) bool {
	m.took(end - p)
	in := true
	if p++; m.pat[p] == '^' {
		in = false
		p++
	}
	for last := end - 1; p < last; p++ {
		switch {
		case m.pat[p] == '%':
			if p++; inClass(c, m.pat[p]) {
				return in
			}
		case m.pat[p+1] == '-' && p+2 < last:
			if m.pat[p] <= c && c <= m.pat[p+2] {
				return in
			}
			p += 2
		case m.pat[p] == c:
			return in
		}
	}
	return !in
}

// inClass reports whether c is in the class %x; an upper case letter is the
// opposite, anything else itself.
func inClass(c, x byte) bool {
	lower := x | 0x20
	var in bool
	switch lower {
	case 'a':
		in = isLetter(c)
	case 'c':
		in = c < ' ' || c == 0x7f
	case 'd':
		in = isDigit(c)
	case 'l':
		in = isLetter(c) && c&0x20 != 0
	case 'p':
		in = '!' <= c && c <= '~' && !isLetter(c) && !isDigit(c)
	case 's':
		in = c == ' ' || '\t' <= c && c <= '\r'
	case 'u':
		in = isLetter(c) && c&0x20 == 0
	case 'w':
		in = isLetter(c) || isDigit(c)
	case 'x':
		in = isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f'
	case 'z':
		in = c == 0
	default:
		return c == x
	}
	return in == (x == lower)
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// longest matches the item from p to end as often as it can from s on, and takes
// back as much as what follows needs, but stays at least at least.
func (m *matcher) longest(s, least, p, end int) int {
	to := s
	for m.one(to, p, end) {
		to++
	}
	for ; to >= least; to-- {
		if e := m.match(to, end+1); e >= 0 {
			return e
		}
	}
	return -1
}

// shortest matches the item as seldom as what follows allows.
func (m *matcher) shortest(s, p, end int) int {
	for {
		if e := m.match(s, end+1); e >= 0 {
			return e
		}
		if !m.one(s, p, end) {
			return -1
		}
		s++
	}
}

// balanced matches %bxy, whose x is at p.
func (m *matcher) balanced(s, p int) int {
	if p+1 >= len(m.pat) {
		raise(m.L, "unbalanced pattern")
	}
	first, last := m.pat[p], m.pat[p+1]
	if s >= len(m.src) || m.src[s] != first {
		return -1
	}
	for depth := 1; ; {
		m.took(1)
		s++
		switch {
		case s >= len(m.src):
			return -1
		case m.src[s] == last:
			if depth--; depth == 0 {
				return s + 1
			}
		case m.src[s] == first:
			depth++
		}
	}
}

// open begins a capture.
func (m *matcher) open(s, p, length int) int {
	if m.level >= maxCaptures {
		raise(m.L, "too many captures")
	}
	m.captures[m.level] = capture{s, length}
	m.level++
	e := m.match(s, p)
	if e < 0 {
		m.level--
	}
	return e
}

// close ends the capture that was begun last.
func (m *matcher) close(s, p int) int {
	n := m.level - 1
	for n >= 0 && m.captures[n].length != unclosed {
		n--
	}
	if n < 0 {
		raise(m.L, "invalid pattern capture")
	}
	c := &m.captures[n]
	c.length = s - c.start
	e := m.match(s, p)
	if e < 0 {
		c.length = unclosed
	}
	return e
}

// again matches what capture n has.
func (m *matcher) again(s, n int) int {
	if n < 0 || n >= m.level || m.captures[n].length == unclosed {
		raise(m.L, "invalid capture index")
	}
	c := m.captures[n]
	if c.length == position {
		return -1
	}
	m.took(c.length / 16)
	if !strings.HasPrefix(m.src[s:], m.src[c.start:c.start+c.length]) {
		return -1
	}
	return s + c.length
}

// result returns capture n of the match from s to e; without captures 0 is all of
// it.
func (m *matcher) result(n, s, e int) lua.LValue {
	if n >= m.level {
		if n != 0 {
			raise(m.L, "invalid capture index")
		}
		return lua.LString(m.src[s:e])
	}
	switch c := m.captures[n]; c.length {
	case position:
		return lua.LNumber(c.start + 1)
	case unclosed:
		raise(m.L, "unfinished capture")
		return nil
	default:
		return lua.LString(m.src[c.start : c.start+c.length])
	}
}

// pushResults pushes all captures, or else the whole match, and returns how many.
func (m *matcher) pushResults(s, e int) int {
	n := max(m.level, 1)
	for i := range n {
		m.L.Push(m.result(i, s, e))
	}
	return n
}
