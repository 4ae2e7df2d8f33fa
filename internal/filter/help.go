package filter

// Help describes the language to users. Lines that begin with four spaces are
// expressions over flows or packets, up to two spaces and a remark.
const Help = `An expression is a condition on the fields of a flow, an expectation or a packet.
Names are the paths of its JSON; 'nfctl help fields' lists them.

    tcp.dport == 22
    orig.src in "10.0.0.0/8" and orig.dport in [22, 80]
    "ASSURED" in status and not (state == "ESTABLISHED")
    payload startsWith b"\x16\x03" and ip.ttl < 10

Compare with == != < <= > >= and in; join with and, or, not and parentheses.
A text in quotes beside a field is read as the field's flag reads it: addresses,
prefixes and ranges, ports by name, durations, sizes, marks with masks, names in
any case, lists with ',', and '!' in front for every other value:

    ip.src in ["10.0.0.0/8", "fd00::/8"]
    dport == "ssh,8000-8999"
    orig.bytes > "1MiB" and timeout > "30s"
    mark == "0x1/0xff"
    proto == "TCP"
    tcp.dport in 1000..2000

Lists hold names. A name may be in them; of several names any may be. == compares
the whole list.

    "SYN" in tcp.flags and "ACK" not in tcp.flags
    tcp.flags == ["SYN", "ACK"]
    any(labels, # startsWith "web")  # is the element; also all and none
    len(status) > 2

Texts and bytes: contains, startsWith, endsWith, matches (a regular expression of
RE2), len, lower and upper (of ASCII letters). b"\x00\xff" spells bytes.

    lower(payload) contains "user-agent: curl"
    helper matches "^(ftp|sip)$"

What is absent is not zero: a comparison with it is false, != too, and so is 'in'.
'not' negates that. Whether something is there is asked with nil, and ?? gives
another value in place of an absent one:

    tcp != nil and tcp.mss == nil
    (tcp.dport ?? udp.dport) == 53

Numbers are computed with + - * / %, of which / keeps fractions; what cannot be
computed, as x / 0, is absent. Times count in seconds there. CONDITION ? A : B
chooses.

    orig.bytes / orig.packets > 1000
    stop - start > 60
    (proto == "tcp" ? orig.dport : orig.sport) == 53

'not' binds to the next word alone: write not (A == B).
`
