package format

// colorOf gives a word its colour (SGR parameters, ECMA-48) in tables and packet
// lines: green what begins or passes, red what ends or is refused, yellow what
// is on its way.
var colorOf = map[string]string{
	"new": "32", "accept": "32", "ESTABLISHED": "32", "ok": "32",
	"update": "33", "SYN_SENT": "33", "SYN_RECV": "33", "queue": "33", "repeat": "33", "warn": "33", "lost": "33",
	"destroy": "31", "drop": "31", "fail": "31",
	"existing": "36", "stop": "36", "TIME_WAIT": "2", "CLOSE": "2", "-": "2", "unknown": "2",
}

// paint appends s in a colour.
func paint(b []byte, color, s string) []byte {
	b = append(append(append(b, "\x1b["...), color...), 'm')
	return append(append(b, s...), "\x1b[0m"...)
}
