#!/bin/bash
# lint.sh: gofmt, go vet, staticcheck, and shellcheck where it is installed.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
unformatted=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l) || bad=1
[ -z "$unformatted" ] || { printf 'gofmt would change:\n%s\n' "$unformatted"; bad=1; }
go vet ./... || bad=1
go tool staticcheck ./... || bad=1
if command -v shellcheck >/dev/null; then
	git ls-files -co --exclude-standard | xargs grep -lE '^#!.*\b(ba)?sh$' | xargs shellcheck -x -P SCRIPTDIR || bad=1
else
	echo "shellcheck is not installed: shell scripts not checked"
fi
[ $bad = 0 ] && echo "lint: clean"
exit $bad
