#!/bin/bash
# ports.sh: the other processors, and the build for small routers. Builds nfctl for each,
# vets one of each family (tests included), and runs tests that need no kernel as 386,
# which an x86-64 kernel runs, and those of byte order and values as s390x and mips under
# qemu-user.
set -u
cd "$(dirname "$0")/.." || exit 1
export CGO_ENABLED=0
bad=0
fail() { echo "ports: $*"; bad=1; }

for arch in 386 arm arm64 mips mipsle mips64 mips64le ppc64 ppc64le s390x riscv64 loong64; do
	GOARCH=$arch go build -buildvcs=false -o /dev/null ./cmd/nfctl || fail "$arch: no build"
done
GOARCH=mipsle scripts/build.sh /dev/null router || fail "mipsle: no build for routers"
go test -count=1 -short -tags router ./internal/packet ./internal/format || fail "tests of the build for routers"
for arch in 386 arm mips mips64 s390x riscv64; do
	GOARCH=$arch go vet ./... || fail "$arch: vet"
done

# Package and tests.
plan() {
	[ "$1" = 386 ] || cat <<-'END'
	value    .
	field    .
	compat   TestParse|TestBigID
	packet   Checksum|Edit|Set|Headers
	filter   TestTable|TestErrors
	lua      TestObjects
	END
	[ "$1" != 386 ] || cat <<-'END'
	field    .
	pattern  .
	value    .
	compat   .
	packet   Checksum|Edit|Set|Headers
	filter   TestTable|TestFaults|TestErrors
	lua      TestObjects|TestSetObjOpt|TestLongChunks
	END
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for arch in 386 s390x mips; do
	run=()
	[ $arch = 386 ] || run=("qemu-$arch")
	began=$SECONDS
	while read -r package tests; do
		GOARCH=$arch go test -c -o "$dir/test" "./internal/$package" || { fail "$arch: $package: no build"; continue; }
		(cd "internal/$package" && timeout 120 "${run[@]}" "$dir/test" -test.short -test.run "$tests" >"$dir/log" 2>&1) ||
			{ tail -n 40 "$dir/log"; fail "$arch: $package"; }
	done < <(plan $arch)
	echo "ports: $arch: tests in $((SECONDS - began)) s"
done
[ $bad = 0 ] && echo "ports: all passed"
exit $bad
