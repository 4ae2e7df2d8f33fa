package main

import (
	"runtime"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	out, _, status := call("version")
	if status != 0 || !strings.HasPrefix(out, "nfctl ") ||
		!strings.HasSuffix(out, runtime.GOOS+"/"+runtime.GOARCH+"\n") ||
		!strings.Contains(out, runtime.Version()) {
		t.Errorf("status %d: %s", status, out)
	}
}
