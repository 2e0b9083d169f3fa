#!/bin/sh -eu
# Finishes the root directory $1 of a full guest, as root, inside mmdebstrap:
# accounts, services, and a container image for a guest without network.
root=$1
architecture=$2

# An unprivileged user for rootless podman; lingering starts its user manager at boot.
chroot "$root" useradd --uid 1000 --create-home --shell /bin/bash \
	--add-subids-for-system edge 2>/dev/null ||
	chroot "$root" useradd --uid 1000 --create-home --shell /bin/bash edge
for file in subuid subgid; do
	grep -q '^edge:' "$root/etc/$file" || echo 'edge:100000:65536' >>"$root/etc/$file"
done
mkdir -p "$root/var/lib/systemd/linger"
touch "$root/var/lib/systemd/linger/edge"

echo guest >"$root/etc/hostname"
echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
: >"$root/etc/machine-id"
passwd --root "$root" --delete root >/dev/null 2>&1 || chroot "$root" passwd -d root >/dev/null

# dockerd is slow to start under emulation: the socket starts it when it is wanted.
disable() {
	for unit in "$@"; do
		rm -f "$root"/etc/systemd/system/*.wants/"$unit"
	done
}
disable docker.service apparmor.service podman.service podman-auto-update.service \
	podman-restart.service podman-clean-transient.service nftables.service e2scrub_reap.service \
	nginx.service postgresql.service rsync.service valkey-server.service
# The cluster that the package makes: the tests make their own.
rm -rf "$root"/etc/postgresql/* "$root"/var/lib/postgresql/*
mkdir -p "$root/etc/systemd/system"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	fstrim.timer podman-auto-update.timer getty@tty1.service serial-getty@ttyS0.service \
	systemd-firstboot.service systemd-networkd-wait-online.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
mkdir -p "$root/etc/docker"
cat >"$root/etc/docker/daemon.json" <<'J'
{ "ip6tables": false }
J

# A docker-archive image, which docker load, podman load and ctr import all read.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp" "$work/root/root" "$work/image"
cp "$root/usr/bin/busybox" "$work/root/bin/busybox"
chroot "$root" /usr/bin/busybox --list | while read -r applet; do
	[ "$applet" = busybox ] || ln -s busybox "$work/root/bin/$applet"
done
chmod 1777 "$work/root/tmp"
echo 'root:x:0:0:root:/root:/bin/sh' >"$work/root/etc/passwd"
echo 'root:x:0:' >"$work/root/etc/group"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work/root" -cf "$work/image/layer.tar" .
layer=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)
printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"lockc"}],"created":"1970-01-01T00:00:00Z"}' \
	"$architecture" "$layer" >"$work/config.json"
config=$(sha256sum "$work/config.json" | cut -d' ' -f1)
mv "$work/config.json" "$work/image/$config.json"
printf '[{"Config":"%s.json","RepoTags":["docker.io/library/busybox:latest"],"Layers":["layer.tar"]}]' \
	"$config" >"$work/image/manifest.json"
mkdir -p "$root/opt/images"
tar --sort=name --owner=0 --group=0 --mtime=@0 -C "$work/image" -cf "$root/opt/images/busybox.tar" .
