package nft

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/mark"
	"nfctl/internal/nl"
)

// Queues is a range of queue numbers, both ends included, over which packets are
// spread by their addresses.
type Queues struct{ First, Last uint16 }

// A Table is nfctl's own table in the kernel, with one chain for each Spec. Its
// calls are for one goroutine at a time.
type Table struct {
	Name     string
	Families []uint8 // NFPROTO_INET, or NFPROTO_IPV4 and NFPROTO_IPV6: one table each
	Compat   bool    // rules use the NFQUEUE target through nft_compat
	Owned    bool    // the kernel removes the table when the socket goes
	// Unguarded says that the kernel's nf_tables cannot look at connections
	// (CONFIG_NFT_CT), so that what this host's rules reject may be lost.
	Unguarded bool

	conn  *nl.Conn
	way   way
	made  map[place]bool // tables (chain "") and chains that there are
	feeds []place        // chains with rules that queue
}

// tableOwner is NFT_TABLE_F_OWNER (Linux 5.12, linux/netfilter/nf_tables.h): only
// the socket that made the table may change it, and it is removed with the socket.
const tableOwner = 1 << 1

// A way is one of the forms a table can have, of which kernels know different ones.
type way struct {
	compat bool // NFQUEUE target, not nf_tables' queue statement
	pair   bool // tables for ip and ip6, not one for inet
	owned  bool
	bare   bool // without the rule for refusals
}

// In order of preference. All but the first ones are for kernels without
// CONFIG_NFT_QUEUE, without CONFIG_NF_TABLES_INET or with targets that refuse
// inet, and before 5.12.
var ways = []way{
	{owned: true}, {compat: true, owned: true}, {pair: true, owned: true}, {compat: true, pair: true, owned: true},
	{}, {compat: true}, {pair: true}, {compat: true, pair: true},
}

// Attach makes a table whose rules queue what the specs say. The kernel is asked
// for the best form of it first and for simpler ones where it lacks something;
// since a table is made as a whole or not at all, asking is the probe. When it
// can do none the error is EOPNOTSUPP. The table is in the calling thread's
// network namespace and is the caller's to Close.
//
// With codes, what a code in a packet's mark says is done behind the queue, and flows
// that are decided are not queued; nil: there are none.
//
// A Spec with First is refused with EOPNOTSUPP where the kernel does not count: it would
// begin to by itself, for good, and not for the flows that there are.
func Attach(specs []Spec, q Queues, codes *mark.Codes) (*Table, error) {
	for i := range specs {
		if n, _ := nl.Setting(acct); specs[i].First > 0 && n == 0 {
			return nil, &nl.OpError{Op: "count packets", Object: "attach to " + specs[i].Text, Err: unix.EOPNOTSUPP,
				Msg: acct + " is not on: sysctl -w " + acct + "=1; flows that there are by then stay without counters"}
		}
	}
	t, err := attach(specs, q, codes, ways)
	if codes != nil || !errors.Is(err, unix.EOPNOTSUPP) || !slices.ContainsFunc(specs, func(s Spec) bool {
		return s.meetsRefusals()
	}) {
		return t, err
	}
	bare := slices.Clone(ways)
	for i := range bare {
		bare[i].bare = true
	}
	if t, err := attach(specs, q, nil, bare); err == nil {
		return t, nil
	}
	return nil, err
}

// acct is the setting by which the kernel counts each flow's packets.
const acct = "net.netfilter.nf_conntrack_acct"

func attach(specs []Spec, q Queues, codes *mark.Codes, ways []way) (*Table, error) {
	const object = "nf_tables table"
	if len(specs) == 0 || q.Last < q.First || int(q.Last)-int(q.First) > 0xfffe {
		return nil, nl.Error("create", object, unix.EINVAL)
	}
	conn, err := nl.Dial(nl.Config{})
	if err != nil {
		return nil, err
	}
	var said []string
	for _, w := range ways {
		for n := range 100 {
			t := &Table{Name: fmt.Sprintf("%s%d", prefix, os.Getpid()), Compat: w.compat, Owned: w.owned,
				Unguarded: w.bare, conn: conn, way: w}
			if n > 0 { // another's: a process of that number in another container
				t.Name = fmt.Sprintf("%s-%d", t.Name, n+1)
			}
			msgs := t.compose(specs, q, codes)
			failed, err := conn.Commit(nl.SubsysTables, msgs...)
			if err == nil {
				return t, nil
			}
			// EEXIST, or EPERM when the table has an owner. Without privilege the
			// whole is refused, not one message.
			if taken := errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EPERM); taken && failed >= 0 &&
				failed < len(t.Families) {
				continue
			}
			if !lacks(err) {
				_ = conn.Close()
				return nil, nl.Error("create", object+" "+t.Name, err)
			}
			said = append(said, fmt.Sprintf("%s: %v", w, err))
			break
		}
	}
	_ = conn.Close()
	return nil, &nl.OpError{Op: "create", Object: object, Err: unix.EOPNOTSUPP,
		Msg: "it needs CONFIG_NFT_QUEUE, or CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_TARGET_NFQUEUE; " +
			strings.Join(said, "; ")}
}

// lacks reports whether an error is one by which kernels say that they do not know
// something.
func lacks(err error) bool {
	for _, e := range []error{unix.EOPNOTSUPP, unix.ENOENT, unix.EINVAL, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (w way) String() string {
	s := "queue statement"
	if w.compat {
		s = "NFQUEUE target"
	}
	if w.pair {
		s += ", tables ip and ip6"
	} else {
		s += ", table inet"
	}
	if !w.owned {
		s += ", no owner"
	}
	return s
}

// compose returns the messages that make t's rules, the tables' own first and what
// there is already left as it is, and sets t.Families.
func (t *Table) compose(specs []Spec, q Queues, codes *mark.Codes) [][]byte {
	l := layout{t: t, codes: codes}
	l.chains(specs, q)
	if t.made == nil {
		t.made = map[place]bool{}
	}
	t.Families, t.feeds = nil, nil
	var msgs, rest [][]byte
	for i := range l.list {
		c := &l.list[i]
		if table := (place{family: c.family, table: t.Name}); !t.made[table] {
			t.made[table] = true
			msgs = append(msgs, t.newTable(c.family, t.Owned))
		}
		if !t.made[c.place] {
			t.made[c.place] = true
			rest = append(rest, t.newChain(c))
		}
		if c.feeds {
			t.feeds = append(t.feeds, c.place)
		}
	}
	for p := range t.made {
		if p.chain == "" {
			t.Families = append(t.Families, p.family)
		}
	}
	slices.Sort(t.Families)
	for i := range l.list {
		c := &l.list[i]
		for _, r := range c.rules {
			rest = append(rest, t.newRule(c.family, c.chain, r))
		}
	}
	return append(msgs, rest...)
}

// Update puts other codes in force, at one moment and as a whole. Chains are only
// added: to delete one would make the kernel drop what is queued.
func (t *Table) Update(specs []Spec, q Queues, codes *mark.Codes) error {
	if t.conn == nil {
		return nl.Error("change", "nf_tables table "+t.Name, os.ErrClosed)
	}
	n := *t
	n.made = maps.Clone(t.made)
	var msgs [][]byte
	for _, f := range t.Families {
		msgs = append(msgs, nl.AppendString(header(unix.NFT_MSG_DELRULE, 0, f), unix.NFTA_RULE_TABLE, t.Name))
	}
	if _, err := t.conn.Commit(nl.SubsysTables, append(msgs, n.compose(specs, q, codes)...)...); err != nil {
		return nl.Error("change", "nf_tables table "+t.Name, err)
	}
	*t = n
	return nil
}

func header(msg uint8, flags uint16, family uint8) []byte {
	return nl.AppendHeader(nil, nl.Type(nl.SubsysTables, msg), flags, family, 0)
}

func (t *Table) newTable(family uint8, owned bool) []byte {
	b := header(unix.NFT_MSG_NEWTABLE, nl.FlagCreate|nl.FlagExcl, family)
	b = nl.AppendString(b, unix.NFTA_TABLE_NAME, t.Name)
	if owned {
		b = nl.AppendU32(b, unix.NFTA_TABLE_FLAGS, tableOwner)
	}
	return b
}

func (t *Table) newChain(c *chain) []byte {
	b := header(unix.NFT_MSG_NEWCHAIN, nl.FlagCreate|nl.FlagExcl, c.family)
	b = nl.AppendString(b, unix.NFTA_CHAIN_TABLE, t.Name)
	b = nl.AppendString(b, unix.NFTA_CHAIN_NAME, c.chain)
	if !c.base {
		return b
	}
	b, hook := nl.Begin(b, unix.NFTA_CHAIN_HOOK)
	b = nl.AppendU32(b, unix.NFTA_HOOK_HOOKNUM, uint32(c.hook))
	b = nl.AppendU32(b, unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
	b = nl.End(b, hook)
	b = nl.AppendU32(b, unix.NFTA_CHAIN_POLICY, nfAccept)
	return nl.AppendString(b, unix.NFTA_CHAIN_TYPE, "filter")
}

func (t *Table) newRule(family uint8, chain string, r rule) []byte {
	b := header(unix.NFT_MSG_NEWRULE, nl.FlagCreate|nl.FlagAppend, family)
	b = nl.AppendString(b, unix.NFTA_RULE_TABLE, t.Name)
	b = nl.AppendString(b, unix.NFTA_RULE_CHAIN, chain)
	return nl.AppendAttr(b, unix.NFTA_RULE_EXPRESSIONS|nl.Nested, r)
}

// DeleteRules deletes all rules of the chains that queue, and leaves the chains:
// nothing more is queued, and what is queued stays so. What is done behind the queue
// is done still. Deleting a chain would make the kernel drop everything that is queued
// in the namespace.
func (t *Table) DeleteRules() error {
	var msgs [][]byte
	for _, p := range t.feeds {
		b := nl.AppendString(header(unix.NFT_MSG_DELRULE, 0, p.family), unix.NFTA_RULE_TABLE, t.Name)
		msgs = append(msgs, nl.AppendString(b, unix.NFTA_RULE_CHAIN, p.chain))
	}
	return t.commit("delete rules", msgs)
}

// Close deletes the table, its chains and rules. What is queued then, in any
// queue of the namespace, the kernel drops. Closing again does nothing.
func (t *Table) Close() error {
	if t.conn == nil {
		return nil
	}
	err := t.each("delete", func(f uint8) []byte {
		return nl.AppendString(header(unix.NFT_MSG_DELTABLE, 0, f), unix.NFTA_TABLE_NAME, t.Name)
	})
	if errors.Is(err, unix.ENOENT) { // gone already
		err = nil
	}
	_ = t.conn.Close()
	t.conn = nil
	return err
}

// each commits the message that f makes for each of the table's families.
func (t *Table) each(op string, f func(family uint8) []byte) error {
	var msgs [][]byte
	for _, family := range t.Families {
		msgs = append(msgs, f(family))
	}
	return t.commit(op, msgs)
}

func (t *Table) commit(op string, msgs [][]byte) error {
	if t.conn == nil {
		return nl.Error(op, "nf_tables table "+t.Name, os.ErrClosed)
	}
	_, err := t.conn.Commit(nl.SubsysTables, msgs...)
	return nl.Error(op, "nf_tables table "+t.Name, err)
}
