#!/bin/sh
# Runs the command that xtask put in /.guest/command, brings its output and exit
# code out through virtio ports, and switches the guest off.

port() {
	for dir in /sys/class/virtio-ports/*; do
		if [ "$(cat "$dir/name")" = "$1" ]; then
			echo "/dev/${dir##*/}"
			return
		fi
	done
	echo "no virtio port $1" >/dev/console
}

# The command writes to pipes, as under any CI: a port takes one opener only.
mkfifo /.guest/out /.guest/err
cat </.guest/out >"$(port out)" &
out=$!
cat </.guest/err >"$(port err)" &
err=$!
cd /root || exit
sh /.guest/command </dev/null >/.guest/out 2>/.guest/err
code=$?
# What the command left running may hold the pipes open: wait for the end of its
# output, but not for ever.
tries=0
while kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null; do
	tries=$((tries + 1))
	[ $tries -gt 20 ] && break
	sleep 0.05
done
echo "$code" >"$(port code)"
sync
poweroff -f
