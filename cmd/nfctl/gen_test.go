package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nfctl/internal/attrs"
	"nfctl/internal/filter"
	"nfctl/internal/format"
	"nfctl/internal/gentest"
	"nfctl/internal/pattern"
	"nfctl/internal/rule"
)

// TestGenerated holds what is made from the commands: docs/man, docs/reference.md,
// the table of formats in docs/output.md and completions.
func TestGenerated(t *testing.T) {
	a := &app{}
	root := newRoot(a)
	known := map[string]bool{}
	file := func(name string, text []byte) {
		known[name] = true
		gentest.File(t, name, text)
	}
	for _, shell := range shells {
		var b bytes.Buffer
		if err := writeCompletion(root, shell, &b); err != nil {
			t.Fatal(err)
		}
		file("completions/nfctl."+shell, b.Bytes())
	}
	for _, c := range everyCommand(root) {
		file("docs/man/"+manName(c)+".1", manPage(c))
	}
	for _, p := range topics {
		file("docs/man/nfctl-"+p.name+".1", manTopic(p, a, root))
	}
	file("docs/reference.md", reference(root))
	gentest.Between(t, "docs/output.md", "formats", formatTable(a, root))
	for _, p := range []struct{ page, title, text string }{
		{"docs/flows.md", "Flows in words", pattern.Help}, {"docs/expressions.md", "Expressions", filter.Help},
	} {
		file(p.page, fmt.Appendf(nil, "# %s\n\nAlso `nfctl help %s`; generated from it (`make gen`).\n\n%s", p.title,
			strings.TrimSuffix(filepath.Base(p.page), ".md"), markdown(p.text)))
	}
	gentest.Between(t, "docs/rules.md", "language", markdown(rule.Help()))
	for _, dir := range []string{"docs/man", "completions"} {
		list, err := os.ReadDir("../../" + dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if !known[dir+"/"+f.Name()] && !gentest.Writing() {
				t.Errorf("%s/%s belongs to nothing: run make gen", dir, f.Name())
			}
		}
	}
}

// formatTable is the table command x format, in Markdown.
func formatTable(a *app, root *cobra.Command) []byte {
	b := []byte("| command |")
	for f := format.Text; f <= format.Template; f++ {
		b = fmt.Appendf(b, " %s |", f)
	}
	b = append(b, "\n|---|"+strings.Repeat("---|", int(format.Template))+"\n"...)
	for _, c := range a.printers(root) {
		b = fmt.Appendf(b, "| `%s` |", commandName(c))
		for f := format.Text; f <= format.Template; f++ {
			mark := ' '
			if slices.Contains(a.printing[c].formats, f) {
				mark = 'x'
			}
			b = fmt.Appendf(b, " %c |", mark)
		}
		b = append(b, '\n')
	}
	return b
}

// everyCommand returns c and those below it that users see.
func everyCommand(c *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{c}
	for _, s := range c.Commands() {
		if !s.Hidden && s.Name() != "help" {
			list = append(list, everyCommand(s)...)
		}
	}
	return list
}

func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// roff escapes text for troff.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…",
		"...").Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

// verbatim appends text as it is.
func verbatim(b []byte, text string) []byte {
	b = append(b, ".nf\n"...)
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		b = append(append(b, roff(strings.TrimRight(line, "\n"))...), '\n')
	}
	return append(b, ".fi\n"...)
}

// paragraphs appends text whose paragraphs are filled, except indented ones.
func paragraphs(b []byte, text string) []byte {
	for p := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		b = append(b, ".PP\n"...)
		if strings.HasPrefix(p, " ") {
			b = verbatim(b, p)
			continue
		}
		for line := range strings.Lines(p) {
			b = append(append(b, roff(strings.TrimRight(line, "\n"))...), '\n')
		}
	}
	return b
}

func manHead(name, short string) []byte {
	b := fmt.Appendf(nil, ".\\\" Generated from the commands' own help: run make gen.\n.TH %s 1 \"\" nfctl \"nfctl "+
		"manual\"\n", strings.ToUpper(roff(name)))
	return fmt.Appendf(b, ".SH NAME\n%s \\- %s\n", roff(name), roff(short))
}

func manPage(c *cobra.Command) []byte {
	b := manHead(manName(c), c.Short)
	b = append(b, ".SH SYNOPSIS\n"...)
	if !c.HasSubCommands() || runs(c) {
		b = fmt.Appendf(b, ".B %s\n", roff(c.UseLine()))
	}
	if c.HasSubCommands() {
		if runs(c) {
			b = append(b, ".br\n"...)
		}
		b = fmt.Appendf(b, ".B %s\nCOMMAND [flags]\n", roff(c.CommandPath()))
	}
	if c.HasExample() {
		b = verbatim(append(b, ".SH EXAMPLES\n"...), c.Example)
	}
	if c.Long != "" {
		b = paragraphs(append(b, ".SH DESCRIPTION\n"...), c.Long)
	}
	if len(c.Aliases) > 0 {
		b = fmt.Appendf(b, ".SH ALIASES\n%s\n", roff(strings.Join(c.Aliases, ", ")))
	}
	var see []string
	if c.HasSubCommands() {
		b = append(b, ".SH COMMANDS\n"...)
		for _, s := range c.Commands() {
			if !s.Hidden && s.Name() != "help" {
				b = fmt.Appendf(b, ".TP\n.B %s\n%s\n", roff(s.Name()), roff(s.Short))
				see = append(see, manName(s))
			}
		}
	}
	flags := func(title string, set *pflag.FlagSet) {
		if !set.HasAvailableFlags() {
			return
		}
		b = fmt.Appendf(b, ".SH %s\n", title)
		set.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			kind, usage := pflag.UnquoteUsage(f)
			head := roff("--" + f.Name)
			if f.Shorthand != "" {
				head = roff("-"+f.Shorthand) + ", " + head
			}
			if kind != "" && f.NoOptDefVal == "" {
				head += ` \fI` + roff(kind) + `\fP`
			}
			if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "[]" && d != "0s" {
				usage += " (default " + d + ")"
			}
			b = fmt.Appendf(b, ".TP\n\\fB%s\\fP\n%s\n", head, roff(usage))
		})
	}
	c.InitDefaultHelpFlag()
	flags("FLAGS", c.LocalFlags())
	flags("GLOBAL FLAGS", c.InheritedFlags())
	if c.HasParent() {
		see = append(see, manName(c.Parent()))
	} else {
		b = append(b, ".SH EXIT STATUS\n"...)
		for _, e := range exitCodes {
			b = fmt.Appendf(b, ".TP\n.B %d\n%s\n", e.code, roff(e.text))
		}
		b = append(b, ".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nno colours, unless \\-\\-color always\n.TP\n.B "+
			"NOTIFY_SOCKET\nsystemd is told when a queue or a watch is ready\n.TP\n.B WATCHDOG_USEC\n"+
			"systemd is told while a queue's or a watch's loop goes on\n"...)
		for _, p := range topics {
			see = append(see, "nfctl-"+p.name)
		}
	}
	b = append(b, ".SH SEE ALSO\n"...)
	for i, s := range see {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = fmt.Appendf(b, ".BR %s (1)", roff(s))
	}
	return append(b, '\n')
}

func manTopic(p topic, a *app, root *cobra.Command) []byte {
	b := manHead("nfctl-"+p.name, p.short)
	b = append(b, ".SH DESCRIPTION\n"...)
	var plain []string // paragraphs under one heading
	end := func() {
		if len(plain) > 0 {
			b = verbatim(b, strings.Join(plain, "\n\n"))
			plain = nil
		}
	}
	for part := range strings.SplitSeq(strings.Trim(string(p.text(a, root)), "\n"), "\n\n") {
		if isHeading(part) {
			end()
			b = fmt.Appendf(b, ".SH %s\n", part)
			continue
		}
		plain = append(plain, part)
	}
	end()
	return append(b, ".SH SEE ALSO\n.BR nfctl (1)\n"...)
}

// isHeading reports whether a paragraph of a topic is a heading: a line in capitals.
func isHeading(part string) bool {
	return !strings.ContainsAny(part, "\n0123456789") && strings.ToUpper(part) == part &&
		part[0] >= 'A' && part[0] <= 'Z'
}

// Markdown's own characters, and command lines in quotes.
var (
	ownOfMarkdown = strings.NewReplacer(`\`, `\\`, "*", `\*`, "<", "&lt;", "_", `\_`, "`", "\\`", "[", `\[`)
	inQuotes      = regexp.MustCompile(`'(nfctl [^']+|tcp [^']+|ct [a-z]+)'`)
)

// markdown makes Markdown of a topic's text: its indented paragraphs are blocks.
func markdown(text string) []byte {
	var b []byte
	inBlock := false
	for part := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		switch block := strings.HasPrefix(part, " "); {
		case block && !inBlock:
			b = append(b, "\n```text\n"...)
		case !block && inBlock:
			b = append(b, "```\n\n"...)
		case len(b) > 0:
			b = append(b, '\n')
		}
		inBlock = strings.HasPrefix(part, " ")
		switch {
		case inBlock:
			indent := "  "
			if strings.HasPrefix(part, "    ") {
				indent = "    "
			}
			for line := range strings.Lines(part) {
				b = append(b, strings.TrimPrefix(strings.TrimRight(line, "\n"), indent)...)
				b = append(b, '\n')
			}
		case isHeading(part):
			b = fmt.Appendf(b, "## %s%s\n", part[:1], strings.ToLower(part[1:]))
		default:
			at := 0
			for _, m := range inQuotes.FindAllStringIndex(part, -1) {
				b = append(b, ownOfMarkdown.Replace(part[at:m[0]])...)
				b = append(append(append(b, '`'), part[m[0]+1:m[1]-1]...), '`')
				at = m[1]
			}
			b = append(append(b, ownOfMarkdown.Replace(part[at:])...), '\n')
		}
	}
	if inBlock {
		b = append(b, "```\n"...)
	}
	return b
}

// reference is a page of all commands with their flags, exit statuses and
// attributes.
func reference(root *cobra.Command) []byte {
	b := []byte(`# Reference

Generated from the commands themselves (` + "`make gen`" + `). ` + "`nfctl COMMAND --help`" + ` and the pages in [man](man) say more; keys of JSON
are in [json.md](json.md), formats in [output.md](output.md).

`)
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace
	flags := func(set *pflag.FlagSet) {
		some := false
		set.VisitAll(func(f *pflag.Flag) { some = some || !f.Hidden && f.Name != "help" })
		if !some {
			return
		}
		b = append(b, "\n| flag | |\n|---|---|\n"...)
		set.VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			kind, usage := pflag.UnquoteUsage(f)
			if f.NoOptDefVal != "" {
				kind = ""
			}
			word := strings.TrimSpace("--" + f.Name + " " + kind)
			if f.Shorthand != "" {
				word = "-" + f.Shorthand + ", " + word
			}
			b = fmt.Appendf(b, "| `%s` | %s |\n", word, cell(usage))
		})
	}
	for _, c := range everyCommand(root) {
		b = fmt.Appendf(b, "## %s\n\n%s.\n", c.CommandPath(), cell(c.Short))
		if len(c.Aliases) > 0 {
			b = fmt.Appendf(b, "Also `%s`.\n", strings.Join(c.Aliases, "`, `"))
		}
		if c.HasExample() {
			b = append(b, "\n```\n"...)
			for line := range strings.Lines(c.Example) {
				b = append(b, strings.TrimPrefix(line, "  ")...)
			}
			b = append(b, "\n```\n"...)
		}
		flags(c.LocalFlags())
		b = append(b, '\n')
	}
	b = append(b, "## Exit statuses\n\n| status | |\n|---|---|\n"...)
	for _, e := range exitCodes {
		b = fmt.Appendf(b, "| %d | %s |\n", e.code, cell(e.text))
	}
	b = append(append(append(b, "\n## Timeouts\n\n```text\n"...), helpTimeouts...), "```\n"...)
	b = append(b, "\n## Attributes\n\n| name | also | of | path | type | bits | create | update | "+
		"|\n|---|---|---|---|---|---|---|---|---|\n"...)
	for _, r := range attrs.Table() {
		path, bits := "`"+r.Path+"`", fmt.Sprint(r.Bits)
		if r.Path == "" {
			path = ""
		}
		if r.Bits == 0 {
			bits = ""
		}
		b = fmt.Appendf(b, "| `%s` | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.Name, strings.Join(r.Aliases, ", "),
			r.Of, path, r.Type, bits, cell(r.Create), cell(r.Update), cell(r.Doc))
	}
	return b
}
