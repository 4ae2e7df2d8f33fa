#!/bin/bash
# install.sh install|uninstall BINARY DESTDIR PREFIX: puts nfctl, its man pages,
# completions, units and licences below DESTDIR, for a system that has them below
# PREFIX; or takes away again what it put there. /etc/nfctl stays when it has files.
# COMPAT=1 adds a conntrack link where there is no conntrack. Nothing is started.
set -eu
cd "$(dirname "$0")/.."
what=$1 binary=$2 dest=$3 prefix=$4
# Where files go: source, mode, place.
files() {
	echo "$binary 755 $prefix/bin/nfctl"
	local f
	for f in docs/man/*.1; do echo "$f 644 $prefix/share/man/man1/${f##*/}"; done
	echo "completions/nfctl.bash 644 $prefix/share/bash-completion/completions/nfctl"
	echo "completions/nfctl.zsh 644 $prefix/share/zsh/${ZSH_DIR:-site-functions}/_nfctl"
	echo "completions/nfctl.fish 644 $prefix/share/fish/vendor_completions.d/nfctl.fish"
	for f in docs/systemd/*.service; do echo "$f 644 $prefix/lib/systemd/system/${f##*/}"; done
	for f in LICENSE docs/licenses.md; do echo "$f 644 $prefix/share/doc/nfctl/${f##*/}"; done
}
case $what in
install)
	[ -x "$binary" ] || { echo "install: $binary is not there: run make build first" >&2; exit 1; }
	files | while read -r from mode to; do
		install -D -m "$mode" "$from" "$dest$to"
		case $to in *.service) sed -i "s|/usr/local/bin/|$prefix/bin/|; s|/etc/systemd/system/|$prefix/lib/systemd/system/|" "$dest$to" ;; esac
	done
	install -d -m 755 "$dest/etc/nfctl"
	[ "${COMPAT:-}" != 1 ] || scripts/compat-link.sh "$dest" "$prefix"
	;;
uninstall)
	files | while read -r _ _ to; do rm -f "$dest$to"; done
	[ "$(readlink "$dest$prefix/bin/conntrack")" != nfctl ] || rm "$dest$prefix/bin/conntrack"
	rmdir "$dest$prefix/share/doc/nfctl" "$dest/etc/nfctl" 2>/dev/null || true
	;;
esac
