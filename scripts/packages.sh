#!/bin/bash
# packages.sh: writes dist/packages/: deb, rpm, apk and ipk. ARCHES and FORMATS choose some.
# A package for OpenWrt (ipk) has the small build and neither man pages, completions nor
# units, and one is made for each of the names that OpenWrt knows a processor by; IPK_ARCH
# says another. MAINTAINER='Name <address>' is who answers for packages that are given on.
set -eu
cd "$(dirname "$0")/.."
arches=${ARCHES:-amd64 arm64 arm mipsle riscv64} formats=${FORMATS:-deb rpm apk ipk}
VERSION=${VERSION:-$(scripts/version.sh)}
export VERSION
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(scripts/when.sh)}
export SOURCE_DATE_EPOCH
export MAINTAINER=${MAINTAINER:-whoever built this package <nobody@nfctl.invalid>}
nfpm=$(go -C tools tool -n nfpm)
out=${OUT:-$PWD/dist/packages}
mkdir -p "$out"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
plain=${VERSION%%+*} # versions of packages have no place for a commit
umask 022

# names FORMAT GOARCH: what systems of that format call the processor, where nfpm does not know.
names() {
	case $1-$2 in
	ipk-amd64) echo "${IPK_ARCH:-x86_64}" ;;
	ipk-arm64) echo "${IPK_ARCH:-aarch64_generic aarch64_cortex-a53 aarch64_cortex-a72}" ;;
	ipk-arm) echo "${IPK_ARCH:-arm_cortex-a7_neon-vfpv4 arm_cortex-a9_vfpv3-d16 arm_cortex-a15_neon-vfpv4}" ;;
	ipk-mips) echo "${IPK_ARCH:-mips_24kc}" ;;
	ipk-mipsle) echo "${IPK_ARCH:-mipsel_24kc}" ;;
	ipk-riscv64) echo "${IPK_ARCH:-riscv64_riscv64}" ;;
	apk-mips*) ;; # Alpine has no MIPS
	*-arm) echo arm7 ;;
	*) echo "$2" ;;
	esac
}

for arch in $arches; do
	export GOARCH=$arch
	for format in $formats; do
		stage=$tmp/$arch-$format doc=$tmp/$arch-$format/usr/share/doc/nfctl
		if [ "$format" = ipk ]; then
			[ -e "$tmp/router-$arch" ] || scripts/build.sh "$tmp/router-$arch" router
			install -D -m 755 "$tmp/router-$arch" "$stage/usr/bin/nfctl"
			install -d "$stage/etc/nfctl"
			install -D -m 644 -t "$doc" LICENSE docs/licenses.md
		else
			[ -e "$tmp/nfctl-$arch" ] || scripts/build.sh "$tmp/nfctl-$arch"
			zsh=site-functions
			[ "$format" != deb ] || zsh=vendor-completions
			ZSH_DIR=$zsh scripts/install.sh install "$tmp/nfctl-$arch" "$stage" /usr
			gzip -9 -n "$stage"/usr/share/man/man1/*.1
			gzip -9 -n -c CHANGELOG.md >"$doc/changelog.gz"
		fi
		if [ "$format" = deb ]; then
			rm "$doc/LICENSE"
			cp LICENSE "$doc/copyright"
			install -D -m 644 packaging/lintian-overrides "$stage/usr/share/lintian/overrides/nfctl"
			printf 'nfctl (%s-1) unstable; urgency=medium\n\n  * CHANGELOG.md says what is new.\n\n -- %s  %s\n' "${plain/-/\~}" \
				"$MAINTAINER" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" |
				gzip -9 -n >"$doc/changelog.Debian.gz"
		fi
		find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
		version=$plain
		[ "$format" != apk ] || version=${plain/-dev/-pre} # apk knows no dev
		for name in $(names "$format" "$arch"); do
			NFPM_ARCH=$name NFPM_VERSION=$version NFPM_STAGE=$stage \
				"$nfpm" package -f packaging/nfpm.yaml -p "$format" -t "$out/"
		done
	done
done
