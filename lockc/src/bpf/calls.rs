//! The write path: functions that do nothing here, and whose calls the kernel
//! side sees through uprobes attached to this process.
//!
//! Each takes plain integers and returns nothing; whether a call took effect is
//! read from the maps afterwards.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Descriptor argument for "none".
pub const NO_FD: u64 = u32::MAX as u64;

/// One call at a time. A uprobe program may be preempted, and from 6.13 on it keeps its variables in
/// one area per processor (`bpf_enable_priv_stack`, kernel/bpf/verifier.c), which nothing guards for
/// uprobes: a second call on the same processor would overwrite those of the first.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a new container whose runtime is frozen in thread `tid`: six words, as many as
/// registers carry on every architecture. Flags are the upper half of `policy_and_flags`.
pub fn add_container(
    tid: u64,
    start_ticks: u64,
    handle: u64,
    policy_and_flags: u64,
    rootfs_fd: u64,
    exe_fd: u64,
) {
    let _alone = alone();
    probed::add_container(tid, start_ticks, handle, policy_and_flags, rootfs_fd, exe_fd);
}

/// Makes a record for a container that ran before lockc, and holds it.
pub fn adopt_container(handle: u64, policy: u64) {
    let _alone = alone();
    probed::adopt_container(handle, policy);
}

/// Ends the hold of [`adopt_container`]: a record without tasks goes.
pub fn release_container(handle: u64) {
    let _alone = alone();
    probed::release_container(handle);
}

/// Registers a runtime that works on a known container, frozen in thread `tid`.
pub fn add_process(tid: u64, start_ticks: u64, handle: u64, flags: u64, exe_fd: u64) {
    let _alone = alone();
    probed::add_process(tid, start_ticks, handle, flags, exe_fd);
}

/// Withdraws what was registered for thread `tid`.
pub fn delete_container(tid: u64) {
    let _alone = alone();
    probed::delete_container(tid);
}

/// Says what the file or directory behind `fd` is: `known` is a [`lockc_common::KnownFile`].
pub fn add_file(fd: u64, known: u64) {
    let _alone = alone();
    probed::add_file(fd, known);
}

/// Changes the policy with this id to `policy`, a [`lockc_common::Policy`].
pub fn set_policy(id: u64, policy: u64) {
    let _alone = alone();
    probed::set_policy(id, policy);
}

/// Gives a container the policy with this id.
pub fn move_container(handle: u64, policy: u64) {
    let _alone = alone();
    probed::move_container(handle, policy);
}

/// Says that the time of day is `difference` ns, a signed number, ahead of the time since boot: less than before.
pub fn lower_clock(handle: u64, difference: u64) {
    let _alone = alone();
    probed::lower_clock(handle, difference);
}

/// Makes the calling thread a contained task of the self-test.
pub fn enter_self_test(policy: u64) {
    let _alone = alone();
    probed::enter_self_test(policy);
}

/// The functions that carry the uprobes. Each has a body of its own, so that the linker cannot fold
/// two into one address.
mod probed {
    use std::hint::black_box;

    #[inline(never)]
    pub(super) extern "C" fn add_container(
        tid: u64,
        start_ticks: u64,
        handle: u64,
        policy_and_flags: u64,
        rootfs_fd: u64,
        exe_fd: u64,
    ) {
        black_box((1_u8, tid, start_ticks, handle, policy_and_flags, rootfs_fd, exe_fd));
    }

    #[inline(never)]
    pub(super) extern "C" fn add_process(
        tid: u64,
        start_ticks: u64,
        handle: u64,
        flags: u64,
        exe_fd: u64,
    ) {
        black_box((2_u8, tid, start_ticks, handle, flags, exe_fd));
    }

    #[inline(never)]
    pub(super) extern "C" fn delete_container(tid: u64) {
        black_box((3_u8, tid));
    }

    #[inline(never)]
    pub(super) extern "C" fn add_file(fd: u64, known: u64) {
        black_box((4_u8, fd, known));
    }

    #[inline(never)]
    pub(super) extern "C" fn set_policy(id: u64, policy: u64) {
        black_box((6_u8, id, policy));
    }

    #[inline(never)]
    pub(super) extern "C" fn move_container(handle: u64, policy: u64) {
        black_box((7_u8, handle, policy));
    }

    #[inline(never)]
    pub(super) extern "C" fn lower_clock(handle: u64, difference: u64) {
        black_box((8_u8, handle, difference));
    }

    #[inline(never)]
    pub(super) extern "C" fn adopt_container(handle: u64, policy: u64) {
        black_box((9_u8, handle, policy));
    }

    #[inline(never)]
    pub(super) extern "C" fn release_container(handle: u64) {
        black_box((10_u8, handle));
    }

    #[inline(never)]
    pub(super) extern "C" fn enter_self_test(policy: u64) {
        black_box((5_u8, policy));
    }
}

/// Program name and address of every call.
pub fn addresses() -> [(&'static str, usize); 10] {
    [
        ("add_container", probed::add_container as *const () as usize),
        ("adopt_container", probed::adopt_container as *const () as usize),
        ("release_container", probed::release_container as *const () as usize),
        ("add_process", probed::add_process as *const () as usize),
        ("delete_container", probed::delete_container as *const () as usize),
        ("add_file", probed::add_file as *const () as usize),
        ("set_policy", probed::set_policy as *const () as usize),
        ("move_container", probed::move_container as *const () as usize),
        ("lower_clock", probed::lower_clock as *const () as usize),
        ("enter_self_test", probed::enter_self_test as *const () as usize),
    ]
}

/// Offset in this binary's file of the function at `address`, from the text of `/proc/self/maps`.
/// Symbols would do as well, but `strip` removes them.
pub fn file_offset(maps: &str, address: usize) -> Option<u64> {
    let address = u64::try_from(address).ok()?;
    maps.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        (start..end).contains(&address).then(|| address - start + offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_is_relative_to_the_mapping_that_holds_the_address() {
        let maps = "7f00000-7f10000 r--p 00000000 00:1 5 /usr/bin/lockc\n\
                    7f10000-7f90000 r-xp 0000f000 00:1 5 /usr/bin/lockc\n";
        assert_eq!(file_offset(maps, 0x7f1_0040), Some(0xf040));
        assert_eq!(file_offset(maps, 0x7f9_0000), None);
        assert_eq!(file_offset("garbage\n1-2\n", 1), None);
    }

    #[test]
    fn no_two_calls_share_an_address() {
        let mut all: Vec<_> = addresses().iter().map(|(_, address)| *address).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), addresses().len());
    }
}
