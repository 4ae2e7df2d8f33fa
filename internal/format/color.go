package format

// colorOf returns the colour of a word (SGR parameters, ECMA-48) in tables and packet
// lines: green what begins or passes, red what ends or is refused, yellow what
// is on its way; "" for none.
func colorOf(word string) string {
	switch word {
	case "new", "accept", "ESTABLISHED", "ok":
		return "32"
	case "update", "SYN_SENT", "SYN_RECV", "queue", "repeat", "warn", "lost":
		return "33"
	case "destroy", "drop", "fail":
		return "31"
	case "existing", "stop":
		return "36"
	case "TIME_WAIT", "CLOSE", "-", "unknown":
		return "2"
	}
	return ""
}

// paint appends s in a colour.
func paint(b []byte, color, s string) []byte {
	b = append(append(append(b, "\x1b["...), color...), 'm')
	return append(append(b, s...), "\x1b[0m"...)
}
