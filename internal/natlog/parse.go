package natlog

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"nfctl/internal/value"
)

type logFormat uint8

const (
	asJSON logFormat = iota + 1
	asCSV
	asText
)

// A parser reads lines of one log.
type parser struct {
	format  logFormat
	columns []string // of csv
	column  int      // of them, the event
}

// begin finds out the format by the first line.
func (p *parser) begin(line []byte) bool {
	switch {
	case bytes.HasPrefix(line, []byte(`{"kind":"nat",`)):
		p.format = asJSON
	case bytes.HasPrefix(line, []byte("time=")) && bytes.Contains(line, []byte(" event=")):
		p.format = asText
	case bytes.HasPrefix(line, []byte("time,event,")):
		p.format = asCSV
		p.columns = strings.Split(strings.TrimSpace(string(line)), ",")
		p.column = 1
	}
	return p.format != 0
}

// isHead reports whether a line is csv's.
func (p *parser) isHead(line []byte) bool {
	return p.format == asCSV && bytes.HasPrefix(line, []byte("time,event,"))
}

// event returns the event of a line, without reading the rest.
func (p *parser) event(line []byte) (Event, bool) {
	word := line
	switch p.format {
	case asJSON:
		i := bytes.Index(line, []byte(`"event":"`))
		if i < 0 {
			return 0, false
		}
		word = line[i+9:]
	case asText:
		i := bytes.Index(line, []byte(" event="))
		if i < 0 {
			return 0, false
		}
		word = line[i+7:]
	default:
		i := bytes.IndexByte(line, ',')
		if i < 0 {
			return 0, false
		}
		word = line[i+1:]
	}
	n := 0
	for n < len(word) && word[n] >= 'a' && word[n] <= 'z' {
		n++
	}
	switch string(word[:n]) { // of those that there are many
	case "begin":
		return Begin, true
	case "end":
		return End, true
	}
	e, ok := events.Lookup(string(word[:n]))
	return Event(e), ok && n > 0
}

// read reads a line; false: it is torn.
func (p *parser) read(line []byte, r *Record) bool {
	get := map[string]string{}
	switch p.format {
	case asJSON:
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		var o map[string]any
		if d.Decode(&o) != nil {
			return false
		}
		flatten("", o, get)
	case asCSV:
		parts := strings.Split(strings.TrimSuffix(string(line), "\n"), ",")
		if len(parts) != len(p.columns) {
			return false
		}
		for i, c := range p.columns {
			get[c] = parts[i]
		}
	default:
		if line[len(line)-1] != '\n' {
			return false
		}
		for part := range strings.FieldsSeq(string(line)) {
			name, v, _ := strings.Cut(part, "=")
			get[name] = v
		}
	}
	ok := true
	number := func(name string, bits int) uint64 {
		if get[name] == "" {
			return 0
		}
		n, err := strconv.ParseUint(get[name], 10, bits)
		ok = ok && err == nil
		return n
	}
	stamp := func(name string) uint64 {
		if get[name] == "" {
			return 0
		}
		n, err := value.Time(get[name])
		ok = ok && err == nil
		return n
	}
	word := func(name string, names *value.Names) uint64 {
		if get[name] == "" {
			return 0
		}
		n, known := names.Lookup(get[name])
		if !known {
			n = number(name, 8)
		}
		return n
	}
	where := func(name string) (at Place) {
		if get[name+".addr"] != "" {
			var err error
			at.Addr, err = netip.ParseAddr(get[name+".addr"])
			at.Port = uint16(number(name+".port", 16))
			ok = ok && err == nil
		}
		return at
	}
	event, known := events.Lookup(get["event"])
	*r = Record{Time: stamp("time"), Event: Event(event), Since: stamp("since"), Of: uint8(word("of", sides)),
		Family: uint8(word("family", value.Families)), Proto: uint8(word("proto",
			value.Protocols)), ID: uint32(number("id", 32)),
		Zone: uint16(number("zone", 16)), Inside: where("inside"), Outside: where("outside"), To: where("to"),
		Packets: number("packets", 64), Bytes: number("bytes", 64), Counted: get["bytes"] != "",
		Count: number("count", 64), CountKnown: get["count"] != "", Unsure: get["unsure"] == "true"}
	return ok && known
}

// flatten puts the values of nested objects under their paths.
func flatten(prefix string, o map[string]any, into map[string]string) {
	for k, v := range o {
		switch v := v.(type) {
		case map[string]any:
			flatten(prefix+k+".", v, into)
		case string:
			into[prefix+k] = v
		case json.Number:
			into[prefix+k] = v.String()
		case bool:
			into[prefix+k] = strconv.FormatBool(v)
		}
	}
}
