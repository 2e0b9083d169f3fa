//! Events for the daemon. Whatever cannot be reported is counted.

use core::arch::asm;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_ktime_get_ns,
    generated::{bpf_get_current_comm, bpf_probe_read_kernel},
};
use lockc_common::{
    Counter, EVENT_PATH_LEN, Event, Operation, RATE_LIMIT, RATE_WINDOW_NS, Verdict,
    network::{Target, family},
};

use crate::{
    atomic,
    container::{Subject, policy_of},
    kernel::Location,
    maps::{CONTAINERS, EVENTS, count},
    path::{self, BuiltPath},
};

/// What an operation was about.
pub(crate) enum Object<'a> {
    /// Nothing that has a path; a number that the operation explains.
    Number(u32),
    /// A path that has been built already.
    Built(&'a BuiltPath),
    /// A place in the file system.
    At(Location),
    /// An IP address and a port.
    Address(Target),
}

/// Reports something that was denied, or that audit mode let pass.
#[inline(always)]
pub(crate) fn violation(subject: &Subject, operation: Operation, object: Object<'_>, audit: bool) {
    count(if audit { Counter::Audited } else { Counter::Denied });
    if !within_rate(subject.label.container) {
        count(Counter::Suppressed);
        return;
    }
    let verdict = if audit { Verdict::Audited } else { Verdict::Denied };
    let header = Header {
        container: subject.label.container,
        policy: subject.policy_id,
        operation,
        verdict,
    };
    match object {
        Object::Number(detail) => send(&header, detail, Detail::None),
        Object::Built(path) => send(&header, 0, Detail::Path(path)),
        Object::At(location) => match path::build(location, subject.label) {
            Ok(path) => send(&header, 0, Detail::Path(&path)),
            Err(_) => send(&header, 0, Detail::None),
        },
        Object::Address(target) => send(&header, u32::from(target.port), Detail::Address(target)),
    }
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
enum Detail<'a> {
    None,
    Path(&'a BuiltPath),
    Address(Target),
}

struct Header {
    container: u64,
    policy: u32,
    operation: Operation,
    verdict: Verdict,
}

#[inline(always)]
fn notice(container: u64, operation: Operation) -> Header {
    Header { container, policy: policy_of(container), operation, verdict: Verdict::Notice }
}

/// A container may cause [`RATE_LIMIT`] events per window; the rest is counted in its record.
#[inline(always)]
fn within_rate(handle: u64) -> bool {
    let Some(container) = CONTAINERS.get_ptr_mut(&handle) else {
        return true; // the self-test, and containers whose record is just going
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

/// The value, of which the compiler knows nothing from here on: it leaves out a mask where it knows the bound, which
/// the verifier of 6.1 may not.
#[inline(always)]
fn unknown(mut value: u64) -> u64 {
    // SAFETY: copies a register to itself.
    unsafe { asm!("{value} = {value}", value = inout(reg) value) };
    value
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
        (*event).operation = header.operation as u32;
        (*event).verdict = header.verdict as u32;
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
            let len = unknown(u64::from(len)) as u32 & (EVENT_PATH_LEN as u32 - 1);
            if bpf_probe_read_kernel((&raw mut (*event).path).cast(), len, address as *const _) == 0
            {
                (*event).path_len = len;
                (*event).path_cut = u32::from(path.len() - 1 > len);
            }
        }
    }
    entry.submit(0);
}
