//! Mounting, by the old API (`mount(2)`) and the new one (`fsopen(2)` and its kin).

use lockc_common::{Operation, PolicyFlags};

use crate::{Answer, container::Subject, kernel::Path, report::Object};

// Numbers for the event: which hook refused.
const UMOUNT: u32 = 1;
const REMOUNT: u32 = 2;
const CREATE: u32 = 3;

#[inline(always)]
fn decide(object: Object) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::MOUNT) {
        return Answer::Allow;
    }
    subject.deny(Operation::Mount, object)
}

/// `mount(2)`, whatever it is asked to do: `target` is where.
#[inline(always)]
pub(crate) fn mount(target: Path) -> Answer {
    decide(Object::At(target.location()))
}

/// `umount2(2)`: it would uncover what the runtime has masked.
#[inline(always)]
pub(crate) fn umount() -> Answer {
    decide(Object::Number(UMOUNT))
}

/// A reconfiguration, by `mount(2)` or `fsconfig(2)`.
#[inline(always)]
pub(crate) fn remount() -> Answer {
    decide(Object::Number(REMOUNT))
}

/// A new superblock for a mount, by `mount(2)` or by `fsconfig(2)` with `FSCONFIG_CMD_CREATE`.
#[inline(always)]
pub(crate) fn create() -> Answer {
    decide(Object::Number(CREATE))
}

/// `move_mount(2)`: `target` is where. A detached copy made by `open_tree(2)` passes here too.
#[inline(always)]
pub(crate) fn move_mount(target: Path) -> Answer {
    decide(Object::At(target.location()))
}

/// `CAP_SYS_ADMIN` for a call of the new mount API. `mount_setattr(2)` has no hook of its own, and
/// the others are refused before the kernel has parsed anything (CVE-2022-0185 was in
/// `fsconfig(2)`). Each asks for the capability by `may_mount`, fs/namespace.c.
#[inline(always)]
pub(crate) fn call(subject: &Subject, number: u32) -> Answer {
    if !subject.wants(PolicyFlags::MOUNT) {
        return Answer::Allow;
    }
    subject.deny(Operation::Mount, Object::Number(number))
}

/// The new mount API; the numbers are the same on every architecture
/// (include/uapi/asm-generic/unistd.h, 6.12; `open_tree_attr` is newer).
#[inline(always)]
pub(crate) fn is_call(number: u32) -> bool {
    const OPEN_TREE: u32 = 428;
    const FSPICK: u32 = 433;
    const MOUNT_SETATTR: u32 = 442;
    const OPEN_TREE_ATTR: u32 = 467;
    matches!(number, OPEN_TREE..=FSPICK | MOUNT_SETATTR | OPEN_TREE_ATTR)
}

/// `pivot_root(2)` by a contained task.
#[inline(always)]
pub(crate) fn pivot_root(new_root: Path) -> Answer {
    decide(Object::At(new_root.location()))
}
