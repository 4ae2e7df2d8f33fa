# Sourced by the rig's scripts: builds peers and prototypes into $BENCH_BIN and
# makes a network namespace, which is removed on exit.
# shellcheck shell=bash
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
B=${BENCH_BIN:-$HERE/bin}
RUNS=${RUNS:-5}
LABEL=${LABEL:+$LABEL.}
RESULTS=${RESULTS:-/dev/null} # every median printed, as "section subject metric value", goes there too
NS=nfbench$$
WORK=$(mktemp -d)

build() {
	mkdir -p "$B"
	local f o lib
	for f in "$HERE"/c/*.c; do
		o=$B/$(basename "$f" .c) lib=
		[ "$o" -nt "$f" ] && [ "$o" -nt "$HERE/c/nl.h" ] && continue
		grep -q libnetfilter_queue "$f" && lib=-lnetfilter_queue
		gcc -O2 -Wall -pthread -o "$o" "$f" $lib || exit 1
	done
	(cd "$HERE/go" && CGO_ENABLED=0 go build -buildvcs=false -o "$B/" ./...) || exit 1
	for f in "$HERE"/go/*/; do # installed, see run.sh
		f=$B/$(basename "$f")
		cp "$f" "$f.new" && mv "$f.new" "$f"
	done
}

# clean_up is run on exit; scripts add to it.
clean_up() { ip netns del "$NS"; rm -rf "$WORK"; }

namespace() {
	[ "$(id -u)" = 0 ] || { echo "bench: run as root" >&2; exit 1; }
	ip netns add "$NS" || exit 1
	trap '[ $BASHPID = $$ ] && clean_up' EXIT
	in_ns ip link set lo up
}

in_ns() { ip netns exec "$NS" "$@"; }

# subjects ARG...: each 'NAME=CMD' or 'CMD' joins the commands to measure.
declare -A CMD
NAMES=()
# shellcheck disable=SC2034
add() { NAMES+=("$1"); CMD[$1]=$2; }
subjects() {
	local i=0 a n
	for a; do
		i=$((i + 1)) n=test$i
		[[ $a =~ ^[a-zA-Z0-9-]+= ]] && { n=${a%%=*}; a=${a#*=}; }
		add "$n" "$a"
	done
}

# median of the numbers on standard input, one a line
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "nan" }'; }

# col FILE K: median of column K
col() { [ -s "$1" ] && awk -v k="$2" '{ print $k }' "$1" | median; }

# spread FILE K: (highest - lowest) / lowest of column K, in percent
spread() { awk -v k="$2" '{ print $k }' "$1" | sort -g | awk '{ v[NR] = $1 } END { printf "%.0f\n", v[1] ? 100 * (v[NR] - v[1]) / v[1] : 0 }'; }

# result SECTION SUBJECT METRIC VALUE...
result() {
	local section=$1 subject=$2
	shift 2
	while [ $# -ge 2 ]; do
		printf '%s\t%s\t%s\t%s\n' "$section" "$subject" "$1" "$2" >>"$RESULTS"
		shift 2
	done
}
