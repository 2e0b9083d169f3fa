//! The daemon's calls, seen by uprobes on its own functions.
//!
//! The programs are attached to one process, the daemon, and the arguments are
//! its own; nothing else can reach them. The daemon reads the maps afterwards to
//! learn whether a call took effect.

use aya_ebpf::programs::ProbeContext;
use lockc_common::{Container, InodeKey, KnownFile, Pending, Policy, State};

use crate::{
    container,
    kernel::{Task, inode_of_fd},
    maps::{CONTAINERS, KNOWN_FILES, LABELS, PENDING, POLICIES},
    memo,
};

/// Descriptor argument for "none".
const NO_FD: u64 = u32::MAX as u64;

/// `add_container(tid, start_ticks, handle, policy | flags << 32, rootfs_fd, exe_fd)`: a new
/// container, whose runtime is frozen in thread `tid`.
#[inline(always)]
pub(crate) fn add_container(ctx: &ProbeContext) {
    let (Some(tid), Some(start_ticks), Some(handle)) =
        (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(2))
    else {
        return;
    };
    let (Some(policy_and_flags), Some(rootfs), Some(exe)) =
        (ctx.arg::<u64>(3), ctx.arg::<u64>(4), ctx.arg::<u64>(5))
    else {
        return;
    };
    let rootfs = if rootfs == NO_FD { None } else { inode_of_fd(rootfs as u32) };
    let container = Container {
        policy: policy_and_flags as u32,
        tasks: 1, // the registration itself
        rootfs: rootfs.unwrap_or(InodeKey { ino: 0, dev: 0, generation: 0 }),
        ..Container::default()
    };
    if CONTAINERS.insert(&handle, &container, container::NO_EXIST).is_ok() {
        await_exec(tid as u32, start_ticks, handle, (policy_and_flags >> 32) as u32, exe as u32);
    }
}

/// `adopt_container(handle, policy)`: a container that ran before lockc. The daemon holds its record until
/// `release_container`.
#[inline(always)]
pub(crate) fn adopt_container(ctx: &ProbeContext) {
    let (Some(handle), Some(policy)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else {
        return;
    };
    let container = Container { policy: policy as u32, tasks: 1, ..Container::default() };
    let _ = CONTAINERS.insert(&handle, &container, container::NO_EXIST);
}

/// `release_container(handle)`: the record is its tasks' from now on, and goes if there are none.
#[inline(always)]
pub(crate) fn release_container(ctx: &ProbeContext) {
    if let Some(handle) = ctx.arg::<u64>(0) {
        container::leave(handle);
    }
}

/// `add_process(tid, start_ticks, handle, flags, exe_fd)`: thread `tid` is frozen in the `execve` of a
/// runtime that works on the container of `handle`.
#[inline(always)]
pub(crate) fn add_process(ctx: &ProbeContext) {
    let (Some(tid), Some(start_ticks), Some(handle)) =
        (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(2))
    else {
        return;
    };
    let (Some(flags), Some(exe)) = (ctx.arg::<u64>(3), ctx.arg::<u64>(4)) else {
        return;
    };
    if container::join(handle) {
        await_exec(tid as u32, start_ticks, handle, flags as u32, exe as u32);
    }
}

/// The caller has counted the registration as a task of the container.
#[inline(always)]
fn await_exec(tid: u32, start_ticks: u64, container: u64, flags: u32, exe: u32) {
    withdraw(tid); // of an earlier task with this number
    let Some(exe) = inode_of_fd(exe) else {
        container::leave(container);
        return;
    };
    let pending = Pending { container, start_ticks, flags, reserved: 0, exe };
    if PENDING.insert(&tid, &pending, 0).is_err() {
        container::leave(container);
    }
}

/// `delete_container(tid)`: withdraws what was registered for thread `tid`. A container that has
/// no other task goes with it.
#[inline(always)]
pub(crate) fn delete_container(ctx: &ProbeContext) {
    if let Some(tid) = ctx.arg::<u64>(0) {
        withdraw(tid as u32);
    }
}

#[inline(always)]
fn withdraw(tid: u32) {
    // SAFETY: the value is copied at once.
    if let Some(pending) = unsafe { PENDING.get(&tid) }.copied()
        // Whoever removes it returns its count: its task may be taking it up at the same time.
        && PENDING.remove(&tid).is_ok()
    {
        container::leave(pending.container);
    }
}

/// `add_file(fd, known)`: what the file or directory behind `fd` is, a [`KnownFile`].
#[inline(always)]
pub(crate) fn add_file(ctx: &ProbeContext) {
    let (Some(fd), Some(known)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else {
        return;
    };
    if let Some(key) = inode_of_fd(fd as u32) {
        let _ = KNOWN_FILES.insert(&key, &KnownFile(known), 0);
        memo::forget();
    }
}

/// `set_policy(id, policy)`: the policy with this id changes, for all its containers at once.
#[inline(always)]
pub(crate) fn set_policy(ctx: &ProbeContext) {
    let (Some(id), Some(policy)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else {
        return;
    };
    if let Some(slot) = POLICIES.get_ptr_mut(id as u32) {
        // SAFETY: a live value of the array, aligned to 8 bytes. One store, as programs read it at
        // any time; `bpf(2)` copies bytes.
        unsafe { slot.write_volatile(Policy(policy)) };
        memo::forget();
    }
}

/// `move_container(handle, policy)`: the container of `handle` gets the policy with this id.
#[inline(always)]
pub(crate) fn move_container(ctx: &ProbeContext) {
    let (Some(handle), Some(policy)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else {
        return;
    };
    if let Some(container) = CONTAINERS.get_ptr_mut(&handle) {
        // SAFETY: a live map value. `bpf(2)` would put the whole record in its place, with the count
        // of tasks as it was.
        unsafe { (&raw mut (*container).policy).write_volatile(policy as u32) };
        memo::forget();
    }
}

/// `lower_clock(handle, difference)`: the time of day is `difference` ns ahead of that since boot now.
#[inline(always)]
pub(crate) fn lower_clock(ctx: &ProbeContext) {
    let (Some(handle), Some(difference)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else {
        return;
    };
    if let Some(container) = CONTAINERS.get_ptr_mut(&handle) {
        let difference = difference.cast_signed();
        // SAFETY: a live map value with 8-byte aligned fields; the daemon makes one call at a time.
        unsafe {
            if difference < (*container).clock {
                (&raw mut (*container).clock).write_volatile(difference);
            }
        }
    }
}

/// `enter_self_test(policy)`: the calling thread becomes a contained task of the self-test.
#[inline(always)]
pub(crate) fn enter_self_test(ctx: &ProbeContext) {
    let Some(policy) = ctx.arg::<u64>(0) else {
        return;
    };
    let handle = container::SELF_TEST_HANDLE.load();
    let container = Container { policy: policy as u32, tasks: 1, ..Container::default() };
    if CONTAINERS.insert(&handle, &container, 0).is_err() {
        return;
    }
    let task = Task::current();
    let Some(label) = LABELS.get_or_create(task) else {
        return;
    };
    let root = task.root();
    label.container = handle;
    label.home_ns = task.mount_namespace().seq;
    label.ns = label.home_ns;
    label.root_mnt = root.mount;
    label.root_dentry = root.dentry;
    label.state = State::Contained as u32;
}
