#!/bin/bash
# when.sh: the date of this source, in seconds since 1970: of the commit, or in a tree
# without git of the file VERSION, which tar leaves as it was.
cd "$(dirname "$0")/.." || exit 1
if [ ! -e .git ] || ! git -c safe.directory="$PWD" log -1 --format=%ct 2>/dev/null; then
	stat -c %Y VERSION
fi
