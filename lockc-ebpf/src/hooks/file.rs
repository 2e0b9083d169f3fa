//! Opening files, and the ways around it by name.

use lockc_common::{EXEC_RULES, InodeKey, Operation, PolicyFlags, Stdio};

use crate::{
    Answer,
    container::Subject,
    hooks::{device::is_raw, foreign::is_foreign, interface::steers_machine, kernel_log::KMSG},
    kernel::{
        Dentry, FMODE_EXEC, FMODE_READ, FMODE_WRITE, File, Location, MountOwner, Path, Task,
        mount_owner,
    },
    maps::RUNTIME_FILES,
    path,
    report::Object,
};

/// Every open, `O_PATH` apart: what that gives cannot be read, and opening it again comes here.
#[inline(always)]
pub(crate) fn open(file: File) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let at = file.location();
    let mode = file.mode();
    let inode = file.inode();

    if subject.wants(PolicyFlags::FOREIGN_MOUNT)
        && is_foreign(at.mount, Task::current(), subject.label)
        && !is_own_stdio(inode.key(), mode, &subject.label.stdio)
    {
        let answer = subject.deny(Operation::ForeignOpen, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    if subject.wants(PolicyFlags::RUNTIME_FILES)
        && mode & FMODE_WRITE != 0
        && is_runtime_file(inode.key())
    {
        let answer = subject.deny(Operation::RuntimeFile, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    if subject.wants(PolicyFlags::KERNEL_LOG) && inode.char_device() == Some(KMSG) {
        let answer = subject.deny(Operation::KernelLog, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    if subject.wants(PolicyFlags::DEVICES) && is_raw(inode) {
        let answer = subject.deny(Operation::Device, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    if subject.wants(PolicyFlags::KERNEL_INTERFACES)
        && steers_machine(inode.magic(), at.dentry, mode)
    {
        let answer = subject.deny(Operation::KernelInterface, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    if subject.wants(PolicyFlags::PATHS) && !matches!(mount_owner(at.mount), MountOwner::Internal) {
        return path_rules(&subject, at);
    }
    Answer::Allow
}

/// Denies what the policy's path rules deny, and what has no path: a handle of a file that lies
/// outside the mount it was opened through, on the same file system.
#[inline(always)]
fn path_rules(subject: &Subject, at: Location) -> Answer {
    let Ok(path) = path::build(at, subject.label) else {
        return subject.deny(Operation::ForeignOpen, Object::Number(0));
    };
    if path.is_denied(subject.rules) {
        return subject.deny(Operation::Open, Object::Built(&path));
    }
    Answer::Allow
}

/// `/dev/stdout` and its kin: opening again what the runtime gave the container as descriptor 0, 1
/// or 2, with no more access than it was given.
#[inline(always)]
fn is_own_stdio(key: InodeKey, mode: u32, stdio: &[Stdio; 3]) -> bool {
    if mode & FMODE_EXEC != 0 {
        return false;
    }
    let asked = mode & (FMODE_READ | FMODE_WRITE);
    let matches =
        |s: &Stdio| s.ino != 0 && s.ino == key.ino && s.dev == key.dev && asked & !s.mode == 0;
    matches(&stdio[0]) || matches(&stdio[1]) || matches(&stdio[2])
}

#[inline(always)]
fn is_runtime_file(key: InodeKey) -> bool {
    // SAFETY: only asked whether it is there.
    unsafe { RUNTIME_FILES.get(&key) }.is_some()
}

#[inline(always)]
fn protect_runtime(subject: &Subject, inode: Option<InodeKey>, at: Location) -> Answer {
    if subject.wants(PolicyFlags::RUNTIME_FILES) && inode.is_some_and(is_runtime_file) {
        return subject.deny(Operation::RuntimeFile, Object::At(at));
    }
    Answer::Allow
}

/// `truncate(2)` needs no open.
#[inline(always)]
pub(crate) fn truncate(path: Path) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    protect_runtime(&subject, path.inode(), path.location())
}

/// `ftruncate(2)`, of what was opened before the task was contained. Before 6.2 it came to [`truncate`].
#[inline(always)]
pub(crate) fn truncate_open(file: File) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    protect_runtime(&subject, Some(file.inode().key()), file.location())
}

/// Removing a runtime binary makes room for another one.
#[inline(always)]
pub(crate) fn unlink(dir: Path, victim: Dentry) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let at = Location { mount: dir.location().mount, dentry: victim.address() };
    protect_runtime(&subject, victim.inode(), at)
}

/// A rename may replace a runtime binary, or carry a blocked path away under another name: then
/// the path itself, and every directory above it, stays where it is.
#[inline(always)]
pub(crate) fn rename(old_dir: Path, victim: Dentry, new_dir: Path, replaced: Dentry) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let at = Location { mount: old_dir.location().mount, dentry: victim.address() };
    let answer = protect_runtime(&subject, victim.inode(), at);
    if answer != Answer::Allow {
        return answer;
    }
    let answer = keep_in_place(&subject, at);
    if answer != Answer::Allow {
        return answer;
    }
    let inode = replaced.inode();
    if inode.is_none() {
        return Answer::Allow; // a new name
    }
    // What is there is replaced, or, by RENAME_EXCHANGE, carried away in turn: since 5.19 the hook
    // is called once for both (security_path_rename, security/security.c).
    let at = Location { mount: new_dir.location().mount, dentry: replaced.address() };
    let answer = protect_runtime(&subject, inode, at);
    if answer != Answer::Allow {
        return answer;
    }
    keep_in_place(&subject, at)
}

/// A hard link would give a blocked file, or a runtime binary, a second name.
#[inline(always)]
pub(crate) fn link(target: Dentry, dir: Path) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let at = Location { mount: dir.location().mount, dentry: target.address() };
    let answer = protect_runtime(&subject, target.inode(), at);
    if answer != Answer::Allow {
        return answer;
    }
    keep_in_place(&subject, at)
}

#[inline(always)]
fn keep_in_place(subject: &Subject, at: Location) -> Answer {
    if !subject.wants(PolicyFlags::PATHS | PolicyFlags::EXEC) {
        return Answer::Allow;
    }
    let Ok(path) = path::build(at, subject.label) else {
        return subject.deny(Operation::Rename, Object::Number(0));
    };
    let stays = |rules| path.is_above_denied(rules) || path.is_denied(rules);
    if (subject.wants(PolicyFlags::PATHS) && stays(subject.rules))
        || (subject.wants(PolicyFlags::EXEC) && stays(subject.rules | EXEC_RULES))
    {
        return subject.deny(Operation::Rename, Object::Built(&path));
    }
    Answer::Allow
}
