#!/bin/sh -eu
# A tracer and a debugger at work on children of their own.
cd /tmp
printf 'int twice(int n) { return 2 * n; }\nint main(void) { return twice(21); }\n' >child.c
tcc -g -o child child.c
strace -f -e trace=execve,exit_group -e signal=none sh -c './child; exit $?' 2>&1 |
	sed 's/^\[pid *[0-9]*\]//; s/0x[0-9a-f]*.*\*\//…/; s/^strace: Process [0-9]* attached/attached/' | sort
gdb -q -nx -batch -ex 'break twice' -ex run -ex 'print n' -ex backtrace -ex 'set var n = 4' -ex continue ./child 2>&1 |
	grep -E '^(Breakpoint 1,|\$1|#|\[Inferior)' | sed 's/0x[0-9a-f]*/ADDRESS/g; s/process [0-9]*/process/'
sleep 100 &
sleeper=$!
until grep -q nanosleep "/proc/$sleeper/wchan" 2>/dev/null || [ "$(ps -o comm= $sleeper)" = sleep ]; do sleep 0.1; done
gdb -q -nx -batch -p $sleeper -ex 'print $_siginfo.si_signo' -ex detach 2>&1 | grep -cE '^\$1'
grep -c stack "/proc/$sleeper/maps"
readlink "/proc/$sleeper/exe"
kill $sleeper
