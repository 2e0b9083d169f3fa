//! `io_uring_setup(2)`: a ring is a file with an inode of its own (`io_uring_get_file`, `io_uring/io_uring.c`, 6.1 to
//! 7.0), whatever its flags. `uring_allowed` would be the hook for it, from 6.15 on only.

use lockc_common::{Operation, PolicyFlags};

use crate::{Answer, container::Subject, kernel::Name, report::Object};

/// A nameless inode that security modules are asked about: of a ring, a userfaultfd, a secret memory.
#[inline(always)]
pub(crate) fn create(name: Name) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::IO_URING) || !is_ring(name) {
        return Answer::Allow;
    }
    subject.deny(Operation::IoUring, Object::Number(0))
}

/// `[io_uring]`. Its first eight bytes tell it from the others; a name that cannot be read may be it.
#[inline(always)]
fn is_ring(name: Name) -> bool {
    match name.start() {
        Some(start) => start == u64::from_le_bytes(*b"[io_urin"),
        None => true,
    }
}
