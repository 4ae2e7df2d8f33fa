package compat

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nfctl/internal/value"
)

// A Flag is a flag of nfctl's own commands and the text beside it.
type Flag struct{ Name, Text string }

// A Mask says that an address under a mask is another: what --mask-src asks for
// when its mask is no prefix.
type Mask struct {
	Path       string // field of a flow
	Addr, Mask netip.Addr
}

// A Command is a command line of conntrack(8) in nfctl's terms.
type Command struct {
	Verb  byte   // its letter; 'R' with File; 'h' also when there was none
	Table string // conntrack, expect, dying or unconfirmed
	File  string // of -R; "-": standard input

	// Choose are flags of 'nfctl ct list', all of which must hold; so must
	// Exprs, expressions about flows, and Masks.
	Choose []Flag
	Exprs  []string
	Masks  []Mask

	// Entry are flags of 'nfctl ct create' or 'nfctl expect create'. With Reply
	// they say for -G how a flow's reply direction is.
	Entry []Flag
	Reply bool

	// Sets are what 'nfctl ct update' sets, each NAME=VALUE. LabelDel may be
	// AllLabels.
	Sets               []string
	LabelAdd, LabelDel []string

	Output   string // as nfctl's -o; "": text
	Family   string // "", "ipv4" or "ipv6"
	Zero     bool
	Events   string // as nfctl's --events; "": all
	Buffer   int    // bytes; 0: not said
	Proto    string // as typed
	Role     string // of DCCP's original direction
	Warnings []string
}

// Labels reports whether the command line names labels.
func (c *Command) Labels() bool {
	named := func(f Flag) bool { return f.Name == "label" || f.Name == "label-add" }
	return slices.ContainsFunc(c.Choose, named) || slices.ContainsFunc(c.Entry, named) ||
		len(c.LabelAdd)+len(c.LabelDel) > 0
}

// AllLabels stands for all labels in LabelDel.
const AllLabels = "all"

// An Error is a command line that conntrack(8) refuses, or should.
type Error struct {
	Status int // 2: what is wrong is the command line
	Text   string
}

func (e *Error) Error() string { return e.Text }

// bad makes the error of a bad command line.
func bad(format string, args ...any) error { return &Error{2, fmt.Sprintf(format, args...)} }

// Parse reads the words behind the program's name.
func Parse(args []string) (*Command, error) {
	if len(args) > 1 && (args[0] == "-R" || args[0] == "--load-file") {
		return &Command{Verb: 'R', Table: tables[0], File: args[1]}, nil
	}
	p := &parser{args: args, c: &Command{Table: tables[0]}, opts: make([]*option, 0, 16), texts: make([]string, 0, 16)}
	if err := p.words(); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := p.build(); err != nil {
		return nil, err
	}
	return p.c, nil
}

// ParseLine reads the words of a line of a file for -R.
func ParseLine(words []string) (*Command, error) {
	c, err := Parse(words)
	if err != nil {
		return nil, err
	}
	if !strings.ContainsRune("IAUDF", rune(c.Verb)) || c.Table != tables[0] {
		what := "-" + string(c.Verb)
		if c.Table != tables[0] {
			what += " " + c.Table
		}
		return nil, bad("Cannot use command `%s' with --load-file", what)
	}
	return c, nil
}

type parser struct {
	args  []string
	next  int // of args
	c     *Command
	verb  verbs
	proto *protocol
	num   uint8 // protocol
	has   bool  // a protocol was given
	opts  []*option
	texts []string    // the last value of each of opts
	lists [3][]string // of --label, --label-add, --label-del
	state []string    // words of --status
}

// words reads all words as getopt_long(3) does: options in any place, long ones
// shortened, short ones in clusters; other words are passed over.
func (p *parser) words() error {
	for p.next < len(p.args) {
		word := p.args[p.next]
		p.next++
		var err error
		switch {
		case word == "--":
			return nil
		case strings.HasPrefix(word, "--"):
			err = p.long(word)
		case len(word) > 1 && word[0] == '-':
			err = p.cluster(word)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// known returns the options that are known now: those of a protocol are behind -p.
func (p *parser) known(f func(name string, c *command, o *option)) {
	for i := range commands {
		f(commands[i].name, &commands[i], nil)
	}
	each := func(list []option) {
		for i := range list {
			for _, n := range list[i].names {
				f(n, nil, &list[i])
			}
		}
	}
	each(options)
	if p.proto != nil {
		each(p.proto.opts)
	}
}

func (p *parser) long(word string) error {
	name, text, attached := strings.Cut(word[2:], "=")
	var cmd *command
	var opt *option
	exact, ambiguous := false, false
	p.known(func(n string, c *command, o *option) {
		switch {
		case exact, !strings.HasPrefix(n, name), n != name && o != nil && o.extra:
		case n == name:
			cmd, opt, exact, ambiguous = c, o, true, false
		case cmd == nil && opt == nil:
			cmd, opt = c, o
		case cmd != c || opt != o:
			ambiguous = true
		}
	})
	switch {
	case ambiguous, cmd == nil && opt == nil:
		return bad("unknown option `%s'", word)
	case cmd != nil && attached && (cmd.letter == 'V' || cmd.letter == 'h' || cmd.letter == 'S'):
		return bad("unknown option `%s'", word)
	case cmd != nil:
		return p.command(cmd, text, attached, false)
	case opt.arg == none && attached:
		return bad("unknown option `%s'", word)
	}
	return p.option(opt, word, text, attached)
}

func (p *parser) cluster(word string) error {
	for i := 1; i < len(word); i++ {
		letter, rest := word[i], word[i+1:]
		if j := slices.IndexFunc(commands, func(c command) bool { return c.letter == letter }); j >= 0 {
			// A table may be attached; what cannot be one are more options.
			table := len(rest) >= 3 && tableOf(rest) != ""
			if err := p.command(&commands[j], rest, table, rest != "" && !table); err != nil || table {
				return err
			}
			continue
		}
		j := slices.IndexFunc(options, func(o option) bool { return o.letter == letter })
		if j < 0 {
			return bad("unknown option `%s'", word)
		}
		o := &options[j]
		if o.arg == none {
			if err := p.option(o, word, "", false); err != nil {
				return err
			}
			continue
		}
		return p.option(o, word, rest, rest != "")
	}
	return nil
}

// optional returns the next word when it can be the value of an option that may
// stand without one.
func (p *parser) optional() (string, bool) {
	if p.next < len(p.args) && p.args[p.next] != "" && p.args[p.next][0] != '-' && p.args[p.next][0] != '!' {
		p.next++
		return p.args[p.next-1], true
	}
	return "", false
}

func tableOf(s string) string {
	for _, t := range []string{"expect", "conntrack", "dying", "unconfirmed"} {
		if strings.HasPrefix(t, s) {
			return t
		}
	}
	return ""
}

// command takes a command; more says that options follow in the same word, so that
// the next one is no table.
func (p *parser) command(c *command, table string, attached, more bool) error {
	if !attached && !more {
		table, attached = p.optional()
	}
	t := tables[0]
	if attached {
		if t = tableOf(table); t == "" {
			return bad("unknown type `%s'", table)
		}
	}
	verb := c.flow
	switch {
	case t == "expect":
		verb = c.other
	case t != tables[0] && c.letter != 'L':
		return bad("Can't do that command with tables `dying' and `unconfirmed'")
	}
	if verb == 0 {
		return bad("Can't do --%s on expectations", c.name)
	}
	if p.verb != 0 {
		return bad("Invalid commands combination")
	}
	p.verb, p.c.Verb, p.c.Table = verb, c.letter, t
	return nil
}

// option takes an option as it comes, in what depends on order.
func (p *parser) option(o *option, word, text string, attached bool) error {
	switch {
	case o.arg == required && !attached:
		if p.next == len(p.args) {
			return bad("option `%s' requires an argument", word)
		}
		text = p.args[p.next]
		p.next++
	case o.arg == optional && !attached:
		text, _ = p.optional()
	}
	name := o.names[0]
	switch name {
	case "protonum":
		if err := p.protocol(text); err != nil {
			return err
		}
	case "nat-range":
		p.c.Warnings = append(p.c.Warnings, "ignoring -a, deprecated option.")
		return nil
	case "label", "label-add", "label-del":
		i := slices.Index([]string{"label", "label-add", "label-del"}, name)
		if text == "" && name == "label-del" {
			text = AllLabels
		}
		p.lists[i] = append(p.lists[i], strings.Split(text, ",")...)
		if len(p.lists[1]) > 0 && len(p.lists[2]) > 0 {
			return &Error{1, "cannot use --label-add and --label-del at the same time"}
		}
	case "status":
		p.state = append(p.state, strings.Split(text, ",")...)
	case "output":
		if err := p.output(text); err != nil {
			return err
		}
	case "set":
		p.c.Entry = append(p.c.Entry, Flag{"set", text})
	case "family":
		if text != "ipv4" && text != "ipv6" {
			return bad("`%s' unsupported protocol", text)
		}
		if p.c.Family != "" && p.c.Family != text {
			return bad("mismatched address family")
		}
		p.c.Family = text
	}
	if i := slices.Index(p.opts, o); i >= 0 {
		p.texts[i] = text
	} else {
		p.opts, p.texts = append(p.opts, o), append(p.texts, text)
	}
	return nil
}

// given returns the value of an option by its first name, and whether it was given.
func (p *parser) given(name string) (string, bool) {
	for i, o := range p.opts {
		if o.names[0] == name {
			return p.texts[i], true
		}
	}
	return "", false
}

func (p *parser) protocol(text string) error {
	if strings.EqualFold(text, "icmp6") { // an alias that old files of protocols have
		text = "icmpv6"
	}
	n, err := value.Protocols.Parse(text)
	if err != nil || n > 255 {
		return bad("`%s' unsupported protocol", text)
	}
	p.num, p.has, p.proto = uint8(n), true, findProtocol(uint8(n))
	p.c.Proto = strconv.FormatUint(n, 10)
	return nil
}

// abbreviated finds the word that text begins, in any case.
func abbreviated(text string, words ...string) string {
	for _, w := range words {
		if text != "" && len(text) <= len(w) && strings.EqualFold(w[:len(text)], text) {
			return w
		}
	}
	return ""
}

func (p *parser) output(text string) error {
	words := strings.Split(p.c.Output, ",")
	if p.c.Output == "" {
		words = nil
	}
	for _, w := range strings.Split(text, ",") {
		full := abbreviated(w, "xml", "extended", "timestamp", "id", "ktimestamp", "labels", "userspace", "save")
		if full == "" {
			return bad("Bad parameter `%s'", w)
		}
		if !slices.Contains(words, full) {
			words = append(words, full)
		}
	}
	if len(words) > 1 && slices.Contains(words, "save") && slices.ContainsFunc(words, func(w string) bool {
		return w != "save" && w != "userspace"
	}) {
		return &Error{1, "cannot combine save output with any other output type, use -o save only"}
	}
	p.c.Output = strings.Join(words, ",")
	return nil
}

// check refuses options that do not go with the command or with each other, and
// misses those that it wants.
func (p *parser) check() error {
	_, any := p.given("any-nat")
	_, src := p.given("src-nat")
	_, dst := p.given("dst-nat")
	if any && (src || dst) {
		return bad("cannot specify `--src-nat' or `--dst-nat' with `--any-nat'")
	}
	if p.verb == 0 {
		p.c.Verb = 'h'
	}
	if err := p.allowed(options, [2][2]string{{"src", "dst"}, {"reply-src", "reply-dst"}}); err != nil {
		return err
	}
	if p.proto == nil || p.verb == help {
		return nil
	}
	return p.allowed(p.proto.opts, p.proto.pairs)
}

func (p *parser) allowed(list []option, pairs [2][2]string) error {
	paired := false
	for i := range list {
		o := &list[i]
		has := slices.Contains(p.opts, o)
		switch {
		case has && (o.may|o.must|o.pair)&p.verb == 0:
			return bad("Illegal option `--%s' with this command", o.names[0])
		case !has && o.must&p.verb != 0:
			return bad("You need to supply the `--%s' option for this command", o.names[0])
		}
		paired = paired || o.pair&p.verb != 0
	}
	if !paired {
		return nil
	}
	missing := pairs[0]
	for i, pair := range pairs {
		_, a := p.given(pair[0])
		_, b := p.given(pair[1])
		switch {
		case a && b:
			return nil
		case (a || b) && i == 1 && p.lacks(pairs[0]):
			missing = pair
		}
	}
	return bad("you have to specify `--%s' and `--%s'", missing[0], missing[1])
}

// lacks reports whether neither of a pair was given.
func (p *parser) lacks(pair [2]string) bool {
	_, a := p.given(pair[0])
	_, b := p.given(pair[1])
	return !a && !b
}

// build turns what was given into nfctl's terms.
func (p *parser) build() error {
	c := p.c
	if p.verb == expectList && c.Family == "" {
		c.Family = "ipv4"
	}
	if p.verb == expectCount {
		c.Family = "ipv4"
	}
	if p.has && p.verb != help && p.verb&making == 0 {
		p.put("protonum", "proto", strconv.Itoa(int(p.num)))
	} else if p.has {
		c.Entry = append(c.Entry, Flag{"proto", strconv.Itoa(int(p.num))})
	}
	// In the order of the tables, which is no other command's: so that what is
	// wrong with the first is said first.
	for _, list := range [2][]option{options, p.protocolOptions()} {
		for i := range list {
			at := slices.Index(p.opts, &list[i])
			if at < 0 {
				continue
			}
			if err := p.take(&list[i], p.texts[at]); err != nil {
				return err
			}
		}
	}
	if c.Zero && (len(c.Choose) > 0 || len(c.Exprs) > 0) {
		return bad("Can't use -z with filtering parameters")
	}
	if c.Family != "" && p.verb&(choose) != 0 {
		c.Choose = append(c.Choose, Flag{"family", c.Family})
	}
	if p.verb&keyed != 0 {
		p.mirror()
	}
	return nil
}

func (p *parser) protocolOptions() []option {
	if p.proto == nil {
		return nil
	}
	return p.proto.opts
}

// put adds a flag: to what describes an entry, or to what chooses.
func (p *parser) put(option, flag, text string) {
	if p.verb&choose != 0 {
		p.c.Choose = append(p.c.Choose, Flag{flag, text})
		return
	}
	p.c.Entry = append(p.c.Entry, Flag{flag, text})
}

// take reads an option's value.
func (p *parser) take(o *option, text string) error {
	c, name := p.c, o.names[0]
	number := func(what string, max uint64, base int) error {
		if n, err := strconv.ParseUint(text, base, 64); err != nil || n > max {
			return bad("invalid %s `%s'", what, text)
		}
		return nil
	}
	switch name {
	case "protonum", "nat-range", "output", "family", "set":
		return nil
	case "src", "dst":
		return p.network(name, text)
	case "reply-src", "reply-dst", "tuple-src", "tuple-dst":
		a, err := p.address(name, text)
		if err == nil && p.verb&(expectGet|expectRemove) == 0 {
			p.put(name, name, a.String())
		}
		return err
	case "mask-src", "mask-dst":
		if p.verb != expectCreate {
			if _, ok := p.given(name[len("mask-"):]); !ok {
				return bad("Can't use --%s without --%s", name, name[len("mask-"):])
			}
			return nil // network looks at it
		}
		_, err := p.address(name, text)
		if err == nil && name == "mask-src" { // of the destination the kernel takes all bits
			p.put(name, name, text)
		}
		return err
	case "timeout":
		if err := number("timeout", 1<<32-1, 10); err != nil {
			return err
		}
		if p.verb == update {
			c.Sets = append(c.Sets, "timeout="+text)
		} else {
			p.put(name, name, text)
		}
	case "status":
		return p.status()
	case "zero":
		c.Zero = true
	case "event-mask":
		return p.events(text)
	case "buffer-size":
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || n == 0 {
			return bad("invalid buffer size `%s'", text)
		}
		c.Buffer = int(n)
	case "mark":
		v, m, masked := strings.Cut(text, "/")
		if !masked {
			m = "0xffffffff"
		}
		mark, err := strconv.ParseUint(v, 0, 32)
		mask, err2 := strconv.ParseUint(m, 0, 32)
		switch {
		case err != nil || err2 != nil:
			return bad("invalid mark `%s'", text)
		case p.verb == update:
			c.Sets = append(c.Sets, fmt.Sprintf("mark^=%#x/%#x", mark, mask))
		case p.verb&making != 0:
			p.put(name, name, strconv.FormatUint(mark, 10))
		case mark&^mask != 0: // no mark is so
			c.Exprs = append(c.Exprs, "mark < 0")
		default:
			p.put(name, name, text)
		}
	case "id":
		n, err := strconv.ParseUint(text, 0, 32)
		if err != nil {
			return bad("invalid id `%s'", text)
		}
		c.Exprs = append(c.Exprs, "id == "+strconv.FormatUint(n, 10))
	case "secmark":
		if err := number("secmark", 1<<32-1, 0); err != nil {
			return err
		}
		p.put(name, name, text)
	case "zone", "orig-zone", "reply-zone":
		if err := number("zone", 65535, 0); err != nil {
			return err
		}
		if n, _ := strconv.ParseUint(text, 0, 16); n == 0 && p.verb&choose != 0 {
			// A flow that has no such zone is in zone 0: by -w also one that has a zone
			// of one direction.
			c.Exprs = append(c.Exprs, "not ("+strings.Replace(name, "-", ".", 1)+" > 0)")
			return nil
		}
		p.put(name, name, text)
	case "src-nat", "dst-nat", "any-nat":
		return p.nat(name, text)
	case "label":
		for _, l := range p.lists[0] { // all of them, while a list of nfctl's means any
			c.Choose = append(c.Choose, Flag{name, l})
		}
	case "label-add":
		if p.verb == update {
			c.LabelAdd = p.lists[1]
		} else {
			p.put(name, name, strings.Join(p.lists[1], ","))
		}
	case "label-del":
		c.LabelDel = p.lists[2]
	case "helper":
		p.put(name, name, text)
	default:
		return p.protocolOption(name, text, number)
	}
	return nil
}

// address reads an address, which must be of the family of all others.
func (p *parser) address(name, text string) (netip.Addr, error) {
	if _, _, ok := strings.Cut(text, "/"); ok {
		return netip.Addr{}, bad("CIDR notation unavailable for `--%s'", name)
	}
	a, err := value.Address(text)
	if err != nil {
		return a, bad("Invalid IP address `%s'", text)
	}
	return a, p.sameFamily(a)
}

func (p *parser) sameFamily(a netip.Addr) error {
	family := "ipv4"
	if a.Is6() {
		family = "ipv6"
	}
	if p.c.Family != "" && p.c.Family != family {
		return bad("mismatched address family")
	}
	p.c.Family = family
	return nil
}

// network reads --src and --dst, with a prefix or with --mask-src.
func (p *parser) network(name, text string) error {
	addr, length, prefixed := strings.Cut(text, "/")
	a, err := value.Address(addr)
	if err != nil {
		return bad("Invalid IP address `%s'", text)
	}
	if err := p.sameFamily(a); err != nil {
		return err
	}
	n := a.BitLen()
	if prefixed {
		if n, err = strconv.Atoi(length); err != nil || n < 0 || n > a.BitLen() {
			return bad("Invalid netmask")
		}
	}
	if n < a.BitLen() && p.verb&choose == 0 {
		return bad("Illegal option `--mask-%s' with this command", name)
	}
	if mask, ok := p.given("mask-" + name); ok && p.verb&choose != 0 {
		m, err := p.address("mask-"+name, mask)
		if err != nil {
			return err
		}
		ones, whole := leadingOnes(m.AsSlice())
		if !whole {
			p.c.Masks = append(p.c.Masks, Mask{"orig." + name, a, m})
			return nil
		}
		n = ones
	}
	out := a.String()
	if n < a.BitLen() {
		out = netip.PrefixFrom(a, n).Masked().String()
	}
	if p.verb&(expectCreate|expectGet|expectRemove) != 0 {
		name = "orig-" + name
	}
	p.put(name, name, out)
	return nil
}

// leadingOnes counts the ones that a mask begins with, and reports whether it has
// no others.
func leadingOnes(b []byte) (n int, whole bool) {
	for _, x := range b {
		n += bits.LeadingZeros8(^x)
		if x != 0xff {
			break
		}
	}
	total := 0
	for _, x := range b {
		total += bits.OnesCount8(x)
	}
	return n, n == total
}

func (p *parser) status() error {
	var words []string
	for _, w := range p.state {
		word, not := strings.CutPrefix(w, "!")
		if nat := abbreviated(word, "SRC_NAT", "DST_NAT"); nat != "" && len(word) > 1 {
			p.c.Warnings = append(p.c.Warnings, fmt.Sprintf("ignoring %s, use --%s-nat instead", nat,
				strings.ToLower(nat[:3])))
			continue
		}
		full := abbreviated(word, "ASSURED", "SEEN_REPLY", "UNSET", "FIXED_TIMEOUT", "EXPECTED", "OFFLOAD",
			"HW_OFFLOAD", "UNREPLIED")
		switch {
		case full == "", not && p.verb&choose == 0, full == "UNREPLIED" && p.verb&(choose&^update) == 0, not &&
			p.verb == update:
			return bad("Bad parameter `%s'", w)
		case p.verb == update || p.verb&choose == 0:
			if full != "UNSET" && !slices.Contains(words, full) {
				words = append(words, full)
			}
		case not:
			p.put("status", "status", "!"+full)
		default:
			p.put("status", "status", full) // all of them, while a list of nfctl's means any
		}
	}
	switch {
	case p.verb == update && len(words) > 0:
		p.c.Sets = append(p.c.Sets, "status="+strings.Join(words, ","))
	case p.verb&making != 0 && len(words) == 0:
		p.put("status", "status", "UNSET")
	case p.verb&making != 0:
		p.put("status", "status", strings.Join(words, ","))
	}
	return nil
}

func (p *parser) events(text string) error {
	var words []string
	for _, w := range strings.Split(text, ",") {
		switch abbreviated(w, "ALL", "NEW", "UPDATES", "DESTROY") {
		case "ALL":
			words = append(words, "all")
		case "NEW":
			words = append(words, "new")
		case "UPDATES":
			words = append(words, "update")
		case "DESTROY":
			words = append(words, "destroy")
		default:
			return bad("Bad parameter `%s'", w)
		}
	}
	p.c.Events = strings.Join(words, ",")
	return nil
}

// nat reads a translation: nothing, an address, or an address and a port.
func (p *parser) nat(name, text string) error {
	if text == "" {
		if p.verb&choose != 0 {
			p.put(name, name, "any")
		}
		return nil
	}
	addr, port, ported := text, "", false
	if rest, bracket := strings.CutPrefix(text, "["); bracket {
		var closed bool
		if addr, port, closed = strings.Cut(rest, "]"); !closed {
			return bad("No closing ']' around IPv6 address")
		}
		if port, ported = strings.CutPrefix(port, ":"); !ported { // brackets only set a port apart
			addr = text
		}
	} else if strings.Count(text, ":") == 1 {
		addr, port, ported = strings.Cut(text, ":")
	}
	a, err := p.address(name, addr)
	if err != nil {
		return err
	}
	if ported {
		if port == "" {
			return bad("No port specified after `:'")
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return bad("Invalid port `%s'", port)
		}
	}
	out := a.String()
	switch {
	case ported && a.Is6():
		out = "[" + out + "]:" + port
	case ported:
		out += ":" + port
	}
	p.put(name, name, out)
	return nil
}

// protocolOption reads an option of a protocol's.
func (p *parser) protocolOption(name, text string, number func(string, uint64, int) error) error {
	c := p.c
	switch {
	case strings.Contains(name, "key"):
		n, err := strconv.ParseUint(text, 0, 16)
		if err != nil {
			return bad("invalid key `%s'", text)
		}
		if name == "mask-key-dst" {
			return nil // of the destination the kernel takes all bits
		}
		text = strconv.FormatUint(n, 10)
	case name == "state":
		if !slices.Contains(p.proto.states, text) {
			return bad("unknown %s state `%s'", p.proto.upper, text)
		}
		if p.verb == update {
			c.Sets = append(c.Sets, "state="+text)
		} else if p.verb == get {
			c.Choose = append(c.Choose, Flag{name, text})
		} else {
			p.put(name, name, text)
		}
		return nil
	case name == "role":
		if text != "client" && text != "server" {
			return bad("Unknown DCCP role `%s'", text)
		}
		c.Role = text
		return nil
	case strings.HasSuffix(name, "vtag"):
		if err := number("tag", 1<<32-1, 0); err != nil {
			return err
		}
		switch p.verb {
		case update, get: // needs both, and nothing to choose by
			return nil
		}
	case strings.HasPrefix(name, "icmp"):
		most := uint64(255)
		if strings.HasSuffix(name, "-id") {
			most = 65535
		}
		if err := number(name, most, 0); err != nil {
			return err
		}
	case strings.HasPrefix(name, "mask-"):
		if err := number("mask of a port", 65535, 0); err != nil {
			return err
		}
		if name == "mask-port-dst" {
			return nil // as mask-key-dst
		}
	default:
		n, err := value.Port(text)
		if err != nil {
			return bad("invalid port `%s'", text)
		}
		text = strconv.Itoa(int(n))
	}
	if p.verb&(expectCreate|expectGet|expectRemove) != 0 {
		switch {
		case strings.HasPrefix(name, "reply-"):
			return nil
		case name == "sport" || name == "srckey":
			name = "orig-port-src"
		case name == "dport" || name == "dstkey":
			name = "orig-port-dst"
		default:
			name = strings.Replace(name, "key", "port", 1)
		}
	}
	p.put(name, name, text)
	return nil
}

// mirror turns an entry that only its reply direction describes into one that
// its original direction does.
func (p *parser) mirror() {
	if _, orig := p.given("src"); orig {
		return
	}
	// A key is looked for in both directions, so that the reply is one as it is.
	names := map[string]string{"reply-src": "dst", "reply-dst": "src", "reply-port-src": "dport",
		"reply-port-dst": "sport",
		"reply-key-src":  "dstkey", "reply-key-dst": "srckey"}
	if p.verb == get {
		p.c.Reply = true
		names = map[string]string{"reply-src": "src", "reply-dst": "dst", "reply-port-src": "sport",
			"reply-port-dst": "dport",
			"reply-key-src":  "srckey", "reply-key-dst": "dstkey"}
	}
	for i, f := range p.c.Entry {
		if n, ok := names[f.Name]; ok {
			p.c.Entry[i].Name = n
		}
	}
}
