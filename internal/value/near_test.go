package value

import (
	"slices"
	"strings"
	"testing"
)

func TestSuggest(t *testing.T) {
	flags := strings.Fields("num attach accept-port accept-src accept-dst accept drop-port drop-sport drop-src " +
		"drop-dst drop rule rules port " +
		"src dst mark duration output fields filter interval netns quiet count until")
	actions := strings.Fields("accept drop repeat stop queue mark connmark set replace log expect lua if")
	for _, c := range []struct {
		typed string
		words []string
		want  string
	}{
		{"nm", flags, "num"}, {"drop-prt", flags, "drop-port"}, {"dorp-port", flags, "drop-port"}, {"untli", flags, "until"},
		{"drop-host", flags, "drop-src drop-dst"}, {"deny-port", flags, "drop-port"}, {"allow-host", flags, "accept-src accept-dst"},
		{"block", flags, "drop"}, {"queue-num", flags, "num"}, {"format", flags, "output"}, {"timeout", flags, "duration"}, {"host", flags, "src dst"},
		{"reject-port", flags, ""}, {"reject", flags, ""}, {"utc", flags, ""}, {"warn", flags, ""}, {"drop-foo", flags, ""},
		{"accept-pot", flags, "accept-port"}, {"deny-prot", flags, ""}, {"xy", flags, ""}, {"", flags, ""},
		{"dorp", actions, "drop"}, {"return", actions, ""}, {"deny", actions, "drop"}, {"PERMIT", actions, "accept"},
		{"fi", actions, "if"}, {"ip", actions, ""}, {"repat", actions, "repeat"}, {"edit", actions, "set replace"},
		{"tcp.dprot", []string{"tcp.dport", "udp.dport"}, "tcp.dport"}, {"udp.ack", []string{"tcp.ack"}, ""},
	} {
		if got := strings.Join(Suggest(c.typed, c.words), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.typed, got, c.want)
		}
	}
}

// No slip and no synonym leads from accepting to dropping or back.
func TestSuggestNeverTheOpposite(t *testing.T) {
	kinds := strings.Fields("port sport dport proto src dst if")
	flags := func(action string) []string {
		list := []string{action}
		for _, k := range kinds {
			list = append(list, action+"-"+k)
		}
		return list
	}
	for _, p := range [][2][]string{{append(flags("accept"), flags("allow")...), flags("drop")},
		{append(flags("drop"), flags("deny")...), flags("accept")}} {
		for _, w := range p[0] {
			for i := range len(w) { // with a letter left out, and one wrong
				for _, typed := range []string{w, w[:i] + w[i+1:], w[:i] + "x" + w[i+1:]} {
					if near := Suggest(typed, p[1]); len(near) > 0 {
						t.Errorf("%s: %v", typed, near)
					}
				}
			}
		}
	}
}

// A synonym stands in one row, and is no synonym of a word that is explained again.
func TestSynonyms(t *testing.T) {
	var all []string
	for _, s := range synonyms {
		for _, w := range strings.Fields(s.said) {
			if slices.Contains(all, w) {
				t.Errorf("%s stands twice", w)
			}
			all = append(all, w)
			if slices.Contains(strings.Fields(s.want), w) {
				t.Errorf("%s is itself", w)
			}
		}
	}
}
