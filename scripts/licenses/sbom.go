package main

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"strings"
)

// A component is one of CycloneDX 1.6's.
type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

// sbom writes what the binary is made of as CycloneDX: nfctl, Go's standard library,
// and each module. It has neither serial number nor time: the same source has the
// same bytes.
func sbom(out *bufio.Writer, version string) error {
	modules, err := linked()
	if err != nil {
		return err
	}
	release, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		return err
	}
	modules = append(modules, module{path: "std", version: strings.TrimSpace(string(release))})
	of := func(kind string, m module) component {
		purl := "pkg:golang/" + m.path + "@" + m.version
		return component{kind, purl, m.path, m.version, purl}
	}
	doc := struct {
		Format   string `json:"bomFormat"`
		Spec     string `json:"specVersion"`
		Version  int    `json:"version"`
		Metadata struct {
			Component component `json:"component"`
		} `json:"metadata"`
		Components []component `json:"components"`
	}{Format: "CycloneDX", Spec: "1.6", Version: 1}
	doc.Metadata.Component = of("application", module{path: "nfctl", version: version})
	for _, m := range modules {
		doc.Components = append(doc.Components, of("library", m))
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(doc)
}
