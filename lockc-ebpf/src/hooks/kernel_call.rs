//! System calls that act on the kernel of the machine.

use lockc_common::{
    Operation, PolicyFlags, interface::MACHINE_CAPABILITIES, network::NETWORK_CAPABILITIES,
};

use crate::{Answer, container::Subject, hooks::mount, report::Object};

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
/// `quiet` is for questions that refuse nothing by themselves (`CAP_OPT_NOAUDIT`, include/linux/security.h).
#[inline(always)]
pub(crate) fn capable(capability: u32, quiet: bool) -> Answer {
    let is_in = |set: u64| capability < u64::BITS && set >> capability & 1 != 0;
    let flags = if is_in(MACHINE_CAPABILITIES) {
        PolicyFlags::KERNEL_CALLS
    } else if is_in(NETWORK_CAPABILITIES) {
        PolicyFlags::NETWORK_NONE | PolicyFlags::NETWORK_RULES
    } else {
        return mount::capable(capability);
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
