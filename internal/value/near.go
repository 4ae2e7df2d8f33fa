package value

import (
	"slices"
	"strings"
)

// synonyms are words that other programs have, or people say, for words of nfctl's
// flags and rules. A word that means something nfctl has no word for stands here
// with none: nothing is suggested then, however near it looks.
var synonyms = [...]struct {
	said string // words, with blanks between
	want string // likewise; all of them are suggested
}{
	{"allow permit pass", "accept"},
	{"deny block discard", "drop"},
	{"return continue next", ""},
	{"refuse", "reject"},
	{"edit change rewrite modify", "set replace"},
	{"print show", "log"},
	{"ctmark", "connmark"},
	{"host addr address ip", "src dst"},
	{"source saddr", "src"},
	{"destination dest daddr", "dst"},
	{"protocol", "proto"},
	{"format", "output"},
	{"columns", "fields"},
	{"timeout", "duration"},
	{"period", "interval"},
	{"file", "rules"},
	{"where match expr expression", "filter"},
	{"namespace ns", "netns"},
	{"silent", "quiet"},
	{"queue number queue-num queue-number", "num"},
	{"utc warn", ""},
}

// meant returns the words that synonyms has for one; known is whether it has the word.
func meant(word string) (want []string, known bool) {
	for _, s := range synonyms {
		if slices.Contains(strings.Fields(s.said), word) {
			return strings.Fields(s.want), true
		}
	}
	return nil, false
}

// Suggest returns which of words s may stand for: those that its synonyms make, or
// else the nearest. A word of several parts (drop-host) is taken part by part.
func Suggest(s string, words []string) []string {
	s = strings.ToLower(s)
	candidates, known := meant(s)
	parts := strings.Split(s, "-")
	if known {
		parts = nil
	} else {
		candidates = []string{""}
	}
	for i, part := range parts {
		want, is := meant(part)
		if !is {
			want = []string{part}
		}
		known = known || is
		var next []string
		for _, c := range candidates {
			for _, w := range want {
				if i > 0 {
					w = c + "-" + w
				}
				next = append(next, w)
			}
		}
		candidates = next
	}
	if known {
		return slices.DeleteFunc(candidates, func(c string) bool { return !slices.Contains(words, c) })
	}
	if near := nearest(s, words); near != "" {
		return []string{near}
	}
	return nil
}

// Nearest returns the one word that s may stand for, by its synonyms or as a slip
// of the hand, or "" when there is none or are several.
func Nearest(s string, words []string) string {
	if near := Suggest(s, words); len(near) == 1 {
		return near[0]
	}
	return ""
}

// nearest returns the word closest to s, or "" when none is close enough to be a
// likely slip of the hand.
func nearest(s string, words []string) string {
	best, least := "", len(s)
	for _, w := range words {
		if d, ok := slip(s, strings.ToLower(w)); ok && (d < least || best == "") {
			best, least = w, d
		}
	}
	return best
}

// slip reports whether a may be a slip of the hand for b, and their distance: at
// most a third of a's letters are wrong, and of each part's, so that drop-host is
// none for drop-port.
func slip(a, b string) (int, bool) {
	limit := max(1, len(a)/3)
	d := distance(a, b, limit)
	if d > limit || len(a) < 3 && strings.Trim(a, b) != "" {
		return d, false
	}
	as, bs := strings.FieldsFunc(a, isPartEnd), strings.FieldsFunc(b, isPartEnd)
	if len(as) == len(bs) && len(as) > 1 {
		for i := range as {
			if limit := max(1, len(as[i])/3); distance(as[i], bs[i], limit) > limit {
				return d, false
			}
		}
	}
	return d, true
}

func isPartEnd(r rune) bool { return r == '-' || r == '.' || r == '_' }

// distance is the edit distance with transpositions of a and b (optimal string
// alignment), or some number over limit when it is larger than that.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
