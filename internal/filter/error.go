package filter

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/parser/lexer"

	"nfctl/internal/value"
)

// An Error is an expression that is not one, or that could never be meant.
type Error struct {
	Column int    // where, in characters from 1
	Word   string // what is wrong, as typed; "" when something is missing
	Msg    string // what is wrong with it, as it goes on behind the word
	Near   string // the nearest right word, or ""
	Valid  string // what would have been right, or ""
}

func (e *Error) Error() string {
	s := fmt.Sprintf("column %d: ", e.Column)
	if e.Word != "" || strings.HasPrefix(e.Msg, "is ") { // an empty text is a word too
		s += fmt.Sprintf("%q ", e.Word)
	}
	s += e.Msg
	if e.Near != "" {
		s += fmt.Sprintf(" (did you mean %q?)", e.Near)
	}
	if e.Valid != "" {
		s += ": " + e.Valid
	}
	return s
}

// words of the grammar: they are operators or literals wherever they stand.
var words = []string{"not", "and", "or", "in", "matches", "contains", "startsWith", "endsWith",
	"let", "if", "else", "true", "false", "nil"}

// functions are the built-ins that are on.
var functions = []string{"len", "any", "all", "none", "lower", "upper"}

// ReservedWord reports whether s is a word or a function of the language, which
// no field may be called.
func ReservedWord(s string) bool {
	for _, list := range [][]string{words, functions} {
		for _, w := range list {
			if w == s {
				return true
			}
		}
	}
	return false
}

// Limits on what is parsed: the parser recurses, and rules may come from files.
const (
	maxText      = 4 << 20
	maxDepth     = 200
	maxOperators = 10000 // commas and brackets not counted: lists may be long
)

// parse makes a syntax tree, or says in our words why there is none.
func parse(text string) (tree *parser.Tree, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, &Error{Column: 1, Msg: "there is no expression", Valid: "as tcp.dport == 22"}
	}
	if len(text) > maxText {
		return nil, &Error{Column: 1, Msg: "the expression is longer than 4 MiB"}
	}
	tokens, err := lexer.Lex(file.NewSource(text))
	if err != nil {
		return nil, lexError(text, err)
	}
	if err := scan(text, tokens); err != nil {
		return nil, err
	}
	defer func() {
		// The parser is not ours: whatever it may trip over is a wrong expression,
		// not the end of the program.
		if recover() != nil {
			tree, err = nil, &Error{Column: 1, Msg: "the expression cannot be read"}
		}
	}()
	small, err := smallNumbers(text, tokens)
	if err != nil {
		return nil, err
	}
	tree, err = parser.ParseWithConfig(small, &conf.Config{}) // no limit on nodes: lists may be long
	if err != nil {
		return nil, parseError(text, tokens, err)
	}
	return tree, nil
}

// smallNumbers returns the text with zeros in place of each whole number from 2^31
// up: the parser keeps them in an int, which may have 32 bits. The compiler takes
// them from the text as typed.
func smallNumbers(text string, tokens []lexer.Token) (string, error) {
	var small []rune
	for _, t := range tokens {
		if t.Kind != lexer.Number || isFloat(t.Value) {
			continue
		}
		n, err := parseInt(t.Value)
		if err != nil {
			return "", notNumber(text, t)
		}
		if n <= math.MaxInt32 {
			continue
		}
		if small == nil {
			small = []rune(text)
		}
		for i := t.From; i < t.To; i++ {
			small[i] = '0'
		}
	}
	if small == nil {
		return text, nil
	}
	return string(small), nil
}

func isFloat(number string) bool {
	return strings.ContainsAny(number, ".eE") && !strings.HasPrefix(strings.ToLower(number), "0x")
}

// parseInt reads a whole number as the grammar has it: a leading 0 alone means nothing.
func parseInt(number string) (int64, error) {
	number = strings.ReplaceAll(number, "_", "")
	base := 10
	if len(number) > 1 && strings.ContainsRune("xXoObB", rune(number[1])) {
		base = 0
	}
	return strconv.ParseInt(number, base, 64)
}

func notNumber(text string, t lexer.Token) error {
	return &Error{Column: t.From + 1, Word: string([]rune(text)[t.From:t.To]), Msg: "is not a number below 2^63",
		Valid: "larger ones stand in quotes"}
}

// refused returns what to do about a sign or word of the grammar that is off, or "".
func refused(word string) string {
	switch word {
	case "=":
		return "== compares"
	case "&":
		return `and joins conditions; bits are tested as mark == "0x1/0x1" or "ASSURED" in status`
	case "|":
		return "or joins conditions; functions are called as len(payload)"
	case "^", "**":
		return "there are + - * / %"
	case "?.":
		return "write a plain '.': an absent field is no error"
	case ";":
		return "one expression, without ';'"
	case "{", "}":
		return "write any(labels, # == \"web\"), without braces"
	case "let":
		return "there are no variables"
	case "if", "else":
		return "write CONDITION ? A : B"
	case "::":
		return "an address is written in quotes"
	case "##":
		return "# is the element of a list"
	}
	return ""
}

// scan refuses what the grammar has and we do not, before the parser sees it,
// and nesting that could exhaust its stack.
func scan(text string, tokens []lexer.Token) error {
	depth, prefix, choices, ops := 0, 0, 0, 0
	for i, t := range tokens {
		if t.Kind != lexer.Operator && t.Kind != lexer.Bracket {
			prefix = 0
			continue
		}
		member := i > 0 && tokens[i-1].Is(lexer.Operator, ".")
		if why := refused(t.Value); why != "" && !member {
			return &Error{Column: t.From + 1, Word: t.Value, Msg: "is not used here", Valid: why}
		}
		if !member && !slices.Contains(operatorList, t.Value) {
			return &Error{Column: t.From + 1, Word: t.Value, Msg: "is not an operator",
				Near: value.Nearest(t.Value, operatorList)}
		}
		switch t.Value {
		case "(", "[":
			depth++
		case ")", "]":
			depth--
		case "?":
			choices++
		case "not", "!", "-", "+":
			prefix += 2
		}
		prefix = max(prefix-1, 0)
		if t.Kind == lexer.Operator && t.Value != "," {
			ops++
		}
		if depth > maxDepth || choices > maxDepth || prefix > maxDepth {
			return &Error{Column: t.From + 1, Word: t.Value, Msg: "is nested too deep"}
		}
		if ops > maxOperators {
			return &Error{Column: t.From + 1, Word: t.Value, Msg: "is one operator too many",
				Valid: "long lists are written with in"}
		}
	}
	return nil
}

var operatorList = []string{"==", "!=", "<", "<=", ">", ">=", "&&", "||", "!", "+", "-", "*", "/", "%", "..", ".", ",",
	"?", ":", "??", "#",
	"(", ")", "[", "]", "not", "and", "or", "in", "matches", "contains", "startsWith", "endsWith"}

// lexError puts an error of the lexer into our words. It has no kinds, only
// texts.
func lexError(text string, err error) error {
	var fe *file.Error
	if !errors.As(err, &fe) {
		return &Error{Column: 1, Msg: "the expression cannot be read"}
	}
	runes := []rune(text)
	e := &Error{Column: min(fe.From, len(runes)) + 1}
	switch {
	case strings.HasPrefix(fe.Message, "literal not terminated"):
		e.Column = len(runes) + 1
		e.Msg = "the closing quote is missing"
	case strings.HasPrefix(fe.Message, "unclosed comment"):
		e.Column = len(runes) + 1
		e.Msg = "the comment does not end"
	case strings.HasPrefix(fe.Message, "bad number syntax"):
		from, to := e.Column-1, e.Column-1
		for from > 0 && isWord(runes[from-1]) {
			from--
		}
		for to < len(runes) && isWord(runes[to]) {
			to++
		}
		e.Column, e.Word, e.Msg, e.Valid = from+1, string(runes[from:to]), "is not a number",
			"what is not a plain number stands in quotes, as \"30s\""
	case strings.HasPrefix(fe.Message, "unrecognized character") && e.Column <= len(runes):
		e.Word, e.Msg = string(runes[e.Column-1]), "is not used here"
	default:
		e.Msg = `a '\' in quotes is followed by one of abfnrtv\ and the quote, three octal digits, x and two, u and four hexadecimal digits`
	}
	return e
}

func isWord(r rune) bool {
	return r == '_' || r == '.' || r == ':' || r >= '0' && r <= '9' || r|32 >= 'a' && r|32 <= 'z'
}

// parseError puts an error of the parser into our words.
func parseError(text string, tokens []lexer.Token, err error) error {
	var fe *file.Error
	if !errors.As(err, &fe) {
		return &Error{Column: 1, Msg: "the expression cannot be read"}
	}
	at := len(tokens) - 1
	for i, t := range tokens {
		if t.From == fe.From && t.Kind != lexer.EOF {
			at = i
			break
		}
	}
	if strings.HasPrefix(fe.Message, "invalid ") || strings.Contains(fe.Message, "too large") {
		// The parser reports the token behind the number.
		for ; at > 0 && tokens[at].Kind != lexer.Number; at-- {
		}
		return notNumber(text, tokens[at])
	}
	if fe.Message == "expected name" && at > 0 && tokens[at].Kind != lexer.EOF {
		at-- // here too
	}
	if strings.Contains(fe.Message, "EOF") || fe.Message == "unexpected end of expression" {
		at = len(tokens) - 1
	}
	t := tokens[at]
	if t.Kind == lexer.EOF {
		e := &Error{Column: len([]rune(strings.TrimRight(text, " \t\r\n"))) + 1, Msg: "the expression ends too early"}
		if n := open(tokens); n != "" {
			e.Msg = "the closing " + n + " is missing"
		}
		return e
	}
	e := &Error{Column: t.From + 1, Word: string([]rune(text)[t.From:t.To]), Msg: "is not expected here"}
	switch {
	case strings.HasPrefix(fe.Message, "Operator ("):
		e.Msg, e.Valid = "beside ?? is ambiguous", "write parentheses around A ?? B"
	case strings.HasPrefix(fe.Message, "expected at least"):
		e.Msg, e.Valid = "comes too early", `write any(labels, # == "web")`
	case fe.Message == "expected name":
		e.Msg = "is not expected here"
		e.Valid = "a name follows the '.'"
	case t.Is(lexer.Operator, "#"):
		e.Valid = "# is the element of a list in any, all and none"
	case t.Kind == lexer.Number && at > 0 && tokens[at-1].Kind == lexer.Number:
		e.Valid = "an address is written in quotes"
	case t.Kind == lexer.Identifier && at > 0:
		if e.Near = value.Nearest(t.Value, operatorList); e.Near == "" {
			e.Valid = "and, or join conditions"
		}
	}
	return e
}

// open returns the closing bracket that is missing, or "".
func open(tokens []lexer.Token) string {
	var stack []string
	for _, t := range tokens {
		if t.Kind != lexer.Bracket {
			continue
		}
		switch t.Value {
		case "(":
			stack = append(stack, ")")
		case "[":
			stack = append(stack, "]")
		default:
			if n := len(stack); n > 0 {
				stack = stack[:n-1]
			}
		}
	}
	if len(stack) == 0 {
		return ""
	}
	return stack[len(stack)-1]
}

// start returns the place of a node's first character, in characters from 0.
func start(n ast.Node) int {
	switch n := n.(type) {
	case *ast.MemberNode:
		return start(n.Node)
	case *ast.BinaryNode:
		return start(n.Left)
	case *ast.ConditionalNode:
		return start(n.Cond)
	case *ast.SliceNode:
		return start(n.Node)
	case *ast.PredicateNode:
		return start(n.Node)
	case *ast.CallNode:
		return start(n.Callee)
	}
	return n.Location().From
}
