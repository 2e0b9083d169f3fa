#!/bin/sh -eu
# A key-value store: threads, a script, a snapshot by fork, a restart.
mkdir /tmp/store
start() {
	valkey-server --bind 127.0.0.1 --unixsocket /tmp/store/socket --dir /tmp/store --save '' \
		--io-threads 2 --appendonly yes >>/tmp/store/log &
	until valkey-cli ping >/dev/null 2>&1; do sleep 0.1; done
}
start
valkey-cli set greeting hello
valkey-cli -s /tmp/store/socket get greeting
for n in 1 2 3; do valkey-cli rpush list "$n"; done
valkey-cli lrange list 0 -1
valkey-cli eval 'return redis.call("incrby", KEYS[1], 41) + 1' 1 number
valkey-cli bgsave
until valkey-cli info persistence | grep -q rdb_bgsave_in_progress:0; do sleep 0.1; done
valkey-cli info persistence | grep rdb_last_bgsave_status
head -c 6 /tmp/store/dump.rdb
echo
valkey-cli shutdown
wait
start
valkey-cli get greeting
valkey-cli shutdown
wait
