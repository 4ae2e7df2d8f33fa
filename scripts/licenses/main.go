// Licenses writes docs/licenses.md: every module whose code is in the nfctl
// binary, with its licence in full, as their terms ask of who passes it on.
//
//	go run ./scripts/licenses >docs/licenses.md
//	go run ./scripts/licenses -sbom VERSION >nfctl.cdx.json
//
// With -sbom it writes the same modules as a software bill of materials.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	list := write
	if len(os.Args) == 3 && os.Args[1] == "-sbom" {
		list = func(out *bufio.Writer) error { return sbom(out, os.Args[2]) }
	}
	err := list(out)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

type module struct{ path, version, dir string }

// linked lists the modules of all packages that the binary is built from, on
// both architectures that are released.
func linked() ([]module, error) {
	var all []module
	for _, arch := range []string{"amd64", "arm64"} {
		c := exec.Command("go", "list", "-deps", "-f",
			"{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}{{end}}", "./cmd/nfctl")
		c.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
		c.Stderr = os.Stderr
		out, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Split(strings.TrimSpace(line), "\t")
			if len(f) == 3 && !slices.Contains(all, module{f[0], f[1], f[2]}) {
				all = append(all, module{f[0], f[1], f[2]})
			}
		}
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.path, b.path) })
	return all, nil
}

// kinds are told by a sentence that only they have.
var kinds = []struct{ name, sentence string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License Version 2.0"},
	{"BSD-3-Clause", "Neither the name of"},
	{"BSD-3-Clause", "The names of its contributors may not be used"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce"},
	{"MIT", "Permission is hereby granted, free of charge"},
	{"ISC", "Permission to use, copy, modify, and/or distribute"},
}

func kind(text []byte) (string, error) {
	words := strings.ToLower(strings.Join(strings.Fields(strings.ReplaceAll(string(text), ",", "")), " "))
	for _, k := range kinds {
		if strings.Contains(words, strings.ToLower(strings.ReplaceAll(k.sentence, ",", ""))) {
			return k.name, nil
		}
	}
	return "", errors.New("none of the licences known")
}

func write(out *bufio.Writer) error {
	modules, err := linked()
	if err != nil {
		return err
	}
	// Go itself is linked too. Its licence is word for word that of golang.org/x/sys,
	// which not every packaging of Go leaves out.
	sys := slices.IndexFunc(modules, func(m module) bool { return m.path == "golang.org/x/sys" })
	if sys < 0 {
		return errors.New("golang.org/x/sys is not linked: look up Go's licence elsewhere")
	}
	modules = slices.Insert(modules, 0, module{"Go's runtime and standard library", "", modules[sys].dir})
	type group struct {
		text  []byte
		names []string
	}
	var groups []*group
	fmt.Fprint(out, "# Licences\n\nnfctl is under the MIT licence (LICENSE). Linked into the binary:\n\n| module | "+
		"version | licence |\n|---|---|---|\n")
	for _, m := range modules {
		text, err := text(m.dir)
		if err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
		k, err := kind(text)
		if err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
		fmt.Fprintf(out, "| %s | %s | %s |\n", m.path, m.version, k)
		i := slices.IndexFunc(groups, func(g *group) bool { return bytes.Equal(g.text, text) })
		if i < 0 {
			i, groups = len(groups), append(groups, &group{text: text})
		}
		groups[i].names = append(groups[i].names, m.path)
	}
	for _, g := range groups {
		fmt.Fprintf(out, "\n## %s\n\n```text\n%s```\n", strings.Join(g.names, ", "), g.text)
	}
	return nil
}

// text is the licence file in dir, and a NOTICE where there is one, without
// trailing blanks.
func text(dir string) ([]byte, error) {
	var b []byte
	for _, pattern := range []string{"LICEN[SC]E*", "COPYING*", "NOTICE*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			t, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(string(t)) {
				b = append(append(b, strings.TrimRight(line, " \t\r\n\f")...), '\n')
			}
		}
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("no licence file in %s", dir)
	}
	return b, nil
}
