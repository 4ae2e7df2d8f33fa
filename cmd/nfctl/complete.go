package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nfctl/internal/attrs"
	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/nft"
	"nfctl/internal/nl"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
	"nfctl/internal/value"
)

// A completer says what may stand where the user pressed the tab key. A word may
// be followed by a tab and a remark.
type completer = func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective)

const noFiles = cobra.ShellCompDirectiveNoFileComp

// flagCompleters returns what completes the values of flags, by the flag's name,
// which means the same in all commands. Those that look at the machine look when
// asked.
func (a *app) flagCompleters() map[string]completer {
	fields := listOf(func(c *cobra.Command) []string { return listed(a.printing[c].fields) })
	expression := a.completeExpression
	return map[string]completer{
		"output":       listOf(func(c *cobra.Command) []string { return format.Words(a.printing[c].formats...) }),
		"fields":       fields,
		"netns":        completeWith(namespaces),
		"num":          listOf(func(*cobra.Command) []string { return queuesInUse() }),
		"zone":         completeWith(zonesInUse),
		"orig-zone":    completeWith(zonesInUse),
		"reply-zone":   completeWith(zonesInUse),
		"label":        listOf(func(*cobra.Command) []string { return ct.LabelNames() }),
		"label-add":    listOf(func(*cobra.Command) []string { return ct.LabelNames() }),
		"label-del":    listOf(func(*cobra.Command) []string { return ct.LabelNames() }),
		"helper":       completeWith(ct.KnownHelpers),
		"events":       listOf(func(*cobra.Command) []string { return []string{"new", "update", "destroy", "all"} }),
		"status":       listOf(func(*cobra.Command) []string { return wordsOf(ct.StatusNames) }),
		"state":        listOf(func(*cobra.Command) []string { return wordsOf(ct.StateNames) }),
		"flags":        listOf(func(*cobra.Command) []string { return wordsOf(ct.ExpectFlagNames) }),
		"family":       fixed("ipv4", "ipv6"),
		"proto":        completeWith(func() []string { return wordsOf(value.Protocols) }),
		"protonum":     completeWith(func() []string { return wordsOf(value.Protocols) }),
		"accept-proto": listOf(func(*cobra.Command) []string { return wordsOf(value.Protocols) }),
		"drop-proto":   listOf(func(*cobra.Command) []string { return wordsOf(value.Protocols) }),
		"set":          completeSettable,
		"filter":       expression,
		"until":        expression,
		"fail-if":      expression,
		"accept-if":    expression,
		"drop-if":      expression,
		"rule":         a.completeRule,
		"group-by":     fields,
		"sort":         fields,
		"attach":       fixed(nft.Hooks...),
		"default":      fixed("accept", "drop"),
		"color":        fixed("auto", "always", "never"),
		"dir":          fixed("orig", "reply"),
		"nat-dir":      fixed("orig", "reply"),

		"on-uneditable": fixed("drop", "accept"),
		"print-payload": fixed("hex", "ascii"),
	}
}

// addCompletions gives every flag of a command and those below it its completer,
// and those that take no file names none.
func addCompletions(c *cobra.Command, by map[string]completer) {
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if do, ok := by[f.Name]; ok {
			_ = c.RegisterFlagCompletionFunc(f.Name, matching(do)) // fails when the command has one of its own
		} else if f.NoOptDefVal == "" && !takesFile(f) {
			_ = c.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions)
		}
	})
	if c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, s := range c.Commands() {
		addCompletions(s, by)
	}
}

// matching leaves out what does not begin with what was typed. Shells do that
// too, but of some there are thousands.
func matching(do completer) completer {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		list, d := do(c, args, word)
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !strings.HasPrefix(s, word) }), d
	}
}

// takesFile reports whether a flag's value is a file.
func takesFile(f *pflag.Flag) bool {
	kind, _ := pflag.UnquoteUsage(f)
	return kind == "file" || f.Value.Type() == "file"
}

// completeFiles is for commands whose arguments are files.
func completeFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// completeWith completes one of a list that is made when asked.
func completeWith(list func() []string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return list(), noFiles }
}

// listOf completes the last word of a list with commas.
func listOf(words func(c *cobra.Command) []string) completer {
	return func(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		before := word[:strings.LastIndexByte(word, ',')+1]
		var out []string
		for _, w := range words(c) {
			out = append(out, before+w)
		}
		return out, noFiles | cobra.ShellCompDirectiveNoSpace
	}
}

func wordsOf(names *value.Names) (out []string) {
	for _, n := range names.List() {
		if n.Word != "" {
			out = append(out, n.Word)
		}
	}
	return out
}

// paths lists a registry's fields, with what they are, when asked.
func paths[T any](reg *field.Registry[T]) func() []string {
	return func() (out []string) {
		rows := reg.Rows()
		for i := range rows {
			out = append(out, rows[i].Path+"\t"+rows[i].Doc)
		}
		return out
	}
}

func listed(list func() []string) []string {
	if list == nil {
		return nil
	}
	return list()
}

// completeExpression completes the field that an expression ends with; beside
// indev and outdev the interfaces there are.
func (a *app) completeExpression(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	at := strings.LastIndexAny(word, " (!") + 1
	before, last := word[:at], word[at:]
	var out []string
	if last == "indev" || last == "outdev" {
		for _, name := range interfaces() {
			out = append(out, fmt.Sprintf("%s%s == %q", before, last, name))
		}
		return out, noFiles | cobra.ShellCompDirectiveNoSpace
	}
	for _, f := range listed(a.printing[c].speaks) {
		out = append(out, before+f)
	}
	return out, noFiles | cobra.ShellCompDirectiveNoSpace
}

// completeRule completes the action or when that a rule ends with, or the field
// behind if.
func (a *app) completeRule(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if strings.Contains(" "+word, " if ") {
		return a.completeExpression(c, args, word)
	}
	before := word[:strings.LastIndexByte(word, ' ')+1]
	var out []string
	for _, act := range rule.Actions() {
		out = append(out, before+act.Word+"\t"+strings.TrimSpace(act.Args+" "+act.Doc))
	}
	if before != "" {
		for _, w := range rule.Whens() {
			out = append(out, before+w.Word+"\t"+w.Args+" "+w.Doc)
		}
		out = append(out, before+"if\tan expression decides whether the rule is for the packet")
	}
	return out, noFiles | cobra.ShellCompDirectiveNoSpace
}

func interfaces() (names []string) {
	list, _ := net.Interfaces()
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

// namespaces returns the named network namespaces.
func namespaces() (names []string) {
	list, _ := os.ReadDir(nl.NamespaceDir)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// queuesInUse returns the numbers of queues that are bound or that a rule feeds.
func queuesInUse() (out []string) {
	used := map[int]string{}
	feeders, _ := nft.Feeders()
	for _, f := range feeders {
		for n := int(f.First); n <= int(f.Last) && !f.Computed; n++ {
			used[n] = "fed by table " + f.Table + ", chain " + f.Chain
		}
	}
	list, _ := queue.List()
	for _, q := range list {
		used[int(q.Num)] = "bound"
		if q.Owner.PID != 0 {
			used[int(q.Num)] = fmt.Sprintf("bound by %s (%d)", q.Owner.Comm, q.Owner.PID)
		}
	}
	for n := range used {
		out = append(out, strconv.Itoa(n)+"\t"+used[n])
	}
	slices.Sort(out)
	return out
}

// zonesInUse returns the zones of the first flows of the table.
func zonesInUse() (out []string) {
	zones := map[uint16]bool{}
	n := 0
	_, _ = ct.Dump(context.Background(), ct.DumpOptions{}, func(f *ct.Flow) error {
		for _, z := range []uint16{f.Zone, f.Orig.Zone, f.Reply.Zone} {
			zones[z] = true
		}
		if n++; n == 100_000 {
			return nl.ErrStop
		}
		return nil
	})
	for z := range zones {
		out = append(out, strconv.Itoa(int(z)))
	}
	slices.Sort(out)
	return out
}

// completeAttrs completes names of attributes, with a suffix, and behind "=" the
// words that the attribute takes.
func completeAttrs(suffix string) completer {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		name, _, isValue := strings.Cut(word, "=")
		var out []string
		if isValue || suffix == "" && len(args) > 0 && c.Name() == "encode" {
			if !isValue {
				name = args[0]
			}
			rows, _ := attrs.Values(name)
			for _, r := range rows {
				if isValue {
					out = append(out, name+"="+r.Name)
				} else {
					out = append(out, r.Name)
				}
			}
			return out, noFiles
		}
		if len(args) > 0 && c.Name() == "decode" {
			return nil, noFiles
		}
		for _, row := range attrs.Table() {
			if suffix != "" && row.Of != "flow" {
				continue
			}
			for _, n := range append([]string{row.Name}, row.Aliases...) {
				out = append(out, n+suffix+"\t"+row.Doc)
			}
		}
		if suffix != "" {
			return out, noFiles | cobra.ShellCompDirectiveNoSpace
		}
		return out, noFiles
	}
}

// completeSettable completes NAME=VALUE with what the command can set.
func completeSettable(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if strings.Contains(word, "=") {
		return completeAttrs("=")(c, args, word)
	}
	update := c.Name() != "create"
	var out []string
	for i := range ct.FlowAttrs() {
		if at := &ct.FlowAttrs()[i]; at.Name != "" {
			if ok, _ := at.Settable(update); ok {
				out = append(out, at.Name+"=\t"+at.Doc)
			}
		}
	}
	return out, noFiles | cobra.ShellCompDirectiveNoSpace
}

// completeAfterFlow completes what follows a first argument that is a flow.
func completeAfterFlow(next completer) completer {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, noFiles
		}
		return next(c, args, word)
	}
}

func completeVocabularies(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	var out []string
	for _, v := range attrs.Vocabularies() {
		out = append(out, v.Of)
	}
	return out, noFiles
}
