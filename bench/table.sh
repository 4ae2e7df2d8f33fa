#!/bin/bash
# table.sh RESULTS: the Markdown table of docs/performance.md from what run.sh
# kept. A row is printed when its figures are there; "no" marks a missed goal.
set -eu
n=${ENTRIES:-1000000}
n=${n##* } # of several sizes the last
# what | section | subject | metric | beside | goal, of the ratio or, with its unit, of the figure | unit, factor
rows="
queue, no rules: CPU a million packets|paced.64|nfctl|cpu|c-batch|<= 1.15|s 1
queue, ten port and address rules: CPU|rules.paced.64|ten|cpu|c-batch|<= 1.3|s 1
queue, a tenth dropped: CPU|rules.mixed.64|drops|cpu|c-batch|<= 1.3|s 1
queue, mark: CPU|rules.paced.64|mark|cpu|c-lib|<= 0.85|s 1
queue, payload edit: CPU|rules.paced.64|edit|cpu|c-lib|<= 0.85|s 1
queue, TCP expression, UDP packets: CPU|rules.paced.64|expr|cpu|nfctl|<= 1.35|s 1
queue, UDP expression, both sides read: CPU|rules.paced.64|expr-udp|cpu|nfctl|<= 1.35|s 1
queue, a Lua callback that accepts: verdicts a second|rules.paced.64|lua|rate|nfctl|>= 0.33|k 0.001
queue, a Lua rule that accepts: verdicts a second|rules.paced.64|lua-rule|rate|nfctl|>= 0.33|k 0.001
queue: verdicts a second|paced.64|nfctl|rate|c-lib|>= 1.2|k 0.001
queue: verdicts a second|paced.64|nfctl|rate|c-batch|>= 0.9|k 0.001
queue: verdicts a second|paced.64|nfctl|rate|go-florianl|>= 5|k 0.001
queue, two queues on two cores: verdicts a second|rules.halves.64|nfctl-two|rate|nfctl|-|k 0.001
queue, two queues on two cores: verdicts a second|rules.halves.64|nfctl-two|rate|c-batch-two|-|k 0.001
queue, two queues on two cores: CPU a million packets|rules.halves.64|nfctl-two|cpu|c-batch-two|-|s 1
queue, flood: loss|flood.64|nfctl|lost|go-florianl|< 0.5 %|% 1
queue, one TCP stream, MTU 1500|tcp|nfctl|gbit|c-gso|>= 1|Gbit/s 1
queue, flows accepted once: one TCP stream of single packets|flow|flow|gbit|conntrack|>= 0.95|Gbit/s 1
queue, each packet of that stream|flow|every|gbit|c-batch|>= 1|Gbit/s 1
queue, latency at 1000/s, p50|lat|nfctl|p50|c-lib|<= 1.3|us 1
queue, latency at 1000/s, p99|lat|nfctl|p99|c-lib|<= 1.5|us 1
queue -w, each packet to a file: verdicts a second|write.paced.64|write|rate|nfctl|>= 0.8|k 0.001
queue -w, flood: loss|write.flood.64|write|lost|tcpdump|<= 0 %|% 1
queue --read, ten port rules: packets a second|files|read|rate|-|>= 2000 k|k 0.001
ct watch --nat-log: CPU a million translations|files|natlog|cpu|json|<= 1.3|s 1
ct who, a time in 1 GB of logs: wall|files|who|wall|-|<= 1 s|s 1
queue: peak RSS|paced.64|nfctl|rss|go-florianl|<= 8 MiB|MiB 0.0009765625
queue: memory of its own, without the program's pages|paced.64|nfctl|own|go-florianl|-|MiB 0.0009765625
ct list, text: wall|list.$n|nfctl-text|wall|conntrack-L|<= 0.5|ms 1000
ct list, text: wall|list.$n|nfctl-text|wall|c-dump|<= 1|ms 1000
ct list, json: wall|list.$n|nfctl-json|wall|conntrack-L|<= 0.5|ms 1000
ct list, json: wall|list.$n|nfctl-json|wall|c-dump|<= 1|ms 1000
ct list, csv: wall|list.$n|nfctl-csv|wall|conntrack-L|<= 0.5|ms 1000
ct list, csv: wall|list.$n|nfctl-csv|wall|c-dump|<= 1|ms 1000
ct list, json: peak RSS|list.$n|nfctl-json|rss|conntrack-L|<= 16 MiB|MiB 0.0009765625
ct list, TCP to 443: wall|filter.$n|nfctl|wall|conntrack-L|<= 0.4|ms 1000
ct load, save lines: wall|load|nfctl-save|wall|conntrack-R|<= 0.25|ms 1000
ct load, JSON: wall|load|nfctl-json|wall|conntrack-R|<= 0.25|ms 1000
ct delete, UDP: wall|delete|nfctl|wall|conntrack-D|<= 0.25|ms 1000
ct watch, churn, text: lost|events.churn|nfctl-text|lost|conntrack-E|<= 0 %|% 1
ct watch, churn, json: lost|events.churn|nfctl-json|lost|conntrack-E|<= 0 %|% 1
ct watch, churn, text: CPU a million|events.churn|nfctl-text|cpu|c-read-big|<= 1.5 s|s 1
ct watch, churn, json: CPU a million|events.churn|nfctl-json|cpu|c-read-big|<= 1.5 s|s 1
ct watch, spray, text: lost|events.spray|nfctl-text|lost|conntrack-E|<= 0 %|% 1
ct watch, spray, json: lost|events.spray|nfctl-json|lost|conntrack-E|<= 0 %|% 1
ct watch, spray, text: CPU a million|events.spray|nfctl-text|cpu|c-read-big|<= 2.5 s|s 1
ct watch, spray, json: CPU a million|events.spray|nfctl-json|cpu|c-read-big|<= 2.5 s|s 1
start: ct count|start|ct-count|wall|go-hello|<= 2.5 ms|ms 1
start: attr list|start|attr|wall|go-hello|<= 2.5 ms|ms 1
start: expect list|start|expect|wall|go-hello|<= 2.5 ms|ms 1
compat conntrack -L, 100k: wall|compat.list.100000|nfctl|wall|conntrack-L|<= 1|ms 1000
compat conntrack -R, 100k: wall|compat.load|nfctl|wall|conntrack-R|<= 1|ms 1000
compat conntrack -D, 10k: wall|compat.delete|nfctl|wall|conntrack-D|<= 1|ms 1000
compat conntrack -C: wall|compat.start|nfctl|wall|conntrack-C|<= 1|ms 1
start: ct count, peak RSS|start|ct-count|rss|go-hello|<= 8 MiB|MiB 0.0009765625
"
echo
echo "| what | nfctl | beside | ratio | goal | met |"
echo "|---|---|---|---|---|---|"
awk -F '\t' -v rows="$rows" '
	{ v[$1, $2, $3] = $4 }
	function show(x, unit) { return sprintf(x >= 100 ? "%.0f %s" : "%.2f %s", x, unit) }
	END {
		n = split(rows, row, "\n")
		for (i = 1; i <= n; i++) {
			if (split(row[i], f, "|") < 7 || !((f[2], f[3], f[4]) in v)) continue
			split(f[7], u, " "); g[3] = ""; split(f[6], g, " ")
			x = v[f[2], f[3], f[4]]
			if (f[5] != "-" && !((f[2], f[5], f[4]) in v)) continue
			b = f[5] == "-" ? 0 : v[f[2], f[5], f[4]]
			ratio = b > 0 ? sprintf("%.2f", x / b) : "-"
			y = g[3] != "" ? x * u[2] : ratio + 0
			met = g[1] == "<=" ? y <= g[2] : g[1] == "<" ? y < g[2] : y >= g[2]
			word = f[6] == "-" ? "-" : met ? "yes" : "no"
			beside = f[5] == "-" ? "-" : f[5] " " show(b * u[2], u[1])
			printf "| %s | %s | %s | %s | %s | %s |\n", f[1], show(x * u[2], u[1]), beside, ratio, f[6], word
		}
	}' "$1"
