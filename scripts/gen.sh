#!/bin/bash
# gen.sh [-check]: writes what is generated: man pages, reference, tables of pages,
# schema, completions, licences, and the golden files of tests. With -check it writes
# nothing, and fails if any is stale.
set -eu
cd "$(dirname "$0")/.."
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
mkdir -p "$new/docs"
# The tests that hold generated files write them too: those of packages that use gentest.
mapfile -t packages < <(grep -rl --include='*_test.go' '"nfctl/internal/gentest"' cmd internal | xargs dirname | sort -u | sed 's|^|./|')
NFCTL_GEN=$new go test -count=1 -run '^TestGenerated' "${packages[@]}" >"$new/log" || { cat "$new/log" >&2; exit 1; }
rm "$new/log"
go run -buildvcs=false ./scripts/licenses >"$new/docs/licenses.md"

# What stands in these folders is generated, all of it: what is left over goes.
whole=(docs/man completions internal/format/testdata)
stale=0
for f in "${whole[@]}" $(cd "$new" && find . -type f -printf '%P\n'); do
	diff -rq "$f" "$new/$f" >/dev/null 2>&1 && continue
	if [ "${1:-}" = -check ]; then
		diff -ruN "$f" "$new/$f" || stale=1
	else
		rm -rf "$f"
		cp -r "$new/$f" "$f"
	fi
done
[ $stale = 0 ] || { echo "gen.sh: generated files are stale: run make gen" >&2; exit 1; }
