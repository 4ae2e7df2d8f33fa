package format

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"nfctl/internal/packet"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// Packets prints queued packets and what was decided on them.
var Packets = &Subject[queue.Packet]{
	Kind: "packet", Fields: queue.Fields,
	Columns: []string{"time", "queue", "id", "hook", "indev", "outdev", "mark", "length", "ip.src", "ip.dst",
		"ip.proto", "sport", "dport", "verdict", "rule"},
	Text: packetText,
}

// Queues prints the kernel's list of queues.
var Queues = &Subject[queue.Info]{Kind: "queue", Fields: queue.InfoFields, Table: queueTable}

// queueTable is all fields, the most telling first; rates only where there are some.
func queueTable(opt Options) []Column[queue.Info] {
	first := []string{"queue", "depth", "queue_dropped", "user_dropped", "owner.pid", "owner.comm"}
	var cols, rest []Column[queue.Info]
	for _, name := range first {
		c := RowColumn(queue.InfoFields.Row(name))
		c.Stays = true
		cols = append(cols, c)
	}
	rows := queue.InfoFields.Rows()
	for i := range rows {
		r := &rows[i]
		switch {
		case slices.Contains(first, r.Path):
		case !strings.HasPrefix(r.Path, "rate."):
			rest = append(rest, RowColumn(r))
		case opt.Stream || opt.Wide:
			cols = append(cols, RowColumn(r))
		}
	}
	return append(cols, rest...)
}

// packetText returns a writer of lines as
//
//	12:00:00.123456 q0 #1 output out eth0 tcp 10.0.0.1:40000 > 10.0.0.2:22 [S] seq 1 win 64240 len 0 drop rule 1
//
// in local time, with why an edit could not be made, or that it is a dry run, in
// parentheses behind, and what was asked for of the packet's bytes below.
func packetText(_ *Output, opt Options) func([]byte, *queue.Packet) []byte {
	var c clock
	return func(b []byte, p *queue.Packet) []byte {
		if p.Time > 0 {
			b = append(c.append(b, uint64(p.Time)), ' ')
		}
		b = strconv.AppendUint(append(b, 'q'), uint64(p.Queue), 10)
		b = strconv.AppendUint(append(b, " #"...), uint64(p.ID), 10)
		b = queue.Hooks.Append(append(b, ' '), uint64(p.Hook))
		b = appendDev(b, " in ", p.In, p.InName())
		b = appendDev(b, " out ", p.Out, p.OutName())
		if p.Undecoded {
			b = append(b, " undecoded"...)
		}
		if p.Has&queue.HasPayload != 0 {
			b = packet.AppendText(append(b, ' '), p.Headers())
		} else if p.Has&queue.HasLength != 0 {
			b = strconv.AppendUint(append(b, " length "...), uint64(p.Length), 10)
		}
		if p.Mark != 0 {
			b = value.AppendHex(append(b, " mark "...), uint64(p.Mark))
		}
		if p.Decided {
			b = append(b, ' ')
			start := len(b)
			b = p.Verdict.Append(b)
			if p.Flow {
				b = append(b, " flow"...)
			}
			if color := colorOf(p.Verdict.Kind().String()); opt.Color && color != "" {
				word := string(b[start:])
				b = paint(b[:start], color, word)
			}
			if p.Rule > 0 {
				b = strconv.AppendInt(append(b, " rule "...), int64(p.Rule), 10)
			}
			if p.Held > 0 {
				b = append(b, " held "...)
				b = append(b, time.Duration(p.Held).Round(time.Microsecond).String()...)
			}
			if p.Why != "" {
				b = append(append(append(b, " ("...), p.Why...), ')')
			}
			if p.DryRun {
				b = append(b, " (dry run)"...)
			}
		}
		b = append(b, '\n')
		if opt.Layers {
			b = packet.AppendLayers(b, p.Data)
		}
		if opt.Hex {
			b = packet.AppendHex(b, p.Data)
		}
		if opt.ASCII {
			if data, ok := p.Headers().Payload(); ok {
				b = packet.AppendASCII(b, data)
			}
		}
		return b
	}
}

func appendDev(b []byte, word string, index uint32, name []byte) []byte {
	if index == 0 {
		return b
	}
	b = append(b, word...)
	if name == nil {
		return strconv.AppendUint(append(b, '#'), uint64(index), 10)
	}
	start := len(b)
	return printable(append(b, name...), start)
}

// clock appends local times of day. Asking for the local time costs more than
// all else, so it is done once a second.
type clock struct {
	sec  uint64
	text [8]byte
}

func (c *clock) append(b []byte, ns uint64) []byte {
	if sec := ns / 1e9; sec != c.sec {
		c.sec = sec
		time.Unix(int64(sec), 0).AppendFormat(c.text[:0], "15:04:05")
	}
	b = append(append(b, c.text[:]...), '.')
	us := ns % 1e9 / 1e3
	for div := uint64(1e5); div > 0; div /= 10 {
		b = append(b, '0'+byte(us/div%10))
	}
	return b
}
