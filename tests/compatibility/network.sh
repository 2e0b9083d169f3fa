#!/bin/sh -eu
# Reading the network's state, and a connection of a container with itself.
ip -brief address
ip route
ip -6 route
ip -s link show lo | head -n 1
busybox nc -l -p 7000 -e cat &
tries=0
until ss -Htln 'sport = 7000' | grep -q 7000; do
	tries=$((tries + 1))
	[ $tries -lt 100 ]
	sleep 0.1
done
ss -Htln | tr -s ' '
echo there and back | busybox nc -w 5 127.0.0.1 7000
wait
ss -s | grep -c TCP
cat /proc/sys/net/ipv4/ip_forward /proc/net/dev | cut -d : -f 1
getent hosts localhost
