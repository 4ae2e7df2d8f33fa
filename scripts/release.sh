#!/bin/bash
# release.sh: writes dist/: nfctl-VERSION-linux-ARCH.tar.gz with the static binary, man
# pages, completions, units and licences, for each processor; an SBOM (CycloneDX); and
# SHA256SUMS. Everything is built twice, here and from a copy in another folder with an
# empty build cache; different bytes are an error. ARCHES chooses processors.
set -eu
cd "$(dirname "$0")/.."
VERSION=${VERSION:-$(scripts/version.sh)}
export VERSION
when=${SOURCE_DATE_EPOCH:-$(scripts/when.sh)}
arches=${ARCHES:-amd64 386 arm arm64 mips mipsle mips64 mips64le ppc64 ppc64le s390x riscv64 loong64}
case $VERSION in *-dirty) echo "release.sh: uncommitted changes: this is no release to publish" >&2 ;; esac

# sources lists what belongs to the source, with or without git.
sources() {
	if [ -e .git ]; then
		git -c safe.directory="$PWD" ls-files -co --exclude-standard -z
	else
		find . -type f -not -path './dist/*' -not -path './nfctl' -not -path './bench/bin/*' -not -path './bench/results/*' -print0
	fi
}

# build SOURCE DEST
build() {
	local arch name
	for arch in $arches; do
		name=nfctl-$VERSION-linux-$arch
		mkdir -p "$2/$name"
		GOARCH=$arch "$1/scripts/build.sh" "$2/$name/nfctl"
		(cd "$1" && cp -r LICENSE README.md CONTRIBUTING.md CHANGELOG.md VERSION Makefile docs completions scripts "$2/$name/")
		tar -c -C "$2" --sort=name --mtime="@$when" --owner=0 --group=0 --numeric-owner \
			--mode=u+w,go-w,a+rX --format=ustar "$name" | gzip -n -9 >"$2/$name.tar.gz"
		rm -rf "${2:?}/$name"
	done
	(cd "$1" && go run -buildvcs=false ./scripts/licenses -sbom "$VERSION") >"$2/nfctl-$VERSION.cdx.json"
	(cd "$2" && sha256sum nfctl-* >SHA256SUMS)
}

rm -rf dist
mkdir dist
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
mkdir "$tmp/copy" "$tmp/dist" "$tmp/cache" "$tmp/look"
sources | tar -c --null -T - | tar -x -C "$tmp/copy"
build "$tmp/copy" "$PWD/dist"
# The second time from elsewhere: neither the folder nor the cache may show.
mv "$tmp/copy" "$tmp/elsewhere"
GOCACHE=$tmp/cache build "$tmp/elsewhere" "$tmp/dist"
diff "$tmp/dist/SHA256SUMS" dist/SHA256SUMS || { echo "release.sh: the two builds differ" >&2; exit 1; }
for f in dist/nfctl-*; do cmp "$f" "$tmp/$f"; done
for f in dist/*.tar.gz; do
	tar -x -C "$tmp/look" -f "$f"
done
for f in "$tmp"/look/*/nfctl; do
	if ldd "$f" >/dev/null 2>&1; then
		echo "release.sh: $f is not static" >&2
		exit 1
	fi
done
echo "two builds, the same bytes, static:"
cat dist/SHA256SUMS
