#!/bin/bash
# picture.sh NFCTL OUT.svg: runs the demo with that nfctl and draws what it printed, as
# a terminal shows it: of the packets those that open a connection over IPv4 or carry
# its data.
set -eu -o pipefail
cd "$(dirname "$0")/.."
go run -buildvcs=false ./scripts/demo "$1" | awk '
	function text(s) { gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); gsub(/>/, "\\&gt;", s); return s }
	function line(s, colour) { lines[++n] = s; colours[n] = colour; if (length(s) > widest) widest = length(s) }
	/::1/ || / nfctl .* len 0 / && !/\[S\]/ || /^demo:/ { next }
	{
		kind = $2; at = index($0, "| "); s = substr($0, at + 2)
		if (kind == "shell") line(s, "#ffffff")
		else if (kind == "client") line("client: " s, "#8ab4f8")
		else {
			sub(/ seq .* len/, " len", s)
			line(s, s ~ /: queue / ? "#9aa0a6" : s ~ / drop / ? "#f28b82" : "#81c995")
		}
	}
	END {
		if (n < 8) { print "picture.sh: the demo printed too little" > "/dev/stderr"; exit 1 }
		w = int(widest * 7.83) + 40; h = n * 19 + 36
		printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"nfctl drops port 22 while port 80 answers\">\n", w, h, w, h
		printf "<rect width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#202124\"/>\n<g font-family=\"ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\" xml:space=\"preserve\">\n", w, h
		for (i = 1; i <= n; i++) printf "<text x=\"20\" y=\"%d\" fill=\"%s\">%s</text>\n", 12 + i * 19, colours[i], text(lines[i])
		print "</g>\n</svg>"
	}' >"$2.new"
mv "$2.new" "$2"
