package top

import "unicode/utf8"

// A Key is what was pressed: a character, or one of the keys below.
type Key rune

// Keys that are no characters.
const (
	Up Key = -1 - iota
	Down
	PageUp
	PageDown
	Home
	End
	Delete
	F1
	Escape
	Other // one that means nothing here
)

const (
	enter     = Key('\r')
	interrupt = Key(3)  // Ctrl-C
	redraw    = Key(12) // Ctrl-L
	Suspend   = Key(26) // Ctrl-Z
)

// sequences are what terminals send behind ESC (ECMA-48, xterm).
var sequences = map[string]Key{
	"[A": Up, "OA": Up, "[B": Down, "OB": Down, "[5~": PageUp, "[6~": PageDown,
	"[H": Home, "OH": Home, "[1~": Home, "[7~": Home, "[F": End, "OF": End, "[4~": End, "[8~": End,
	"[3~": Delete, "OP": F1, "[11~": F1, "[[A": F1,
}

// Keys returns the keys that a terminal's bytes are. An ESC that nothing follows is the
// key of that name.
func Keys(b []byte) (keys []Key) {
	for len(b) > 0 {
		if b[0] != 0x1b {
			r, n := utf8.DecodeRune(b)
			if b = b[n:]; r == '\n' {
				r = '\r'
			}
			keys = append(keys, Key(r))
			continue
		}
		n := 1
		switch {
		case len(b) > 1 && b[1] == 'O':
			n = min(3, len(b))
		case len(b) > 2 && b[1] == '[' && b[2] == '[': // the console's function keys
			n = min(4, len(b))
		case len(b) > 1 && b[1] == '[':
			for n = 2; n < len(b) && (b[n] < 0x40 || b[n] > 0x7e); n++ {
			}
			n = min(n+1, len(b))
		}
		k := Escape
		if n > 1 {
			var known bool
			if k, known = sequences[string(b[1:n])]; !known {
				k = Other
			}
		}
		keys, b = append(keys, k), b[n:]
	}
	return keys
}
