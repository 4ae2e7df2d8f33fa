package pattern

// Help describes flows in words to users. Lines that begin with four spaces are flows,
// up to two spaces and a remark.
const Help = `A flow in words names one direction of a connection. It is one argument, in quotes:
an unquoted > is the shell's, which would write to a file of the name behind it.

  [PROTOCOL] [SOURCE] > [DESTINATION] [WORD N]...

    tcp 10.0.0.1:40000 > 10.0.0.2:22
    tcp [fd00::1]:40000 > [fd00::2]:22
    udp 10.0.0.1:5353 > 224.0.0.251:5353

As a pattern any part may be missing, but not the >. What is missing may be anything:

    tcp > :443                        to port 443 over TCP
    > :53                             to port 53 over any protocol
    tcp :22 >                         from port 22
    10.0.0.7 >                        from this address
    > fd00::1                         to this address, over any protocol
    udp >                             all of UDP

An address may be a prefix or a range, a port a name of /etc/services, a range or a
list:

    tcp 10.0.0.0/8 > :22,80,8000-8999
    tcp 10.0.0.1-10.0.0.9 > :ssh
    > [fd00::/8]:53                   an IPv6 address with a port is in brackets
    udp > 192.0.2.0/24:domain

Protocols are names or numbers; * stands for any protocol or any end. ICMP has a type,
a code and an id in the place of ports, GRE has keys:

    icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513
    icmp > type 8
    gre 10.0.0.1:0x3e8 > 10.0.0.2:0x7d0
    47 * > 10.0.0.2
    sctp > :3868

A flow of the connection tracking table may be in a zone, or one direction of it may:

    tcp > :443 zone 3
    tcp > :443 orig-zone 3

Where they go: 'ct list', 'ct watch' and most others of 'nfctl ct' and 'nfctl expect',
which look at the original direction, the one that began the connection; rules of
'nfctl queue' (--drop, --accept, --rule) and its --attach, which look at the packet's
own addresses. 'ct create' and 'ct get' take one exact flow. -o flow prints flows in
this form.

Either end: --host and --port. All but one: --dport '!22', or --filter, which takes an
expression ('nfctl help expressions'); both go beside a flow in words, and all must
match.
`
