//! Atomic operations on map values.
//!
//! The BPF target has no atomics in `core` (`atomic-cas: false`), and declares
//! itself single-threaded, so the compiler would turn intrinsics into plain
//! loads and stores. The instructions are therefore written out.

use core::arch::asm;

/// Adds `value` to `*target` and returns what was there before.
///
/// # Safety
///
/// `target` points into a live map value and is aligned to 8 bytes.
#[inline(always)]
pub(crate) unsafe fn fetch_add(target: *mut u64, value: u64) -> u64 {
    let mut result = value;
    // SAFETY: per this function's contract; the verifier checks the access.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({target} + 0), {value})",
            value = inout(reg) result,
            target = in(reg) target,
        );
    }
    result
}

/// Stores `value` in `*target` and returns what was there before.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn swap(target: *mut u64, value: u64) -> u64 {
    let mut result = value;
    // SAFETY: per this function's contract; the verifier checks the access.
    unsafe {
        asm!(
            "{value} = xchg_64({target} + 0, {value})",
            value = inout(reg) result,
            target = in(reg) target,
        );
    }
    result
}
