#!/bin/bash
# gen.sh [-check]: writes what is generated from the code: docs/man, completions,
# docs/reference.md and docs/licenses.md. With -check it writes nothing, and fails if any is stale.
set -eu
cd "$(dirname "$0")/.."
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
mkdir -p "$new/docs"
# Man pages, completions and reference: the test that holds them can write them.
NFCTL_GEN=$new go test -count=1 -run '^TestGenerated$' ./cmd/nfctl >"$new/log" || { cat "$new/log" >&2; exit 1; }
go run -buildvcs=false ./scripts/licenses >"$new/docs/licenses.md"

stale=0
for f in docs/man completions docs/reference.md docs/licenses.md; do
	if [ "${1:-}" = -check ]; then
		diff -ru "$f" "$new/$f" || stale=1
	else
		rm -rf "$f"
		cp -r "$new/$f" "$f"
	fi
done
[ $stale = 0 ] || { echo "gen.sh: generated files are stale: run make gen" >&2; exit 1; }
