//! Container records and the policy of the task at hand.

use aya_ebpf::{
    Global,
    helpers::{bpf_ktime_get_boot_ns, bpf_ktime_get_ns},
};
use lockc_common::{
    BY_USER, Container, InodeKey, Label, MADE_BY_USERS, Operation, Policy, PolicyFlags, SELF_TEST,
    State, UNATTRIBUTED,
};

use crate::{
    atomic,
    kernel::Task,
    maps::{CLOCK, CONTAINERS, LABELS, POLICIES, USER_RECORDS},
    report,
};

/// Handle of the self-test of the daemon that loaded this program.
#[unsafe(no_mangle)]
pub(crate) static SELF_TEST_HANDLE: Global<u64> = Global::new(SELF_TEST);

/// `BPF_NOEXIST`: an entry that is there already stays as it is.
pub(crate) const NO_EXIST: u64 = 1;

/// Handles that the kernel side made up for runtimes nobody registered. The clock's bits end below [`BY_USER`].
const MADE_UP: u64 = 1 << 62;
const CLOCK_BITS: u64 = BY_USER - 1;

/// Label of the current task, if it is contained. This is all that a host task pays for a hook: one task-storage lookup.
#[inline(always)]
pub(crate) fn contained() -> Option<&'static Label> {
    let label = LABELS.get(Task::current())?;
    (label.state == State::Contained as u32).then_some(label)
}

/// A contained task, with the policy that applies to it.
pub(crate) struct Subject {
    pub(crate) label: &'static Label,
    pub(crate) policy_id: u32,
    pub(crate) flags: u32,
    /// Number of the policy's path rules.
    pub(crate) rules: u32,
}

impl Subject {
    /// The current task, if it is contained.
    #[inline(always)]
    pub(crate) fn current() -> Option<Self> {
        Self::of(contained()?)
    }

    /// Policy of a task with this label.
    #[inline(always)]
    pub(crate) fn of(label: &'static Label) -> Option<Self> {
        if label.container & SELF_TEST != 0 && label.container != SELF_TEST_HANDLE.load() {
            return None; // another daemon tests itself; its own programs answer
        }
        let policy_id = policy_of(label.container);
        let policy = POLICIES.get_ptr(policy_id).map_or(Policy(0), |policy| {
            // SAFETY: a live value of the array, aligned to 8 bytes. Volatile, so that it is read once:
            // another policy may take its place meanwhile.
            unsafe { policy.read_volatile() }
        });
        let flags = if policy.flags() & PolicyFlags::INSTALLED == 0 {
            // Cannot happen while ids are checked at registration. Everything is denied if it does.
            PolicyFlags::EVERYTHING
        } else {
            policy.flags()
        };
        Some(Self { label, policy_id, flags, rules: policy.rules() })
    }

    /// True when the policy wants `flag` enforced or audited.
    #[inline(always)]
    pub(crate) fn wants(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// What to answer to a denial that is not reported.
    #[inline(always)]
    pub(crate) fn refuse(&self) -> crate::Answer {
        if self.flags & PolicyFlags::AUDIT != 0 {
            crate::Answer::Allow
        } else {
            crate::Answer::Deny
        }
    }

    /// Reports the denial of `operation`, and says what to answer: in audit mode, to go on.
    #[inline(always)]
    pub(crate) fn deny(&self, operation: Operation, object: report::Object) -> crate::Answer {
        let audit = self.flags & PolicyFlags::AUDIT != 0;
        report::violation(self, operation, object, audit);
        self.refuse()
    }
}

/// Policy id of a container; that of the safe default when the record is gone.
#[inline(always)]
pub(crate) fn policy_of(handle: u64) -> u32 {
    // SAFETY: the value is copied at once.
    if let Some(container) = unsafe { CONTAINERS.get(&handle) } {
        return container.policy;
    }
    // SAFETY: as above.
    unsafe { CONTAINERS.get(&UNATTRIBUTED) }.map_or(u32::MAX, |container| container.policy)
}

/// The time of day, in ns, at which the container's first task was contained: by the clock that was furthest
/// behind of all that there were since. The smallest of all times when that is not known.
#[inline(always)]
pub(crate) fn started(handle: u64) -> i64 {
    // SAFETY: the values are copied at once.
    let Some(container) = (unsafe { CONTAINERS.get(&handle) }) else {
        return i64::MIN;
    };
    if container.started == 0 {
        return i64::MIN;
    }
    container.started.cast_signed().wrapping_add(container.clock)
}

/// A task of the container is contained: its life begins, if it has not before.
#[inline(always)]
pub(crate) fn start(handle: u64) {
    if let Some(container) = CONTAINERS.get_ptr_mut(&handle) {
        // SAFETY: a live map value with 8-byte aligned fields. Only one of several first tasks can be the runtime's
        // init; the others are a few microseconds later.
        unsafe {
            if (*container).started == 0 {
                (*container).clock = CLOCK.get(0).copied().unwrap_or(0);
                (*container).started = bpf_ktime_get_boot_ns();
            }
        }
    }
}

/// As [`start`], for a container whose first process started earlier, `started` ns after boot.
#[inline(always)]
pub(crate) fn started_at(handle: u64, started: u64) {
    if let Some(container) = CONTAINERS.get_ptr_mut(&handle) {
        // SAFETY: a live map value with 8-byte aligned fields, which one task adopts.
        unsafe {
            (*container).clock = CLOCK.get(0).copied().unwrap_or(0);
            (*container).started = started;
        }
    }
}

/// Whether the container has a record.
#[inline(always)]
pub(crate) fn exists(handle: u64) -> bool {
    CONTAINERS.get_ptr(&handle).is_some()
}

/// Directory of the container's root file system on the host, if it is known.
#[inline(always)]
pub(crate) fn rootfs(handle: u64) -> Option<InodeKey> {
    // SAFETY: the value is copied at once.
    let rootfs = unsafe { CONTAINERS.get(&handle) }?.rootfs;
    (rootfs.ino != 0).then_some(rootfs)
}

/// Counts one more task of a container. False when there is no such record.
#[inline(always)]
pub(crate) fn join(handle: u64) -> bool {
    let Some(container) = CONTAINERS.get_ptr_mut(&handle) else {
        return false;
    };
    // SAFETY: a live map value; the fields are 8-byte aligned.
    unsafe {
        atomic::fetch_add(&raw mut (*container).tasks, 1);
        atomic::fetch_add(&raw mut (*container).joins, 1);
    }
    true
}

/// Counts one task less; the record goes with the last one.
#[inline(always)]
pub(crate) fn leave(handle: u64) {
    let Some(container) = CONTAINERS.get_ptr_mut(&handle) else {
        return;
    };
    // SAFETY: as for `join`.
    let before = unsafe { atomic::fetch_add(&raw mut (*container).tasks, 1_u64.wrapping_neg()) };
    if before == 1 && handle != UNATTRIBUTED {
        if CONTAINERS.remove(&handle).is_ok() && handle & BY_USER != 0 {
            add_user_record(1_u64.wrapping_neg());
        }
        report::gone(handle);
    }
}

/// Joins the container of `handle`, or the safe default when its record is gone.
#[inline(always)]
pub(crate) fn join_or_default(handle: u64) -> u64 {
    if join(handle) {
        return handle;
    }
    join(UNATTRIBUTED);
    UNATTRIBUTED
}

/// A record of its own for a runtime of `task` that nobody registered, with the default policy, so that two
/// such containers do not share one. Falls back to the common record when there are too many.
#[inline(always)]
pub(crate) fn make_unattributed(task: Task) -> u64 {
    let [_, effective, ..] = task.credentials().users();
    let user = if effective == 0 { 0 } else { BY_USER };
    if user == 0 || add_user_record(1) < MADE_BY_USERS {
        // SAFETY: no preconditions.
        let handle = MADE_UP | user | unsafe { bpf_ktime_get_ns() } & CLOCK_BITS;
        let container =
            Container { policy: policy_of(UNATTRIBUTED), tasks: 1, ..Container::default() };
        if CONTAINERS.insert(&handle, &container, NO_EXIST).is_ok() {
            return handle;
        }
    }
    if user != 0 {
        add_user_record(1_u64.wrapping_neg());
    }
    join(UNATTRIBUTED);
    UNATTRIBUTED
}

/// Counts records of users, and gives how many there were before.
#[inline(always)]
fn add_user_record(change: u64) -> u64 {
    match USER_RECORDS.get_ptr_mut(0) {
        // SAFETY: a live map value, aligned to 8 bytes.
        Some(count) => unsafe { atomic::fetch_add(count, change) },
        None => MADE_BY_USERS,
    }
}
