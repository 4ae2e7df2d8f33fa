#!/bin/bash
# run.sh NFCTL NFCTL_FLEET NATS_SERVER: two hosts publish their connections, a third
# machine follows both, and the server is away for a while. Everything is in network
# namespaces that are made here, and goes at the end. Ends with 1 if a line is missing.
set -eu
if [ -z "${FLEET_DEMO:-}" ]; then
	user=()
	[ "$(id -u)" = 0 ] || user=(--user --map-root-user)
	FLEET_DEMO=1 exec unshare "${user[@]}" --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
nfctl=$1 fleet=$2 server=$3
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$dir"' EXIT
say() { printf '\n-- %s\n' "$*"; }

mount -t tmpfs none /run
mkdir /run/netns
ip link set lo up
ip link add br0 type bridge
ip addr add 10.9.0.1/24 dev br0
ip link set br0 up
for i in 1 2 3; do
	name=$([ $i = 3 ] && echo reader || echo "router$i")
	ip netns add "$name"
	ip link add "p$i" type veth peer name eth0 netns "$name"
	ip link set "p$i" master br0 up
	ip -n "$name" addr add "10.9.0.1$i/24" dev eth0
	ip -n "$name" link set eth0 up
	ip -n "$name" link set lo up
	ip netns exec "$name" sysctl -qw net.netfilter.nf_conntrack_events=1
done

serve() {
	"$server" -js -sd "$dir/stream" -a 10.9.0.1 -p 4222 >>"$dir/server.log" 2>&1 &
	pid=$!
}
# until COMMAND...: waits until it is true, for 20 seconds at most.
until_true() {
	for _ in $(seq 200); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "waited in vain: $*" >&2
	return 1
}
url=nats://10.9.0.1:4222

say "A NATS server with JetStream, and two routers that publish:"
serve
for r in router1 router2; do
	echo "   $r# nfctl-fleet publish --to $url --host $r --spool /var/lib/nfctl/spool"
	ip netns exec "$r" "$fleet" publish --to $url --host $r --spool "$dir/spool-$r" --ready-file "$dir/$r" \
		2>"$dir/$r.log" &
done
until_true test -e "$dir/router1" -a -e "$dir/router2"
listed() { [ "$("$fleet" status --from $url --wait 1ms | grep -c "^table router[12] ")" = 2 ]; }
until_true listed

say "A third machine follows both:"
echo "   reader# nfctl-fleet follow --from $url --of router1,router2"
ip netns exec reader "$fleet" follow --from $url --of router1,router2 --seq 1 --ready-file "$dir/reader" \
	>"$dir/lines" 2>"$dir/reader.log" &
follower=$!
until_true test -e "$dir/reader"

# flows ROUTER FIRST: a thousand flows begin there and end.
flows() {
	for i in $(seq "$2" $(($2 + 999))); do
		echo "-A -s 10.20.$((i / 250)).$((i % 250)) -d 192.0.2.1 -p udp --sport 1000 --dport 53 -t 600"
	done | ip netns exec "$1" "$nfctl" ct load - 2>/dev/null
	ip netns exec "$1" "$nfctl" ct delete -q --all 'udp > 192.0.2.1' 2>/dev/null
}
count() { grep -c "\"host\":\"$1\".*\"event\":\"$2\".*\"dst\":\"192.0.2.1\",\"sport\":1000" "$dir/lines" || true; }

say "1,000 connections begin and end on each; one of the lines that arrive:"
flows router1 0
flows router2 0
arrived() {
	for r in router1 router2; do
		[ "$(count $r new)" = "$1" ] && [ "$(count $r destroy)" = "$1" ] || return
	done
}
until_true arrived 1000
grep -m1 '"host":"router2".*"destroy".*10.20.0.7' "$dir/lines"

say "The server is killed. 1,000 more on each meanwhile; it comes back:"
kill -9 $pid
wait $pid 2>/dev/null || true
flows router1 1000
flows router2 1000
serve
until_true arrived 2000 || true
"$fleet" status --from $url

say "What has arrived:"
for r in router1 router2; do
	gaps=$(grep "\"host\":\"$r\"" "$dir/lines" | grep -c '"lost"' || true)
	echo "   $r: $(count $r new) new, $(count $r destroy) destroy, $gaps gaps"
done
arrived 2000 || { echo "something is missing" >&2; exit 1; }
kill -TERM $follower
wait $follower || true
echo "   nothing is missing."
