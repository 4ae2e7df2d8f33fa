#!/bin/bash
# ct.sh [SUBJECT [CMD]...]
# Measures conntrack tools side by side. SUBJECT: list filter count load delete
# events start, or all (the default). A CMD (or 'NAME=CMD') joins its subject:
#   list    prints the whole table          filter  prints TCP to port 443
#   count   prints the count                load    reads what conntrack -o save wrote, from $FILE
#   delete  deletes all UDP entries         events  prints a line for each event, ends on SIGTERM
#   start   any command, for its start-up
# ENTRIES="10000 100000 1000000" RUNS=5 GEN=churn|spray. README.md says what each figure is.
. "$(dirname "$0")/common.sh"
SUBJECT=${1:-all}
[ $# -gt 0 ] && shift
ENTRIES=${ENTRIES:-10000 100000 1000000}
ONE=${ONE:-100000} # entries for load and delete
MAX=/proc/sys/net/netfilter/nf_conntrack_max BUCKETS=/proc/sys/net/netfilter/nf_conntrack_buckets
case $SUBJECT in all | list | filter | count | load | delete | events | start) ;; *) echo "ct.sh: $SUBJECT: unknown subject" >&2; exit 2 ;; esac
build
namespace
old_max=$(cat $MAX) old_buckets=$(cat $BUCKETS)
clean_up() {
	[ "$(cat $MAX)" = 2200000 ] && echo "$old_max" >$MAX
	[ -n "$HASH" ] && echo "$old_buckets" >$BUCKETS
	ip netns del "$NS"
	rm -rf "$WORK"
}
[ "$old_max" -ge 2200000 ] || echo 2200000 >$MAX
[ -n "$HASH" ] && echo "$HASH" >$BUCKETS

empty() {
	in_ns conntrack -F >/dev/null 2>&1
	for _ in $(seq 500); do
		[ "$(in_ns cat /proc/sys/net/netfilter/nf_conntrack_count)" = 0 ] && return
		sleep 0.02
	done
}

# rounds PREFIX [BEFORE...]: RUNS interleaved runs of every command, BEFORE each of them
rounds() {
	local prefix=$1 p
	shift
	for ((r = 0; r < RUNS; r++)); do for p in "${NAMES[@]}"; do
		"$@"
		in_ns timeout 300 "$B/runstat" "$WORK/stat" sh -c "exec ${CMD[$p]}" >"${OUT:-/dev/null}" 2>"$WORK/err"
		awk '{ print $1, $2 + $3, $4, $5 }' "$WORK/stat" >>"$WORK/$prefix.$p"
	done; done
}

# table TITLE BASE LIMIT PREFIX: prints what was kept under PREFIX.NAME
table() {
	local f p base limit cpu
	echo "== $1"
	printf '%-18s %10s %10s %9s %9s %8s %8s   (a: %s, b: %s)\n' command wall_ms cpu_ms rss_MiB wall/a wall/b cpu/a "$2" "$3"
	base=$(col "$WORK/$4.$2" 1) cpu=$(col "$WORK/$4.$2" 2) limit=$(col "$WORK/$4.$3" 1)
	for p in "${NAMES[@]}"; do
		f=$WORK/$4.$p
		[ -s "$f" ] || continue
		echo "$p $(col "$f" 1) $(col "$f" 2) $(col "$f" 3) ${base:-1} ${limit:-1} ${cpu:-1} $(col "$f" 4)" |
			awk '{ printf "%-18s %10.2f %10.2f %9.1f %9.3f %8.2f %8.3f%s\n", $1, $2 * 1e3, $3 * 1e3, $4 / 1024, $2 / $5, $2 / $6, $3 / $7, $8 ? "  exit " $8 : "" }'
		result "$LABEL$4" "$p" wall "$(col "$f" 1)" cpu "$(col "$f" 2)" rss "$(col "$f" 3)"
	done
}

do_list() {
	NAMES=()
	add conntrack-L 'conntrack -L'
	add conntrack-Lxml 'conntrack -L -o xml'
	add c-dump "$B/ctdump"
	[ -e /proc/net/nf_conntrack ] && add cat-proc 'cat /proc/net/nf_conntrack'
	add timo-dump "$B/timo dump"
	add go-list "$B/goct list"
	add go-list-pipe "$B/goct list -pipe"
	subjects "$@"
	rounds "list.$n"
	table "list, $n entries" conntrack-L c-dump "list.$n"
}
do_filter() {
	NAMES=()
	add conntrack-L 'conntrack -L -p tcp --dport 443'
	add timo-filter "$B/timo filter"
	add go-user "$B/goct list -p 6 -dport 443 -user"
	add go-kernel "$B/goct list -p 6 -dport 443"
	subjects "$@"
	rounds "filter.$n"
	table "filtered list (TCP to 443), $n entries" conntrack-L go-kernel "filter.$n"
}
do_count() {
	NAMES=()
	add conntrack-C 'conntrack -C'
	subjects "$@"
	rounds "count.$n"
	table "count, $n entries" conntrack-C conntrack-C "count.$n"
}
do_load() {
	empty
	in_ns "$B/ctfill" add "$ONE" >/dev/null
	export FILE=$WORK/save JSON=$WORK/save.json
	in_ns conntrack -L -o save >"$FILE" 2>/dev/null
	[ -z "$SAVE_JSON" ] || in_ns sh -c "$SAVE_JSON" >"$JSON"
	NAMES=()
	add conntrack-R "conntrack -R $FILE"
	add c-packed "$B/ctfill add $ONE"
	add c-single "$B/ctfill add $ONE -p 1"
	subjects "$@"
	rounds load empty
	table "load $ONE entries" conntrack-R c-packed load
}
all_udp() { empty; in_ns "$B/ctfill" add "$ONE" -u >/dev/null; }
do_delete() {
	NAMES=()
	add conntrack-D 'conntrack -D -p udp'
	add c-packed "$B/ctfill del $ONE -u"
	add conntrack-F 'conntrack -F'
	subjects "$@"
	rounds delete all_udp
	table "delete all of $ONE UDP entries" conntrack-D c-packed delete
}

# lines printed against events made. churn: by netlink, new and destroy for
# each; spray: by packets, new only
do_events() {
	local k=${EVENTS:-200000} big=67108864 gen=${GEN:-churn} made p s c d size last f base
	made=$k
	[ "$gen" = churn ] && made=$((2 * k))
	NAMES=()
	add none 'sleep 600'
	add conntrack-E 'conntrack -E'
	add conntrack-E-big "conntrack -E -b $big"
	add timo "$B/timo events"
	add timo-big "$B/timo events $big"
	add c-read-big "$B/ctev -s $big"
	add c-reliable "$B/ctev -r"
	add c-big-reliable "$B/ctev -r -s $big"
	add go "$B/goct events"
	add go-big "$B/goct events -s $big"
	add go-reliable "$B/goct events -r"
	add go-big-reliable "$B/goct events -r -s $big"
	[ -z "$READERS" ] || read -ra NAMES <<<"none $READERS"
	subjects "$@"
	in_ns iptables -A OUTPUT -m conntrack --ctstate INVALID -j DROP # any such rule turns tracking on
	in_ns iptables -t raw -A PREROUTING -p udp -j DROP
	for ((r = 0; r < RUNS; r++)); do for p in "${NAMES[@]}"; do
		empty
		: >"$WORK/lines"
		ip netns exec "$NS" "$B/runstat" "$WORK/stat" sh -c "exec ${CMD[$p]}" >"$WORK/lines" 2>"$WORK/err" &
		PID=$!
		sleep 0.3
		if [ "$gen" = churn ]; then
			s=$(in_ns timeout 120 taskset -c 0 "$B/ctfill" churn "$k")
		else
			s=$(in_ns timeout 120 taskset -c 0 "$B/spray" "$k")
		fi
		last=-1
		for _ in $(seq 40); do
			sleep 0.3
			size=$(stat -c %s "$WORK/lines")
			[ "$last" = "$size" ] && break
			last=$size
		done
		kill -TERM $PID
		wait $PID 2>/dev/null
		# A line of an event: text has src=, JSON its kind.
		c=$(grep -cE 'src=|"kind":"flow"' "$WORK/lines")
		d=$(grep -ciE 'destroy.*src=|"event":"destroy"' "$WORK/lines")
		[[ $p = c-* ]] && read -r c _ _ d <"$WORK/lines"
		echo "$made $k ${c:-0} ${d:-0} $(awk '{ print $2 + $3, $4 }' "$WORK/stat") ${s%% *}" |
			awk '{ n = $3 - $4; printf "%.0f %d %.3f %.3f %.3f %.3f %d\n", $1 / $7, $3, 100 * (1 - $3 / $1), 100 * (1 - n / $2), ($1 > $2 ? 100 * (1 - $4 / ($1 - $2)) : 0), $3 ? $5 * 1e6 / $3 : 0, $6 }' >>"$WORK/events.$p"
	done; done
	echo "== events ($gen): $made events as fast as one core makes them, median of $RUNS"
	printf '%-18s %10s %7s %9s %7s %9s %9s %11s %8s\n' reader made/s x_none seen lost% new_lost% del_lost% reader_s/M rss_MiB
	base=$(col "$WORK/events.none" 1)
	for p in "${NAMES[@]}"; do
		f=$WORK/events.$p
		[ -s "$f" ] || continue
		echo "$p $(col "$f" 1) ${base:-1} $(col "$f" 2) $(col "$f" 3) $(col "$f" 4) $(col "$f" 5) $(col "$f" 6) $(col "$f" 7)" |
			awk '{ printf "%-18s %10.0f %7.2f %9d %7.2f %9.2f %9.2f %11.3f %8.1f\n", $1, $2, $2 / $3, $4, $5, $6, $7, $8, $9 / 1024 }'
		result "${LABEL}events.$gen" "$p" lost "$(col "$f" 3)" cpu "$(col "$f" 6)" rss "$(col "$f" 7)"
	done
}
do_start() {
	local p f
	NAMES=()
	add conntrack-C 'conntrack -C'
	add go-hello "$B/hello"
	add go-heavy "$B/heavy"
	subjects "$@"
	echo "== start: 200 runs, one after another, $RUNS times"
	printf '%-18s %10s %8s %8s %9s\n' command median_ms p90_ms cpu_ms rss_MiB
	for ((r = 0; r < RUNS; r++)); do for p in "${NAMES[@]}"; do
		# shellcheck disable=SC2086
		in_ns "$B/spawn" 200 ${CMD[$p]} >>"$WORK/start.$p"
	done; done
	for p in "${NAMES[@]}"; do
		f=$WORK/start.$p
		printf '%-18s %10.2f %8.2f %8.2f %9.1f\n' "$p" "$(col "$f" 1)" "$(col "$f" 2)" "$(col "$f" 3)" "$(col "$f" 4 | awk '{ print $1 / 1024 }')"
		result "${LABEL}start" "$p" wall "$(col "$f" 1)" rss "$(col "$f" 4)"
	done
}

case $SUBJECT in
list | filter | count) todo=$SUBJECT ;;
all) todo="list filter count" ;;
*) todo= ;;
esac
[ -n "$todo" ] && for n in $ENTRIES; do
	empty
	in_ns "$B/ctfill" add "$n" | awk -v n="$n" -v b="$(cat $BUCKETS)" '{ print "filled " n " entries: " $2 " a second, errors " $3 ", hash buckets " b }'
	for s in $todo; do "do_$s" "$@"; done
done
case $SUBJECT in
load | delete | events | start) "do_$SUBJECT" "$@" ;;
all) for s in load delete events start; do "do_$s"; done ;;
esac
empty
