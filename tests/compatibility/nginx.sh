#!/bin/sh -eu
# A web server: a master that is root, workers that are not, sendfile, a reload, an orderly end.
mkdir -p /srv/www
echo 'a page' >/srv/www/page
seq 1 20000 >/srv/www/long
cat >/tmp/nginx.conf <<'C'
user www-data;
worker_processes 2;
pid /tmp/nginx.pid;
error_log /tmp/error.log;
events { worker_connections 64; }
http {
	access_log /tmp/access.log;
	sendfile on;
	server {
		listen 127.0.0.1:80;
		listen unix:/tmp/nginx.sock;
		root /srv/www;
		location /pass/ { proxy_pass http://unix:/tmp/nginx.sock:/; }
	}
}
C
nginx -t -c /tmp/nginx.conf
nginx -c /tmp/nginx.conf
pid=$(cat /tmp/nginx.pid)
# Without times and process ids.
plain() { sed -E 's/^[0-9/]+ [0-9:]+ //; s/[0-9]+#[0-9]+: (\*[0-9]+ )?//'; }
get() { busybox wget -qO - "http://127.0.0.1/$1"; }
get page
get pass/page
get long | sha256sum
get absent 2>&1 || true
ps -o user= --ppid "$pid" | sort | uniq -c
nginx -s reload -c /tmp/nginx.conf 2>&1 | plain
get page
nginx -s quit -c /tmp/nginx.conf 2>&1 | plain
while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
# "GET … 200 7", without the time
cut -d '"' -f 2-3 /tmp/access.log
plain </tmp/error.log
