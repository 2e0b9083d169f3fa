#!/bin/sh
# Starts containers in a full guest and prints their bundles: see README.md.
set -u
out=$(mktemp -d)
image=docker.io/library/busybox:latest
archive=/opt/images/busybox.tar

save() { # ENGINE WHAT FILE
	mkdir -p "$out/$1"
	cp "$3" "$out/$1/$2.json"
}
tasks=/run/containerd/io.containerd.runtime.v2.task

ctr_run() { # WHAT OPTIONS...
	what=$1
	shift
	ctr run -d "$@" $image "$what" sleep 1000
	save ctr "$what" "$tasks/default/$what/config.json"
	ctr tasks rm -f "$what"
	ctr containers rm "$what"
}
docker_run() {
	what=$1
	shift
	id=$(docker run -d --name "$what" "$@" $image sleep 1000) || return
	save docker "$what" "$tasks/moby/$id/config.json"
	docker rm -f "$what"
}
podman_run() {
	what=$1
	shift
	podman run -d --name "$what" "$@" $image sleep 1000
	save podman "$what" "$(podman inspect --format '{{.OCIConfigPath}}' "$what")"
	podman rm -f -t0 "$what"
}
rootless() {
	runuser -u edge -- env -C / XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/edge podman "$@"
}
rootless_run() {
	what=$1
	shift
	rootless run -d --name "$what" "$@" $image sleep 1000
	save podman-rootless "$what" "$(rootless inspect --format '{{.OCIConfigPath}}' "$what")"
	rootless rm -f -t0 "$what"
}

{
	mkdir -p /srv/data /home/edge/stack/data
	chown -R edge: /home/edge/stack

	ctr images import $archive
	ctr_run plain
	ctr_run mount-host --mount type=bind,src=/srv/data,dst=/data,options=rbind:ro
	ctr_run privileged --privileged
	ctr_run seccomp --seccomp
	ctr_run host-network --net-host

	docker load -i $archive
	docker network create n1
	docker_run plain
	docker_run tty -t -e A=b
	docker_run volume-host -v vol:/vol -v /srv/data:/data:ro -v /etc/localtime:/etc/localtime:ro
	docker_run ports --init --restart always --network n1 -p 8080:80 --tmpfs /scratch
	docker_run hardened --read-only --cap-drop ALL --security-opt no-new-privileges \
		--user 1000:1000 -v vol:/vol
	docker_run cap-add --cap-add NET_ADMIN --cap-add SYS_PTRACE
	docker_run privileged --privileged
	docker_run host-namespaces --pid host --ipc host --network host
	docker_run device --device /dev/kmsg --device-cgroup-rule 'b 8:* rwm'
	docker_run unconfined --security-opt seccomp=unconfined \
		--security-opt apparmor=unconfined --security-opt systempaths=unconfined
	docker_run socket -v /var/run/docker.sock:/var/run/docker.sock -v /:/host
	docker_run sysctl --sysctl net.core.somaxconn=1024 \
		--sysctl net.ipv4.ip_unprivileged_port_start=0
	docker run -d --name base --ipc shareable -v anon:/data $image sleep 1000
	docker_run joined --network container:base --pid container:base --ipc container:base \
		--volumes-from base

	podman load -i $archive
	podman_run plain
	podman_run volume-host -v vol:/vol -v /srv/data:/data:ro -v /etc/localtime:/etc/localtime:ro
	podman_run ports -p 8080:80 --systemd always
	podman_run privileged --privileged
	podman_run host-namespaces --pid host --ipc host --network host
	podman_run overlay-volume -v /srv/data:/data:O
	echo hush | podman secret create s1 -
	podman_run secret --secret s1 --cap-drop all --user 1000 --read-only \
		--security-opt no-new-privileges
	podman pod create --name pod --infra-image $image --infra-command 'sleep 1000'
	podman_run pod-member --pod pod
	infra=$(podman pod inspect --format '{{.InfraContainerID}}' pod)
	save podman pod-infra "$(podman inspect --format '{{.OCIConfigPath}}' "$infra")"

	rootless load -i $archive
	rootless_run plain
	rootless_run volume-host -v vol:/vol -v /home/edge/stack/data:/data -p 8081:80
	rootless_run privileged --privileged
	rootless_run network-host --network host
} >&2
tar -C "$out" -cz . | base64
