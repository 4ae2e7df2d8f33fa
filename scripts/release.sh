#!/bin/bash
# release.sh VERSION: builds dist/nfctl-VERSION-linux-{amd64,arm64}.tar.gz, each
# with the static binary, man pages, completions and licences, and SHA256SUMS.
# Everything is built twice, here and from a copy in another folder with an empty
# build cache; different bytes are an error.
set -eu
cd "$(dirname "$0")/.."
version=$1
[ -z "$(git status --porcelain)" ] || echo "release.sh: uncommitted changes: this is no release to publish" >&2
when=$(git log -1 --format=%cI)

# build SOURCE DEST
build() {
	local arch name
	for arch in amd64 arm64; do
		name=nfctl-$version-linux-$arch
		mkdir -p "$2/$name"
		(cd "$1" && CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false \
			-ldflags "-s -w -X main.version=$version" -o "$2/$name/nfctl" ./cmd/nfctl)
		cp -r "$1/LICENSE" "$1/README.md" "$1/CHANGELOG.md" "$1/docs" "$1/completions" "$2/$name/"
		tar -c -C "$2" --sort=name --mtime="$when" --owner=0 --group=0 --numeric-owner \
			--mode=u+w,go-w,a+rX --format=ustar "$name" | gzip -n -9 >"$2/$name.tar.gz"
		rm -rf "${2:?}/$name"
	done
	(cd "$2" && sha256sum nfctl-*.tar.gz >SHA256SUMS)
}

rm -rf dist
mkdir dist
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
mkdir "$tmp/copy" "$tmp/dist" "$tmp/cache"
git ls-files -co --exclude-standard -z | tar -c --null -T - | tar -x -C "$tmp/copy"
build "$tmp/copy" "$PWD/dist"
# The second time from elsewhere: neither the folder nor the cache may show.
mv "$tmp/copy" "$tmp/elsewhere"
GOCACHE=$tmp/cache build "$tmp/elsewhere" "$tmp/dist"
diff "$tmp/dist/SHA256SUMS" dist/SHA256SUMS || { echo "release.sh: the two builds differ" >&2; exit 1; }
for f in dist/*.tar.gz; do cmp "$f" "$tmp/$f"; done
mkdir "$tmp/look"
tar -x -C "$tmp/look" -f "dist/nfctl-$version-linux-$(go env GOARCH).tar.gz"
if ldd "$tmp"/look/*/nfctl >/dev/null 2>&1; then
	echo "release.sh: nfctl is not static" >&2
	exit 1
fi
echo "two builds, the same bytes, static:"
cat dist/SHA256SUMS
