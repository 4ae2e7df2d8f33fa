# nfctl. `make` says what there is to make.

SHELL    := /bin/bash
PREFIX   ?= /usr/local
DESTDIR  ?=
BINARY   ?= nfctl
export CGO_ENABLED ?= 0
KERNELS  ?= linux-image-cloud-amd64 linux-image-6.12-cloud-amd64
FUZZTIME ?= 30s
SOAKTIME ?= 10m
PKGS     ?= ./...
TESTARGS ?=

.PHONY: help build demo picture setup test race bench bench-peers bench-growth fleet test-fleet fleet-demo fuzz lint ports gen check vuln soak vmtest router release packages install uninstall clean

help: ## this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

build: ## ./nfctl, static
	scripts/build.sh nfctl

demo: build ## nfctl at work in a network namespace of its own; needs root or user namespaces, nothing else
	@go run -buildvcs=false ./scripts/demo ./nfctl

picture: build ## docs/demo.svg, drawn from a run of the demo
	scripts/picture.sh ./nfctl docs/demo.svg

setup: ## install what the tests use (root, apt-get), or say what to install
	@scripts/setup.sh test

test: setup race ## setup, then every test with the race detector

race: build ## every test with the race detector; PKGS=./internal/queue TESTARGS=-v narrow and widen it
	NFCTL_TEST_NETNS=require NFCTL_BIN=$(CURDIR)/nfctl GORACE=atexit_sleep_ms=0 \
		CGO_ENABLED=1 go test -race -count=1 -timeout 20m $(TESTARGS) $(PKGS)

bench: ## Go benchmarks, for benchstat; PKGS and TESTARGS as for race
	go test -run '^$$' -bench . -benchmem $(TESTARGS) $(PKGS)

bench-peers: build ## nfctl beside its peers, the tables of docs/performance.md (root; RUNS=1 for a quick look)
	@scripts/setup.sh bench
	bench/run.sh

bench-growth: build ## cost by table size and by number of rules: two tables, docs/growth.svg (root)
	@scripts/setup.sh bench
	bench/growth.sh

fleet: ## ./nfctl-fleet, static: events of many hosts through NATS JetStream; a module of its own, fleet/
	go -C fleet build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$$(scripts/version.sh)" -o ../nfctl-fleet ./cmd/nfctl-fleet

test-fleet: build ## its tests, with real servers and the race detector (root; installs nats-server)
	@scripts/setup.sh test fleet
	NFCTL_TEST_NETNS=require NFCTL_BIN=$(CURDIR)/nfctl GORACE=atexit_sleep_ms=0 \
		CGO_ENABLED=1 go -C fleet test -race -count=1 -timeout 20m $(TESTARGS) $(PKGS)

fleet-demo: build fleet ## two hosts publish, a third follows, the server dies and comes back; needs root or user namespaces
	fleet/demo/run.sh ./nfctl ./nfctl-fleet "$$(go -C fleet tool -n nats-server)"

fuzz: ## every fuzz target for FUZZTIME (30s)
	scripts/fuzz.sh $(FUZZTIME)

lint: ## gofmt, go vet, staticcheck, shellcheck, tidy go.mod files
	scripts/lint.sh

ports: ## the other processors: builds, go vet, tests that need no kernel
	scripts/ports.sh

gen: ## write all that is generated anew: man pages, reference, schema, completions, golden files
	scripts/gen.sh

check: ## fail if what gen writes is stale
	scripts/gen.sh -check

vuln: ## known vulnerabilities in what is linked (asks vuln.go.dev)
	$$(go -C tools tool -n govulncheck) ./...

soak: build ## mixed load for SOAKTIME (10m), a million Lua callbacks: memory, descriptors and goroutines stay flat
	NFCTL_TEST_NETNS=require NFCTL_SOAK=$(SOAKTIME) go test -count=1 -timeout 30m -run Soak -v ./cmd/nfctl
	NFCTL_TEST_NETNS=require NFCTL_LUA_CALLBACKS=1000000 go test -count=1 -run CallbacksLeakNothing -v ./internal/lua

vmtest: ## integration tests on Debian's stock kernels, in VMs; KERNELS="..." chooses
	scripts/vmtest/run $(KERNELS)

router: ## ./nfctl for small routers: without the description of packets by gopacket; GOARCH=mipsle chooses the processor
	scripts/build.sh nfctl router

release: ## dist/: static binaries for thirteen processors, built twice and compared, SBOM, checksums
	scripts/release.sh

packages: ## dist/packages/: deb, rpm, apk, ipk; ARCHES="amd64" FORMATS="deb" choose some
	scripts/packages.sh

install: ## what make build made, into DESTDIR and PREFIX (/usr/local); COMPAT=1 adds a conntrack link where there is none
	@scripts/install.sh install "$(BINARY)" "$(DESTDIR)" "$(PREFIX)"

uninstall: ## take away what make install put there; /etc/nfctl stays when it has files
	@scripts/install.sh uninstall "$(BINARY)" "$(DESTDIR)" "$(PREFIX)"

clean: ## remove what is built here
	rm -rf nfctl nfctl-fleet dist bench/bin bench/results
