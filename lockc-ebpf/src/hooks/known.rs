//! Files of the host that no container changes: OCI runtimes, and lockc's own.

use aya_ebpf::maps::lpm_trie::Key;
use lockc_common::{InodeKey, KnownFile, NAME_LEN, NameEnd, Operation, PolicyFlags, RuntimeName};

use crate::{
    Answer,
    container::Subject,
    kernel::{Dentry, File, Inode, Location, Step, dentry_key_at, read_name},
    maps::{KNOWN_FILES, RUNTIME_NAMES},
    report::Object,
};

#[inline(always)]
fn kind_of(key: InodeKey) -> Option<u64> {
    // SAFETY: the value is copied at once.
    unsafe { KNOWN_FILES.get(&key) }.map(|known| known.kind())
}

/// Whether the file is one of those.
#[inline(always)]
pub(crate) fn is_known(inode: Inode) -> bool {
    kind_of(inode.key()).is_some()
}

/// What is changed, and the directory it is in. Read one after the other: of two options at once, LLVM leaves a register
/// without a value on one way, and the verifier refuses what it makes of that.
pub(crate) trait Entry: Copy {
    fn own(self) -> Option<InodeKey>;
    fn directory(self) -> Option<InodeKey>;
}

impl Entry for Dentry {
    #[inline(always)]
    fn own(self) -> Option<InodeKey> {
        self.inode()
    }

    #[inline(always)]
    fn directory(self) -> Option<InodeKey> {
        self.parent().inode()
    }
}

/// The dentry at an address.
impl Entry for u64 {
    #[inline(always)]
    fn own(self) -> Option<InodeKey> {
        dentry_key_at(self)
    }

    #[inline(always)]
    fn directory(self) -> Option<InodeKey> {
        Step::parent(self).and_then(dentry_key_at)
    }
}

/// What a change is, if it is one of a runtime binary, or of lockc's: a file, a directory, or what is in one. With `moves`,
/// a directory above those as well.
#[inline(always)]
fn violation(entry: impl Entry, moves: bool) -> Option<Operation> {
    match entry.own().and_then(kind_of) {
        Some(KnownFile::RUNTIME) => return Some(Operation::RuntimeFile),
        Some(kind) if kind == KnownFile::OWN || moves => return Some(Operation::OwnFile),
        _ => {}
    }
    // A directory is known before what is in it: a file may be newer than the last scan.
    (entry.directory().and_then(kind_of) == Some(KnownFile::OWN)).then_some(Operation::OwnFile)
}

/// Denies a change of what is at `at`; with `moves`, one of its name.
#[inline(always)]
pub(crate) fn keep(subject: &Subject, entry: impl Entry, at: Location, moves: bool) -> Answer {
    if !subject.wants(PolicyFlags::RUNTIME_FILES) {
        return Answer::Allow;
    }
    match violation(entry, moves) {
        Some(operation) => subject.deny(operation, Object::At(at)),
        None => Answer::Allow,
    }
}

/// As [`keep`], where it is not known through which mount.
#[inline(always)]
pub(crate) fn keep_inode(subject: &Subject, dentry: u64) -> Answer {
    if !subject.wants(PolicyFlags::RUNTIME_FILES) {
        return Answer::Allow;
    }
    match violation(dentry, false) {
        Some(operation) => subject.deny(operation, Object::Number(0)),
        None => Answer::Allow,
    }
}

/// The safe default: a runtime is known by its file, or by its name if the file is newer than the daemon's last scan,
/// or the daemon is not there.
#[inline(always)]
pub(crate) fn is_runtime(file: File) -> bool {
    if kind_of(file.inode().key()) == Some(KnownFile::RUNTIME) {
        return true;
    }
    Step::name(file.location().dentry).is_some_and(|(address, len)| is_runtime_name(address, len))
}

#[inline(always)]
fn is_runtime_name(address: u64, len: u32) -> bool {
    let Some(mut name) = read_name::<NAME_LEN>(address, len.min(NAME_LEN as u32 - 1)) else {
        return false;
    };
    if len as usize >= NAME_LEN {
        // No name that stands for itself, and none has this byte.
        name[NAME_LEN - 1] = b'/';
    }
    let Some(end) = RUNTIME_NAMES.get(Key::new(8 * NAME_LEN as u32, RuntimeName { name })) else {
        return false;
    };
    ends_with(address, len, end)
}

#[inline(always)]
fn ends_with(address: u64, len: u32, end: &NameEnd) -> bool {
    if end.len == 0 {
        return true;
    }
    let Some(begin) = len.checked_sub(end.len) else {
        return false;
    };
    if begin < end.begin {
        return false;
    }
    let Some(found) = read_name::<NAME_LEN>(address + u64::from(begin), end.len) else {
        return false;
    };
    let mut differs = 0;
    for (found, wanted) in found.iter().zip(&end.end) {
        differs |= found ^ wanted;
    }
    differs == 0
}
