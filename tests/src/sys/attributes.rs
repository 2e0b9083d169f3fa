//! Extended attributes, by name and by descriptor.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{errno::Errno, libc};

/// Capabilities of a file.
pub(crate) const CAPABILITY: &CStr = c"security.capability";
/// Who may do what with it besides owner and group.
pub(crate) const ACL: &CStr = c"system.posix_acl_access";

/// A `struct vfs_cap_data` of version 2 (`include/uapi/linux/capability.h`): no capability at all, as
/// [`CAPABILITY`] has it.
pub(crate) const NO_CAPABILITIES: [u8; 20] =
    [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access control list (`include/uapi/linux/posix_acl_xattr.h`) that lets user 1000 read, as
/// [`ACL`] has it: version 2, then tag, permissions and id of each entry.
pub(crate) const READABLE_FOR_1000: [u8; 44] = [
    2, 0, 0, 0, //
    1, 0, 6, 0, 255, 255, 255, 255, // the owner
    2, 0, 4, 0, 0xe8, 3, 0, 0, // user 1000
    4, 0, 4, 0, 255, 255, 255, 255, // the group
    0x10, 0, 4, 0, 255, 255, 255, 255, // the mask
    0x20, 0, 4, 0, 255, 255, 255, 255, // others
];

/// `setxattr(2)`.
pub(crate) fn set(path: &CStr, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: both strings are NUL-terminated, the length is the value's, and all live across the call.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(result).map(drop)
}

/// `fsetxattr(2)`.
pub(crate) fn set_open(file: &OwnedFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: as for `set`.
    let result = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(result).map(drop)
}

/// `removexattr(2)`.
pub(crate) fn remove(path: &CStr, name: &CStr) -> nix::Result<()> {
    // SAFETY: both strings are NUL-terminated and live across the call.
    Errno::result(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}
