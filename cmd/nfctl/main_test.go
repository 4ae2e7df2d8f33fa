package main

import (
	"os"
	"testing"

	"nfctl/internal/nstest"
)

func TestMain(m *testing.M) {
	if os.Getenv(forgeEnv) != "" {
		os.Exit(forge())
	}
	drop = func([]int) error { return nil }
	os.Exit(nstest.Main(m))
}
