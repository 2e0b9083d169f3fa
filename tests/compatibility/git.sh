#!/bin/sh -eu
# A version control system: renames, links, locks, mapped packs, children.
export HOME=/tmp GIT_CONFIG_NOSYSTEM=1
git config --global user.name Somebody
git config --global user.email somebody@example.org
git config --global init.defaultBranch main
git config --global advice.detachedHead false
GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
export GIT_AUTHOR_DATE GIT_COMMITTER_DATE
git init -q /tmp/first
cd /tmp/first
for n in 1 2 3; do
	seq 1 "${n}00" >numbers
	git add numbers
	git commit -qm "numbers to ${n}00"
done
git checkout -qb side HEAD~1
echo aside >other
git add other
git commit -qm 'another file'
git checkout -q main
git merge -q --no-edit side
git log --graph --format='%h %s'
git diff --stat HEAD~2
git gc -q
git fsck --no-progress
git clone -q /tmp/first /tmp/second
git clone -q --depth 1 file:///tmp/first /tmp/third
git -C /tmp/second rev-parse HEAD
git -C /tmp/third log --format=%s
git worktree add -q /tmp/fourth side
ls /tmp/fourth
printf '#!/bin/sh\necho the hook\n' >/tmp/second/.git/hooks/pre-commit
chmod +x /tmp/second/.git/hooks/pre-commit
git -C /tmp/second commit -q --allow-empty -m empty
git -C /tmp/second push -q origin HEAD:pushed
git branch --list
