package main

import (
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/pattern"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
	"nfctl/internal/value"
)

// A topic is something that 'nfctl help' explains besides commands.
type topic struct {
	name, short string
	text        func(*app, *cobra.Command) []byte // of the root command
}

var topics = []topic{
	{"rules", "what rules of queues say: actions, whens, set, replace", just(func() []byte { return []byte(rule.Help()) })},
	{"flows", "flows in words, as 'tcp 10.0.0.0/8 > :22'", just(func() []byte { return []byte(pattern.Help) })},
	{"fields", "names in expressions, --fields, --template and JSON", just(helpFields)},
	{"expressions", "the language of --filter, --until and rules", just(func() []byte { return []byte(filter.Help) })},
	{"output", "formats of -o, and which command knows which", helpOutput},
	{"timeouts", "how long flows are idle: what the kernel tells, and what not", just(func() []byte { return []byte(helpTimeouts) })},
	{"exit-codes", "what exit statuses mean", just(helpExitCodes)},
}

func topicNames() (names []string) {
	for _, t := range topics {
		names = append(names, t.name)
	}
	return names
}

func just(text func() []byte) func(*app, *cobra.Command) []byte {
	return func(*app, *cobra.Command) []byte { return text() }
}

// newHelp makes the help command. cobra's own is replaced for the topics, and
// because it says of an unknown command that it is one and ends with 0.
func newHelp(a *app, root *cobra.Command) *cobra.Command {
	long := "Help on a command, or on one of:\n\n"
	for _, t := range topics {
		long += fmt.Sprintf("  %-12s %s\n", t.name, t.short)
	}
	names := topicNames()
	return &cobra.Command{
		Use:   "help [COMMAND | " + strings.Join(names, " | ") + "]",
		Short: "Help on a command, or on " + strings.Join(names, ", "),
		Long:  strings.TrimSuffix(long, "\n"),
		Example: `  nfctl help queue
  nfctl help expressions
  nfctl help fields | grep tcp`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, _, err := root.Find(args)
			if err != nil {
				at = root
			}
			var out []string
			for _, s := range at.Commands() {
				if !s.Hidden {
					out = append(out, s.Name()+"\t"+s.Short)
				}
			}
			if len(args) == 0 {
				for _, t := range topics {
					out = append(out, t.name+"\t"+t.short)
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				for _, t := range topics {
					if t.name == args[0] {
						_, err := a.out.Write(t.text(a, root))
						return err
					}
				}
			}
			at := root
			for _, word := range args {
				next := at
				for _, s := range at.Commands() {
					if s.Name() == word || s.HasAlias(word) {
						next = s
					}
				}
				if next == at && at == root {
					if near := value.Nearest(word, names); near != "" {
						return usagef("there is no help on %q: did you mean 'nfctl help %s'?", word, near)
					}
				}
				if next == at {
					return unknownCommand(at, word)
				}
				at = next
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	}
}

// helpTemplate begins with what to type. Cobra's own ends with it.
const helpTemplate = `{{with .Short}}{{. | trimTrailingWhitespaces}}
{{end}}{{if .HasExample}}
Examples:
{{.Example}}
{{end}}{{with .Long}}
{{. | trimTrailingWhitespaces}}
{{end}}
{{.UsageString}}`

const usageTemplate = `Usage:{{if and .Runnable (not .HasAvailableSubCommands)}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}{{if runs .}}
  {{.UseLine}}{{end}}
  {{.CommandPath}} COMMAND [flags]{{end}}{{if gt (len .Aliases) 0}}

Aliases:
  {{.NameAndAliases}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad (names .) 14}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if not .HasParent}}

More: nfctl help {{topics}}{{end}}
`

// setHelp gives a command and those below it the form of help.
func setHelp(root *cobra.Command) {
	templateFuncs.Do(func() {
		cobra.AddTemplateFunc("runs", runs)
		cobra.AddTemplateFunc("names", func(c *cobra.Command) string {
			return strings.Join(append([]string{c.Name()}, c.Aliases...), ", ")
		})
		cobra.AddTemplateFunc("topics", func() string { return strings.Join(topicNames(), ", ") })
	})
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
}

// templateFuncs is for what the templates call: cobra has that once for the process.
var templateFuncs sync.Once

// runs reports whether a command with others below it runs by itself too: it has
// flags of its own.
func runs(c *cobra.Command) bool {
	return c.HasSubCommands() && c.LocalNonPersistentFlags().HasFlags()
}

func helpFields() []byte {
	b := []byte(`Names of fields: keys of -o json, names in expressions, --fields and --template.
Numbers, names, addresses, texts; 'list' are names of which several may be there,
'time' is RFC 3339. In --fields and --set the names of 'nfctl attr list' are taken too.

Packets ('nfctl queue'; the packet's connection, where the kernel tells it, has the
names of flows after "ct."):

`)
	b = appendFields(b, queue.Fields, func(path string) bool { return !strings.HasPrefix(path, "ct.") })
	b = append(b, "\nFlows ('nfctl ct', 'nfctl watch'):\n\n"...)
	b = appendFields(b, ct.FlowFields, nil)
	b = append(b, "\nExpectations ('nfctl expect', 'nfctl watch'):\n\n"...)
	b = appendFields(b, ct.ExpectFields, nil)
	b = append(b, "\nQueues ('nfctl queue list'):\n\n"...)
	return appendFields(b, queue.InfoFields, nil)
}

// kindWords say what a field of each kind is.
var kindWords = [...]string{field.Uint: "number", field.Enum: "name", field.Flags: "list", field.Bits: "list",
	field.Addr:   "address",
	field.String: "text", field.Bytes: "bytes", field.Time: "time", field.Bool: "bool", field.Lasting: "seconds"}

func appendFields[T any](b []byte, reg *field.Registry[T], keep func(path string) bool) []byte {
	rows := reg.Rows()
	width := 0
	for i := range rows {
		if keep == nil || keep(rows[i].Path) {
			width = max(width, len(rows[i].Path))
		}
	}
	for i := range rows {
		r := &rows[i]
		if keep != nil && !keep(r.Path) {
			continue
		}
		doc := r.Doc
		if r.Hidden {
			doc += " (a name only, no key of JSON)"
		}
		b = fmt.Appendf(b, "  %-*s  %-7s  %s\n", width, r.Path, kindWords[r.Kind], doc)
	}
	return b
}

func helpOutput(a *app, root *cobra.Command) []byte {
	b := []byte(`-o FORMAT[,MODIFIER...] says how objects are printed. Without it: a table on a
terminal for commands that end, text for streams and into a pipe.

  text      conntrack(8)'s lines where it has such a line, else name=value
  table     aligned columns, cut to the width of a terminal; wide: all of them, uncut
  json      one object a line; docs/json.md describes every key
  csv tsv   with a header
  xml       conntrack(8)'s
  flow      flows in words, which paste back as patterns
  save      lines that 'nfctl ct load', 'nfctl ct create' and conntrack -R read

Modifiers of text and xml, which alone mean text: extended (the family in front), id,
timestamp (when an event was read), ktimestamp (start and stop), labels, userspace.

  --fields a,b      only these fields, for table, csv, tsv, json; alone a table on a
                    terminal, else tsv. An object, as orig, stands for all of it
  --template T      each object through a Go template: '{{.orig.src}} {{.orig.dport}}'
  --color WHEN      auto, always or never; NO_COLOR is honoured

What each command knows:

`)
	width := 0
	for _, c := range a.printers(root) {
		width = max(width, len(commandName(c)))
	}
	for _, c := range a.printers(root) {
		b = fmt.Appendf(b, "  %-*s ", width, commandName(c))
		for _, f := range a.printing[c].formats {
			b = append(append(b, ' '), f.String()...)
		}
		b = append(b, '\n')
	}
	return b
}

const helpTimeouts = `The kernel tells of each flow how much time it has left ("timeout"): when that is
used up without another packet, the flow ends. It does not tell how much the last
packet gave it, nor when that packet came.

What follows. A packet gives a flow the setting of its protocol and state
(sysctl net.netfilter.nf_conntrack_*_timeout*), so that "idle" is the setting less
the time left: the seconds since the last packet, of either direction. Lists and
'ct get' know it where it is asked for, by --fields, --template, --group-by or
--filter; events do not, they are about what happens now.

What cannot be known. The kernel may have given another number than the setting,
and no flow tells that. So idle is absent, and no comparison with it holds, for

  - flows with FIXED_TIMEOUT or OFFLOAD, and those without a known state;
  - flows of a protocol for which this namespace has a timeout policy: nft's
    "ct timeout", or one of nfct(8), which iptables -j CT --timeout uses;
  - flows with more time left than the setting gives;
  - TCP flows with so little left that they may wait for an acknowledgement
    (nf_conntrack_tcp_timeout_max_retrans, _unacknowledged);
  - flows that would be idle for longer than they exist ("age", known of flows that
    began with net.netfilter.nf_conntrack_timestamp=1);
  - where the age is not known, flows with less than half of the setting left.

What remains uncertain. A timeout that was set by hand ('ct update', 'ct create',
'ct load', a helper such as SIP's), or a setting that was changed, shows until the
flow's next packet: such a flow may have been idle for less than is said. Packets
that do not prolong a flow, as those behind TIME_WAIT, do not count. 'ct delete' and
'ct update' by idle say on standard error what their choice rests on; try them with
--dry-run, and set nf_conntrack_timestamp=1 beforehand where it matters.

A copy of a flow on another machine gets no packets, and no event tells that packets
prolonged the original: it ends when its first timeout is used up.
`

func helpExitCodes() []byte {
	var b []byte
	for _, e := range exitCodes {
		b = fmt.Appendf(b, "%d  %s\n", e.code, e.text)
	}
	return b
}
