//! Opening files.

use lockc_common::{InodeKey, Label, Operation, PathVerdict, PathsBelow, PolicyFlags, Stdio};

use crate::{
    Answer,
    container::Subject,
    hooks::{
        device::is_raw, foreign::is_foreign, host_path, interface::steers_machine,
        kernel_log::KMSG, known,
    },
    kernel::{
        FMODE_EXEC, FMODE_READ, FMODE_WRITE, File, Inode, Location, MountOwner, Task, mount_owner,
    },
    path::View,
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
    let owner = mount_owner(at.mount);

    if subject.wants(PolicyFlags::FOREIGN_MOUNT)
        && is_foreign(owner, Task::current(), subject.label)
        && !is_own_stdio(inode.key(), mode, &subject.label.stdio)
    {
        let answer = subject.deny(Operation::ForeignOpen, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    if mode & FMODE_WRITE != 0 {
        let answer = known::keep(&subject, at, false);
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
    let answer = host_path::reach(&subject, at, false);
    if answer != Answer::Allow {
        return answer;
    }
    if subject.wants(PolicyFlags::PATHS) && !matches!(owner, MountOwner::Internal) {
        return path_rules(&subject, at, inode, mode);
    }
    Answer::Allow
}

/// Denies what the policy's path rules deny, and what has no path: a handle of a file that lies
/// outside the mount it was opened through, on the same file system.
#[inline(always)]
fn path_rules(subject: &Subject, at: Location, inode: Inode, mode: u32) -> Answer {
    let is_directory = inode.is_directory();
    let seen = View::of(at, subject.label, subject.rules, is_directory && mode & FMODE_WRITE == 0);
    if !seen.has_path() {
        return subject.deny(Operation::ForeignOpen, Object::Number(0));
    }
    let verdict = seen.verdict();
    if verdict == PathVerdict::Allow as u32 {
        return Answer::Allow;
    }
    if mode & FMODE_WRITE == 0 {
        if verdict == PathVerdict::ReadOnly as u32 {
            return Answer::Allow;
        }
        // Whoever may open something finds the way there.
        if verdict == PathVerdict::Default as u32
            && is_directory
            && seen.below() & PathsBelow::ALLOWED != 0
        {
            return Answer::Allow;
        }
    }
    if verdict == PathVerdict::Default as u32
        && is_own_stdio(inode.key(), mode, &subject.label.stdio)
    {
        return Answer::Allow;
    }
    subject.deny(Operation::Open, Object::At(at))
}

/// The container's first program: the runtime has opened it, before there was a container.
#[inline(always)]
pub(crate) fn first_program(label: &'static Label, file: File) -> Answer {
    let Some(subject) = Subject::of(label) else {
        return Answer::Allow;
    };
    let at = file.location();
    let answer = host_path::reach(&subject, at, false);
    if answer != Answer::Allow {
        return answer;
    }
    if !subject.wants(PolicyFlags::PATHS) || matches!(mount_owner(at.mount), MountOwner::Internal) {
        return Answer::Allow;
    }
    path_rules(&subject, at, file.inode(), file.mode())
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
