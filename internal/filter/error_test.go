package filter

import (
	"errors"
	"strings"
	"testing"
)

// wrong are expressions that are refused, with what is said.
var wrong = []struct{ expr, msg string }{
	{``, `column 1: there is no expression: as tcp.dport == 22`},
	{`   `, `column 1: there is no expression: as tcp.dport == 22`},
	{`tpc.dport == 22`, `column 1: "tpc.dport" is not a field (did you mean "tcp.dport"?)`},
	{`tcp.dprot == 22`, `column 1: "tcp.dprot" is not a field (did you mean "tcp.dport"?)`},
	{`dport == 22`, `column 1: "dport" is not a field (did you mean "tcp.dport"?)`},
	{`prot == "tcp"`, `column 1: "prot" is not a field (did you mean "proto"?)`},
	{`nothing.like.this == 1`, `column 1: "nothing.like.this" is not a field`},
	{`l4proto == 6`, `column 1: "l4proto" is not a field (did you mean "proto"?)`},
	{`orig.dport == 22`, `column 1: "orig.dport" is not a field`},
	{`verdict == "drop"`, `column 1: "verdict" cannot be used here: it is not known while deciding`},
	{`tcp`, `column 1: "tcp" is a group of fields, not a condition: write tcp != nil`},
	{`tcp.dport`, `column 1: "tcp.dport" is a number, not a condition: compare it, or ask for its presence with != nil`},
	{`proto == tcp`, `column 10: "tcp" is not a field: a name stands in quotes: "tcp"`},
	{`state == ESTABLISHED`, `column 10: "ESTABLISHED" is not a field: a name stands in quotes: "ESTABLISHED"`},
	{`state == "ESTABLISHD"`, `column 10: "ESTABLISHD" is not a valid state (did you mean "ESTABLISHED"?): want NONE, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE, SYN_SENT2`},
	{`proto == "tpc"`, `column 10: "tpc" is not a valid protocol (did you mean "tcp"?): want a name or a number from 0 to 255`},
	{`proto == 256`, `column 10: "256" is out of range for proto: a number from 0 to 255`},
	{`proto == -1`, `column 10: "-1" is out of range for proto: a number from 0 to 255`},
	{`tcp.dport == 70000`, `column 14: "70000" is out of range for tcp.dport: a number from 0 to 65535`},
	{`tcp.dport == -1`, `column 14: "-1" is out of range for tcp.dport: a number from 0 to 65535`},
	{`tcp.dport == 1.5`, `column 14: "1.5" is not a whole number: tcp.dport holds whole numbers`},
	{`tcp.dport == "70000"`, `column 14: "70000" is not a valid port: want a number from 0 to 65535, a service name, a range 1000-2000 or a list 22,80`},
	{`tcp.dport == "sssh"`, `column 14: "sssh" is not a valid port (did you mean "ssh"?): want a number from 0 to 65535, a service name, a range 1000-2000 or a list 22,80`},
	{`tcp.dport == ""`, `column 14: "" is not a valid port: want a number from 0 to 65535, a service name, a range 1000-2000 or a list 22,80`},
	{`tcp.dport == 22 + 70000`, `column 14: "70022" is out of range for tcp.dport: a number from 0 to 65535`},
	{`tcp.dport in [22, 70000]`, `column 19: "70000" is out of range for tcp.dport: a number from 0 to 65535`},
	{`tcp.dport in []`, `column 14: "[" begins an empty list: values, as [22, 80]`},
	{`tcp.dport in 1..70000`, `column 17: "70000" is out of range for tcp.dport: a number from 0 to 65535`},
	{`tcp.dport in 10..1`, `column 16: ".." is an empty range: the lower number first`},
	{`tcp.dport in "1..10"`, `column 14: "1..10" is not a valid port: want a number from 0 to 65535, a service name, a range 1000-2000 or a list 22,80`},
	{`tcp.dport in 22`, `column 14: "22" is a number, not a list: write == for one value`},
	{`tcp.dport in ip`, `column 14: "ip" is a group of fields, not a list: a name stands in quotes`},
	{`tcp.dport in [1..10, 20]`, `column 16: ".." is a range inside a list: ranges stand in quotes, as "1-10,20"`},
	{`tcp.dport in [[22]]`, `column 15: "[" is a list inside a list: ranges stand in quotes, as "1-10,20"`},
	{`tcp.dport in ["!22", 80]`, `column 15: "!22" negates inside a list: write not (A in [B, C])`},
	{`tcp.dport == 1..10`, `column 15: ".." is a range: write in 1..10`},
	{`tcp.dport == [22, 80]`, `column 14: "[" begins a list: write in [1, 2]`},
	{`tcp.dport == true`, `column 14: "true" is a condition, tcp.dport is a number`},
	{`tcp.dport == "22,80" > 5`, `column 24: "5" is a number, == is a condition`},
	{`tcp.dport > "22,80"`, `column 13: "22,80" stands for more than one value: one value after >`},
	{`tcp.dport > "22-80"`, `column 13: "22-80" stands for more than one value: one value after >`},
	{`tcp.dport contains "2"`, `column 1: "tcp.dport" is a number: no contains: only texts are searched`},
	{`tcp.dport = 22`, `column 11: "=" is not used here: == compares`},
	{`tcp.dport === 22`, `column 13: "=" is not used here: == compares`},
	{`tcp.dport == 22 & mark == 1`, `column 17: "&" is not used here: and joins conditions; bits are tested as mark == "0x1/0x1" or "ASSURED" in status`},
	{`mark & 1 == 1`, `column 6: "&" is not used here: and joins conditions; bits are tested as mark == "0x1/0x1" or "ASSURED" in status`},
	{`tcp.dport == 22 | mark == 1`, `column 17: "|" is not used here: or joins conditions; functions are called as len(payload)`},
	{`tcp.dport == 22 xor mark == 1`, `column 17: "xor" is not expected here (did you mean "or"?)`},
	{`tcp.dport == 22 and`, `column 20: the expression ends too early`},
	{`tcp.dport ==`, `column 13: the expression ends too early`},
	{`== 22`, `column 1: "==" is not expected here`},
	{`tcp.dport == 22)`, `column 16: ")" is not expected here`},
	{`(tcp.dport == 22`, `column 17: the closing ) is missing`},
	{`tcp.dport in [22, 80`, `column 21: the closing ] is missing`},
	{`tcp.dport == "22`, `column 17: the closing quote is missing`},
	{`tcp.dport == "2\q2"`, `column 17: a '\' in quotes is followed by one of abfnrtv\ and the quote, three octal digits, x and two, u and four hexadecimal digits`},
	{`tcp..dport == 22`, `column 6: "dport" is not a field (did you mean "tcp.dport"?)`},
	{`tcp. == 22`, `column 6: "==" is not expected here: a name follows the '.'`},
	{`tcp?.dport == 22`, `column 4: "?." is not used here: write a plain '.': an absent field is no error`},
	{`22`, `column 1: "22" is a number, not a condition: a condition compares, as tcp.dport == 22`},
	{`"tcp"`, `column 1: "tcp" is a text, not a condition: a condition compares, as tcp.dport == 22`},
	{`tcp.dport == 22 or 80`, `column 20: "80" is a number, not a condition: a condition compares, as tcp.dport == 22`},
	{`"tcp" == "tcp"`, `column 10: "tcp" is compared with another literal: one side is a field`},
	{`"tcp" == 6`, `column 10: "6" is compared with another literal: one side is a field`},
	{`not tcp.dport == 22`, `column 1: "not" binds to the next word alone: write not (A == B)`},
	{`!tcp.dport == 22`, `column 1: "!" binds to the next word alone: write not (A == B)`},
	{`not tcp.dport`, `column 1: "not" binds to the next word alone: write not (A == B)`},
	{`ip.src == 10.0.0.1`, `column 15: ".0.1" is not expected here: an address is written in quotes`},
	{`ip.src in 10.0.0.0/8`, `column 15: ".0.0" is not expected here: an address is written in quotes`},
	{`ip.src == fd00::1`, `column 15: "::" is not used here: an address is written in quotes`},
	{`ip.src == "10.0.0"`, `column 11: "10.0.0" is not a valid address: want an address, a prefix 10.0.0.0/8, a range 10.0.0.1-10.0.0.9 or a list of them`},
	{`ip.src == "10.0.0.0/33"`, `column 11: "10.0.0.0/33" is not a valid address: want an address, a prefix 10.0.0.0/8, a range 10.0.0.1-10.0.0.9 or a list of them`},
	{`ip.src == 5`, `column 11: "5" is a number, ip.src is an address`},
	{`ip.src == tcp.dport`, `column 11: "tcp.dport" is a number, ip.src is an address`},
	{`ip.src > "10.0.0.1"`, `column 10: "10.0.0.1" is not ordered: an address: there are ==, != and in`},
	{`ip.src startsWith "10."`, `column 1: "ip.src" is an address: no startsWith: write ip.src in "10.0.0.0/8"`},
	{`ip.src + 1 == 2`, `column 1: "ip.src" is an address: no +`},
	{`ip.src < ip.dst`, `column 8: "<" does not order addresses: there are ==, != and in`},
	{`timeout > 30s`, `column 11: "30s" is not a number: what is not a plain number stands in quotes, as "30s"`},
	{`timeout > "30 parsecs"`, `column 11: "30 parsecs" is not a valid duration: want a number of seconds, or with a unit: 500ms, 30s, 5m, 2h, 1d`},
	{`timeout > "1500ms"`, `column 11: "1500ms" is not a valid duration: want whole seconds`},
	{`timeout + 10 > "30s"`, `column 16: "30s" is a text, beside a number that is computed: a plain number`},
	{`orig.bytes > "1MB5"`, `column 14: "1MB5" is not a valid size: want bytes, or with a unit: 64KiB, 8MiB, 1GiB`},
	{`orig.bytes > "1MiB" + 5`, `column 14: "1MiB" is a text: no +: a number computed with has no quotes`},
	{`mark == "0x100/0xff"`, `column 9: "0x100/0xff" is not a valid mark: want a value within its mask`},
	{`mark > "0x1/0xff"`, `column 8: "0x1/0xff" stands for more than one value: one value after >`},
	{`mark == 4294967296`, `column 9: "4294967296" is out of range for mark: a number from 0 to 4294967295`},
	{`large == 18446744073709551615`, `column 10: "18446744073709551615" is not a number below 2^63: larger ones stand in quotes`},
	{`large == 0xffffffffffffffff`, `column 10: "0xffffffffffffffff" is not a number below 2^63: larger ones stand in quotes`},
	{`large == 9223372036854775807 + 1`, `column 30: "+" cannot be computed`},
	{`large == 1 / 0`, `column 12: "/" cannot be computed`},
	{`status == "ASSURED"`, `column 1: "status" is a list: write "NAME" in status`},
	{`status contains "ASSURED"`, `column 1: "status" is a list: no contains: write "NAME" in status`},
	{`status`, `column 1: "status" is a list, not a condition: write "NAME" in status`},
	{`"ASURED" in status`, `column 1: "ASURED" is not a valid status (did you mean "ASSURED"?): want EXPECTED, SEEN_REPLY, ASSURED, CONFIRMED`},
	{`ASSURED in status`, `column 1: "ASSURED" is not a field: a name stands in quotes: "ASSURED"`},
	{`status in "ASSURED"`, `column 1: "status" is a list: write "NAME" in LIST, or any(LIST, # in ["A", "B"])`},
	{`["ASSURED"] in status`, `column 1: "[" is a list: write "NAME" in LIST, or any(LIST, # in ["A", "B"])`},
	{`4 in status`, `column 1: "4" is a number, status holds names: write "NAME" in status`},
	{`helper in status`, `column 1: "helper" is a text, status holds names: write "NAME" in status`},
	{`tcp.flags == ["SYM"]`, `column 15: "SYM" is not a valid TCP flag (did you mean "SYN"?): want FIN, SYN, RST, PSH, ACK`},
	{`tcp.flags == [2]`, `column 15: "2" is a number, tcp.flags holds names`},
	{`tcp.flags == 512`, `column 14: "512" is out of range for tcp.flags: a number from 0 to 511`},
	{`tcp.flags & 2 == 2`, `column 11: "&" is not used here: and joins conditions; bits are tested as mark == "0x1/0x1" or "ASSURED" in status`},
	{`"wep" in labels`, `column 1: "wep" is not a valid labels (did you mean "web"?): want a name, or a bit from 0 to 15`},
	{`labels == "web"`, `column 1: "labels" is a list: write "NAME" in labels`},
	{`labels[0] == "web"`, `column 1: "labels" has nothing to be picked from: fields are written as tcp.dport; a list is searched with "web" in labels`},
	{`any(labels)`, `column 11: ")" comes too early: write any(labels, # == "web")`},
	{`any(labels, )`, `column 13: ")" is not expected here`},
	{`any(labels, #)`, `column 13: "#" is a text, not a condition: a condition compares, as tcp.dport == 22`},
	{`any(labels, # == "wep")`, `column 18: "wep" is not a valid labels (did you mean "web"?): want a name, or a bit from 0 to 15`},
	{`any(labels, # == 5)`, `column 18: "5" is a number, # is a text`},
	{`any(helper, # == "x")`, `column 5: "helper" is a text, not a list`},
	{`any(labels, any(status, # == "ASSURED"))`, `column 13: "any" stands inside another list`},
	{`any(labels, #index == 1)`, `column 13: "#index" is not used here: # is the element of the list`},
	{`any(labels, .name == 1)`, `column 13: "#" has nothing to be picked from: fields are written as tcp.dport; a list is searched with "web" in labels`},
	{`any(labels, {# == "web"})`, `column 13: "{" is not used here: write any(labels, # == "web"), without braces`},
	{`# == "web"`, `column 1: "#" is not expected here: # is the element of a list in any, all and none`},
	{`count(labels, # == "web") > 1`, `column 1: "count" is not a function: there are len, any, all, none, lower, upper`},
	{`one(labels, # == "web")`, `column 1: "one" is not a function (did you mean "none"?): there are len, any, all, none, lower, upper`},
	{`filter(labels, # == "web")`, `column 1: "filter" is not a function: there are len, any, all, none, lower, upper`},
	{`lenn(payload) > 5`, `column 1: "lenn" is not a function (did you mean "len"?): there are len, any, all, none, lower, upper`},
	{`payload.foo == "x"`, `column 1: "payload.foo" is not a field (did you mean "payload"?)`},
	{`tcp.dport() == 22`, `column 1: "tcp.dport" is not a function: there are len, any, all, none, lower, upper`},
	{`tcp.dport(1)`, `column 1: "tcp.dport" is not a function: there are len, any, all, none, lower, upper`},
	{`len(payload, 1) > 5`, `column 1: "len" is given 2 values: one, as len(payload)`},
	{`len() > 5`, `column 1: "len" is given 0 values: one, as len(payload)`},
	{`len(tcp.dport) > 1`, `column 5: "tcp.dport" is a number: no len: only texts are searched`},
	{`len(tcp) > 1`, `column 5: "tcp" is a group of fields: no len: name one of its fields`},
	{`lower(ip.src) == "a"`, `column 7: "ip.src" is an address: no lower: write ip.src in "10.0.0.0/8"`},
	{`lower(helper) == "Dns"`, `column 18: "Dns" is never equal to what lower makes`},
	{`lower(helper) contains "D"`, `column 24: "D" is never in what lower makes`},
	{`lower(helper) matches "d"`, `column 1: "lower" does not go with matches: write matches "(?i)…"`},
	{`payload contains 5`, `column 18: "5" is a number: contains wants a quoted text`},
	{`payload contains helper`, `column 18: "helper" is a text: contains wants a quoted text`},
	{`payload contains ["a"]`, `column 18: "[" is a list: contains wants a quoted text`},
	{`payload matches "("`, `column 17: "(" is not a regular expression: missing closing )`},
	{`payload matches "a**"`, `column 17: "a**" is not a regular expression: invalid nested repetition operator`},
	{`payload[0:4] == "SSH-"`, `column 1: "payload" cannot be cut: there are startsWith, endsWith, contains and matches`},
	{`payload == 5`, `column 12: "5" is a number, payload is a text`},
	{`"SSH" in payload`, `column 1: "SSH" is no field: the field comes first, as ip.src in "10.0.0.0/8"`},
	{`payload in "SSH"`, `column 12: "SSH" is a text: a list after in, as ["a", "b"]; parts are found with contains`},
	{`helper in "ftp"`, `column 11: "ftp" is a text: a list after in, as ["a", "b"]; parts are found with contains`},
	{`fragment > true`, `column 12: "true" is not ordered: true or false: there are ==, != and in`},
	{`fragment == 1`, `column 13: "1" is a number, fragment is true or false`},
	{`fragment == "maybe"`, `column 13: "maybe" is not a valid fragment: want true or false`},
	{`fragment and tcp.dport`, `column 14: "tcp.dport" is a number, not a condition: compare it, or ask for its presence with != nil`},
	{`start > "yesterday"`, `column 9: "yesterday" is not a valid time: want RFC 3339 as 2026-01-02T15:04:05Z, or seconds since the epoch`},
	{`start > timeout`, `column 9: "timeout" is a number, start is a time`},
	{`start % 2 == 1`, `column 1: "start" is not a whole number: no %`},
	{`proto > "tcp"`, `column 9: "tcp" is a name, and names are not ordered: there are ==, != and in`},
	{`proto == state`, `column 10: "state" is a state, proto is a protocol`},
	{`proto + "x" == "y"`, `column 1: "proto" is a protocol: no +`},
	{`-proto == "tcp"`, `column 2: "proto" is a protocol: no -`},
	{`proto == zone`, `column 10: "zone" is a number, proto is a protocol`},
	{`proto == zone + 1`, `column 15: "+" is a number, proto is a protocol`},
	{`nil == nil`, `column 1: "nil" is always there: ask for a field: tcp != nil`},
	{`22 == nil`, `column 1: "22" is always there: ask for a field: tcp != nil`},
	{`tcp > nil`, `column 5: ">" does not go with nil: there are == nil and != nil`},
	{`(tcp.dport == 22) != nil`, `column 12: "==" is always there: ask for a field: tcp != nil`},
	{`nil in status`, `column 1: "nil" is in no list: ask for presence with != nil`},
	{`true > false`, `column 8: "false" is compared with another literal: one side is a field`},
	{`(mark == 1) > (mark == 2)`, `column 13: ">" does not order true and false: there are == and !=`},
	{`mark == 1 ? 2 : 3`, `column 1: "?" is a number, not a condition: compare it, or ask for its presence with != nil`},
	{`(mark == 1 ? ip.src : 3) == 3`, `column 23: "3" is a number, and the other choice an address`},
	{`(mark == 1 ? ip.src : tcp.dport) == 3`, `column 23: "tcp.dport" is a number, and the other choice an address`},
	{`(tcp.dport ?? ip.src) == 3`, `column 15: "ip.src" is an address, and the other choice a number`},
	{`(tcp.dport ?? "22,80") == 3`, `column 15: "22,80" stands for more than one value: one value here`},
	{`(tcp ?? udp) != nil`, `column 2: "tcp" is a group of fields: it cannot be chosen here`},
	{`tcp.dport ?? udp.dport == 22 and mark ?? zone == 1`, `column 24: "==" beside ?? is ambiguous: write parentheses around A ?? B`},
	{`tcp.dport ?? 5 + 3 == 22`, `column 16: "+" beside ?? is ambiguous: write parentheses around A ?? B`},
	{`let x = 5; tcp.dport == x`, `column 1: "let" is not used here: there are no variables`},
	{`tcp.dport == 22; mark == 1`, `column 16: ";" is not used here: one expression, without ';'`},
	{`if mark == 1 { true } else { false }`, `column 1: "if" is not used here: write CONDITION ? A : B`},
	{`{"a": 1} == 1`, `column 1: "{" is not used here: write any(labels, # == "web"), without braces`},
	{`tcp.dport | len() > 1`, `column 11: "|" is not used here: or joins conditions; functions are called as len(payload)`},
	{`tcp.dport ** 2 == 4`, `column 11: "**" is not used here: there are + - * / %`},
	{`tcp.dport ^ 2 == 4`, `column 11: "^" is not used here: there are + - * / %`},
	{`$env.tcp == 1`, `column 1: "$env.tcp" is not a field`},
	{`tcp.dport == 22 @ 5`, `column 17: "@" is not used here`},
	{`tcp.dport == '22`, `column 17: the closing quote is missing`},
	{"tcp.dport == `22", `column 17: the closing quote is missing`},
	{`tcp.dport == 22 /* open`, `column 24: the comment does not end`},
	{`mark == 0x1g`, `column 9: "0x1g" is not a number: what is not a plain number stands in quotes, as "30s"`},
	{`mark == 1e3`, `column 9: "1e3" is not a whole number: mark holds whole numbers`},
	{`tcp.dport == 22 tcp.sport == 22`, `column 17: "tcp" is not expected here: and, or join conditions`},
	{`now() > start`, `column 1: "now" is not a function: there are len, any, all, none, lower, upper`},
	{`int("5") == mark`, `column 1: "int" is not a function: there are len, any, all, none, lower, upper`},
	{`::len(payload) > 5`, `column 1: "::" is not used here: an address is written in quotes`},
	{`é == 5`, `column 1: "é" is not a field`},
	{`helper == "é" and tpc.dport == 22`, `column 19: "tpc.dport" is not a field (did you mean "tcp.dport"?)`},
}

func TestErrors(t *testing.T) {
	if len(wrong) < 60 {
		t.Errorf("%d expressions", len(wrong))
	}
	for _, tt := range wrong {
		p, err := Compile(reg, tt.expr)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v, %v; want an *Error", tt.expr, p, err)
			continue
		}
		if err.Error() != tt.msg {
			t.Errorf("%s:\n got %s\nwant %s", tt.expr, err, tt.msg)
		}
	}
}

// TestLimits: what could exhaust the parser's stack, or ours, is refused, and
// what is merely long is not.
func TestLimits(t *testing.T) {
	for name, text := range map[string]string{
		"parentheses": strings.Repeat("(", 1e5) + "true" + strings.Repeat(")", 1e5),
		"brackets":    "mark in " + strings.Repeat("[", 1e5),
		"not":         strings.Repeat("not ", 1e5) + "true",
		"signs":       "mark == " + strings.Repeat("-", 1e5) + "1",
		"choices":     strings.Repeat("true ? ", 1e5) + "true" + strings.Repeat(" : false", 1e5),
		"members":     "tcp" + strings.Repeat(".tcp", 1e5),
		"operators":   "true" + strings.Repeat(" or mark == 1", 1e5),
		"comparisons": "mark" + strings.Repeat(" < mark", 1e5),
		"open":        strings.Repeat("any(labels, ", 1e5),
		"length":      strings.Repeat(" ", 5<<20) + "true",
	} {
		_, err := Compile(reg, text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: a message of %d bytes", name, len(err.Error()))
		}
	}
	for name, text := range map[string]string{
		"or":          "mark == 1" + strings.Repeat(" or mark == 2", 3000),
		"and":         "mark == 1" + strings.Repeat(" and mark != 2", 3000),
		"sum":         "0" + strings.Repeat(" + mark", 9000) + " == 9000",
		"parentheses": strings.Repeat("(", 150) + "mark == 1" + strings.Repeat(")", 150),
		"comparisons": "0" + strings.Repeat(" < mark", 3000) + " or mark == 1",
	} {
		p, err := Compile(reg, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !p.Match(subjects["ssh"]) {
			t.Errorf("%s does not match", name)
		}
	}
}
