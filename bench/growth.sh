#!/bin/bash
# growth.sh: how nfctl's cost grows with the work: list, load, delete and watch at
# SIZES entries, and queue with RULES ports and addresses. Prints two Markdown
# tables; UPDATE=1 puts them into docs/performance.md and draws docs/growth.svg.
# RUNS=3 SIZES="1000 10000 100000 1000000" RULES="1 10 100 10000"
set -u
RUNS=${RUNS:-3}
cd "$(dirname "$0")" || exit 1
NFCTL=${NFCTL:-$PWD/../nfctl}
sizes=${SIZES:-1000 10000 100000 1000000} counts=${RULES:-1 10 100 10000}
[ -x "$NFCTL" ] || { echo "growth.sh: $NFCTL: not built yet" >&2; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export RESULTS=$tmp/results RUNS
: >"$RESULTS"

# value SECTION SUBJECT METRIC
value() { awk -F '\t' -v s="$1" -v n="$2" -v m="$3" '$1 == s && $2 == n && $3 == m { v = $4 } END { print v + 0 }' "$RESULTS"; }

for n in $sizes; do
	ENTRIES=$n ./ct.sh list "nfctl=$NFCTL ct list -o text" >&2
	ONE=$n LABEL=$n ./ct.sh load "nfctl=$NFCTL ct load \$FILE" >&2
	ONE=$n LABEL=$n ./ct.sh delete "nfctl=$NFCTL ct delete -p udp" >&2
	EVENTS=$((n / 2)) LABEL=$n READERS=conntrack-E ./ct.sh events "nfctl=$NFCTL ct watch -o text" >&2
done
for n in $counts; do
	for ((i = 1; i <= n; i++)); do
		# Half are ports, half addresses, none of them the generator's.
		if ((i % 2)); then echo "drop udp > :$((10000 + i))"; else echo "drop 198.$((18 + i / 65536 % 2)).$((i / 256 % 256)).$((i % 256)) > *"; fi
	done >"$tmp/rules.$n"
	LABEL=rules.$n MODES=paced SIZES=64 TCP=0 LATENCY=0 PEERS=c-batch \
		./queue.sh "nfctl=$NFCTL queue --num 0 -q --rules $tmp/rules.$n" >&2
done

{
	echo "| entries | list, ms | conntrack -L | load, ms | conntrack -R | delete, ms | conntrack -D | watch, events lost | conntrack -E |"
	echo "|---|---|---|---|---|---|---|---|---|"
	for n in $sizes; do
		echo "$n $(value "list.$n" nfctl wall) $(value "list.$n" conntrack-L wall) $(value "$n.load" nfctl wall) $(value "$n.load" conntrack-R wall)" \
			"$(value "$n.delete" nfctl wall) $(value "$n.delete" conntrack-D wall) $(value "$n.events.churn" nfctl lost) $(value "$n.events.churn" conntrack-E lost)"
	done | tee "$tmp/entries" | awk '{ printf "| %d | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f %% | %.1f %% |\n", $1, $2 * 1e3, $3 * 1e3, $4 * 1e3, $5 * 1e3, $6 * 1e3, $7 * 1e3, $8, $9 }'
	echo
	echo "| rules | CPU, s a million packets | of c-batch | verdicts/s |"
	echo "|---|---|---|---|"
	for n in $counts; do
		s=rules.$n.paced.64
		echo "$n $(value "$s" nfctl cpu) $(value "$s" c-batch cpu) $(value "$s" nfctl rate)"
	done | awk '{ printf "| %d | %.2f | %.2f | %.0f |\n", $1, $2, $3 ? $2 / $3 : 0, $4 }'
} | tee "$tmp/tables"
[ -n "${UPDATE:-}" ] || exit 0
./insert.sh growth ../docs/performance.md <"$tmp/tables"

# The plot: entries across and milliseconds up, both logarithmic.
awk '
	function x(v) { return 60 + log(v / 1000) / log(1000) * 420 }
	function y(ms) { return 300 - (log(ms < 0.1 ? 0.1 : ms) - log(0.1)) / (log(100000) - log(0.1)) * 270 }
	function tick(v) { return v >= 1000000 ? v / 1000000 "M" : v >= 1000 ? v / 1000 "k" : v }
	{ n++; at[n] = $1; for (k = 2; k <= 7; k++) ms[k, n] = $k * 1000 }
	END {
		split(",nfctl list,conntrack -L,nfctl load,conntrack -R,nfctl delete,conntrack -D", name, ",")
		split(",#06c,#9cf,#c30,#fa8,#083,#8d9", color, ",")
		print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"340\" font-family=\"sans-serif\" font-size=\"11\">"
		print "<rect width=\"640\" height=\"340\" fill=\"white\"/>"
		for (v = 1000; v <= 1000000; v *= 10) printf "<text x=\"%d\" y=\"316\" text-anchor=\"middle\">%s</text><line x1=\"%d\" x2=\"%d\" y1=\"30\" y2=\"300\" stroke=\"#eee\"/>\n", x(v), tick(v), x(v), x(v)
		for (v = 0.1; v <= 100000; v *= 10) printf "<text x=\"54\" y=\"%d\" text-anchor=\"end\">%g ms</text><line x1=\"60\" x2=\"480\" y1=\"%d\" y2=\"%d\" stroke=\"#eee\"/>\n", y(v) + 4, v, y(v), y(v)
		print "<text x=\"270\" y=\"334\" text-anchor=\"middle\">entries</text>"
		for (k = 2; k <= 7; k++) {
			d = ""
			for (i = 1; i <= n; i++) d = d (i == 1 ? "M" : "L") sprintf("%.1f %.1f ", x(at[i]), y(ms[k, i]))
			printf "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/><text x=\"488\" y=\"%.1f\" fill=\"%s\">%s</text>\n", d, color[k], y(ms[k, n]) + (k % 2 ? -2 : 6), color[k], name[k]
		}
		print "</svg>"
	}' "$tmp/entries" >../docs/growth.svg
