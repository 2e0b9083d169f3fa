//! Processes of others: of the machine, of other containers, and the runtime's.

use lockc_common::{Operation, PolicyFlags, State};

use crate::{Answer, container::Subject, kernel::Task, maps::LABELS, report::Object};

/// Whether a contained task may not act on `target`. It may on tasks of its own container, and on contained
/// tasks of others with which it shares a PID namespace that is not the machine's, as the containers of a pod do
/// when asked to (`shareProcessNamespace`).
#[inline(always)]
fn is_out_of_reach(subject: &Subject, target: Task) -> bool {
    let Some(label) = LABELS.get(target) else {
        return true;
    };
    if label.state != State::Contained as u32 {
        return true;
    }
    if label.container == subject.label.container {
        return false;
    }
    let (own, level) = Task::current().pid_namespace();
    let (other, _) = target.pid_namespace();
    own == 0 || level == 0 || own != other
}

#[inline(always)]
fn decide(operation: Operation, target: Task, quiet: bool) -> Answer {
    match Subject::current() {
        Some(subject) => judge(&subject, operation, target, quiet),
        None => Answer::Allow,
    }
}

#[inline(always)]
fn judge(subject: &Subject, operation: Operation, target: Task, quiet: bool) -> Answer {
    if !subject.wants(PolicyFlags::PROCESSES) || !is_out_of_reach(subject, target) {
        return Answer::Allow;
    }
    if quiet {
        return subject.refuse();
    }
    subject.deny(operation, Object::Number(target.process()))
}

/// `ptrace(2)`, `process_vm_readv(2)`, `pidfd_getfd(2)`, and what procfs shows of a process to those only who
/// may trace it. Some questions refuse nothing by themselves (`PTRACE_MODE_NOAUDIT`, include/linux/ptrace.h).
#[inline(always)]
pub(crate) fn trace(target: Task, mode: u32) -> Answer {
    const NO_AUDIT: u32 = 4;
    decide(Operation::Trace, target, mode & NO_AUDIT != 0)
}

/// A signal that a process sends. With `credentials` it is sent for a task that need not be the current one
/// (`kill_pid_usb_asyncio`, kernel/signal.c, 6.12), and was checked when it was asked for.
#[inline(always)]
pub(crate) fn signal(target: Task, credentials: impl FnOnce() -> Option<u64>) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if credentials().is_some_and(|credentials| credentials != 0) {
        return Answer::Allow;
    }
    judge(&subject, Operation::Signal, target, false)
}

/// Priorities, scheduling and limits.
#[inline(always)]
pub(crate) fn schedule(target: Task) -> Answer {
    decide(Operation::Schedule, target, false)
}
