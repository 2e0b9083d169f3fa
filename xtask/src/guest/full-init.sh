#!/bin/busybox sh
# First process of a full guest: mounts its disk, puts this run's files over it,
# and hands over to systemd.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /.guest/modules/*.ko; do
	[ -e "$module" ] && insmod "$module"
done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do
	tries=$((tries + 1))
	sleep 0.05
done
mount -t ext4 -o rw,noatime /dev/vda /mnt/root || poweroff -f
cp -a /.overlay/. /mnt/root/
umount /proc /sys
mount --move /dev /mnt/root/dev
exec switch_root /mnt/root /sbin/init
