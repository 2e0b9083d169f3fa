#!/bin/sh -eu
# A message bus: abstract and named sockets, credentials, a daemon that starts on demand.
export DBUS_SESSION_BUS_ADDRESS='' XDG_RUNTIME_DIR=/tmp
dbus-run-session -- sh -euc '
	call() { dbus-send --print-reply=literal --dest=org.freedesktop.DBus / "org.freedesktop.DBus.$@"; }
	call ListActivatableNames | tr -s " " "\n" | grep -c DBus
	call GetConnectionUnixUser string:org.freedesktop.DBus
	call NameHasOwner string:org.example.Absent
	busctl --address="$DBUS_SESSION_BUS_ADDRESS" call org.freedesktop.DBus / org.freedesktop.DBus.Peer Ping && echo pong
'
