#!/bin/sh
# Installs Docker and the lockc package of a directory, and shows with a container what that changes.
# Exit code 0 only if everything is as expected.
set -eu

packages=$1
package=$(find "$packages" -name "lockc*_$(dpkg --print-architecture).deb" | sort -V | tail -n 1)
if [ -z "$package" ]; then
	echo "no lockc package for this machine in $packages: run cargo xtask package" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
missing=
for name in docker.io busybox-static; do
	dpkg-query --show --showformat='${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed ||
		missing="$missing $name"
done
if [ -n "$missing" ]; then
	apt-get update --quiet
	# shellcheck disable=SC2086 # a list
	apt-get install --yes --quiet --no-install-recommends $missing
fi
systemctl start docker.service

# An image of one program, and what a pod gets from kubelet.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/token"
cp /bin/busybox "$work/root/bin/"
for applet in sh cat echo; do ln -s busybox "$work/root/bin/$applet"; done
tar -C "$work/root" -c . | docker import - lockc-demo >/dev/null
echo the-token >"$work/token/token"

failed=0
# Runs a script in a container with the token, and prints what it said beside what is expected.
try() {
	said=$(docker run --rm --network none \
		-v "$work/token:/run/secrets/kubernetes.io/serviceaccount:ro" \
		lockc-demo /bin/sh -c "$2" 2>&1 | tail -n 1) || true
	case $said in
	*"$3"*) verdict=ok ;;
	*)
		verdict=UNEXPECTED
		failed=1
		;;
	esac
	printf '%-10s %-28s %s\n' "$verdict" "$1" "$said"
}
read='cat /run/secrets/kubernetes.io/serviceaccount/token'

if command -v lockc >/dev/null; then
	systemctl stop lockc.service
	lockc unload >/dev/null
fi
try 'the token, without lockc' "$read" the-token
apt-get install --yes --quiet --allow-downgrades "$package"
systemctl restart lockc.service
try 'the token, with lockc' "$read" 'Operation not permitted'
try 'ordinary work' 'echo it works' 'it works'
lockc status
lockc ps
lockc events --denied | tail -n 1
exit "$failed"
