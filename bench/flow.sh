#!/bin/bash
# flow.sh [NFCTL]: what it costs to decide for a flow once. One iperf3 stream over lo,
# MTU 1500, each packet by itself (no large segments), in turn
#
#	none       no rule
#	conntrack  connections are tracked, nothing is queued
#	flow       nfctl queue --attach 'output tcp >' --rule 'accept flow'
#	every      nfctl queue --attach 'output tcp >': every packet, accepted
#	c-batch    iptables -j NFQUEUE and bare C with batch verdicts: every packet
#
# and how many packets come up of a flow that is accepted as a whole. README.md says
# what is printed. FLOW_RUNS=11 SECS=1.5 PATHS="conntrack flow" SEGMENTS=0 (1: large ones, as machines have them)
. "$(dirname "$0")/common.sh"
RUNS=${FLOW_RUNS:-11}
SECS=${SECS:-1.5}
NFCTL=${1:-${NFCTL:-$HERE/../nfctl}}
section=$([ "${SEGMENTS:-0}" = 1 ] && echo flow-gso || echo flow)
build
namespace
in_ns ip link set lo mtu 1500
[ "$section" = flow ] && in_ns "$B/offload" lo off
in_ns iperf3 -s -D -I "$WORK/iperf.pid" >/dev/null 2>&1
for _ in $(seq 100); do [ -s "$WORK/iperf.pid" ] && break; sleep 0.02; done
sleep 0.2

# begin KIND: sets up the path; end takes it back
begin() {
	in_ns iptables -F
	PID=
	[ "$1" = none ] || in_ns iptables -A INPUT -m conntrack --ctstate INVALID -j ACCEPT
	case $1 in
	flow) ip netns exec "$NS" "$NFCTL" queue --attach 'output tcp >' --rule 'accept flow' -q --ready-file "$WORK/ready" 2>"$WORK/err" & PID=$! ;;
	every) ip netns exec "$NS" "$NFCTL" queue --attach 'output tcp >' -q --ready-file "$WORK/ready" 2>"$WORK/err" & PID=$! ;;
	c-batch)
		ip netns exec "$NS" "$B/q_raw" -m batch -s 16777216 -n 2>/dev/null & PID=$!
		for _ in $(seq 100); do
			[ -n "$(in_ns cat /proc/net/netfilter/nfnetlink_queue 2>/dev/null)" ] && break
			sleep 0.02
		done
		in_ns iptables -A OUTPUT -p tcp -j NFQUEUE --queue-num 0
		return ;;
	*) return ;;
	esac
	for _ in $(seq 200); do [ -e "$WORK/ready" ] && return; sleep 0.02; done
	echo "flow.sh: $NFCTL: $(cat "$WORK/err")" >&2
	exit 1
}
end() {
	in_ns iptables -F
	[ -z "$PID" ] || { kill -TERM "$PID"; wait "$PID" 2>/dev/null; }
	rm -f "$WORK/ready"
}
stream() { in_ns timeout 20 iperf3 -c 127.0.0.1 -t "$SECS" -J 2>/dev/null | jq -r '.end.sum_received.bits_per_second / 1e9'; }

read -ra kinds <<<"${PATHS:-none conntrack flow every c-batch}"
for ((r = 0; r < RUNS; r++)); do for k in "${kinds[@]}"; do
	begin "$k"
	stream >>"$WORK/$k"
	end
done; done

# A million bytes over each of twenty connections, and the twenty that iperf3 steers by.
begin flow
in_ns "$NFCTL" ct flush --all 2>/dev/null
for _ in $(seq 20); do in_ns timeout 20 iperf3 -c 127.0.0.1 -n 1M >/dev/null 2>&1; done
flows=$(in_ns "$NFCTL" ct count -p tcp --dport 5201)
end
up=$(awk -v flows="$flows" '/^nfctl: queue [0-9]+: [0-9]+ packets?/ { print $4 / flows; exit }' "$WORK/err")

# paired FILE: its figures by those of conntrack in the same round: the median, and
# between which the median of all rounds that there could be is (95 % and more)
paired() {
	paste "$1" "$WORK/conntrack" | awk '{ print $1 / $2 }' | sort -g | awk '{ v[NR] = $1 } END {
		# the order statistics below which it is with less than 2.5 %: binomial, p = 1/2
		p = 0.5 ^ NR; sum = p; k = 0
		while (sum + p * (NR - k) / (k + 1) <= 0.025) { p = p * (NR - k) / (k + 1); k++; sum += p }
		k = sum > 0.025 ? 1 : k + 1
		m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
		printf "%.3f %.3f %.3f\n", m, v[k], v[NR + 1 - k] }'
}
echo "== one TCP stream of $SECS s over lo, MTU 1500$([ "$section" = flow ] && echo ", no large segments"), median of $RUNS rounds; x_conntrack: of the same round"
printf '%-12s %8s %12s %16s\n' path Gbit/s x_conntrack interval
for k in "${kinds[@]}"; do
	read -r m lo hi <<<"$(paired "$WORK/$k")"
	printf '%-12s %8.2f %12.3f %16s\n' "$k" "$(col "$WORK/$k" 1)" "$m" "$lo to $hi"
	result "$section" "$k" gbit "$(col "$WORK/$k" 1)" pair "$m" low "$lo" high "$hi"
done
echo "packets that come up of a flow accepted as a whole, both directions: $up of $flows flows"
result "$section" flow up "$up"
