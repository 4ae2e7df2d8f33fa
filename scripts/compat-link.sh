#!/bin/sh
# compat-link.sh DESTDIR PREFIX: makes PREFIX/bin/conntrack a link to nfctl, which
# takes conntrack(8)'s command line under that name. A real conntrack is neither
# replaced nor hidden.
link=$1$2/bin/conntrack
if [ "$(readlink "$link")" = nfctl ]; then
	exit 0
fi
real=$link
if [ ! -e "$real" ] && [ ! -L "$real" ]; then
	real=
	[ -n "$1" ] || real=$(PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v conntrack)
fi
if [ -n "$real" ]; then
	echo "install: no conntrack link: there is a conntrack already, $real" >&2
	exit 1
fi
ln -s nfctl "$link" && echo "ln -s nfctl $link"
