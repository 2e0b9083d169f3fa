//! Opening files.

use lockc_common::{InodeKey, Label, Operation, PathVerdict, PathsBelow, PolicyFlags, Stdio};

use crate::{
    Answer, container,
    container::Subject,
    hooks::{
        device::is_raw, foreign::is_foreign, host_path, interface::steers_machine,
        kernel_log::KMSG, known,
    },
    kernel::{
        FMODE_EXEC, FMODE_READ, FMODE_WRITE, File, Inode, Location, MountOwner, Task, mount_owner,
    },
    memo,
    memo::Question,
    path::View,
    report::Object,
};

/// Every open, `O_PATH` apart: what that gives cannot be read, and opening it again comes here.
#[inline(always)]
pub(crate) fn open(file: File) -> Answer {
    let Some(label) = container::contained() else {
        return Answer::Allow;
    };
    let mode = file.mode();
    let wanted = if mode & FMODE_WRITE == 0 { memo::READ } else { memo::READ | memo::WRITE };
    let question = Question::of(file, label);
    if let Some(question) = &question
        && question.allows(wanted)
        && (wanted == memo::READ || !known::is_known(file.inode()))
    {
        return Answer::Allow;
    }
    let Some(subject) = Subject::of(label) else {
        return Answer::Allow;
    };
    let opened = decide(&subject, file, mode, question.is_some());
    if let Some(question) = &question
        && opened.rights != 0
    {
        // lockc's own directories are not for writing, and everything in them.
        let own = if known::is_known(question.directory()) { memo::WRITE } else { 0 };
        question.learn(opened.rights & !own);
    }
    opened.answer
}

/// What is answered to an open, and what is to be remembered of the directory.
#[derive(Clone, Copy)]
struct Opened {
    answer: Answer,
    rights: u64,
}

impl From<Answer> for Opened {
    #[inline(always)]
    fn from(answer: Answer) -> Self {
        Self { answer, rights: 0 }
    }
}

/// Whatever is denied is not to be remembered, in audit mode as well, where it goes on.
#[inline(always)]
fn decide(subject: &Subject, file: File, mode: u32, learns: bool) -> Opened {
    let at = file.location();
    let inode = file.inode();
    let owner = mount_owner(at.mount);
    let mut learns = learns;

    if subject.wants(PolicyFlags::FOREIGN_MOUNT)
        && is_foreign(owner, Task::current(), subject.label)
    {
        // The runtime's descriptors say nothing of what lies beside them.
        learns = false;
        if !is_own_stdio(inode.key(), mode, &subject.label.stdio) {
            let answer = subject.deny(Operation::ForeignOpen, Object::At(at));
            if answer != Answer::Allow {
                return answer.into();
            }
        }
    }
    if mode & FMODE_WRITE != 0 {
        let answer = known::keep(subject, file.dentry(), at, false);
        if answer != Answer::Allow {
            return answer.into();
        }
    }
    if subject.wants(PolicyFlags::KERNEL_LOG) && inode.char_device() == Some(KMSG) {
        let answer = subject.deny(Operation::KernelLog, Object::At(at));
        if answer != Answer::Allow {
            return answer.into();
        }
    }
    if subject.wants(PolicyFlags::DEVICES) && is_raw(inode) {
        let answer = subject.deny(Operation::Device, Object::At(at));
        if answer != Answer::Allow {
            return answer.into();
        }
    }
    if subject.wants(PolicyFlags::KERNEL_INTERFACES)
        && steers_machine(inode.magic(), at.dentry, mode)
    {
        let answer = subject.deny(Operation::KernelInterface, Object::At(at));
        if answer != Answer::Allow {
            return answer.into();
        }
    }
    let reach = host_path::reach(subject, at, false);
    if reach.answer != Answer::Allow {
        return reach.answer.into();
    }
    learns &= reach.is_one_of_many;
    if subject.wants(PolicyFlags::PATHS) && !matches!(owner, MountOwner::Internal) {
        return path_rules(subject, at, inode, mode, learns);
    }
    Opened { answer: Answer::Allow, rights: if learns { memo::EVERYTHING } else { 0 } }
}

/// Denies what the policy's path rules deny, and what has no path: a handle of a file that lies
/// outside the mount it was opened through, on the same file system.
#[inline(always)]
fn path_rules(subject: &Subject, at: Location, inode: Inode, mode: u32, learns: bool) -> Opened {
    let is_directory = inode.is_directory();
    let seen = View::of(at, subject.label, subject.rules);
    if !seen.has_path() {
        return subject.deny(Operation::ForeignOpen, Object::Number(0)).into();
    }
    let verdict = seen.verdict();
    if verdict == PathVerdict::Allow as u32 {
        let rights = if learns && seen.is_one_of_many() { memo::EVERYTHING } else { 0 };
        return Opened { answer: Answer::Allow, rights };
    }
    if mode & FMODE_WRITE == 0 {
        if verdict == PathVerdict::ReadOnly as u32 {
            let rights = if learns && seen.is_one_of_many() { memo::READ } else { 0 };
            return Opened { answer: Answer::Allow, rights };
        }
        // Whoever may open something finds the way there.
        if verdict == PathVerdict::Default as u32
            && is_directory
            && seen.below() & PathsBelow::ALLOWED != 0
        {
            return Answer::Allow.into();
        }
    }
    if verdict == PathVerdict::Default as u32
        && is_own_stdio(inode.key(), mode, &subject.label.stdio)
    {
        return Answer::Allow.into();
    }
    subject.deny(Operation::Open, Object::At(at)).into()
}

/// The container's first program: the runtime has opened it, before there was a container.
#[inline(always)]
pub(crate) fn first_program(label: &'static Label, file: File) -> Answer {
    let Some(subject) = Subject::of(label) else {
        return Answer::Allow;
    };
    let at = file.location();
    let reach = host_path::reach(&subject, at, false);
    if reach.answer != Answer::Allow {
        return reach.answer;
    }
    if !subject.wants(PolicyFlags::PATHS) || matches!(mount_owner(at.mount), MountOwner::Internal) {
        return Answer::Allow;
    }
    path_rules(&subject, at, file.inode(), file.mode(), false).answer
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
