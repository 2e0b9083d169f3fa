#!/bin/sh -eu
# Programs that change who they are, with and without the set-user-ID bit.
cd /
echo 'edge ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/edge
chmod 440 /etc/sudoers.d/edge
su edge -c 'id; umask; echo $HOME'
su - edge -c 'pwd'
sudo -u edge id
runuser -u edge -- id -un
setpriv --reuid edge --regid edge --clear-groups --no-new-privs grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/self/status
su edge -c 'sudo -n id'
# Without the dates.
su edge -c 'passwd -S' | cut -d ' ' -f 1-2
passwd -S root | cut -d ' ' -f 1-2
echo 'edge:a new Passw0rd' | chpasswd
passwd -S edge | cut -d ' ' -f 1-2
useradd --create-home --shell /bin/sh other
su - other -c 'id -un; touch file; stat -c "%U %a" file'
# shellcheck disable=SC2012 # it is what is tried
ls -ld /home/other | cut -d ' ' -f 1-4
userdel --remove other
su edge -c 'ls /root' 2>&1 || echo "exit code $?"
