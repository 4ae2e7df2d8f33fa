#!/bin/bash
# hold.sh [NFCTL]: packets that wait. README.md says what is printed.
#
#	late     how long packets take with 'delay 20ms', beyond the 20 ms, beside the same queue without
#	many     50,000 that wait at once: how many came, and how early the first
#	beside   verdicts a second and CPU of packets that pass those that wait (each tenth waits)
#
# PARTS="late many beside" HOLD_RUNS=11
. "$(dirname "$0")/common.sh"
RUNS=${HOLD_RUNS:-11}
NFCTL=$(realpath "${1:-${NFCTL:-$HERE/../nfctl}}")
PARTS=${PARTS:-late many beside}
part() { [[ " $PARTS " == *" $1 "* ]]; }
build
namespace

# queue RULE...: an nfctl at input, of packets to port 9998
queue() {
	local args=()
	local x
	for x; do args+=(--rule "$x"); done
	rm -f "$WORK/ready"
	ip netns exec "$NS" "$NFCTL" queue -q --attach 'input udp > :9998' --ready-file "$WORK/ready" "${args[@]}" 2>"$WORK/err" & PID=$!
	for _ in $(seq 200); do [ -e "$WORK/ready" ] && return; sleep 0.02; done
	echo "hold.sh: $NFCTL: $(cat "$WORK/err")" >&2
	exit 1
}
finish() { kill -TERM $PID; wait $PID 2>/dev/null; }
# train FILE COUNT RATE: its figures to a file
train() { in_ns timeout 60 "$B/late" "$2" "$3" >>"$WORK/$1"; }

if part late; then
	echo "== 'delay 20ms' at input: microseconds, median of $RUNS; beyond: p99 less the 20 ms and the p99 without the rule, in pairs"
	printf '%-10s %10s %10s %10s %10s %10s\n' packets/s p99_without least p50 p99 beyond
	for rate in 1000 20000; do
		for ((r = 0; r < RUNS; r++)); do
			queue; train "without.$rate" $((rate * 2)) $rate; finish
			queue 'delay 20ms'; train "delay.$rate" $((rate * 2)) $rate; finish
		done
		a=$WORK/without.$rate b=$WORK/delay.$rate
		beyond=$(paste "$b" "$a" | awk '{ print $3 - 20000 - $8 }' | median)
		printf '%-10s %10.1f %10.1f %10.1f %10.1f %10.1f\n' $rate "$(col "$a" 3)" "$(sort -g "$b" | head -n 1 | cut -d ' ' -f 1)" "$(col "$b" 2)" "$(col "$b" 3)" "$beyond"
		[ "$(awk '{ n += $5 } END { print n }' "$a" "$b")" = 0 ] || echo "  lost: $(awk '{ n += $5 } END { print n }' "$a" "$b")"
		result hold "$rate" beyond "$beyond"
	done
fi

if part many; then
	queue 'delay 2s'
	train many 50000 30000
	in_ns "$NFCTL" queue list >"$WORK/list"
	finish
	echo "== 50,000 packets that wait for 2 s at once: least p50 p99 most lost"
	cat "$WORK/many"
	grep -o '[0-9]* had to wait.*' "$WORK/err" | head -n 1
	result hold many lost "$(cut -d ' ' -f 5 "$WORK/many")"
fi

if part beside; then
	q="$NFCTL queue --num 0 -q"
	PEERS=c-batch SIZES=64 TCP=0 LATENCY=0 LABEL=hold MODES=tenth RUNS=$RUNS "$HERE/queue.sh" "nfctl=$q" "delay=$q --rule 'delay 50ms udp > :9998'"
fi
