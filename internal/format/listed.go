package format

import (
	"encoding/xml"
	"fmt"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// Flows as others list them are read, too: lines of conntrack(8) -L, with -o extended,
// labels, id and so on, and of /proc/net/nf_conntrack; and conntrack -L -o xml, a flow a
// line. What nobody can set is passed over.

// isListed reports whether a line may be one of a listing.
func isListed(text string) bool {
	return text[0] >= 'a' && text[0] <= 'z' && strings.Contains(text, " src=")
}

// listedName returns the attribute that a key of a listing sets, in the first tuple, the
// second or behind it; "": none, it is passed over.
func listedName(tuple int, key string) (name string, known bool) {
	switch key {
	case "packets", "bytes", "use", "delta-time", "secctx", "secmark", "timeout", "stream_timeout":
		return "", true
	case "mark", "zone":
		return key, true
	case "zone-orig":
		return "orig-zone", true
	case "zone-reply":
		return "repl-zone", true
	case "labels":
		return "connlabels", true
	case "helper":
		return "helper-name", true
	case "type", "code", "id": // of the reply they follow from the others; the flow's id is nobody's to set
		if tuple != 1 {
			return "", true
		}
		return "icmp-" + key, true
	}
	direction := "orig-"
	if tuple != 1 {
		direction = "repl-"
	}
	switch key {
	case "src", "dst":
		return direction + "ipv4-" + key, true
	case "sport", "srckey":
		return direction + "port-src", true
	case "dport", "dstkey":
		return direction + "port-dst", true
	}
	return "", false
}

// parseListed reads a line of a listing into f, which must be empty.
func parseListed(text string, f *ct.Flow) error {
	words := strings.Fields(text)
	if len(words) > 1 && (words[0] == "ipv4" || words[0] == "ipv6") {
		words = words[2:] // the addresses say it
	}
	if len(words) < 2 || strings.Contains(words[1], "=") {
		return &value.Error{What: "line", Text: text,
			Valid: "a protocol, its number and a flow, as conntrack -L prints it"}
	}
	if err := setListed(f, "orig-l4proto", words[1]); err != nil {
		return err
	}
	state := ""
	replied, assured, tuples := true, false, 0
	for i := 2; i < len(words); i++ {
		w := words[i]
		key, text, pair := strings.Cut(w, "=")
		switch {
		case strings.HasPrefix(w, "[start") || strings.HasPrefix(w, "[stop"):
			for i+1 < len(words) && !strings.HasSuffix(words[i], "]") {
				i++
			}
		case w == "[UNREPLIED]":
			replied = false
		case w == "[ASSURED]":
			assured = true
		case w == "[OFFLOAD]" || w == "[HW_OFFLOAD]":
		case !pair && tuples == 0 && w[0] >= '0' && w[0] <= '9':
			if err := setListed(f, "timeout", w); err != nil {
				return err
			}
		case !pair && tuples == 0:
			state = w
		case !pair:
			return unknownListed(w)
		default:
			if key == "src" {
				tuples++
			}
			if err := setListedKey(f, tuples, key, text); err != nil {
				return err
			}
		}
	}
	if tuples != 2 {
		return &value.Error{What: "line", Text: text, Valid: "a flow with both directions, src=… of each"}
	}
	return finishListed(f, state, replied, assured)
}

// setListedKey sets what a key says in the first or second tuple, or behind them.
func setListedKey(f *ct.Flow, tuple int, key, text string) error {
	name, known := listedName(tuple, key)
	if !known {
		return unknownListed(key)
	}
	if name == "" {
		return nil
	}
	if err := setListed(f, name, text); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func unknownListed(word string) error {
	return &value.Error{What: "word", Text: word, Valid: "what conntrack -L or /proc/net/nf_conntrack prints"}
}

func setListed(f *ct.Flow, name, text string) error {
	set := lineFlagOf(name)
	return setSaved(f, &set, text)
}

// finishListed sets what hangs on the rest. A listing does not name the tags without which
// the kernel takes no state of SCTP, nor the role of DCCP, and of translations it shows the
// tuples alone.
func finishListed(f *ct.Flow, state string, replied, assured bool) error {
	o, r := &f.Orig, &f.Reply
	if state != "" && o.Proto == ct.TCP {
		if err := setListed(f, "state", state); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	f.Present |= ct.HasStatus
	if replied {
		f.Status |= ct.StatusSeenReply
	}
	if assured {
		f.Status |= ct.StatusAssured
	}
	if r.Dst != o.Src || r.Dport != o.Sport {
		f.Status |= ct.StatusSrcNAT
	}
	if r.Src != o.Dst || r.Sport != o.Dport {
		f.Status |= ct.StatusDstNAT
	}
	return finishJSON(f)
}

// isDecoration reports whether a line of XML bears no flow.
func isDecoration(text string) bool {
	return strings.HasPrefix(text, "<?xml") || text == "<conntrack>" || text == "</conntrack>"
}

// An xmlFlow is a flow of conntrack -L -o xml.
type xmlFlow struct {
	Meta []struct {
		Direction string `xml:"direction,attr"`
		Layer3    struct {
			Src string `xml:"src"`
			Dst string `xml:"dst"`
		} `xml:"layer3"`
		Layer4 struct {
			Proto string `xml:"protonum,attr"`
			Parts []struct {
				XMLName xml.Name
				Text    string `xml:",chardata"`
			} `xml:",any"`
		} `xml:"layer4"`
		State     string   `xml:"state"`
		Timeout   string   `xml:"timeout"`
		Mark      string   `xml:"mark"`
		Zone      string   `xml:"zone"`
		Labels    []string `xml:"labels>label"`
		Unreplied *string  `xml:"unreplied"`
		Assured   *string  `xml:"assured"`
	} `xml:"meta"`
	Helper string `xml:"helper"`
}

// parseXML reads a flow of conntrack -L -o xml into f, which must be empty.
func parseXML(text string, f *ct.Flow) error {
	var x xmlFlow
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		return fmt.Errorf("not a flow in XML: %w", err)
	}
	state, replied, assured := "", true, false
	for i := range x.Meta {
		m := &x.Meta[i]
		if m.Direction == "independent" {
			state, replied, assured = m.State, m.Unreplied == nil, m.Assured != nil
			for _, p := range [][2]string{{"timeout", m.Timeout}, {"mark", m.Mark}, {"zone", m.Zone},
				{"connlabels", strings.Join(m.Labels, ",")}} {
				if p[1] == "" {
					continue
				}
				if err := setListed(f, p[0], p[1]); err != nil {
					return fmt.Errorf("%s: %w", p[0], err)
				}
			}
			continue
		}
		tuple := 1
		if m.Direction == "reply" {
			tuple = 2
		} else if err := setListed(f, "orig-l4proto", m.Layer4.Proto); err != nil {
			return err
		}
		parts := [][2]string{{"src", m.Layer3.Src}, {"dst", m.Layer3.Dst}}
		if m.Zone != "" {
			parts = append(parts, [2]string{[]string{"zone-orig", "zone-reply"}[tuple-1], m.Zone})
		}
		for _, p := range m.Layer4.Parts {
			parts = append(parts, [2]string{p.XMLName.Local, p.Text})
		}
		for _, p := range parts {
			if err := setListedKey(f, tuple, p[0], p[1]); err != nil {
				return err
			}
		}
	}
	if x.Helper != "" {
		if err := setListed(f, "helper-name", x.Helper); err != nil {
			return err
		}
	}
	return finishListed(f, state, replied, assured)
}
