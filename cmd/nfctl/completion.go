package main

import (
	"bytes"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"nfctl/internal/value"
)

// shells are those that there is a completion script for.
var shells = []string{"bash", "zsh", "fish"}

// newCompletion replaces cobra's command of that name, which knows nothing of
// our streams and statuses.
func newCompletion(a *app, root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the completion script of a shell",
		Long: `Prints a script that completes commands, flags and values, also live ones: queue
numbers in use, zones, interfaces, namespaces. 'make install' installs them.
That of bash calls functions of the package bash-completion, which must be there.`,
		Example: `  source <(nfctl completion bash)
  nfctl completion zsh > "${fpath[1]}/_nfctl"
  nfctl completion fish > ~/.config/fish/completions/nfctl.fish`,
		Args:      exactly(1, "a shell: bash, zsh or fish"),
		ValidArgs: shells,
		RunE: func(_ *cobra.Command, args []string) error {
			return writeCompletion(root, args[0], a.out)
		},
	}
}

// writeCompletion writes a shell's script.
func writeCompletion(root *cobra.Command, shell string, w io.Writer) error {
	switch shell {
	case "bash":
		var b bytes.Buffer
		if err := root.GenBashCompletionV2(&b, true); err != nil {
			return err
		}
		_, err := io.WriteString(w, withCommas(b.String()))
		return err
	case "zsh":
		return root.GenZshCompletion(w)
	case "fish":
		return root.GenFishCompletion(w, true)
	}
	return &value.Error{What: "shell", Text: shell, Valid: strings.Join(shells, ", "),
		Near: value.Nearest(shell, shells)}
}

// withCommas lets cobra's script for bash complete lists. It compares what was
// typed with candidates that printf %q has escaped, which puts a backslash before
// every comma.
func withCommas(script string) string {
	lines := strings.SplitAfter(script, "\n")
	for i, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		switch {
		case strings.Contains(line, `printf -v comp "%q"`):
			lines[i] += indent + `comp=${comp//\\,/,}` + "\n"
		case strings.Contains(line, `read -ra completions -d '' < <(printf "%q\n"`):
			lines[i] += indent + `completions=("${completions[@]//\\,/,}")` + "\n"
		case strings.Contains(line, `COMPREPLY[0]=$(printf "%q"`):
			lines[i] += indent + `COMPREPLY[0]=${COMPREPLY[0]//\\,/,}` + "\n"
		}
	}
	return strings.Join(lines, "")
}
