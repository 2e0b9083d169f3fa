//! Events for the daemon. Whatever cannot be reported is counted.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_ktime_get_ns,
    generated::{bpf_get_current_comm, bpf_probe_read_kernel},
};
use lockc_common::{
    Counter, EVENT_PATH_LEN, Event, Label, Operation, RATE_LIMIT, RATE_WINDOW_NS, SELF_TEST,
    Verdict,
    network::{Target, family},
};

use crate::{
    atomic,
    container::{Subject, policy_of},
    kernel::{Location, opaque},
    maps::{CONTAINERS, EVENTS, count},
    path::{self, BuiltPath},
};

/// What an operation was about.
pub(crate) enum Object {
    /// Nothing that has a path; a number that the operation explains.
    Number(u32),
    /// A place in the file system.
    At(Location),
    /// An IP address and a port.
    Address(Target),
}

/// Reports something that was denied, or that audit mode let pass.
#[inline(always)]
pub(crate) fn violation(subject: &Subject, operation: Operation, object: Object, audit: bool) {
    let what = What::new(operation, if audit { Verdict::Audited } else { Verdict::Denied }).0;
    let (container, policy) = (subject.label.container, subject.policy_id);
    match object {
        Object::Number(number) => report_number(container, policy, what, number),
        Object::At(at) => report_place(subject.label, policy, what, at.mount, at.dentry),
        Object::Address(target) => report_address(container, policy, what, &raw const target),
    };
}

/// Operation and verdict as one argument: there are five at most.
#[derive(Clone, Copy)]
struct What(u64);

impl What {
    #[inline(always)]
    fn new(operation: Operation, verdict: Verdict) -> Self {
        Self((verdict as u64) << 32 | operation as u64)
    }

    #[inline(always)]
    fn operation(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    fn verdict(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// For the verifier on its own, as `path::view_path` is. So are the next two.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_number(container: u64, policy: u32, what: u64, number: u32) -> u64 {
    report(container, policy, What(what), number, Detail::None)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_place(
    label: *const Label,
    policy: u32,
    what: u64,
    mount: u64,
    dentry: u64,
) -> u64 {
    // SAFETY: the verifier sees that every caller has a label, and wants it to be checked here all the same.
    let Some(label) = (unsafe { label.as_ref() }) else {
        return 0;
    };
    report(label.container, policy, What(what), 0, Detail::Place(Location { mount, dentry }, label))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_address(container: u64, policy: u32, what: u64, target: *const Target) -> u64 {
    // SAFETY: as above.
    let Some(target) = (unsafe { target.as_ref() }) else {
        return 0;
    };
    report(container, policy, What(what), u32::from(target.port), Detail::Address(target))
}

/// 0, because a function for the verifier has to have an answer.
#[inline(always)]
fn report(container: u64, policy: u32, what: What, number: u32, detail: Detail<'_>) -> u64 {
    if container & SELF_TEST != 0 {
        return 0; // the daemon sees itself what it is denied
    }
    count(if what.verdict() == Verdict::Audited as u32 {
        Counter::Audited
    } else {
        Counter::Denied
    });
    if !within_rate(container) {
        count(Counter::Suppressed);
        return 0;
    }
    let header = Header { container, policy, operation: what.operation(), verdict: what.verdict() };
    if let Detail::Place(at, label) = detail {
        match path::build(at, label) {
            Ok(path) => send(&header, 0, Detail::Path(&path)),
            Err(_) => send(&header, 0, Detail::None),
        }
    } else {
        send(&header, number, detail);
    }
    0
}

/// Reports that a runtime nobody registered was executed.
#[inline(always)]
pub(crate) fn unregistered(container: u64) {
    count(Counter::Unregistered);
    send(&notice(container, Operation::Unregistered), 0, Detail::None);
}

/// Reports that the last task of a container is gone.
#[inline(always)]
pub(crate) fn gone(container: u64) {
    send(&notice(container, Operation::Gone), 0, Detail::None);
}

/// What an event has beyond numbers.
#[derive(Clone, Copy)]
enum Detail<'a> {
    None,
    /// A place whose path is not built yet, with the label of the task that it is a path for.
    Place(Location, &'a Label),
    Path(&'a BuiltPath),
    Address(&'a Target),
}

struct Header {
    container: u64,
    policy: u32,
    operation: u32,
    verdict: u32,
}

#[inline(always)]
fn notice(container: u64, operation: Operation) -> Header {
    let (operation, verdict) = (operation as u32, Verdict::Notice as u32);
    Header { container, policy: policy_of(container), operation, verdict }
}

/// A container may cause [`RATE_LIMIT`] events per window; the rest is counted in its record.
#[inline(always)]
fn within_rate(handle: u64) -> bool {
    let Some(container) = CONTAINERS.get_ptr_mut(&handle) else {
        return true; // the container is just going
    };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a live map value with 8-byte aligned fields. Two CPUs may both open a window, which
    // lets a few more events through and loses no count.
    unsafe {
        atomic::fetch_add(&raw mut (*container).denied, 1);
        if now.wrapping_sub((*container).window_start) > RATE_WINDOW_NS {
            (*container).window_start = now;
            (*container).window_events = 0;
        }
        if atomic::fetch_add(&raw mut (*container).window_events, 1) < RATE_LIMIT {
            return true;
        }
        atomic::fetch_add(&raw mut (*container).suppressed, 1);
    }
    false
}

#[inline(always)]
fn send(header: &Header, number: u32, detail: Detail<'_>) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(Counter::Lost);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: no preconditions.
    let ids = bpf_get_current_pid_tgid();
    // SAFETY: the reservation is as large as an event, and every field is written.
    unsafe {
        (*event).time = bpf_ktime_get_ns();
        (*event).container = header.container;
        (*event).operation = header.operation;
        (*event).verdict = header.verdict;
        (*event).policy = header.policy;
        (*event).pid = (ids >> 32) as u32;
        (*event).tid = ids as u32;
        (*event).detail = number;
        (*event).ino = 0;
        (*event).path_len = 0;
        (*event).path_cut = 0;
        bpf_get_current_comm((&raw mut (*event).comm).cast(), 16);
        if let Detail::Address(target) = detail {
            (*event).path_len = if target.kind == family::INET { 4 } else { 16 };
            (&raw mut (*event).path).cast::<[u32; 4]>().write(target.address);
        }
        if let Detail::Path(path) = detail {
            let (address, len) = path.tail(EVENT_PATH_LEN as u32 - 1);
            // The mask repeats for the verifier what `tail` has bounded.
            let len = opaque(u64::from(len)) as u32 & (EVENT_PATH_LEN as u32 - 1);
            if bpf_probe_read_kernel((&raw mut (*event).path).cast(), len, address as *const _) == 0
            {
                (*event).path_len = len;
                (*event).path_cut = u32::from(path.len() - 1 > len);
            }
        }
    }
    entry.submit(0);
}
