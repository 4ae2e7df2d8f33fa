#!/bin/bash
# netem.sh NFCTL [SECONDS]: one TCP stream between two network namespaces, held for 50 ms
# one way by tc netem, by nfctl at input, at forward and, for a local sender, at output.
# Needs a kernel with netem; in a VM, with nfctl in the folder dir:
#
#	scripts/vmtest/vmtest -k linux-image-6.12-cloud-amd64 -p iperf3 -p jq -- dir ./netem.sh ./nfctl
#
# Prints Gbit/s received, RUNS=5 rounds in turn, and the median of the ratios to netem's.
set -u
NFCTL=$1 SECS=${2:-6} RUNS=${RUNS:-5}
export PATH=$PATH:/usr/sbin:/sbin
for n in c r s; do ip netns add $n; ip -n $n link set lo up; done
ip link add r0 netns r type veth peer name c0 netns c
ip link add r1 netns r type veth peer name s0 netns s
ip -n c addr add 10.0.0.1/24 dev c0; ip -n r addr add 10.0.0.2/24 dev r0
ip -n s addr add 10.0.1.1/24 dev s0; ip -n r addr add 10.0.1.2/24 dev r1
for d in c:c0 r:r0 r:r1 s:s0; do ip -n ${d%:*} link set ${d#*:} up; done
ip -n c route add default via 10.0.0.2; ip -n s route add default via 10.0.1.2
ip netns exec r sysctl -qw net.ipv4.ip_forward=1
for n in c s; do ip netns exec $n sysctl -qw net.ipv4.tcp_rmem="4096 131072 67108864" net.ipv4.tcp_wmem="4096 131072 67108864"; done
ip netns exec s iperf3 -s -D >/dev/null
sleep 0.5
stream() { ip netns exec c timeout 60 iperf3 -c 10.0.1.1 -t "$SECS" -O 2 -J | jq -r '.end.sum_received.bits_per_second / 1e9'; }
hold() { # NAMESPACE HOOK
	rm -f /tmp/ready
	ip netns exec "$1" "$NFCTL" queue -q --attach "$2 tcp > :5201" --rule 'delay 50ms' --ready-file /tmp/ready 2>/tmp/err & PID=$!
	for _ in $(seq 200); do [ -e /tmp/ready ] && break; sleep 0.02; done
	[ -e /tmp/ready ] || cat /tmp/err
}
for ((i = 0; i < RUNS; i++)); do
	tc -n c qdisc add dev c0 root netem delay 50ms limit 200000
	a=$(stream)
	tc -n c qdisc del dev c0 root
	line="netem $a"
	for at in 's input' 'r forward' 'c output'; do
		hold "${at% *}" "${at#* }"
		line="$line ${at#* } $(stream)"
		kill -TERM $PID; wait $PID
		grep -o '[0-9]* lost.*' /tmp/err | head -1
	done
	echo "$line"
done | tee /tmp/rows
awk '/^netem/ { n++; for (i = 3; i <= NF; i += 2) v[$i, n] = $(i + 1) / $2; names = $3 " " $5 " " $7 }
	END { m = split(names, k, " "); for (j = 1; j <= m; j++) { for (i = 1; i <= n; i++) x[i] = v[k[j], i]
		for (a = 1; a <= n; a++) for (b = a + 1; b <= n; b++) if (x[b] < x[a]) { t = x[a]; x[a] = x[b]; x[b] = t }
		printf "%s: %.2f of netem (median of %d)\n", k[j], x[int((n + 1) / 2)], n } }' /tmp/rows
