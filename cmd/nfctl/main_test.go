package main

import (
	"os"
	"testing"

	"nfctl/internal/child"
	"nfctl/internal/nstest"
	"nfctl/internal/process"
)

func TestMain(m *testing.M) {
	if child.Called(os.Args) {
		child.Serve()
		return
	}
	if os.Getenv(forgeEnv) != "" {
		os.Exit(forge())
	}
	become = func(process.User, []int) error { return nil }
	drop = func([]int) error { return nil }
	os.Exit(nstest.Main(m))
}
