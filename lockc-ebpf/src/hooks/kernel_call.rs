//! System calls that act on the kernel of the machine.

use lockc_common::{
    Operation, PolicyFlags, call::Call, interface::MACHINE_CAPABILITIES,
    network::NETWORK_CAPABILITIES,
};

use crate::{
    Answer,
    container::Subject,
    hooks::{mount, namespace},
    kernel::{Task, UserNamespace},
    report::Object,
};

#[inline(always)]
fn decide(operation: Operation, detail: u32) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::KERNEL_CALLS) {
        return Answer::Allow;
    }
    subject.deny(operation, Object::Number(detail))
}

/// `bpf(2)`, whatever the command: maps and programs belong to the machine, lockc's own among them.
#[inline(always)]
pub(crate) fn bpf(command: u32) -> Answer {
    decide(Operation::Bpf, command)
}

/// `perf_event_open(2)`: it observes the kernel, and programs are attached through it.
#[inline(always)]
pub(crate) fn perf_event() -> Answer {
    decide(Operation::PerfEvent, 0)
}

/// The task has the capability, and uses it. Loading modules and another kernel, port access, reboot, the
/// clock, process accounting and kernel policy have no hook that covers them as well as their capability does.
/// `owner` is the user namespace in which it is asked for; `quiet` is for questions that refuse nothing by themselves (`CAP_OPT_NOAUDIT`, include/linux/security.h).
#[inline(always)]
pub(crate) fn capable(owner: UserNamespace, capability: u32, quiet: bool) -> Answer {
    const CAP_SYS_ADMIN: u32 = 21;
    let is_in = |set: u64| capability < u64::BITS && set >> capability & 1 != 0;
    let flags = if is_in(MACHINE_CAPABILITIES) {
        PolicyFlags::KERNEL_CALLS
    } else if is_in(NETWORK_CAPABILITIES) {
        PolicyFlags::NETWORK_NONE | PolicyFlags::NETWORK_RULES
    } else if capability == CAP_SYS_ADMIN {
        return admin(owner);
    } else {
        return Answer::Allow;
    };
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(flags) {
        return Answer::Allow;
    }
    if quiet {
        return subject.refuse();
    }
    subject.deny(Operation::Capability, Object::Number(capability))
}

/// `CAP_SYS_ADMIN`, which is asked for by calls that no hook sees, among much that harms nobody.
#[inline(always)]
fn admin(owner: UserNamespace) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(
        PolicyFlags::MOUNT
            | PolicyFlags::KERNEL_CALLS
            | PolicyFlags::NAMESPACES
            | PolicyFlags::USER_NAMESPACES,
    ) {
        return Answer::Allow;
    }
    let (abi, number) = Task::current().system_call();
    if mount::is_call(number) {
        return mount::call(&subject, number);
    }
    match Call::of(abi, number) {
        Call::JoinNamespace => namespace::join(&subject, owner, number),
        Call::Machine if subject.wants(PolicyFlags::KERNEL_CALLS) => {
            subject.deny(Operation::MachineCall, Object::Number(number))
        }
        Call::Machine | Call::Other => Answer::Allow,
    }
}
