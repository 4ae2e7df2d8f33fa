#!/bin/bash
# build.sh OUT [TAGS]: builds nfctl, static and the same bytes wherever it is built.
# GOARCH chooses the processor, VERSION what 'nfctl version' says.
set -eu
cd "$(dirname "$0")/.."
# No VCS stamp: main.version says it, and a clone that git distrusts builds too. MIPS
# without a floating point unit is what routers have; others run it as well.
GOOS=linux CGO_ENABLED=0 GOARM=${GOARM:-7} GOMIPS=${GOMIPS:-softfloat} go build -trimpath -buildvcs=false \
	-tags "${2:-}" -ldflags "-s -w -X main.version=${VERSION:-$(scripts/version.sh)}" -o "$1" ./cmd/nfctl
