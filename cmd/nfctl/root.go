package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nfctl/internal/nl"
	"nfctl/internal/process"
	"nfctl/internal/resolve"
	"nfctl/internal/say"
	"nfctl/internal/value"
)

// app is what all commands share: the three streams and the global flags.
type app struct {
	args     []string // the command line, the program's name included
	words    []string // what follows the name, as nfctl reads it
	lazy     bool     // only the commands that words name need be made
	printing map[*cobra.Command]printing
	running  *cobra.Command // from prepare on
	in       io.Reader
	out, err io.Writer

	output   string // -o
	fields   string // --fields
	template string // --template
	netns    string // --netns
	color    string // --color
	quiet    bool   // -q
	verbose  int    // -v

	resolve bool              // --resolve
	names   *resolve.Resolver // nil: not asked for, or not yet

	ready process.Ready

	changed tally

	name string // under which messages are printed; "": nfctl
}

// me is what messages begin with.
func (a *app) me() string { return cmp.Or(a.name, "nfctl") }

// warn prints one line on standard error.
func (a *app) warn(format string, args ...any) {
	a.lineAt(say.Warning, a.me()+": "+format, args...)
}

// hint prints what to do about something, unless -q was given.
func (a *app) hint(format string, args ...any) {
	if !a.quiet {
		a.warn("hint: "+format, args...)
	}
}

// finish prints err and what to do about it, and returns the exit status.
func (a *app) finish(err error) int {
	code := exitCode(err)
	if n := nl.Foreign(); n > 0 && a.verbose > 0 {
		a.warn("%s from other senders than the kernel passed over", plural(n, "message"))
	}
	if err == nil || code == exitOK || err.Error() == "" {
		return code
	}
	for i, l := range linesOf(err) {
		if l = say.Harmless(say.Shortened(l, say.MostMessage), false); i == 0 {
			l = "nfctl: " + l
		}
		a.bytesAt(say.Err, []byte(l+"\n"))
	}
	if h := hintFor(err, code); h != "" {
		fmt.Fprintf(a.err, "nfctl: hint: %s\n", h)
	}
	return code
}

// colored reports whether output to out is to be coloured.
func (a *app) colored() bool {
	switch a.color {
	case "always":
		return true
	case "never":
		return false
	}
	return isTerminal(a.out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "nfctl",
		Short: "Verdicts on queued packets, and the connection tracking table, from the shell",
		Long: `nfctl is the userspace side of Linux netfilter in one program: it gives verdicts
on packets that a firewall rule queues, and lists, changes and watches the
connection tracking table and its expectations.`,
		Example: `  nfctl queue --attach 'output tcp > :23,80' --drop-dport 23
  nfctl ct list 'tcp > :443'
  nfctl ct watch --events new,destroy -o json`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true}, // there is newCompletion
	}
	f := root.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", "", "output `format`, see 'nfctl help output'")
	f.StringVar(&a.fields, "fields", "", "print only these `fields`, as 'orig.src,orig.dport'")
	f.StringVar(&a.template, "template", "", "print each object through a Go template, as '{{.orig.src}}'")
	f.StringVar(&a.netns, "netns", "", "work in another network namespace: `name`, process id or path")
	f.StringVar(&a.color, "color", "auto", "colour: auto, always or never")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print no objects, only totals, warnings and errors")
	f.CountVarP(&a.verbose, "verbose", "v", "say more on standard error")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return flagError(c, err) })
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return a.prepare(c) }

	root.AddCommand(a.choose(0, []maker{
		{"queue q", newQueue}, {"conntrack ct", newCt}, {"expect exp", newExpect}, {"watch", newWatch}, {"attr", newAttr},
		{"lua", newLua}, {"doctor", newDoctor}, {"version", newVersion}, {"compat", newCompat},
		{"completion", func(a *app) *cobra.Command { return newCompletion(a, root) }},
	})...)
	if a.lazy { // the command line names another
		root.SetHelpCommand(&cobra.Command{Hidden: true})
	} else {
		root.SetHelpCommand(newHelp(a, root))
	}
	for _, c := range root.Commands() {
		guard(c)
	}
	showVersion := false
	root.Flags().BoolVarP(&showVersion, "version", "V", false, "print the version, as 'nfctl version' does")
	root.RunE, root.Args = func(c *cobra.Command, args []string) error {
		if showVersion && len(args) == 0 {
			return a.printVersion()
		}
		return group(c, args)
	}, cobra.ArbitraryArgs
	if !a.lazy {
		addCompletions(root, a.flagCompleters())
	}
	setHelp(root)
	return root
}

// prepare checks the global flags and enters --netns.
func (a *app) prepare(c *cobra.Command) error {
	a.running = c
	if err := a.noObjects(c); err != nil {
		return err
	}
	switch a.color {
	case "auto", "always", "never":
	default:
		return usagef("--color: %w", &value.Error{What: "colour setting", Text: a.color,
			Valid: "auto, always or never"})
	}
	if f := c.Flag("netns"); f != nil && f.Changed && a.netns == "" { // an empty variable is not "here"
		return usagef("--netns: %w", &value.Error{What: "network namespace",
			Valid: "a name of 'ip netns', a process id or a path"})
	}
	if a.netns != "" {
		err := nl.EnterNamespace(a.netns, a.args)
		if errors.Is(err, os.ErrNotExist) {
			// Not exitNotFound, which is about the object that was asked for.
			return &statusError{code: exitFailed, err: err}
		}
		return err
	}
	return nil
}

// guard makes every command that only holds others answer a stray word with a
// usage error; cobra itself would print help and end with 0.
//
// It also makes usage errors of what cobra says about arguments.
func guard(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			var usage *usageError
			switch {
			case err == nil, errors.As(err, &usage):
				return err
			case len(args) == 0:
				return usagef("%w; see '%s --help'", err, c.CommandPath())
			}
			return usagef("unexpected argument %q; see '%s --help'", args[len(args)-1], c.CommandPath())
		}
	}
	if c.RunE == nil && c.Run == nil && c.HasSubCommands() {
		c.RunE, c.Args = group, cobra.ArbitraryArgs
	}
	for _, s := range c.Commands() {
		guard(s)
	}
}

// group runs a command that only holds others.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	return unknownCommand(c, args[0])
}

func unknownCommand(c *cobra.Command, word string) error {
	var names []string
	for _, s := range c.Commands() {
		if !s.Hidden {
			names = append(names, s.Name())
			names = append(names, s.Aliases...)
		}
	}
	if near := value.Nearest(word, names); near != "" {
		return usagef("unknown command %q: did you mean %q?", word, c.CommandPath()+" "+near)
	}
	return usagef("unknown command %q; there are: %s", word, strings.Join(names, ", "))
}

// flagError turns pflag's complaint into a usage error that says what to type.
func flagError(c *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		cause := bad.Unwrap()
		if errors.Is(cause, strconv.ErrSyntax) || errors.Is(cause, strconv.ErrRange) {
			cause = &value.Error{What: "number", Text: bad.GetValue()}
		}
		return named("--"+bad.GetFlag().Name, cause)
	}
	msg := err.Error()
	if strings.HasPrefix(msg, "unknown flag: --") {
		word := strings.TrimPrefix(msg, "unknown flag: --")
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		c.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := value.Suggest(word, names); len(near) > 0 {
			return usagef("unknown flag --%s: did you mean --%s?", word, strings.Join(near, " or --"))
		}
		return usagef("unknown flag --%s; see '%s --help'", word, c.CommandPath())
	}
	if strings.HasPrefix(msg, "unknown shorthand flag: ") {
		if form := conntrackForm(c, msg); form != "" {
			return usagef("%s: %s", msg, form)
		}
		return usagef("%s; see '%s --help'", msg, c.CommandPath())
	}
	return &usageError{err}
}

// conntrackForm names nfctl's command for a conntrack(8) command letter typed
// where nfctl has none, or "".
func conntrackForm(c *cobra.Command, msg string) string {
	commands := map[string]string{"L": "list", "G": "get", "D": "delete", "I": "create", "A": "create --if-missing",
		"U": "update", "E": "watch", "F": "flush", "C": "count", "S": "stats", "R": "load"}
	noun := "nfctl conntrack"
	if strings.HasPrefix(c.CommandPath(), "nfctl expect") {
		noun = "nfctl expect"
	}
	for letter, name := range commands {
		if strings.Contains(msg, "'"+letter+"'") {
			return fmt.Sprintf("nfctl's form is '%s %s'; conntrack's own command line is taken by 'nfctl compat "+
				"conntrack'", noun, name)
		}
	}
	return ""
}

// fixed completes a flag from a fixed list.
func fixed(words ...string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
