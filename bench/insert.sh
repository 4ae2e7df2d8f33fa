#!/bin/bash
# insert.sh NAME FILE: puts standard input between FILE's lines "<!-- NAME -->"
# and "<!-- end of NAME -->".
set -eu
new=$(mktemp)
trap 'rm -f "$new"' EXIT
grep -q "^<!-- $1 -->\$" "$2" || { echo "insert.sh: $2 has no place for $1" >&2; exit 1; }
sed -n "1,/^<!-- $1 -->\$/p" "$2" >"$new"
{
	echo
	cat
	echo
	sed -n "/^<!-- end of $1 -->\$/,\$p" "$2"
} >>"$new"
cat "$new" >"$2"
