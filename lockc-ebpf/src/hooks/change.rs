//! What changes a file, a directory or their names without opening them.

use lockc_common::{Operation, PathVerdict, PathsBelow, PolicyFlags, State, interface::FileSystem};

use crate::{
    Answer,
    container::Subject,
    hooks::{
        code,
        host_path::{self, Reach},
        known,
    },
    kernel::{
        Dentry, File, Location, MountOwner, Path, Task, changed_attributes, is_mount_of, magic_of,
        mount_owner,
    },
    maps::LABELS,
    memo::{self, Question},
    path::View,
    report::Object,
};

/// Which names stay, besides those that have a rule of their own.
#[derive(Clone, Copy)]
struct Names {
    /// Those on the way to a path of the host. Removing one takes away what is mounted on it in other mount namespaces
    /// (`detach_mounts`, fs/namei.c, 6.12).
    of_host: bool,
    /// Those above a path of which rules say one of these, bits of [`PathsBelow`].
    above: u32,
}

impl Names {
    const NONE: Self = Self { of_host: false, above: 0 };
    /// What is removed has nothing below it, but for what is mounted on it.
    const REMOVED: Self = Self { of_host: true, above: 0 };
}

/// Denies to change runtime binaries and lockc's own files, and all that [`keep_ruled`] is for: what `dentry` names, on the
/// mount of `path`. What is remembered of its directory goes for its name, and for all that is below it.
#[inline(always)]
fn keep(
    subject: &Subject,
    operation: Operation,
    path: Path,
    dentry: Dentry,
    names: Names,
) -> Answer {
    let at = entry(path, dentry);
    let answer = known::keep(subject, dentry, at, operation == Operation::Rename);
    if answer != Answer::Allow {
        return answer;
    }
    let question = Question::of_name(path, dentry, subject.label);
    if question.is_some_and(|question| question.allows(memo::CHANGE)) {
        return Answer::Allow;
    }
    let kept = keep_ruled(subject, operation, at, names);
    if let Some(question) = &question
        && kept.is_one_of_many
    {
        // Who changes something is not asked to whom the mount belongs, as who opens it is.
        question.learn(memo::CHANGE);
    }
    kept.answer
}

/// Denies to change what the kernel shows of itself (an instance of tracefs is a directory that somebody makes, and a
/// pin of bpffs goes with its name), what rules keep as it is, or one of those `names`.
#[inline(always)]
fn keep_ruled(subject: &Subject, operation: Operation, at: Location, names: Names) -> Reach {
    if subject.wants(PolicyFlags::KERNEL_INTERFACES)
        && FileSystem::of_magic(magic_of(at.dentry)).is_kernels()
    {
        return subject.deny(Operation::KernelInterface, Object::At(at)).into();
    }
    let reach = host_path::reach(subject, at, names.of_host);
    if reach.answer != Answer::Allow
        || !subject.wants(PolicyFlags::PATHS)
        || matches!(mount_owner(at.mount), MountOwner::Internal)
    {
        return reach;
    }
    let seen = View::of(at, subject.label, subject.rules);
    if !seen.has_path() {
        return subject.deny(operation, Object::Number(0)).into();
    }
    if seen.verdict() != PathVerdict::Allow as u32 || seen.below() & names.above != 0 {
        return subject.deny(operation, Object::At(at)).into();
    }
    let is_one_of_many = reach.is_one_of_many && seen.is_one_of_many();
    Reach { answer: Answer::Allow, is_one_of_many }
}

#[inline(always)]
fn entry(path: Path, name: Dentry) -> Location {
    Location { mount: path.location().mount, dentry: name.address() }
}

/// Mode and owner, by name or by descriptor.
#[inline(always)]
pub(crate) fn attributes(path: Path) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    keep(&subject, Operation::Change, path, path.dentry(), Names::NONE)
}

/// A new entry: a directory, a link, a device, a FIFO, a socket, or a file that is going to be opened.
#[inline(always)]
pub(crate) fn make(dir: Path, name: Dentry) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    keep(&subject, Operation::Change, dir, name, Names::NONE)
}

/// Removing a directory. After it nothing that is remembered counts, so that nothing is left there.
#[inline(always)]
pub(crate) fn remove_directory(dir: Path, victim: Dentry) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let at = entry(dir, victim);
    let answer = known::keep(&subject, victim, at, false);
    if answer != Answer::Allow {
        return answer;
    }
    if Question::of_name(dir, victim, subject.label)
        .is_some_and(|question| question.allows(memo::CHANGE))
    {
        return Answer::Allow;
    }
    keep_ruled(&subject, Operation::Change, at, Names::REMOVED).answer
}

/// `truncate(2)` needs no open.
#[inline(always)]
pub(crate) fn truncate(path: Path) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    keep(&subject, Operation::Change, path, path.dentry(), Names::NONE)
}

/// `ftruncate(2)`, of what was opened before the task was contained. Before 6.2 it came to [`truncate`].
#[inline(always)]
pub(crate) fn truncate_open(file: File) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    known::keep(&subject, file.dentry(), file.location(), false)
}

/// Removing a runtime binary makes room for another one.
#[inline(always)]
pub(crate) fn unlink(dir: Path, victim: Dentry) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    keep(&subject, Operation::Change, dir, victim, Names::REMOVED)
}

/// A rename may replace a runtime binary, or carry a path away under another name: then the path itself, and every
/// directory above it, stays where it is.
#[inline(always)]
pub(crate) fn rename(
    old_dir: Path,
    victim: Dentry,
    new_dir: Path,
    replaced: Dentry,
    exchange: bool,
) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let answer =
        renamed_program(&subject, entry(old_dir, victim), entry(new_dir, replaced), exchange);
    if answer != Answer::Allow {
        return answer;
    }
    let (from, to) = (entry(old_dir, victim), entry(new_dir, replaced));
    let answer = known::keep(&subject, victim, from, true);
    if answer != Answer::Allow {
        return answer;
    }
    let answer = known::keep(&subject, replaced, to, true);
    if answer != Answer::Allow {
        return answer;
    }
    // Below a file there is nothing, and rules about itself are its verdict.
    let has_below = victim.is_directory() || replaced.is_directory();
    let above = if has_below { PathsBelow::DENIED | PathsBelow::READ_ONLY } else { 0 };
    let names = Names { of_host: true, above };
    let kept = keep_ruled(&subject, Operation::Rename, from, names);
    // What is said of everything in a directory, and below that, goes for the other name as well.
    if kept.answer != Answer::Allow
        || (kept.is_one_of_many && old_dir.location() == new_dir.location())
    {
        return kept.answer;
    }
    // What is there is replaced, or, by RENAME_EXCHANGE, carried away in turn: since 5.19 the hook
    // is called once for both (security_path_rename, security/security.c).
    // A new directory above may bring along what is to be read there; to what cannot be read it adds nothing.
    let names = if replaced.is_negative() {
        Names { of_host: false, above: above & PathsBelow::READ_ONLY }
    } else {
        names
    };
    keep_ruled(&subject, Operation::Rename, to, names).answer
}

#[inline(always)]
fn renamed_program(subject: &Subject, from: Location, to: Location, exchange: bool) -> Answer {
    let answer = code::moved(subject, from, to);
    if answer != Answer::Allow || !exchange {
        return answer;
    }
    code::moved(subject, to, from)
}

/// A hard link would give a file, or a runtime binary, a second name.
#[inline(always)]
pub(crate) fn link(target: Dentry, dir: Path, name: Dentry) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    // Both are on one mount (`do_linkat`, fs/namei.c, 6.12).
    let answer = code::moved(&subject, entry(dir, target), entry(dir, name));
    if answer != Answer::Allow {
        return answer;
    }
    let answer = keep(&subject, Operation::Rename, dir, target, Names::NONE);
    if answer != Answer::Allow {
        return answer;
    }
    keep(&subject, Operation::Rename, dir, name, Names::NONE)
}

/// `mnt_want_write` and `mnt_want_write_file` (fs/namespace.c, 6.12) have let the task change something on `mount`:
/// what follows is told the dentry only.
#[inline(always)]
pub(crate) fn begin(mount: u64) {
    if let Some(label) = LABELS.get(Task::current())
        && label.state == State::Contained as u32
    {
        label.written_mnt = mount;
    }
}

/// The change is over.
#[inline(always)]
pub(crate) fn end() {
    if let Some(label) = LABELS.get(Task::current()) {
        label.written_mnt = 0;
    }
}

/// Times. What else `struct iattr` has, comes with a path to [`attributes`] or [`truncate`], or is part of a write.
#[inline(always)]
pub(crate) fn times(arguments: impl FnOnce() -> (u64, u64)) -> Answer {
    // ATTR_MODE, _UID, _GID, _SIZE; _ATIME, _MTIME (include/linux/fs.h, 6.12).
    const OTHER: u32 = 0xf;
    const TIMES: u32 = 0x30;
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let (dentry, wanted) = arguments();
    let changed = changed_attributes(wanted);
    if changed & TIMES == 0 || changed & OTHER != 0 {
        return Answer::Allow;
    }
    keep_inode(&subject, dentry)
}

/// Extended attributes and access control lists.
#[inline(always)]
pub(crate) fn extended(dentry: u64) -> Answer {
    match Subject::current() {
        Some(subject) => keep_inode(&subject, dentry),
        None => Answer::Allow,
    }
}

#[inline(always)]
fn keep_inode(subject: &Subject, dentry: u64) -> Answer {
    let answer = known::keep_inode(subject, dentry);
    if answer != Answer::Allow {
        return answer;
    }
    if !subject.wants(PolicyFlags::PATHS | PolicyFlags::HOST_PATHS) {
        return Answer::Allow;
    }
    let mount = subject.label.written_mnt;
    if mount == 0 {
        // A file system that prepares its layers, or our program was not called: see docs/threat-model.md.
        if Task::current().acts_for_another() {
            return Answer::Allow;
        }
        return subject.deny(Operation::Change, Object::Number(0));
    }
    if !is_mount_of(mount, dentry) {
        return Answer::Allow; // a layer of the file system that is changed, which was looked at before
    }
    keep_ruled(subject, Operation::Change, Location { mount, dentry }, Names::NONE).answer
}
