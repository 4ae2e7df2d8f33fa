#!/bin/bash
# lint.sh: gofmt, go vet, staticcheck, tidy go.mod files, and shellcheck where it is
# installed.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
unformatted=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l) || bad=1
[ -z "$unformatted" ] || { printf 'gofmt would change:\n%s\n' "$unformatted"; bad=1; }
go vet ./... && go vet -tags router ./... && go -C fleet vet ./... || bad=1
# Linters stand in a module of their own: what they need must not choose the versions
# that nfctl links.
staticcheck=$(go -C tools tool -n staticcheck) && "$staticcheck" ./... && (cd fleet && "$staticcheck" ./...) || bad=1
while read -r mod; do
	go -C "$(dirname "$mod")" mod tidy -diff || { echo "$mod is not tidy: go -C $(dirname "$mod") mod tidy"; bad=1; }
done < <(git ls-files -co --exclude-standard '*go.mod')
if command -v shellcheck >/dev/null; then
	git ls-files -co --exclude-standard | xargs grep -lE '^#!.*\b(ba)?sh$' | xargs shellcheck -x -P SCRIPTDIR || bad=1
else
	echo "shellcheck is not installed: shell scripts not checked"
fi
[ $bad = 0 ] && echo "lint: clean"
exit $bad
