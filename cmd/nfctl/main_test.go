package main

import (
	"os"
	"testing"

	"nfctl/internal/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }
