#!/bin/sh -eu
# Archives and copies with owners, links, attributes and devices.
mkdir -p /tmp/tree/a/b
cd /tmp/tree
echo text >a/b/file
ln a/b/file a/hard
ln -s b/file a/soft
mkfifo a/fifo
mknod a/null c 1 3
truncate -s 1M a/sparse
chown edge:edge a/b/file
chmod 2750 a/b
touch -d '2026-01-01 00:00:00 UTC' a/b/file
setfattr=$(python3 -c 'import os; os.setxattr("/tmp/tree/a/b/file", "user.note", b"kept"); print("set")')
echo "$setfattr"
list() { (cd "$1" && find . -mindepth 1 ! -type d -printf '%p %y %M %U %G %s %n %l\n' | sort); }
tar --xattrs -cSf /tmp/tree.tar .
mkdir /tmp/untarred /tmp/copied
tar --xattrs -xpf /tmp/tree.tar -C /tmp/untarred
list /tmp/untarred
rsync -aHXS --numeric-ids /tmp/tree/ /tmp/copied/
list /tmp/copied
python3 -c 'import os; print(*(os.getxattr(f"/tmp/{it}/a/b/file", "user.note") for it in ("untarred", "copied")))'
rm a/fifo
echo more >>a/b/file
rsync -aH --delete --itemize-changes /tmp/tree/ /tmp/copied/
cp -a /tmp/copied /tmp/again
diff -r --no-dereference -x null /tmp/copied /tmp/again && echo the same
tar -czf - -C /tmp copied/a/b | tar -tzf -
