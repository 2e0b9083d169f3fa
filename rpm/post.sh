# shellcheck shell=sh
# $1: 1 for an installation, 2 or more for an upgrade.
if [ -r /sys/kernel/security/lsm ] && ! tr , '\n' </sys/kernel/security/lsm | grep -qx bpf; then
	cat >&2 <<-EOF
		lockc: the kernel's list of security modules has no bpf: lockc attaches in another
		lockc: way, if the kernel allows it; lockc check --host says whether it does. If
		lockc: not, run grubby --update-kernel=ALL --args=lsm=$(cat /sys/kernel/security/lsm),bpf
		lockc: and restart the machine.
	EOF
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	if [ "$1" -eq 1 ]; then
		systemctl enable --now lockc.service || :
	else
		systemctl try-restart lockc.service || :
	fi
fi
