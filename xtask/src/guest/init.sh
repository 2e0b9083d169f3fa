#!/bin/busybox sh
# First process of a micro guest: makes an ordinary system of the initramfs.
busybox=/usr/bin/busybox

if [ ! -e /.guest/moved ]; then
	# pivot_root(2), which runc and crun need, refuses while the root is the
	# kernel's first mount. A bind mount of it, moved on top, is an ordinary one and
	# costs no copy, unlike switch_root into a tmpfs.
	$busybox touch /.guest/moved
	$busybox mount -t proc proc /proc
	$busybox --install -s /usr/bin
	mount --bind / /mnt/root
	mount --move /proc /mnt/root/proc
	cd /mnt/root || exit 1
	mount --move . /
	exec chroot . /init
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,mode=755 dev /dev
for module in /.guest/modules/*.ko; do
	[ -e "$module" ] && insmod "$module"
done
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o nosuid,noexec,mode=620,gid=5,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
mount -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /tmp
mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security
mount -t debugfs -o nosuid,nodev,noexec,mode=700 debugfs /sys/kernel/debug
mount -t tracefs -o nosuid,nodev,noexec tracefs /sys/kernel/tracing
mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf /sys/fs/bpf
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
for controller in cpuset cpu io memory pids; do
	echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
# As systemd leaves it: mounts propagate unless a runtime says otherwise.
mount --make-rshared /
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
[ -e /dev/ptmx ] || ln -s pts/ptmx /dev/ptmx
ip link set lo up
chmod 755 /
hostname guest
echo 4194304 >/proc/sys/kernel/pid_max
ulimit -n 65536

exec sh /.guest/report
