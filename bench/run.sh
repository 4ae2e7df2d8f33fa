#!/bin/bash
# run.sh: measures nfctl beside its peers and prints, last, the table of
# docs/performance.md: each figure, what it is measured against, and the goal.
# All output is kept in bench/results/. About 25 minutes; for a look:
#
#	RUNS=1 ENTRIES=100000 PARTS="queue list" bench/run.sh
#
# UPDATE=1 puts machine and table into docs/performance.md.
# PARTS: queue tcp latency flow files rules list filter load delete events start compat
set -u
cd "$(dirname "$0")" || exit 1
NFCTL=${NFCTL:-$PWD/../nfctl}
PARTS=${PARTS:-queue tcp latency flow files rules list filter load delete events start compat}
export RUNS=${RUNS:-5} ENTRIES=${ENTRIES:-1000000}
[ -x "$NFCTL" ] || { echo "run.sh: $NFCTL: not built yet" >&2; exit 1; }
mkdir -p results bin
# Measured as installed: a copy starts sooner than what the linker left, which the
# kernel has in its memory, and maps, by single pages. So it is for the Go peers.
install "$NFCTL" bin/nfctl && NFCTL=$PWD/bin/nfctl
out=results/$(date -u +%Y%m%d-%H%M%S)
export RESULTS=$PWD/$out.tsv
part() { [[ " $PARTS " == *" $1 "* ]]; }
q="$NFCTL queue --num 0 -q"

{
	echo "$(uname -sr), $(nproc) CPUs $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(go env GOVERSION), $("$NFCTL" version 2>/dev/null)"
	echo "load at the start: $(cut -d ' ' -f 1-3 /proc/loadavg); each figure the median of $RUNS"
	if part queue || part tcp || part latency; then
		MODES=$(part queue && echo paced flood) TCP=$(part tcp && echo 1 || echo 0) LATENCY=$(part latency && echo 1 || echo 0) \
			SIZES=${SIZES:-64} PEERS="c-lib c-batch go-florianl go-batch" ./queue.sh "nfctl=$q"
	fi
	part flow && ./flow.sh "$NFCTL"
	part files && PARTS="write read natlog who" ./files.sh "$NFCTL"
	if part rules; then
		ten=
		for i in 1 2 3 4 5; do ten="$ten --drop-port $((6000 + i)) --drop-src 192.0.2.$i"; done
		LABEL=rules MODES=paced SIZES=64 TCP=0 LATENCY=0 PEERS="c-lib c-batch" ./queue.sh "nfctl=$q" "ten=$q$ten" \
			"expr=$q --drop-if 'tcp.dport == 22 && ip.src in \"10.0.0.0/8\"'" \
			"expr-udp=$q --drop-if 'udp.dport == 9999 && ip.src in \"10.0.0.0/8\"'" \
			"mark=$q --rule 'mark 0x1'" "edit=$q --rule 'replace \"PING\" \"PONG\"'" \
			"lua=$NFCTL lua $PWD/lua/callback.lua" "lua-rule=$q --rule 'lua $PWD/lua/rule.lua'"
		LABEL=rules MODES=halves SIZES=64 TCP=0 LATENCY=0 PEERS="c-batch c-batch-two" ./queue.sh "nfctl=$q" "nfctl-two=$NFCTL queue --num 0-1 -q"
		LABEL=rules MODES=mixed SIZES=64 TCP=0 LATENCY=0 PEERS="c-lib c-batch" ./queue.sh "drops=$q --drop-port 9998"
	fi
	l="$NFCTL ct list"
	part list && ./ct.sh list "nfctl-text=$l -o text" "nfctl-json=$l -o json" "nfctl-csv=$l -o csv"
	part filter && ./ct.sh filter "nfctl=$l -p tcp --dport 443 -o text"
	part load && SAVE_JSON="$l -o json" ./ct.sh load "nfctl-save=$NFCTL ct load \$FILE" "nfctl-json=$NFCTL ct load \$JSON"
	part delete && ./ct.sh delete "nfctl=$NFCTL ct delete -p udp"
	if part events; then
		for gen in churn spray; do
			GEN=$gen READERS="conntrack-E go-big c-read-big" \
				./ct.sh events "nfctl-text=$NFCTL ct watch -o text" "nfctl-json=$NFCTL ct watch -o json"
		done
	fi
	part start && ./ct.sh start "ct-count=$NFCTL ct count" "attr=$NFCTL attr list" "expect=$NFCTL expect list"
	if part compat; then # conntrack(8)'s own command lines
		c="nfctl=$NFCTL compat conntrack"
		LABEL=compat ENTRIES=100000 ./ct.sh list "$c -L"
		LABEL=compat ./ct.sh load "$c -R \$FILE"
		LABEL=compat ONE=10000 ./ct.sh delete "$c -D -p udp"
		LABEL=compat ./ct.sh start "$c -C"
	fi
	echo "load at the end: $(cut -d ' ' -f 1-3 /proc/loadavg)"
	./table.sh "$RESULTS"
} | tee "$out.txt"

if [ -n "${UPDATE:-}" ]; then
	{
		head -n 2 "$out.txt" | sed 's/$/  /'
		./table.sh "$RESULTS"
	} | ./insert.sh peers ../docs/performance.md
fi
