#!/bin/bash
# queue.sh [CONSUMER_CMD]...
# Measures NFQUEUE consumers side by side with the peers built here. A consumer
# is any command that binds queue 0, accepts all, and ends on SIGTERM; one may
# be given as 'NAME=CMD'. README.md says what each figure is.
# The generator runs on core 0, the consumer where the kernel puts it (or PIN="taskset -c 1").
# RUNS=5 COUNT=300000 SIZES="64 1400" MODES="paced flood" TCP=1 LATENCY=1 PEERS="..." LABEL=...
. "$(dirname "$0")/common.sh"
COUNT=${COUNT:-300000}
SIZES=${SIZES:-64 1400}
MODES=${MODES-paced flood}
PIN=${PIN-}
CMD[c-lib]="$B/q_lib"
CMD[c-one]="$B/q_raw -m one"
CMD[c-batch]="$B/q_raw -m batch -s 16777216 -n"
CMD[c-batch-two]="$B/q_raw -m batch -s 16777216 -n -2"
CMD[c-multi]="$B/q_raw -m multi -s 16777216 -n"
CMD[c-gso]="$B/q_raw -m batch -s 16777216 -n -g"
CMD[go-gso]="$B/goq -raw -lock -m batch -s 16777216 -n -g"
CMD[go-florianl]="$B/flq"
CMD[go-batch]="$B/goq -raw -lock -m batch -s 16777216 -n"
CMD[go-multi]="$B/goq -raw -lock -m multi -s 16777216 -n"
read -ra NAMES <<<"${PEERS:-c-lib c-one c-batch c-multi go-florianl go-batch go-multi}"
subjects "$@"
build
namespace

# rules MODE [QUEUE]: paced and mixed queue at OUTPUT, flood and tenth at PREROUTING; what is
# accepted is then counted and dropped. halves: every other packet goes to QUEUE.
rules() {
	in_ns iptables -t mangle -F
	in_ns iptables -t raw -F
	in_ns iptables -F
	case $1 in
	paced | mixed)
		in_ns iptables -A OUTPUT -p udp --dport 9998:9999 -j NFQUEUE --queue-num 0
		in_ns iptables -t raw -A PREROUTING -p udp --dport 9998:9999 -j DROP ;;
	halves)
		in_ns iptables -A OUTPUT -p udp --dport 9999 -j NFQUEUE --queue-num 0
		in_ns iptables -A OUTPUT -p udp --dport 9998 -j NFQUEUE --queue-num "${2:-0}"
		in_ns iptables -t raw -A PREROUTING -p udp --dport 9998:9999 -j DROP ;;
	flood | tenth)
		in_ns iptables -t mangle -A PREROUTING -p udp --dport 9998:9999 -j NFQUEUE --queue-num 0
		in_ns iptables -A INPUT -p udp --dport 9998:9999 -j DROP ;;
	tcp) in_ns iptables -A OUTPUT -p tcp --dport 5201 -j NFQUEUE --queue-num 0 ;;
	lat) in_ns iptables -A OUTPUT -p udp --dport 9998 -j NFQUEUE --queue-num 0 ;;
	esac
}

# passed MODE: packets that came out accepted since the last call
passed() {
	local chain=(-t raw -L PREROUTING)
	[[ $1 = flood || $1 = tenth ]] && chain=(-L INPUT)
	in_ns iptables "${chain[@]}" -vnxZ | awk '$3 == "DROP" { print $1 }'
}
queue_line() { in_ns cat /proc/net/netfilter/nfnetlink_queue 2>/dev/null | awk '$1 == 0'; }

# consumer NAME: starts it and waits until queue 0 is bound
consumer() {
	ip netns exec "$NS" "$B/runstat" "$WORK/stat" sh -c "exec $PIN ${CMD[$1]}" >/dev/null 2>"$WORK/err" &
	PID=$!
	for _ in $(seq 200); do
		[ -n "$(queue_line)" ] && { sleep 0.1; return 0; }
		sleep 0.02
	done
	echo "$1 did not bind queue 0: $(tail -1 "$WORK/err")" >&2
	kill -TERM $PID
	wait $PID
	return 1
}
finish() {
	local gone=
	kill -TERM $PID 2>/dev/null
	for _ in $(seq 300); do
		[ -n "$(queue_line)" ] || { gone=1; break; }
		sleep 0.02
	done
	[ -n "$gone" ] || pkill -9 -P $PID
	wait $PID 2>/dev/null
}

# run_one NAME MODE SIZE: appends "accepted/s lost% cpu_s/M rss_kB accepted own_kB"
run_one() {
	[ "$2" = halves ] && rules halves "$([[ $1 = *-two ]] && echo 1)"
	consumer "$1" || return
	passed "$2" >/dev/null
	local window sent n stat q own other=0
	window=${WINDOW:-$([ "$3" -lt 200 ] && echo 128 || echo 64)}
	[ "$2" = flood ] && window=0
	[ "$2" = tenth ] && window=-${PACE:-200000}
	[[ $2 = mixed || $2 = tenth ]] && other=10
	[ "$2" = halves ] && other=2
	sent=$(in_ns timeout 90 taskset -c 0 "$B/gen" "$COUNT" "$3" "$window" $other)
	[[ $2 = flood || $2 = tenth ]] && for _ in $(seq 100); do # until the queue is empty
		[ "$(queue_line | awk '{ print $3 }')" = 0 ] && break
		sleep 0.01
	done
	[ "$2" = tenth ] && sleep 0.2 # what waits
	q=$(queue_line | awk '{ print $6 + $7 }')
	n=$(passed "$2")
	own=$(awk '/^RssAnon/ { print $2 }' "/proc/$(pgrep -P $PID)/status") # without pages of the program's file
	finish
	stat=$(awk '{ print $2 + $3, $4 }' "$WORK/stat")
	# Mixed: a consumer may mean to drop a tenth, so lost is what the kernel says.
	echo "$sent $n $stat ${q:-0} ${own:-0}" | awk -v count="$COUNT" -v mode="$2" '{
		decided = mode == "mixed" ? count - $6 : $3
		printf "%.0f %.2f %.3f %d %d %d\n", decided / $1, 100 * (count - decided) / count, decided ? $4 * 1e6 / decided : 0, $5, $3, $7 }' >>"$WORK/$2.$3.$1"
}

for mode in $MODES; do for size in $SIZES; do
	rules "$mode"
	for ((r = 0; r < RUNS; r++)); do for p in "${NAMES[@]}"; do run_one "$p" "$mode" "$size"; done; done
	f=$WORK/$mode.$size
	lib=$(col "$f.c-lib" 1) batch=$(col "$f.c-batch" 1) libc=$(col "$f.c-lib" 3) batchc=$(col "$f.c-batch" 3)
	echo "== $mode, $size-byte payload, $COUNT packets, median of $RUNS"
	printf '%-14s %12s %8s %8s %8s %9s %9s %9s %8s %8s %9s\n' consumer verdicts/s x_lib x_batch lost% cpu_s/M cpu/lib cpu/batch rss_MiB spread% accepted
	for p in "${NAMES[@]}"; do
		[ -s "$f.$p" ] || continue
		rate=$(col "$f.$p" 1) lost=$(col "$f.$p" 2) cpu=$(col "$f.$p" 3) rss=$(col "$f.$p" 4)
		echo "$p $rate $lost $cpu $rss ${lib:-1} ${batch:-1} ${libc:-1} ${batchc:-1} $(spread "$f.$p" 1) $(col "$f.$p" 5)" |
			awk '{ printf "%-14s %12.0f %8.2f %8.2f %8.2f %9.3f %9.2f %9.2f %8.1f %8.0f %9d\n", $1, $2, $2 / $6, $2 / $7, $3, $4, $4 / $8, $4 / $9, $5 / 1024, $10, $11 }'
		result "$LABEL$mode.$size" "$p" rate "$rate" lost "$lost" cpu "$cpu" rss "$rss" own "$(col "$f.$p" 6)"
	done
done; done

if [ "${TCP:-1}" = 1 ]; then
	echo "== one TCP stream for 2 s over lo with MTU 1500, median of $RUNS"
	in_ns ip link set lo mtu 1500
	in_ns iperf3 -s -D -I "$WORK/iperf.pid" >/dev/null 2>&1
	for _ in $(seq 100); do [ -s "$WORK/iperf.pid" ] && break; sleep 0.02; done
	sleep 0.2
	rules tcp
	tcp=("${NAMES[@]}" c-gso go-gso)
	for ((r = 0; r < RUNS; r++)); do for p in "${tcp[@]}"; do consumer "$p" && {
		g=$(in_ns timeout 20 iperf3 -c 127.0.0.1 -t 2 -J 2>/dev/null | jq -r '[.end.sum_received.bits_per_second / 1e9, .end.sum_sent.retransmits] | join(" ")')
		finish
		echo "$g $(awk '{ print $2 + $3 }' "$WORK/stat")" >>"$WORK/tcp.$p"
	}; done; done
	kill "$(tr -d '\0' <"$WORK/iperf.pid")"
	in_ns ip link set lo mtu 65536
	lib=$(col "$WORK/tcp.c-lib" 1) gso=$(col "$WORK/tcp.c-gso" 1)
	printf '%-14s %8s %8s %8s %8s %10s\n' consumer Gbit/s x_lib x_gso resent cpu_s/Gbit
	for p in "${tcp[@]}"; do
		f=$WORK/tcp.$p
		[ -s "$f" ] || continue
		rate=$(col "$f" 1)
		echo "$p $rate $(col "$f" 2) $(col "$f" 3) ${lib:-1} ${gso:-1}" |
			awk '{ printf "%-14s %8.2f %8.2f %8.2f %8d %10.3f\n", $1, $2, $2 / $5, $2 / $6, $3, $2 ? $4 / 2 / $2 : 0 }'
		result "${LABEL}tcp" "$p" gbit "$rate"
	done
fi

[ "${LATENCY:-1}" = 1 ] || exit 0
echo "== one packet at a time, 1000 a second: microseconds from send to receive, median of $RUNS"
lat() { in_ns timeout 60 taskset -c 0 "$B/lat" 2000 1000 >>"$WORK/lat.$1"; }
rules none
for ((r = 0; r < RUNS; r++)); do lat no-queue; done
rules lat
for ((r = 0; r < RUNS; r++)); do for p in "${NAMES[@]}"; do consumer "$p" && { lat "$p"; finish; }; done; done
printf '%-14s %8s %8s %8s %6s\n' consumer p50 p90 p99 lost
for p in no-queue "${NAMES[@]}"; do
	f=$WORK/lat.$p
	[ -s "$f" ] || continue
	printf '%-14s %8.1f %8.1f %8.1f %6d\n' "$p" "$(col "$f" 1)" "$(col "$f" 2)" "$(col "$f" 3)" "$(col "$f" 5)"
	result "${LABEL}lat" "$p" p50 "$(col "$f" 1)" p99 "$(col "$f" 3)"
done
