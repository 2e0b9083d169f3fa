#!/bin/sh -eu
# A database: shared memory, a process per client, parallel queries, a restart.
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
db=/tmp/db
initdb -D $db -A trust -E UTF8 --locale=C --no-sync --wal-segsize=1 >/dev/null
start() { pg_ctl -D $db -w -t 120 -l /tmp/log -o '-k /tmp -c listen_addresses=127.0.0.1 -c jit=off' start; }
ask() { psql -qAtX -v ON_ERROR_STOP=1 -d postgres "$@"; }
start >/dev/null
ask -h 127.0.0.1 <<'Q'
create table work (id int primary key, word text);
insert into work select n, md5(n::text) from generate_series(1, 2000) n;
begin; delete from work where id % 3 = 0; rollback;
update work set word = upper(word) where id % 2 = 0;
set debug_parallel_query = on;
select count(*), sum(id), md5(string_agg(word, ',' order by id)) from work;
create index on work (word);
copy (select * from work order by id limit 3) to stdout;
Q
ask -h /tmp -c "copy (select id from work order by id limit 3) to program 'cat >/tmp/ids'"
cat /tmp/ids
pg_ctl -D $db -w -m fast stop >/dev/null
start >/dev/null
ask -h /tmp -c 'select count(*) from work' -c 'vacuum analyze work'
pg_ctl -D $db -w -m smart stop
grep -cE 'PANIC|FATAL|denied|not permitted' /tmp/log || true
