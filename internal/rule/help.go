package rule

import (
	"fmt"
	"strings"

	"nfctl/internal/packet"
)

// Help describes rules to users. Lines that begin with four spaces are rules, up to two
// spaces and a remark; a line in capitals is a heading.
func Help() string {
	return helpBegin + "\nACTIONS\n\nOf those that decide a rule has one at most:\n\n" + ActionHelp(true) +
		"\nThe others change or tell something, and the next rule is asked:\n\n" + ActionHelp(false) +
		helpActions + WhenHelp() + helpWhens + fieldList() + helpEnd
}

const helpBegin = `A rule says what is done with which packets of a queue:

  ACTION... [WHEN...] [FLOW] [if EXPRESSION]

    drop tcp > :23
    accept tcp 10.0.0.0/8 > :22
    drop if udp.dport == 53 and ip.ttl < 10
    log drop udp > :53 if dns.name endsWith ".example"

FLOW is a flow in words, of the packet's own addresses: 'nfctl help flows'. EXPRESSION
is a condition on its fields, to the end of the rule: 'nfctl help expressions' and
'nfctl help fields'. Where both are given both must hold; where neither is, the rule is
for every packet.

Rules are tried in their order, and the first that decides wins. What none decides gets
--default, which is accept unless given.

In the shell a rule is one argument of --rule, in single quotes. Short forms are flags:
--drop-dport 23, --accept 'tcp > :22', --drop-if EXPRESSION. --rules FILE reads one rule
a line; what follows a # is a remark. SIGHUP reads the file again. 'nfctl queue --check'
reads rules, says what they ask of the kernel, and ends.
`

const helpActions = `
    accept flow if tls.sni == "good.example"
    reject flow tcp > :23
    mark 0x10/0xff udp > :5060
    connmark 0x1/0xf accept flow if tcp.dport == 25
    queue 5 bypass udp > :53
    repeat mark 0x8/0x8 tcp > :80

reject, flow and connmark need --attach, unless the firewall has the rules that they
rely on: nfctl shows these. A packet that repeats passes its hook from the beginning,
with the mark set: the rule that queues must leave packets with that mark alone, and
--attach does so.

WHEN

A when chooses some of the packets that flow and expression match. Whens are asked from
left to right, each about what those before it chose:

`

const helpWhens = `
    drop chance 5% udp > :9000
    drop chance 10% burst 3
    drop every 10 udp > :53
    drop limit over 20/s per ip.src
    accept first 8 tcp > :443
    log first 1 every 100 udp >

SET

set FIELD=VALUE writes a header field, and mends checksums. These can be set:

`

const helpEnd = `
A value is what the field's filter takes: an address, a port, a number. Numbers are
computed too, of fields and with + - * / min() max(), in quotes where blanks are among
them. A result beyond the field's bounds becomes its bound; a field stays as it is where
an operand is missing or a divisor is 0.

    set ip.ttl=64
    set ip.dscp=46 udp > :5060
    set ip.ttl=ip.ttl+1
    set tcp.mss="min(tcp.mss, 1200)" if "SYN" in tcp.flags
    set ip.dst=10.0.0.2 udp.dport=5353 udp > :53
    option strip timestamps,sack tcp >

REPLACE

replace "A" "B" puts B in the place of each A in the payload: bytes as they are. The
texts are in double quotes, with the escapes of Go: \n \t \" \\ \x00 \u00e9. Over UDP
lengths may differ. Over TCP they must be equal, for the sequence numbers of the
connection count bytes: pad "C" fills what is shorter with the byte C and cuts what is
longer; resize changes the packet's length all the same, and leaves the numbers wrong.

    replace "evil" "good" udp > :53
    replace "\xff\x00" "\x00\xff"
    replace "secret" "***" pad "*" tcp > :80
    replace "a" "longer" resize udp >

With regex A is a regular expression (RE2), in which backslashes are its own, and B may
name what it captured: $1, ${name}. \xff is a character there, not a byte.

    replace regex "(?i)host: [a-z]+" "Host: nobody" pad " " tcp > :80
    replace regex "(?s)id=(\d+)" "id=0${1}" udp >
`

// ActionHelp lists the actions that decide, or the others.
func ActionHelp(deciding bool) string {
	var b []byte
	for _, a := range Actions() {
		if a.Decides == deciding {
			b = appendTerm(b, a.Word, a.Args, a.Doc)
		}
	}
	return string(b)
}

// WhenHelp lists the whens.
func WhenHelp() string {
	var b []byte
	for _, w := range Whens() {
		b = appendTerm(b, w.Word, w.Args, w.Doc)
	}
	return string(b)
}

func appendTerm(b []byte, word, args, doc string) []byte {
	b = fmt.Appendf(b, "  %s\n", strings.TrimSpace(word+" "+args))
	return appendFilled(b, "      ", doc)
}

func fieldList() string {
	return string(appendFilled(nil, "  ", strings.Join(packet.Settable(), " ")))
}

// appendFilled appends a text in lines of no more than helpWidth characters.
func appendFilled(b []byte, indent, text string) []byte {
	const helpWidth = 88
	at := 0
	for _, w := range strings.Fields(text) {
		switch {
		case at == 0:
			b = append(b, indent...)
			at = len(indent)
		case at+1+len(w) > helpWidth:
			b = append(append(b, '\n'), indent...)
			at = len(indent)
		default:
			b = append(b, ' ')
			at++
		}
		b = append(b, w...)
		at += len(w)
	}
	return append(b, '\n')
}
