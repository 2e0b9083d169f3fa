#!/bin/sh -eu
# Runs a command in the root directory $1, with the workspace $2 at /src, in namespaces of its own for mounts,
# processes and the network: what it writes is gone afterwards.
root=$1
workspace=$2
shift 2
over=$root.over
mkdir -p "$over"
mount -t tmpfs tmpfs "$over"
mkdir "$over/upper" "$over/work" "$over/root"
mount -t overlay -o "lowerdir=$root,upperdir=$over/upper,workdir=$over/work" overlay "$over/root"
cd "$over/root"
mkdir src
mount --bind "$workspace" src
mount -o remount,bind,ro src
mount -t proc proc proc
mount --rbind /dev dev
chroot . ip link set lo up
# Units and collectors name it; what it does is not tried here.
ln -s true usr/bin/lockc
exec chroot . env -i -C /src HOME=/root LC_ALL=C.UTF-8 \
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin "$@"
