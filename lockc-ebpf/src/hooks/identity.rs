//! Becoming root. A user id is root when it is 0 on the machine, or what 0 is in the container's user namespace: that
//! owns the container's files, and on the machine it is somebody all the same.

use aya_ebpf::helpers::generated::bpf_send_signal;
use lockc_common::{Label, Operation, PolicyFlags};

use crate::{
    Answer,
    container::Subject,
    kernel::{Bprm, Credentials, Task},
    report::Object,
};

/// What 0 is in the user namespace of the task, as the machine numbers users. When that cannot be read, the task's
/// own id counts as root, so that it does not start where root may not.
#[inline(always)]
pub(crate) fn root_of(task: Task) -> u32 {
    let credentials = task.credentials();
    let [own, ..] = credentials.users();
    credentials.namespace().root().unwrap_or(own)
}

#[inline(always)]
fn has_root(credentials: Credentials, label: &Label) -> bool {
    let [real, effective, saved, files] = credentials.users();
    let is_root = |user: u32| user == 0 || user == label.root_uid;
    is_root(real) || is_root(effective) || is_root(saved) || is_root(files)
}

/// An `execve` whose credentials are known: the task was brought in as root, or the file is setuid, or has
/// capabilities. Once per `execve`, before there is no way back (`begin_new_exec`, fs/exec.c, 6.12).
#[inline(always)]
pub(crate) fn exec(bprm: Bprm) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::ROOT) {
        return Answer::Allow;
    }
    let (new, old) = (bprm.credentials(), Task::current().credentials());
    if !has_root(new, subject.label) && new.permitted() & !old.permitted() == 0 {
        return Answer::Allow;
    }
    subject.deny(Operation::Root, Object::At(bprm.file().location()))
}

/// For programs that modify return values: they come to [`exec`] before the kernel has looked for the capabilities of
/// the file. Those are known here, when `execve` can no longer fail (`begin_new_exec`, fs/exec.c, 6.1 and 6.12); so
/// the process ends before it executes anything.
#[inline(always)]
pub(crate) fn commit(bprm: Bprm) {
    const SIGKILL: u32 = 9;
    let Some(subject) = Subject::current() else {
        return;
    };
    let (new, old) = (bprm.credentials(), Task::current().credentials());
    // [`exec`] has told of root.
    if !subject.wants(PolicyFlags::ROOT)
        || has_root(new, subject.label)
        || new.permitted() & !old.permitted() == 0
    {
        return;
    }
    if subject.deny(Operation::Root, Object::At(bprm.file().location())) != Answer::Allow {
        // SAFETY: no preconditions. It cannot fail for a task that is in `execve`.
        let _ = unsafe { bpf_send_signal(SIGKILL) };
    }
}

/// `setuid(2)`, `setreuid(2)`, `setresuid(2)`, `setfsuid(2)`. Whoever is root already, because the policy was another
/// one when it started, may still become somebody else by steps.
#[inline(always)]
pub(crate) fn set_user(new: Credentials, old: Credentials) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::ROOT)
        || !has_root(new, subject.label)
        || has_root(old, subject.label)
    {
        return Answer::Allow;
    }
    subject.deny(Operation::Root, Object::Number(0))
}
