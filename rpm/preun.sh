# shellcheck shell=sh
# $1: 0 for a removal, 1 for an upgrade, which leaves in force what is enforced.
if [ "$1" -eq 0 ]; then
	if [ -d /run/systemd/system ]; then
		systemctl disable --now lockc.service || :
	fi
	# Without the package nobody could change what is enforced, or end it.
	/usr/bin/lockc unload || :
fi
