#!/bin/sh -eu
# A database in a file: locks, a write-ahead log in shared memory, two writers at once.
db=/tmp/work.db
sqlite3 $db <<'Q'
pragma journal_mode = wal;
pragma mmap_size = 1048576;
create table work (id integer primary key, word text);
create virtual table words using fts5(word);
Q
for from in 0 1000; do
	sqlite3 $db ".timeout 60000" "with recursive n(x) as (select $from union all select x + 1 from n where x < $from + 999)
		insert into work select x, hex(x) from n" &
done
wait
sqlite3 $db "select count(*), sum(id), max(word) from work" \
	"insert into words select word from work where id < 50" \
	"select count(*) from words where words match '3*'" \
	"pragma wal_checkpoint(truncate)" "pragma integrity_check" "vacuum"
sqlite3 $db .dump | sha256sum
ls /tmp
