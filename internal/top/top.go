// Package top is the live screen of flows: what it shows, as text, and what keys do to
// it. It knows nothing of commands, and of terminals only how to open and draw on one.
package top

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// Kept is how many flows of the order the screen has: more are counted, not shown.
const Kept = 1000

// A column is something to sort by.
type column struct {
	path, name string
	desc       bool // the largest first, unless turned round
}

var columns = []column{
	{"rate.bytes", "bytes/s", true}, {"rate.packets", "packets/s", true}, {"bytes", "bytes", true},
	{"packets", "packets", true}, {"timeout", "timeout", false}, {"proto", "proto", false},
	{"state", "state", false}, {"orig.src", "source", false}, {"orig.dst", "destination", false},
	{"orig.dport", "port", false},
}

// sums are those that groups have; the field they are grouped by comes behind.
var sums = append(columns[:4:4], column{"count", "flows", true})

// groups are the fields that flows are grouped by, one after the other at a key's press.
var groups = []string{"", "orig.src", "orig.dst", "orig.dport", "proto"}

// A Drops is what the kernel lost since the screen began.
type Drops struct {
	Known                     bool
	Drop, EarlyDrop, NoInsert uint64
}

// A State is the screen's: what it was shown, and what keys made of it.
type State struct {
	chosen string // what chooses the flows, in words; "": all
	round  table.Round
	before time.Time // when the round before began
	most   uint64
	drops  Drops

	subject *format.Subject[format.Group] // of groups
	next    *format.Subject[format.Group] // of those that Ask asked for
	order   int                           // index into the columns
	turned  bool
	group   int
	at, off int // the line chosen, and the first that is shown
	rows    int // lines that there was room for
	paused  bool
	help    bool
	detail  *ct.Flow // what is shown alone
	gone    bool     // it was not among the flows of the latest listing
	skip    int      // its lines that are scrolled away
	ask     *ct.Flow // whether to delete it
	note    string
}

// New returns the screen of flows that words choose.
func New(chosen string) *State { return &State{chosen: chosen} }

// An Action is what a key asks of whoever runs the screen.
type Action int

const (
	Nothing Action = iota
	Draw           // the screen is another one
	Redraw         // all of it is to be drawn again
	List           // the order is another one: see Ask
	Remove         // the flow that Doomed returns is to be deleted
	Quit
)

func (s *State) columns() []column {
	if s.group == 0 {
		return columns
	}
	return append(sums[:len(sums):len(sums)], column{groups[s.group], groups[s.group], false})
}

// Paused reports whether the table is not to be listed again.
func (s *State) Paused() bool { return s.paused }

// Ask has r list what the screen is to show next.
func (s *State) Ask(r *table.Repeat) error {
	c := s.columns()[s.order]
	text := c.path
	if c.desc != s.turned {
		text += ":desc"
	}
	r.By, r.GroupOrder, r.Order, r.Limit = nil, nil, nil, Kept
	if s.group == 0 {
		order, err := table.FlowOrder(text)
		r.Order = order
		return err
	}
	by, err := table.GroupFields([]string{groups[s.group]})
	if err != nil {
		return err
	}
	var rows []*field.Row[ct.Flow]
	s.next, rows = format.Groups(by...)
	r.By = rows
	r.GroupOrder, err = table.ParseOrder(s.next.Fields, text)
	return err
}

// Show gives the screen what a listing found, how many flows there may be, and what the
// kernel lost.
func (s *State) Show(round table.Round, most uint64, drops Drops) {
	s.before, s.round, s.most, s.drops = s.round.Time, round, most, drops
	s.subject = s.next
	s.at = max(0, min(s.at, s.lines()-1))
	if s.detail == nil {
		return
	}
	s.gone = true
	for _, f := range round.Flows {
		if f.Sum() == s.detail.Sum() {
			s.detail, s.gone = f, false
		}
	}
}

// Say shows a line at the bottom until the next key.
func (s *State) Say(text string) { s.note = text }

// Doomed returns the flow to delete.
func (s *State) Doomed() *ct.Flow { return s.ask }

func (s *State) lines() int {
	if s.round.Groups != nil {
		return min(len(s.round.Groups), Kept)
	}
	return len(s.round.Flows)
}

// Key does what a key asks.
func (s *State) Key(k Key) Action {
	s.note = ""
	if k == interrupt {
		return Quit
	}
	if k == redraw {
		return Redraw
	}
	switch {
	case s.ask != nil:
		if k == 'y' || k == 'Y' {
			return Remove // the question stays, until Deleted
		}
		s.ask, s.note = nil, "nothing was deleted"
		return Draw
	case s.help:
		s.help = false
		return Draw
	case s.detail != nil && (k == 'q' || k == Escape || k == enter):
		s.detail = nil
		return Draw
	case s.detail != nil && (k == Up || k == 'k'):
		s.skip--
		return Draw
	case s.detail != nil && (k == Down || k == 'j'):
		s.skip++
		return Draw
	}
	switch k {
	case 'q', 'Q':
		return Quit
	case '?', 'h', F1:
		s.help = true
	case 'p':
		s.paused = !s.paused
		if !s.paused {
			return List
		}
	case '>', '.', '<', ',':
		n, step := len(s.columns()), 1
		if k == '<' || k == ',' {
			step = n - 1
		}
		s.order, s.turned = (s.order+step)%n, false
		return s.list()
	case 'I':
		s.turned = !s.turned
		return s.list()
	case 't':
		s.group, s.order, s.turned, s.at, s.off = (s.group+1)%len(groups), 0, false, 0, 0
		s.detail = nil
		return s.list()
	case Up, 'k':
		s.at--
	case Down, 'j':
		s.at++
	case PageUp, 'b':
		s.at -= max(1, s.rows)
	case PageDown, ' ', 'f':
		s.at += max(1, s.rows)
	case Home, 'g':
		s.at = 0
	case End, 'G':
		s.at = s.lines()
	case enter:
		s.detail, s.gone, s.skip = s.selected(), false, 0
		if s.detail == nil {
			s.note = "details are those of a flow: t groups by something else, or not"
		}
	case 'd', Delete:
		if s.ask = s.selected(); s.ask == nil {
			s.note = "one flow is deleted, not a group: t groups by something else, or not"
		}
	default:
		return Nothing
	}
	s.at = max(0, min(s.at, s.lines()-1))
	return Draw
}

// list asks for the table in another order, unless it is paused.
func (s *State) list() Action {
	if s.paused {
		s.note = "paused: p goes on, in this order"
		return Draw
	}
	return List
}

// Deleted says how deleting the flow went.
func (s *State) Deleted(err error) {
	if s.note = "deleted " + words(s.ask); err != nil {
		s.note = err.Error()
	}
	s.ask = nil
}

// selected is the flow that is shown alone, or on the line chosen; nil: none.
func (s *State) selected() *ct.Flow {
	switch {
	case s.detail != nil:
		return s.detail
	case s.round.Groups != nil || s.at >= len(s.round.Flows):
		return nil
	}
	return s.round.Flows[s.at]
}

func words(f *ct.Flow) string { return string(ct.AppendFlow(nil, f)) }

// A Line of the screen.
type Line struct {
	Text    string // no wider than the screen
	Reverse bool   // to be shown as in reverse
}

// smallest is the screen that has room for anything.
const (
	leastWidth  = 40
	leastHeight = 8
)

// Screen returns the lines of a screen of so many columns and lines.
func (s *State) Screen(width, height int) []Line {
	if width < leastWidth || height < leastHeight {
		return cut([]Line{{Text: fmt.Sprintf("%dx%d: too small, want %dx%d", width, height, leastWidth, leastHeight)}},
			width, height)
	}
	lines := s.head()
	switch {
	case s.help:
		lines = append(lines, Line{})
		for _, text := range strings.Split(help, "\n") {
			lines = append(lines, Line{Text: text})
		}
	case s.detail != nil:
		lines = append(lines, s.details(height-len(lines)-1)...)
	default:
		lines = append(lines, s.table(width, height-len(lines)-1)...)
	}
	lines = lines[:min(len(lines), height-1)]
	for len(lines) < height-1 {
		lines = append(lines, Line{})
	}
	return cut(append(lines, Line{Text: s.foot(), Reverse: s.ask != nil}), width, height)
}

func cut(lines []Line, width, height int) []Line {
	lines = lines[:min(len(lines), max(0, height))]
	for i := range lines {
		if r := []rune(lines[i].Text); len(r) > width {
			lines[i].Text = string(r[:max(0, width-1)]) + "…"
		}
	}
	return lines
}

func (s *State) head() []Line {
	r := &s.round
	if r.Time.IsZero() {
		return []Line{{Text: "nfctl ct top"}, {Text: "reading the table"}, {}}
	}
	first := fmt.Sprintf("nfctl ct top  %s  %d flows", r.Time.Format(time.TimeOnly), r.Seen)
	if s.most > 0 {
		first += fmt.Sprintf(" of %d (%d %%)", s.most, r.Seen*100/s.most)
	}
	if passed := r.Time.Sub(s.before).Seconds(); r.Rated && passed > 0 {
		a := func(n uint64) string { return strconv.FormatFloat(float64(n)/passed, 'f', 0, 64) }
		first += "  new " + a(r.Began) + "/s  ended " + a(r.Ended) + "/s"
	}
	second := "traffic: the kernel counts none (sysctl net.netfilter.nf_conntrack_acct=1 has it do so)"
	switch {
	case !r.Rated:
		second = "traffic: known with the next listing"
	case r.Rate.Known || r.Seen == 0:
		second = fmt.Sprintf("traffic: %d packets/s  %d bytes/s", r.Rate.Packets, r.Rate.Bytes)
	}
	if d := s.drops; d.Known {
		second = fmt.Sprintf("dropped: %d  early: %d  not inserted: %d  %s", d.Drop, d.EarlyDrop, d.NoInsert, second)
	}
	c := s.columns()[s.order]
	way := "smallest first"
	if c.desc != s.turned {
		way = "largest first"
	}
	third := fmt.Sprintf("by %s, %s", c.name, way)
	if s.group > 0 {
		third += "; flows grouped by " + groups[s.group]
	}
	if s.chosen != "" {
		third += fmt.Sprintf("; %d chosen by %s", r.Chosen, s.chosen)
	}
	if s.paused {
		third = "PAUSED; " + third
	}
	if r.Dump.Incomplete {
		third += "; the kernel resized its table: flows may be missing"
	}
	return []Line{{Text: first}, {Text: second}, {Text: third}}
}

// table is the flows or groups that there is room for, under a head.
func (s *State) table(width, height int) []Line {
	s.rows = height - 1
	s.off = max(0, min(s.off, s.at), s.at-s.rows+1)
	s.off = max(0, min(s.off, s.lines()-s.rows))
	end := min(s.lines(), s.off+s.rows)
	out := format.Output{Format: format.Table, Width: width, Terminal: true}
	var text []byte
	if s.round.Groups != nil {
		text = printed(s.subject, out, s.round.Groups[s.off:end])
	} else {
		var flows []ct.Flow
		for _, f := range s.round.Flows[s.off:end] {
			flows = append(flows, *f)
		}
		text = printed(format.Flows, out, flows)
	}
	var lines []Line
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		at := s.off + len(lines) - 1
		reverse := len(lines) == 0 || at == s.at
		if pad := width - utf8.RuneCountInString(line); reverse && pad > 0 {
			line += strings.Repeat(" ", pad)
		}
		lines = append(lines, Line{line, reverse})
	}
	if len(lines) == 0 && !s.round.Time.IsZero() {
		lines = []Line{{}, {Text: "no flows"}}
		if s.chosen == "" {
			lines[1].Text += ": nothing in this network namespace asks for tracking, see nfctl doctor"
		}
	}
	return lines
}

func printed[T any](s *format.Subject[T], o format.Output, objects []T) []byte {
	p, err := format.New(s, o, format.Options{Rates: true})
	if err != nil {
		return []byte(err.Error())
	}
	var b []byte
	for i := range objects {
		b = p.Append(b, &objects[i])
	}
	return p.Flush(b)
}

// details are all fields of a flow, a line each, as many as there is room for.
func (s *State) details(height int) []Line {
	lines := []Line{{}, {Text: words(s.detail)}}
	if s.gone {
		lines[1].Text += "   (ended, or no longer among those listed)"
	}
	rows := ct.FlowFields.Rows()
	for i := range rows {
		r := &rows[i]
		if slices.Contains([]string{"kind", "time", "proto_num", "family"}, r.Path) || r.Hidden || !r.Has(s.detail) {
			continue
		}
		value := format.RowColumn(r).Append(nil, s.detail)
		lines = append(lines, Line{Text: fmt.Sprintf("  %-20s %s", r.Path, harmless(string(value)))})
	}
	s.skip = max(0, min(s.skip, len(lines)-height))
	return append(lines[:2:2], lines[2+s.skip:]...)
}

// harmless takes away what moves a terminal's cursor.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

func (s *State) foot() string {
	switch {
	case s.ask != nil:
		return "Delete? [y/N] " + words(s.ask)
	case s.note != "":
		return harmless(s.note)
	case s.help:
		return "any key goes back"
	case s.detail != nil:
		return "q back  Up Down scroll  d delete  p pause  ? help"
	}
	text := "? help  q quit  p pause  < > sort  t group  Enter details  d delete"
	if n := s.lines(); n > s.rows {
		text = fmt.Sprintf("%d-%d of %d  ", s.off+1, min(n, s.off+s.rows), n) + text
	}
	return text
}

const help = `  Up Down j k         one line up or down
  PgUp PgDn b Space   one screen up or down
  Home End g G        to the first or the last line
  < >                 sort by the field before or behind
  I                   turn the order round
  t                   group by source, destination, port, protocol, not at all
  Enter               all that is known of a flow; again, or q: back
  d Delete            delete a flow, after a question
  p                   pause, go on
  Ctrl-L              draw again
  ? h F1              this page
  q Ctrl-C            end`
