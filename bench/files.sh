#!/bin/bash
# files.sh [NFCTL]: what files cost. README.md says what is printed.
#
#	write    queue.sh with and without -w, and tcpdump -i nfqueue beside
#	write    queue.sh with and without -w, and tcpdump -i nfqueue beside
#	natlog   translations begun and ended: ct watch --nat-log beside ct watch -o json
#	who      one answer out of WHO_MB of such logs, rotated at 64 MiB and compressed
#
# PARTS="write read natlog who" RUNS=11 NAT=100000 ROUNDS=10 WHO_MB=1024
. "$(dirname "$0")/common.sh"
RUNS=${FILE_RUNS:-11} NAT=${NAT:-100000} ROUNDS=${ROUNDS:-10} WHO_MB=${WHO_MB:-1024}
NFCTL=$(realpath "${1:-${NFCTL:-$HERE/../nfctl}}")
PARTS=${PARTS:-write read natlog who}
part() { [[ " $PARTS " == *" $1 "* ]]; }
build
namespace
old_max=$(cat /proc/sys/net/netfilter/nf_conntrack_max)
clean_up() {
	echo "$old_max" >/proc/sys/net/netfilter/nf_conntrack_max
	ip netns del "$NS"
	rm -rf "$WORK"
}

if part write; then
	q="$NFCTL queue --num 0 -q"
	PEERS=c-batch SIZES=64 TCP=0 LATENCY=0 LABEL=write MODES=paced RUNS=$RUNS "$HERE/queue.sh" "nfctl=$q" "write=$q -w $WORK/w"
	PEERS=c-batch SIZES=64 TCP=0 LATENCY=0 LABEL=write MODES=flood RUNS=5 COUNT=100000 "$HERE/queue.sh" "write=$q -w $WORK/w" \
		"tcpdump=tcpdump -Z root -i nfqueue:0 -w $WORK/t"
fi

if part read; then
	# A million packets: the headers of a pcap file, then one UDP packet again and again.
	perl -e 'print pack("VvvVVVV", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 101);
		my $p = pack("CCnnnCCnNN", 0x45, 0, 92, 1, 0, 64, 17, 0, 0x7f000001, 0x7f000001) . pack("nnnn", 40000, 9999, 72, 0) . "x" x 64;
		my $r = pack("VVVV", 1, 0, length $p, length $p) . $p;
		print $r for 1 .. 1000000' >"$WORK/capture"
	rules=()
	for i in {1..10}; do rules+=(--drop-port $((6000 + i))); done
	for ((r = 0; r < RUNS; r++)); do
		"$B/runstat" "$WORK/stat" "$NFCTL" queue --read "$WORK/capture" -q "${rules[@]}" 2>"$WORK/err"
		awk '{ print 1e6 / $1, $4 }' "$WORK/stat" >>"$WORK/read"
	done
	echo "== a million packets of a capture through ten port rules, median of $RUNS"
	printf '%.0f packets/s, %.1f MiB\n' "$(col "$WORK/read" 1)" "$(awk -v k="$(col "$WORK/read" 2)" 'BEGIN { print k / 1024 }')"
	result files read rate "$(col "$WORK/read" 1)" rss "$(col "$WORK/read" 2)"
fi

if part natlog; then
	echo 2200000 >/proc/sys/net/netfilter/nf_conntrack_max
	# A flow a line, each with its own port outside; a few clients, a few servers.
	awk -v n="$NAT" 'BEGIN { for (i = 0; i < n; i++) {
		s = sprintf("10.0.%d.%d", i % 7, i % 250 + 1); d = sprintf("192.0.2.%d", i % 200 + 1); p = 1024 + int(i / 7) % 60000
		printf "{\"kind\":\"flow\",\"proto\":\"udp\",\"timeout\":600,\"orig\":{\"src\":\"%s\",\"dst\":\"%s\",\"sport\":%d,\"dport\":53},\"reply\":{\"src\":\"%s\",\"dst\":\"203.0.113.%d\",\"sport\":53,\"dport\":%d},\"status\":[\"SEEN_REPLY\",\"CONFIRMED\",\"SRC_NAT\",\"SRC_NAT_DONE\"],\"snat\":{\"addr\":\"203.0.113.%d\",\"port\":%d}}\n", s, d, p, d, i % 7 + 1, p, i % 7 + 1, p } }' >"$WORK/nat.json"
	for ((r = 0; r < RUNS; r++)); do for kind in json natlog; do
		args=(-o json --events "new,destroy")
		[ $kind = natlog ] && args=(-o json --nat-log)
		rm -f "$WORK/ready" "$WORK/log"*
		ip netns exec "$NS" "$B/runstat" "$WORK/stat" "$NFCTL" ct watch "${args[@]}" --buffer 256MiB --ready-file "$WORK/ready" \
			--output-file "$WORK/log" 2>"$WORK/err" &
		PID=$!
		for _ in $(seq 200); do [ -e "$WORK/ready" ] && break; sleep 0.02; done
		for ((i = 0; i < ROUNDS; i++)); do
			in_ns "$NFCTL" ct load -q "$WORK/nat.json" 2>>"$WORK/load.err"
			in_ns "$NFCTL" ct flush --all -q 2>/dev/null
		done
		sleep 1
		pkill -TERM -P $PID
		wait $PID
		n=$(grep -cE '"event":"(begin|end|new|destroy)"' "$WORK/log")
		lost=$(grep -c '"event":"lost"\|"kind":"lost"' "$WORK/log")
		awk -v n="$n" -v lost="$lost" '{ print ($2 + $3) * 2e6 / n, $4, n, lost }' "$WORK/stat" >>"$WORK/$kind"
	done; done
	echo "== CPU seconds a million translations begun and ended, median of $RUNS"
	printf '%-8s %8s %9s %9s %5s\n' log cpu_s/M rss_MiB records lost
	for kind in json natlog; do
		f=$WORK/$kind
		echo "$kind $(col "$f" 1) $(col "$f" 2) $(col "$f" 3) $(col "$f" 4)" | awk '{ printf "%-8s %8.2f %9.1f %9d %5d\n", $1, $2, $3 / 1024, $4, $5 }'
		result files "$kind" cpu "$(col "$f" 1)" rss "$(col "$f" 2)"
	done
	paste "$WORK/natlog" "$WORK/json" | awk '{ print $1 / $5 }' | median | sed 's/^/natlog of json, in pairs: /'
fi

if part who; then
	mkdir "$WORK/logs"
	# Pieces of 64 MiB, ten minutes each, as --rotate 64MiB --compress leaves them.
	perl -MPOSIX=strftime -e '
		my ($dir, $mb) = @ARGV; my $t = 1800000000; my $n = 0;
		for (my $piece = 0; $piece * 64 < $mb; $piece++) {
			my ($size, @lines) = (0);
			my $at = sub { strftime("%Y-%m-%dT%H:%M:%S", gmtime $_[0]) };
			my $end = $t + 600;
			open my $f, "|-", "gzip -1 >$dir/nat.log." . strftime("%Y%m%dT%H%M%S", gmtime $end) . ".000Z.gz" or die;
			printf $f "{\"kind\":\"nat\",\"event\":\"start\",\"time\":\"%s.000000000Z\"}\n", $at->($t) unless $piece;
			printf $f "{\"kind\":\"nat\",\"event\":\"piece\",\"time\":\"%s.000000000Z\"}\n", $at->($t);
			printf $f "{\"kind\":\"nat\",\"event\":\"synced\",\"time\":\"%s.000000000Z\"}\n", $at->($t);
			while ($size < 64 * 1048576) {
				my $s = $t + int($size / (64 * 1048576) * 599); my $p = 1024 + $n % 60000;
				my $l = sprintf("{\"kind\":\"nat\",\"event\":\"%s\",\"time\":\"%s.%09dZ\",\"of\":\"src\",\"family\":\"ipv4\",\"proto\":\"udp\",\"inside\":{\"addr\":\"10.0.%d.%d\",\"port\":%d},\"outside\":{\"addr\":\"203.0.113.%d\",\"port\":%d},\"to\":{\"addr\":\"192.0.2.%d\",\"port\":53}}\n",
					$n % 2 ? "end" : "begin", $at->($s), $n % 1000000000, $n / 2 % 7, $n / 2 % 250 + 1, $p & ~1, $n / 2 % 7 + 1, $p & ~1, $n / 2 % 200 + 1);
				print $f $l; $size += length $l; $n++;
			}
			close $f; $t = $end;
		}' "$WORK/logs" "$WHO_MB"
	for ((r = 0; r < RUNS; r++)); do
		"$B/runstat" "$WORK/stat" "$NFCTL" ct who udp 203.0.113.3:21000 --at 2027-01-15T09:05:00Z±4m "$WORK/logs/nat.log" >"$WORK/found" 2>"$WORK/err"
		awk '{ print $1, $4 }' "$WORK/stat" >>"$WORK/who"
	done
	echo "== ct who in $WHO_MB MB of logs ($(find "$WORK/logs" -type f | wc -l) pieces, $(du -sm "$WORK/logs" | cut -f 1) MB compressed), median of $RUNS"
	awk -v w="$(col "$WORK/who" 1)" -v k="$(col "$WORK/who" 2)" 'BEGIN { printf "%.3f s, %.1f MiB\n", w, k / 1024 }'
	head -n 3 "$WORK/found" "$WORK/err"
	result files who wall "$(col "$WORK/who" 1)" rss "$(col "$WORK/who" 2)"
fi
