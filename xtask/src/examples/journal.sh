#!/bin/sh -eu
# Runs the examples of $1 for systemd-journal-upload and -remote: what lockc said on a node comes to the
# server's journal, and after a restart it goes on from there. In the tools' root, as root, without a network.
examples=$1
work=/tmp/journal
programs=/usr/lib/systemd
server=
fail() {
	echo "$1" >&2
	cat "$work"/*.log >&2
	exit 1
}
trap '[ -z "$server" ] || kill "$server"' EXIT
mkdir -p "$work/node" /etc/ssl/private /etc/systemd/journal-upload.conf.d /etc/systemd/journal-remote.conf.d
cd "$work"

new_key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
# shellcheck disable=SC2086 # words
openssl req -x509 $new_key -subj /CN=fleet -days 2 -keyout ca.key -out ca.pem 2>/dev/null
for name in localhost node; do
	# shellcheck disable=SC2086 # words
	openssl req -x509 -CA ca.pem -CAkey ca.key $new_key -subj "/CN=$name" -days 2 \
		-addext "subjectAltName=DNS:$name" -addext basicConstraints=CA:FALSE \
		-keyout "$name.key" -out "$name.pem" 2>/dev/null
done
for name in journal-upload journal-remote; do
	sed -e "s|/etc/ssl/certs/ca-certificates.crt|$work/ca.pem|; s|/etc/ssl/certs/fleet-ca.pem|$work/ca.pem|" \
		-e "s|/etc/ssl/private/journal-upload.pem|$work/node.key|; s|/etc/ssl/certs/journal-upload.pem|$work/node.pem|" \
		-e "s|/etc/ssl/private/SERVER.pem|$work/localhost.key|; s|/etc/ssl/certs/SERVER.pem|$work/localhost.pem|" \
		-e 's|SERVER|localhost|' "$examples/$name.conf" >"/etc/systemd/$name.conf.d/lockc.conf"
done

# A journal of the node's in which lockc has said $1, at second $2.
say() {
	printf '__REALTIME_TIMESTAMP=17000000%02d000000\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n_MACHINE_ID=%s\n' \
		"$2" "$2" 00000000000000000000000000000001 00000000000000000000000000000002
	printf '_HOSTNAME=node\n_SYSTEMD_UNIT=lockc.service\nPRIORITY=4\nMESSAGE=%s\n\n' "$1"
}
record() {
	say "$1" "$2" | "$programs/systemd-journal-remote" --split-mode=none --output=node/system.journal - 2>>record.log ||
		fail "cannot make a journal"
}
place=
upload() {
	"$programs/systemd-journal-upload" --directory=node --save-state=state 2>>upload.log &
	upload=$!
	deadline=$(($(date +%s) + 120))
	while ! journalctl --directory=/var/log/journal/remote --unit=lockc.service --output=cat 2>/dev/null |
		grep -qxF "$1"; do
		[ "$(date +%s)" -lt "$deadline" ] || fail "what lockc said did not arrive: $1"
		kill -0 "$upload" 2>/dev/null || fail "systemd-journal-upload ended"
	done
	# Its place is kept a moment later.
	while [ "$(grep -s LAST_CURSOR state)" = "$place" ]; do
		[ "$(date +%s)" -lt "$deadline" ] || fail "the place in the journal is not kept"
	done
	place=$(grep LAST_CURSOR state)
	kill "$upload"
	wait "$upload" || :
}

mkdir -p /var/log/journal/remote
"$programs/systemd-journal-remote" --listen-https=19532 --output=/var/log/journal/remote/ 2>remote.log &
server=$!
for second in 1 2 3 4; do
	record "{\"verdict\":\"denied\",\"pid\":$second}" "$second"
done
upload '{"verdict":"denied","pid":4}'
record '{"verdict":"denied","pid":5}' 5
upload '{"verdict":"denied","pid":5}'
arrived=$(journalctl --directory=/var/log/journal/remote --unit=lockc.service --output=cat)
[ "$(echo "$arrived" | sort -u | wc -l)" = 5 ] || fail "of five entries these arrived: $arrived"
# The last one of before the restart, and no other, may come twice.
[ "$(echo "$arrived" | wc -l)" -le 6 ] || fail "after the restart entries came again: $arrived"
# Keys that they do not know, they only warn of.
! grep -i 'unknown\|ignoring\|failed to parse' ./*.log >&2 || fail "the configuration has mistakes"
