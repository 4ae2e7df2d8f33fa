#!/bin/bash
# fuzz.sh TIME: runs every fuzz target of the module for TIME, one after another,
# and fails if one of them did. PKG=./internal/nl keeps to one package.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0 ran=0
while IFS=: read -r file _ target; do
	target=${target#func } target=${target%%(*}
	package=./$(dirname "$file")
	[ "${PKG:-$package}" = "$package" ] || continue
	echo "== $package $target"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$package" || failed=$((failed + 1))
	ran=$((ran + 1))
done < <(git ls-files -co --exclude-standard '*_test.go' | xargs grep -nE '^func Fuzz[A-Z]\w*\(')
echo "$ran fuzz targets, $failed failed"
[ "$failed" = 0 ] && [ "$ran" -gt 0 ]
