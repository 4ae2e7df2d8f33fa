#!/bin/bash
# setup.sh [test|bench|fleet|vm]...
# Installs the programs that the tests (or the benchmark rig, or the stock-kernel
# runs) use and this machine lacks. Needs root and apt-get for that; without, it
# says what to install and exits 1. Does nothing when all is there.
set -eu

# One a line: Debian package, then a program or a file that shows that it is there.
list() {
	case $1 in
	test)
		cat <<-END
		make            make
		gcc             gcc
		libc6-dev       /usr/include/stdio.h
		git             git
		iptables        iptables
		conntrack       conntrack
		nftables        nft
		iproute2        ip
		iputils-ping    ping
		iperf3          iperf3
		jq              jq
		procps          pgrep
		util-linux      unshare
		libcap2-bin     setcap
		libxml2-utils   xmllint
		bash-completion /usr/share/bash-completion/bash_completion
		zsh             zsh
		fish            fish
		vsftpd          vsftpd
		curl            curl
		dnsutils        dig
		man-db          man
		shellcheck      shellcheck
		qemu-user       qemu-s390x
		debootstrap     debootstrap
		lintian         lintian
		rpm             rpm
		systemd-container systemd-nspawn
		tmux            tmux
		tcpdump         tcpdump
		tshark          tshark
		wireshark-common capinfos
		END
		;;
	bench)
		cat <<-END
		gcc                         gcc
		libc6-dev                   /usr/include/stdio.h
		libnetfilter-queue-dev      /usr/include/libnetfilter_queue/libnetfilter_queue.h
		iptables                    iptables
		conntrack                   conntrack
		iproute2                    ip
		iperf3                      iperf3
		jq                          jq
		procps                      pgrep
		END
		;;
	fleet)
		cat <<-END
		nats-server nats-server
		END
		;;
	vm)
		cat <<-END
		dpkg        dpkg-deb
		util-linux  flock
		coreutils   timeout
		tar         tar
		gawk        awk
		END
		;;
	*)
		echo "setup.sh: $1: want test, bench, fleet or vm" >&2
		exit 2
		;;
	esac
}

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # a plain user's PATH may lack them
here() { case $1 in /*) [ -e "$1" ] ;; *) command -v "$1" >/dev/null ;; esac; }
missing() {
	local what package sign
	for what; do
		while read -r package sign; do
			here "$sign" || echo "$package"
		done < <(list "$what")
	done | sort -u | tr '\n' ' '
}

[ $# -gt 0 ] || set -- test
for what; do list "$what" >/dev/null; done
need=$(missing "$@")
[ -n "$need" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "setup.sh: missing here: $need" >&2
	echo "setup.sh: on Debian:    sudo apt-get install --no-install-recommends $need" >&2
	exit 1
fi
echo "setup.sh: installing $need" >&2
export DEBIAN_FRONTEND=noninteractive
# A package's own start-up must not run: nothing here wants a daemon.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f $policy' EXIT
fi
# shellcheck disable=SC2086
get() { apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends $need </dev/null >&2; }
get || { apt-get -q update </dev/null >&2 && get; }
for service in vsftpd nats-server; do # nor may it come up at the next boot
	case " $need" in
	*" $service "*) rm -f "/etc/systemd/system/multi-user.target.wants/$service.service" ;;
	esac
done
need=$(missing "$@")
[ -z "$need" ] || { echo "setup.sh: still missing: $need" >&2; exit 1; }
