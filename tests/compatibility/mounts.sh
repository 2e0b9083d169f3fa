#!/bin/sh -eu
# What an engine's default does not allow is refused in the same words.
mkdir -p /tmp/mount
try() { "$@" 2>&1 || echo "exit code $?"; }
try mount -t tmpfs none /tmp/mount
try mount --bind /etc /tmp/mount
try mount -o remount,ro /
try umount /proc
try umount -l /dev/pts
try pivot_root / /tmp/mount
try unshare -m true
findmnt -n -o FSTYPE /proc
df --output=target / | tail -n 1
