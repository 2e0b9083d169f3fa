//! Landlock (`landlock(7)`), which std and nix do not have.

use std::{
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    ptr,
};

use nix::{errno::Errno, libc};

/// The same numbers on every architecture (include/uapi/asm-generic/unistd.h).
const CREATE_RULESET: libc::c_long = 444;
const ADD_RULE: libc::c_long = 445;
const RESTRICT_SELF: libc::c_long = 446;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;
/// All rights to files up to `LANDLOCK_ACCESS_FS_TRUNCATE` (include/uapi/linux/landlock.h).
const FILES: u64 = (1 << 15) - 1;

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Lets this process do only what it may below `directory`: all that has to do with files. For root, which needs no
/// `PR_SET_NO_NEW_PRIVS`.
pub(crate) fn restrict_to(directory: impl AsFd) -> nix::Result<()> {
    // SAFETY: the first field of `struct landlock_ruleset_attr`, of which the kernel reads as much as the size says.
    let ruleset: OwnedFd = super::owned(unsafe {
        libc::syscall(CREATE_RULESET, ptr::from_ref(&FILES), size_of_val(&FILES), 0_u32)
    })?;
    let rule = PathBeneath { allowed: FILES, parent: directory.as_fd().as_raw_fd() };
    let ruleset = ruleset.as_raw_fd();
    // SAFETY: the rule lives across the call; both descriptors are open.
    let result =
        unsafe { libc::syscall(ADD_RULE, ruleset, PATH_BENEATH, ptr::from_ref(&rule), 0_u32) };
    Errno::result(result)?;
    // SAFETY: takes integers.
    Errno::result(unsafe { libc::syscall(RESTRICT_SELF, ruleset, 0_u32) }).map(drop)
}
