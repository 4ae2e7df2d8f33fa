package child

import (
	"errors"
	"strings"
)

// Split cuts a command line into words at blanks. Single and double quotes keep blanks in
// a word, a backslash keeps the character behind it (within single quotes it is one like
// any other). There is no shell: nothing is expanded.
func Split(text string) ([]string, error) {
	var words []string
	var b strings.Builder
	begun, quote := false, rune(0)
	escaped := false
	for _, r := range text {
		switch {
		case escaped:
			b.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, begun = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			b.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if begun {
				words = append(words, b.String())
				b.Reset()
			}
			begun = false
		case r == 0:
			return nil, errors.New("it has a NUL")
		default:
			b.WriteRune(r)
			begun = true
		}
	}
	switch {
	case quote != 0:
		return nil, errors.New("a quote is not closed")
	case escaped:
		return nil, errors.New("nothing stands behind its last backslash")
	}
	if begun {
		words = append(words, b.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("it names no program")
	}
	return words, nil
}
