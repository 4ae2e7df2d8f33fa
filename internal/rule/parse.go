package rule

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"nfctl/internal/filter"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// An Error is a rule that could not be read.
type Error struct {
	Text string // the rule
	File string // where it stands, if it came from a file
	Line int
	Err  error
}

func (e *Error) Error() string {
	if e.File != "" {
		return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("rule '%v': %v", queue.RuleName{Text: e.Text}, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Parse reads a rule. Errors are of type *Error.
func Parse(text string, o Options) (Rule, error) {
	p := parser{rest: text}
	r, err := p.rule(o)
	if err != nil {
		return Rule{}, &Error{Text: strings.TrimSpace(text), Err: err}
	}
	r.Text = strings.TrimSpace(text)
	return r, nil
}

// maxLine bounds a line of a file of rules, in bytes.
const maxLine = 1 << 20

// ParseFile reads rules, one a line; a line's part behind a # outside quotes is a
// comment, and empty lines are skipped. name is for messages. Errors are of type
// *Error.
func ParseFile(in io.Reader, name string, o Options) ([]Rule, error) {
	var rules []Rule
	p := parser{shapes: &shapes{byName: map[string]*shape{}}}
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxLine)
	for line := 1; s.Scan(); line++ {
		text := s.Text()
		if line == 1 {
			text = strings.TrimPrefix(text, "\ufeff") // byte order mark of some editors
		}
		text = strings.TrimSpace(uncomment(text))
		if text == "" {
			continue
		}
		p.rest = text
		r, err := p.rule(o)
		if err != nil {
			return nil, &Error{Text: text, File: name, Line: line, Err: err}
		}
		r.Text, r.File, r.Line = text, name, line
		rules = append(rules, r)
	}
	if err := s.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
		return nil, fmt.Errorf("%s: read: %w", name, err)
	}
	return rules, nil
}

// uncomment cuts a comment off a line.
func uncomment(s string) string {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '#':
			return s[:i]
		case '"', '\'':
			if n := quotedLen(s[i:]); n > 0 {
				i += n - 1
			}
		}
	}
	return s
}

// quotedLen returns the length of the quoted text that s begins with, 0 when it
// does not end.
func quotedLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			return i + 1
		}
	}
	return 0
}

type parser struct {
	rest   string
	shapes *shapes // nil: rules keep their conditions
	spare  *more   // for the next rule
}

// peek returns the next word without taking it. A word that begins with a quote
// ends with that quote; so does one that has a quote behind its first '='.
func (p *parser) peek() string {
	s := unspaced(p.rest)
	if s == "" {
		return ""
	}
	if s[0] == '"' || s[0] == '\'' {
		if n := quotedLen(s); n > 0 {
			return s[:n]
		}
		return s
	}
	end := 0
	for end < len(s) && s[end] != ' ' && s[end] != '\t' {
		end++
	}
	if i := strings.IndexByte(s[:end], '=') + 1; i > 1 && i < end && (s[i] == '"' || s[i] == '\'') {
		if n := quotedLen(s[i:]); n > 0 {
			return s[:i+n]
		}
	}
	return s[:end]
}

// unspaced returns s without the blanks that it begins with.
func unspaced(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	return s
}

func (p *parser) next() string {
	w := p.peek()
	p.rest = unspaced(p.rest)[len(w):]
	return w
}

// argument takes the next word as an action's argument.
func (p *parser) argument(action, valid string) (string, error) {
	w := p.peek()
	if w == "" || w == "if" {
		return "", &value.Error{What: action, Text: w, Valid: valid}
	}
	return p.next(), nil
}

func (p *parser) rule(o Options) (Rule, error) {
	if p.spare == nil {
		p.spare = new(more)
	}
	r := Rule{more: p.spare}
	p.spare = nil
	first := p.peek()
	if first == "" {
		return r, &value.Error{What: "rule", Text: p.rest,
			Valid: "an action: " + strings.Join(actionWords(false), ", ")}
	}
	some := false
	for {
		ok, err := p.action(&r, o)
		if err != nil {
			return r, err
		}
		if !ok {
			break
		}
		some = true
	}
	if row := whenOf(first); row != nil {
		return r, &value.Error{What: "action", Text: first, Valid: "an action in front of it, as drop " + first}
	}
	if !some {
		return r, &value.Error{What: "action", Text: first, Near: value.Nearest(first, actionWords(false)),
			Valid: "one of " + strings.Join(actionWords(false), ", ")}
	}
	if r.decides && r.verdict == queue.Repeat {
		if mark, _ := r.marks(); mark == 0 {
			return r, errNoMark
		}
	}
	if err := p.whens(&r); err != nil {
		return r, err
	}
	words, expr, conditional := p.condition()
	if words != "" {
		if w, ok := whenIn(words); ok {
			return r, &value.Error{What: "word here", Text: w,
				Valid: w + " behind the actions and in front of the flow, as drop " + w + " … tcp > :80"}
		}
		if w, _, _ := strings.Cut(words, " "); w == "flow" {
			return r, &value.Error{What: "word here", Text: w, Valid: "flow right behind " + flowWords()}
		}
		if !strings.Contains(words, ">") {
			if _, err := patternConds(words + " >"); err == nil && strings.Trim(words, "0123456789") != "" {
				return r, &value.Error{What: "flow", Text: words, Near: words + " >",
					Valid: "a flow in words, with its '>'"}
			}
			w, _, _ := strings.Cut(words, " ")
			if near := value.Nearest(w, slices.Concat(actionWords(false), whenWords(), []string{"if"})); near != "" {
				return r, &value.Error{What: "word here", Text: w, Near: near,
					Valid: "an action, " + strings.Join(whenWords(), ", ") +
						", a flow in words, or if and an expression"}
			}
		}
		var err error
		if r.conds, err = patternConds(words); err != nil {
			return r, err
		}
	}
	if conditional {
		if strings.TrimSpace(expr) == "" {
			return r, &value.Error{What: "condition", Text: "if", Valid: "an expression behind if"}
		}
		var err error
		if r.expr, err = filter.Compile(queue.Fields, expr); err != nil {
			return r, err
		}
	}
	p.shapes.pack(&r)
	p.spare = r.share()
	return r, nil
}

// whenIn finds a when among the words of a flow, which has no such words.
func whenIn(words string) (string, bool) {
	for w := range strings.FieldsSeq(words) {
		if whenOf(w) != nil {
			return w, true
		}
	}
	return "", false
}

// condition splits what follows the actions into a flow in words and an
// expression.
func (p *parser) condition() (words, expr string, conditional bool) {
	start := strings.TrimLeft(p.rest, " \t")
	p.rest = start
	for {
		w := p.peek()
		switch w {
		case "":
			return unquoted(strings.TrimSpace(start)), "", false
		case "if":
			before := start[:len(start)-len(strings.TrimLeft(p.rest, " \t"))]
			p.next()
			return unquoted(strings.TrimSpace(before)), p.rest, true
		}
		p.next()
	}
}

// unquoted takes the quotes off a pattern that was typed with them.
func unquoted(s string) string {
	if len(s) > 1 && (s[0] == '"' || s[0] == '\'') && quotedLen(s) == len(s) {
		return s[1 : len(s)-1]
	}
	return s
}

// action takes an action; false when none follows.
func (p *parser) action(r *Rule, o Options) (bool, error) {
	word := p.peek()
	row := actionOf(word)
	if row == nil {
		return false, nil
	}
	p.next()
	if row.Decides {
		if r.decides {
			words := actionWords(true)
			last := len(words) - 1
			return false, &value.Error{What: "second verdict", Text: word,
				Valid: "one of " + strings.Join(words[:last], ", ") + " and " + words[last] + " in a rule"}
		}
		r.decides, r.verdict = true, row.verdict
	}
	if row.flows && p.peek() == "flow" {
		p.next()
		r.flow = true
		r.asks = r.asks.Add(Needs{CopyRange: headerCopy})
	}
	r.asks = r.asks.Add(row.needs)
	if row.waits && o.Copies {
		r.asks.CopyRange = queue.MaxCopy
	}
	if row.read == nil {
		return true, nil
	}
	return true, row.read(p, r, o)
}

// quoted takes a quoted text, with the escapes of Go's string literals.
func (p *parser) quoted(what string) ([]byte, error) {
	w := p.peek()
	const valid = `a text in double quotes, as "GET" or "\x00\xff"`
	if len(w) < 2 || w[0] != '"' {
		return nil, &value.Error{What: what, Text: w, Valid: valid}
	}
	s, err := strconv.Unquote(w)
	if err != nil {
		return nil, &value.Error{What: what, Text: w, Valid: valid}
	}
	p.next()
	return []byte(s), nil
}
