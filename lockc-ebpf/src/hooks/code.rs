//! What may be executed: by `execve(2)`, as a script's interpreter, or mapped into memory as code.

use lockc_common::{EXEC_RULES, Operation, PathVerdict, PathsBelow, PolicyFlags};

use crate::{
    Answer, container,
    container::Subject,
    kernel::{
        Bprm, File, Inode, Location, MemoryArea, MountOwner, Step, Task, mount_owner, read,
        superblock_of,
    },
    maps::DRIFTED,
    path::View,
    report::Object,
};

/// `PROT_EXEC` (include/uapi/asm-generic/mman-common.h, 6.12).
const PROT_EXEC: u64 = 4;
/// Magic numbers of file systems (include/uapi/linux/magic.h, 6.12).
const OVERLAYFS: u64 = 0x794c_7630;
/// See [`OVERLAYFS`].
const TMPFS: u64 = 0x0102_1994;
/// See [`OVERLAYFS`]. FAT has one time for change and modification, which its user can set; exFAT is its kin.
const FAT: u64 = 0x4d44;
/// See [`FAT`].
const EXFAT: u64 = 0x2011_bab0;

/// How a file gets to be code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Program,
    Mapping,
}

/// Every file of an `execve`: the program, and if that is a script, its interpreter (`exec_binprm`, fs/exec.c,
/// 6.12). The loader that an ELF file names is mapped and comes to [`map`].
#[inline(always)]
pub(crate) fn program(bprm: Bprm) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    decide(&subject, bprm.file(), Use::Program)
}

#[inline(always)]
fn is_shared(flags: u64) -> bool {
    const MAP_TYPE: u64 = 0xf;
    const MAP_PRIVATE: u64 = 2;
    flags & MAP_TYPE != MAP_PRIVATE
}

/// Nearly all mappings are for data, and not worth a lookup.
#[inline(always)]
pub(crate) fn may_matter(protection: u64, flags: u64) -> bool {
    protection & PROT_EXEC != 0 || is_shared(flags)
}

/// The protection of a mapping, where only what was asked for is known. The kernel makes it no code on a mount that
/// allows none (`mmap_prot`, security/security.c, 6.12); here it is code there, too.
#[inline(always)]
pub(crate) fn implied(protection: u64) -> u64 {
    const PROT_READ: u64 = 1; // include/uapi/asm-generic/mman-common.h, 6.12
    if protection & (PROT_READ | PROT_EXEC) == PROT_READ && Task::current().executes_what_it_reads()
    {
        protection | PROT_EXEC
    } else {
        protection
    }
}

/// `mmap(2)` of a file that [`may_matter`].
#[inline(always)]
pub(crate) fn map(file: File, protection: u64, flags: u64) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if is_shared(flags) && !remember_writer(&subject, file) {
        return Answer::NoMemory;
    }
    if protection & PROT_EXEC == 0 {
        return Answer::Allow;
    }
    decide(&subject, file, Use::Mapping)
}

/// `mprotect(2)` of what was mapped as data.
#[inline(always)]
pub(crate) fn protect(area: MemoryArea, protection: u64) -> Answer {
    if protection & PROT_EXEC == 0 || area.is_executable() {
        return Answer::Allow;
    }
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let file = area.file();
    if file.is_null() {
        return Answer::Allow;
    }
    decide(&subject, file, Use::Mapping)
}

#[inline(always)]
fn decide(subject: &Subject, file: File, used: Use) -> Answer {
    if !subject.wants(PolicyFlags::CODE) {
        return Answer::Allow;
    }
    let at = file.location();
    let is_internal = matches!(mount_owner(at.mount), MountOwner::Internal);
    if is_internal && used == Use::Mapping && is_memory(at.dentry) {
        return Answer::Allow;
    }
    let inode = file.inode();
    if is_of_layer(at, inode, is_internal) {
        return layer(subject, at);
    }
    if subject.wants(PolicyFlags::FILELESS) && (is_internal || inode.is_unlinked()) {
        let answer = subject.deny(Operation::Fileless, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    if subject.wants(PolicyFlags::DRIFT) && has_drifted(subject, inode) {
        let answer = subject.deny(Operation::Drift, Object::At(at));
        if answer != Answer::Allow {
            return answer;
        }
    }
    if subject.wants(PolicyFlags::EXEC) && !is_internal {
        return rules(subject, at);
    }
    Answer::Allow
}

/// Behind a mapping of overlayfs lies the file of a layer (`ovl_mmap`, 6.1; `backing_file_mmap`, 6.12): with a mount
/// of the kernel's own, or with the overlay's path and the layer's inode. Neither tells what was mapped.
#[inline(always)]
fn is_of_layer(at: Location, inode: Inode, is_internal: bool) -> bool {
    superblock_of(at.dentry) != Some(inode.superblock())
        || (is_internal && Step::parent(at.dentry) != Some(at.dentry))
}

/// Data of such a file that is made code. Loaders map code as what it is.
#[inline(always)]
fn layer(subject: &Subject, at: Location) -> Answer {
    if subject.wants(PolicyFlags::DRIFT) {
        return subject.deny(Operation::Drift, Object::At(at));
    }
    if subject.wants(PolicyFlags::EXEC) {
        return subject.deny(Operation::Exec, Object::At(at));
    }
    Answer::Allow
}

#[inline(always)]
fn rules(subject: &Subject, at: Location) -> Answer {
    let seen = View::of(at, subject.label, subject.rules | EXEC_RULES);
    if !seen.has_path() {
        return subject.deny(Operation::Exec, Object::Number(0));
    }
    if seen.verdict() != PathVerdict::Allow as u32 {
        return subject.deny(Operation::Exec, Object::At(at));
    }
    Answer::Allow
}

/// A rename or a link from one place to another. What rules deny to execute may get another name only where that is
/// denied, too, and a directory above it keeps its name.
#[inline(always)]
pub(crate) fn moved(subject: &Subject, from: Location, to: Location) -> Answer {
    if !subject.wants(PolicyFlags::EXEC) {
        return Answer::Allow;
    }
    let rules = subject.rules | EXEC_RULES;
    let seen = View::of(from, subject.label, rules);
    let is_kept = seen.has_path()
        && seen.below() & PathsBelow::DENIED == 0
        && (seen.verdict() != PathVerdict::Deny as u32 || is_denied(subject, to, rules));
    if is_kept { Answer::Allow } else { subject.deny(Operation::Rename, Object::At(from)) }
}

#[inline(always)]
fn is_denied(subject: &Subject, at: Location, rules: u32) -> bool {
    let seen = View::of(at, subject.label, rules);
    seen.has_path() && seen.verdict() == PathVerdict::Deny as u32
}

/// Memory that the kernel keeps in a file of its own, though nobody has a descriptor of it: shared between
/// processes (`shmem_zero_setup`, mm/shmem.c) or of huge pages (`ksys_mmap_pgoff`, mm/mmap.c, 6.12).
#[inline(always)]
fn is_memory(dentry: u64) -> bool {
    const SHARED: u64 = u64::from_le_bytes(*b"dev/zero");
    const HUGE: u64 = u64::from_le_bytes(*b"anon_hug");
    let Some((name, _)) = Step::name(dentry) else {
        return false;
    };
    matches!(read::<u64>(name), Some(SHARED | HUGE))
}

/// Whether a file did not come with the container's image.
///
/// What overlayfs says of the root file system is exact, and holds over restarts. Elsewhere a file counts by the
/// time of its last change, which no container can set.
#[inline(always)]
fn has_drifted(subject: &Subject, inode: Inode) -> bool {
    let magic = inode.magic();
    if magic == OVERLAYFS && superblock_of(subject.label.root_dentry) == Some(inode.superblock()) {
        return inode.is_in_upper_layer();
    }
    if magic == FAT || magic == EXFAT || is_written(inode) {
        return true;
    }
    changed_since_start(subject, inode)
}

#[inline(always)]
fn changed_since_start(subject: &Subject, inode: Inode) -> bool {
    // Times of files are those of the last tick, and there are a hundred a second at least.
    const TICK_NS: i64 = 10_000_000;
    let started = container::started(subject.label.container);
    inode.changed() >= started.saturating_sub(TICK_NS)
}

/// tmpfs notices no writes to shared memory, so that they do not change a file's times. Whether it is noted.
#[inline(always)]
fn remember_writer(subject: &Subject, file: File) -> bool {
    if !subject.wants(PolicyFlags::DRIFT) || !file.is_writable() {
        return true;
    }
    let inode = file.inode();
    inode.magic() != TMPFS || DRIFTED.insert(&inode.key(), &0, 0).is_ok()
}

/// Whether a contained task has mapped it for writing.
#[inline(always)]
fn is_written(inode: Inode) -> bool {
    // SAFETY: nothing in the value is looked at.
    unsafe { DRIFTED.get(&inode.key()) }.is_some()
}

/// A file of tmpfs goes, and its number may come back. Its inode stays in memory until then.
#[inline(always)]
pub(crate) fn evict(inode: Inode) {
    // Of most files nothing is remembered.
    let _ = DRIFTED.remove(&inode.key());
}
