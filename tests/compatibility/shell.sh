#!/bin/bash -eu
# Shells: pipes, jobs, traps, a terminal of one's own.
seq 1 1000 | grep 7 | tee >(wc -l >/tmp/count) | sort -rn | head -n 2
mkfifo /tmp/fifo
(echo through a fifo >/tmp/fifo) &
cat /tmp/fifo
wait
until [ -s /tmp/count ]; do sleep 0.1; done
cat /tmp/count
coproc tr "[:lower:]" "[:upper:]"
echo shouted >&"${COPROC[1]}"
eval "exec ${COPROC[1]}>&-"
cat <&"${COPROC[0]}"
wait
trap 'echo trapped' USR1
kill -USR1 $$
(trap 'exit 9' TERM; kill -TERM $BASHPID; sleep 9) || echo "exit code $?"
set -m
sleep 100 &
kill -STOP %%
until [ "$(ps -o state= $!)" = T ]; do sleep 0.1; done
jobs | grep sleep | sed 's/^\[[0-9]*\]//' | tr -s ' '
kill -CONT %%
kill %%
wait %% 2>/dev/null || echo "exit code $?"
set +m
diff <(echo a) <(echo b) || true
timeout -s INT 0.2 sleep 100 || echo "exit code $?"
script -qec 'tty | sed s/[0-9]*$//; stty size; echo to the terminal >/dev/tty; bash -ic "set -m; sleep 0.1 & fg >/dev/null; echo done"' /dev/null |
	tr -d '\r' | sed 's/^\(\[1\]\) .*/\1/'
ulimit -n 512
ulimit -n
nice -n 5 nice
flock /tmp/lock -c 'flock -n /tmp/lock true || echo locked'
cat /proc/sys/kernel/ostype /proc/self/comm
