package format

import (
	"strings"
	"unicode/utf8"
)

// table writes aligned columns. It holds lines back until flush, or until there
// are tableHold of them, and makes each column as wide as what it has seen.
type table[T any] struct {
	add []func(b []byte, t *T) []byte
	grid
}

const tableHold = 1000

// newTable returns a table of columns, of which users asked for these by name or not,
// that is to fit a terminal of width characters; 0: it may be as wide as it will. A
// table that turns stands on its side where it does not fit: a line for each column,
// and the last line, which sums up the others, first.
func newTable[T any](cols []Column[T], color bool, width int, asked, turns bool) *table[T] {
	tb := &table[T]{grid: grid{color: color, room: width, turns: turns}}
	for i := range cols {
		c := &cols[i]
		tb.add = append(tb.add, c.Append)
		tb.column(c.Name, c.Right, c.Tail, c.Stays || asked)
	}
	return tb
}

func (tb *table[T]) append(b []byte, t *T) []byte {
	for i := range tb.add {
		start := len(tb.text)
		tb.text = tb.add[i](tb.text, t)
		tb.end(i, start)
	}
	if len(tb.ends) >= tableHold*len(tb.add) {
		return tb.flush(b)
	}
	return b
}

// A grid is lines of cells, all with the same columns.
type grid struct {
	cols  []gridColumn
	color bool
	room  int // characters in a line; 0: any number
	turns bool
	begun bool   // a head was written
	some  bool   // columns are left out for want of room
	text  []byte // cells of the held lines, one behind the other
	ends  []int  // where each cell ends
}

type gridColumn struct {
	head               string
	right, tail, stays bool
	full               bool // some line has something else than nothing and 0
	gone               bool // left out
	width              int  // of what it has seen, in characters
	shown              int  // characters to which it is cut
}

func (g *grid) column(name string, right, tail, stays bool) {
	head := strings.ToUpper(name)
	g.cols = append(g.cols, gridColumn{head: head, right: right, tail: tail, stays: stays,
		width: utf8.RuneCountInString(head)})
}

// end ends the cell of column i that begins at start.
func (g *grid) end(i, start int) {
	if len(g.text) == start {
		g.text = append(g.text, '-')
	}
	g.text = printable(g.text, start)
	c, s := &g.cols[i], g.text[start:]
	c.full = c.full || string(s) != "-" && string(s) != "0"
	c.width = max(c.width, utf8.RuneCount(s))
	g.ends = append(g.ends, len(g.text))
}

// flush appends the held lines, under a head the first time and whenever there are
// other columns than before.
func (g *grid) flush(b []byte) []byte {
	if len(g.ends) == 0 {
		return b
	}
	if g.turns && g.room > 0 && g.span() > g.room {
		b = g.turned(b)
	} else {
		b = g.lines(b)
	}
	g.text, g.ends = g.text[:0], g.ends[:0]
	return b
}

func (g *grid) lines(b []byte) []byte {
	if g.fit() || !g.begun {
		g.begun = true
		for i := range g.cols {
			b = g.cell(b, i, g.cols[i].head, "1")
		}
		if g.some {
			b = append(b, " …"...)
		}
		b = append(b, '\n')
	}
	start := 0
	for k, end := range g.ends {
		i := k % len(g.cols)
		c := string(g.text[start:end])
		b = g.cell(b, i, c, colorOf(c))
		if i == len(g.cols)-1 {
			b = append(b, '\n')
		}
		start = end
	}
	return b
}

// turned appends the held lines side by side.
func (g *grid) turned(b []byte) []byte {
	n := len(g.ends) / len(g.cols)
	cell := func(line, col int) string {
		k, start := line*len(g.cols)+col, 0
		if k > 0 {
			start = g.ends[k-1]
		}
		return string(g.text[start:g.ends[k]])
	}
	side := grid{color: g.color, room: g.room}
	side.column(g.cols[0].head, false, false, true)
	for i := range n {
		side.column(cell((i+n-1)%n, 0), true, false, i == 0)
	}
	for col := 1; col < len(g.cols); col++ {
		for i := range n + 1 {
			start := len(side.text)
			if i == 0 {
				side.text = append(side.text, strings.ToLower(g.cols[col].head)...)
			} else {
				side.text = append(side.text, cell((i+n-2)%n, col)...)
			}
			side.end(i, start)
		}
	}
	for i := range side.cols {
		side.cols[i].full = true
	}
	if g.begun {
		b = append(b, '\n')
	}
	g.begun = true
	return side.flush(b)
}

// span is how wide a line is with the columns that are not left out.
func (g *grid) span() int {
	n := -2
	for i := range g.cols {
		if c := &g.cols[i]; !c.gone {
			n += c.width + 2
		}
	}
	return n
}

// Columns wider than this may be cut before others are left out: of those that are cut
// in the middle as much stays as an IPv4 address with a port takes. Numbers are never
// cut, others not to fewer than cutLeast characters.
const (
	cutText  = 16
	cutTail  = 21
	cutLeast = 4
)

// least is to how few characters a column is cut while others can be left out.
func (c *gridColumn) least() int {
	switch {
	case c.right:
		return c.width
	case c.tail:
		return min(c.width, cutTail)
	}
	return min(c.width, max(cutText, utf8.RuneCountInString(c.head)))
}

// fit chooses columns and their widths so that a line fits the room: columns without
// anything in them go, then those from the right, as far as cutting the widest does not
// do. What was shown is shown again. It reports whether the columns are others than
// before.
func (g *grid) fit() (changed bool) {
	first := !g.begun
	before := make([]bool, len(g.cols))
	for i := range g.cols {
		before[i] = g.cols[i].gone
		g.cols[i].gone = false
		g.cols[i].shown = g.cols[i].width
	}
	g.some = false
	if g.room == 0 || g.span() <= g.room {
		return g.others(before)
	}
	for i := range g.cols {
		c := &g.cols[i]
		c.gone = i > 0 && !c.stays && !c.full && (first || before[i])
	}
	room := g.room
	for i := len(g.cols) - 1; i > 0 && g.narrowest() > room; i-- {
		if c := &g.cols[i]; !c.stays && !c.gone {
			c.gone = true
			if !g.some {
				g.some, room = true, room-2
			}
		}
	}
	g.cut(room, (*gridColumn).least)
	g.cut(room, func(c *gridColumn) int {
		if c.right {
			return c.width
		}
		return min(c.width, cutLeast)
	})
	return g.others(before)
}

func (g *grid) others(before []bool) bool {
	for i := range g.cols {
		if g.cols[i].gone != before[i] {
			return true
		}
	}
	return false
}

// narrowest is how wide a line is when all columns are cut as far as may be.
func (g *grid) narrowest() int {
	n := -2
	for i := range g.cols {
		if c := &g.cols[i]; !c.gone {
			n += c.least() + 2
		}
	}
	return n
}

// cut takes characters off the widest columns until a line fits, or all are at their
// least.
func (g *grid) cut(room int, least func(*gridColumn) int) {
	n := -2
	for i := range g.cols {
		if c := &g.cols[i]; !c.gone {
			n += c.shown + 2
		}
	}
	for ; n > room; n-- {
		var widest *gridColumn
		for i := range g.cols {
			c := &g.cols[i]
			if !c.gone && c.shown > least(c) && (widest == nil || c.shown > widest.shown) {
				widest = c
			}
		}
		if widest == nil {
			return
		}
		widest.shown--
	}
}

// cell appends a cell of column i, cut and padded.
func (g *grid) cell(b []byte, i int, s, color string) []byte {
	c := &g.cols[i]
	if c.gone {
		return b
	}
	if i > 0 {
		b = append(b, "  "...)
	}
	s = shortened(s, c.shown, c.tail)
	pad := c.shown - utf8.RuneCountInString(s)
	if c.right {
		b = blanks(b, pad)
	}
	if g.color && color != "" {
		b = paint(b, color, s)
	} else {
		b = append(b, s...)
	}
	if !c.right && !g.last(i) {
		b = blanks(b, pad)
	}
	return b
}

// last reports whether no column stands to the right of i.
func (g *grid) last(i int) bool {
	for _, c := range g.cols[i+1:] {
		if !c.gone {
			return false
		}
	}
	return true
}

// shortened cuts a text to n characters: its end, or with tail its middle.
func shortened(s string, n int, tail bool) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	if !tail {
		return string(r[:n-1]) + "…"
	}
	end := n / 2
	return string(r[:n-1-end]) + "…" + string(r[len(r)-end:])
}
