#!/bin/bash
# version.sh: the version of this source: of the tag and commit where this folder is
# the top of a git clone, else what the file VERSION says. A tree unpacked inside
# another repository does not take that one's tags.
cd "$(dirname "$0")/.." || exit 1
version=$(<VERSION)
if [ -e .git ] && commit=$(git -c safe.directory="$PWD" describe --always --dirty --exclude '*' 2>/dev/null); then
	if tag=$(git -c safe.directory="$PWD" describe --tags --exact-match --dirty --match 'v[0-9]*' 2>/dev/null); then
		version=${tag#v}
	else
		version=$version+g$commit
	fi
fi
echo "$version"
