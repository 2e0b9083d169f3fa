//! Directories of which an answer is remembered, so that what lies in one is opened without building its path.
//!
//! An entry says that no rule is about the directory or about anything below it, and what the rules above it allow. It
//! counts for the same directory, seen through the same mount, by the same container, until something happens that could
//! change the answer. That is told by three numbers which only grow, and which were read before the answer was found:
//!
//! * the kernel's `rename_lock` (fs/dcache.c, 6.1 to 7.0): no directory has moved;
//! * its `mount_lock` (fs/namespace.c): nothing was mounted, unmounted or moved, so that addresses of mounts and
//!   superblocks are still those of the same ones;
//! * [`EPOCH`]: no policy has changed, and no directory was removed, so that inode numbers are still those of the same.
//!
//! Only what is allowed is remembered, and only of file systems on which nothing moves but by a rename on this machine.
//! The dentry that is opened leads to its directory anew each time: links, and files that are moved, have no say.

use aya_ebpf::{Global, helpers::generated::bpf_jiffies64};
use lockc_common::Label;

use crate::{
    atomic,
    kernel::{Dentry, File, Inode, Path, Task, read},
    maps::{EPOCH, MEMO},
};

/// Address of the kernel's `rename_lock`; 0 if it is not known, and then nothing is remembered.
#[unsafe(no_mangle)]
static RENAME_LOCK: Global<u64> = Global::new(0);

/// Address of its `mount_lock`.
#[unsafe(no_mangle)]
static MOUNT_LOCK: Global<u64> = Global::new(0);

/// Entries on each CPU, a power of two.
pub(crate) const ENTRIES: u32 = 512;

/// What is in the directory may be opened for reading.
pub(crate) const READ: u64 = 1;
/// It may be opened for writing, too, but for files of the host's that are known one by one.
pub(crate) const WRITE: u64 = 1 << 1;
/// Entries may be made, removed and renamed there, and their attributes changed, but for such files.
pub(crate) const CHANGE: u64 = 1 << 2;
/// All of these.
pub(crate) const EVERYTHING: u64 = READ | WRITE | CHANGE;

/// One directory. Of the CPU that it is on: another program there can only come between, not beside.
#[repr(C)]
pub(crate) struct Entry {
    /// 1 while it is written.
    busy: u64,
    /// Odd while it is written: who began to read before has to notice.
    version: u64,
    moves: u64,
    epoch: u64,
    directory: u64,
    number: u64,
    superblock: u64,
    mount: u64,
    container: u64,
    root_mnt: u64,
    root_dentry: u64,
    ns: u64,
    rights: u64,
}

/// What is to be known of a directory, with the numbers as they were before.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    label: &'static Label,
    name: Dentry,
    directory: Inode,
    mount: u64,
    moves: u64,
    epoch: u64,
}

impl Question {
    /// About the directory in which a file is opened. None where it does not decide: for the root of a mount and of the
    /// container, for devices and their kin, and for what the task sees with another mount namespace than its own.
    #[inline(always)]
    pub(crate) fn of(file: File, label: &'static Label) -> Option<Self> {
        let question = Self::of_name(file.path(), file.dentry(), label)?;
        let inode = file.inode();
        (inode.is_plain() && inode.superblock() == question.directory.superblock())
            .then_some(question)
    }

    /// About the directory in which `dentry` is a name, on the mount of `path`.
    #[inline(always)]
    pub(crate) fn of_name(path: Path, dentry: Dentry, label: &'static Label) -> Option<Self> {
        if RENAME_LOCK.load() == 0 {
            return None;
        }
        let (mount, root) = path.mount();
        let parent = dentry.parent();
        let address = dentry.address();
        if address == root || address == label.root_dentry || address == parent.address() {
            return None;
        }
        let directory = parent.node()?;
        if Task::current().mount_namespace().seq != label.ns {
            return None;
        }
        // Before anything that the answer depends on.
        let renames: u32 = read(RENAME_LOCK.load())?;
        let mounts: u32 = read(MOUNT_LOCK.load())?;
        let moves = u64::from(renames) << u32::BITS | u64::from(mounts);
        Some(Self { label, name: dentry, directory, mount, moves, epoch: epoch()? })
    }

    #[inline(always)]
    pub(crate) fn directory(&self) -> Inode {
        self.directory
    }

    #[inline(always)]
    fn entry(&self) -> Option<*mut Entry> {
        // Multiplied by 2^64 divided by the golden ratio, so that addresses in a row are spread.
        let mixed = (self.directory.address() ^ self.mount ^ self.label.container << 5)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        MEMO.get_ptr_mut((mixed >> (u64::BITS - ENTRIES.ilog2())) as u32)
    }

    /// Whether it is remembered that all of `wanted` is allowed.
    #[inline(always)]
    pub(crate) fn allows(&self, wanted: u64) -> bool {
        let Some(entry) = self.entry() else {
            return false;
        };
        // SAFETY: a live per-CPU slot. Volatile, as another program can write it at any time.
        let version = unsafe { (&raw const (*entry).version).read_volatile() };
        // SAFETY: as above.
        let is_it = unsafe {
            (&raw const (*entry).directory).read_volatile() == self.directory.address()
                && (&raw const (*entry).moves).read_volatile() == self.moves
                && (&raw const (*entry).epoch).read_volatile() == self.epoch
                && (&raw const (*entry).mount).read_volatile() == self.mount
                && (&raw const (*entry).container).read_volatile() == self.label.container
                && (&raw const (*entry).number).read_volatile() == self.directory.number()
                && (&raw const (*entry).superblock).read_volatile() == self.directory.superblock()
                && (&raw const (*entry).root_mnt).read_volatile() == self.label.root_mnt
                && (&raw const (*entry).root_dentry).read_volatile() == self.label.root_dentry
                && (&raw const (*entry).ns).read_volatile() == self.label.ns
                && (&raw const (*entry).rights).read_volatile() & wanted == wanted
                && (&raw const (*entry).version).read_volatile() == version
        };
        if !is_it || version & 1 != 0 {
            // SAFETY: as above. What the answer depends on is read after the numbers, on arm64 as well: an atomic
            // operation that gives a value is a full barrier (Documentation/atomic_t.txt, 6.12).
            unsafe { atomic::fetch_add(&raw mut (*entry).version, 0) };
            return false;
        }
        true
    }

    /// Remembers that all of `rights` is allowed, unless the directory is on a file system where things move otherwise than
    /// by a rename, or may have been removed. It has not been while it has a name: removing that, and then the directory,
    /// takes its lock, and so does a new name until its hook has answered. `inode_rmdir` makes the numbers grow under that
    /// lock, when the directory is empty.
    #[inline(always)]
    pub(crate) fn learn(&self, rights: u64) {
        // A number is odd while something moves.
        const MOVING: u64 = 1 << u32::BITS | 1;
        if self.moves & MOVING != 0
            || !moves_by_renames_only(self.directory.magic())
            || self.directory.is_removed()
            || (!self.name.is_listed() && self.name.node().is_some())
            // Moved before the numbers were read: then the answer is about another directory.
            || self.name.parent().node().is_none_or(|now| now.address() != self.directory.address())
        {
            return;
        }
        let Some(entry) = self.entry() else {
            return;
        };
        // SAFETY: a live per-CPU slot, which is ours from the first line to the last.
        unsafe {
            if atomic::swap(&raw mut (*entry).busy, 1) != 0 {
                return;
            }
            atomic::fetch_add(&raw mut (*entry).version, 1);
            (&raw mut (*entry).moves).write_volatile(self.moves);
            (&raw mut (*entry).epoch).write_volatile(self.epoch);
            (&raw mut (*entry).directory).write_volatile(self.directory.address());
            (&raw mut (*entry).number).write_volatile(self.directory.number());
            (&raw mut (*entry).superblock).write_volatile(self.directory.superblock());
            (&raw mut (*entry).mount).write_volatile(self.mount);
            (&raw mut (*entry).container).write_volatile(self.label.container);
            (&raw mut (*entry).root_mnt).write_volatile(self.label.root_mnt);
            (&raw mut (*entry).root_dentry).write_volatile(self.label.root_dentry);
            (&raw mut (*entry).ns).write_volatile(self.label.ns);
            (&raw mut (*entry).rights).write_volatile(rights);
            atomic::fetch_add(&raw mut (*entry).version, 1);
            atomic::swap(&raw mut (*entry).busy, 0);
        }
    }
}

/// Whether directories of a file system have another path only after a rename or a mount on this machine, and numbers of
/// their own while they exist. Not so on network file systems and FUSE, where a server moves them; in sysfs, where the
/// kernel does; on btrfs, whose subvolumes number alike.
#[inline(always)]
fn moves_by_renames_only(magic: u64) -> bool {
    // include/uapi/linux/magic.h and fs/xfs/libxfs/xfs_format.h, 6.12.
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const F2FS: u64 = 0xf2f5_2010;
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAYFS: u64 = 0x794c_7630;
    matches!(magic, EXT4 | XFS | F2FS | TMPFS | OVERLAYFS)
}

/// [`EPOCH`], and the minute: the kernel's numbers have 32 bits and begin anew after 2^31 renames, which take longer.
#[inline(always)]
fn epoch() -> Option<u64> {
    const MINUTE: u32 = 14; // 16 s with 1 000 ticks in a second, 164 s with 100
    const MINUTES: u64 = (1 << 24) - 1;
    // SAFETY: no preconditions.
    let ticks = unsafe { bpf_jiffies64() };
    Some(EPOCH.get(0).copied()? << MINUTES.count_ones() | ticks >> MINUTE & MINUTES)
}

/// What was remembered counts no more.
#[inline(always)]
pub(crate) fn forget() {
    if let Some(epoch) = EPOCH.get_ptr_mut(0) {
        // SAFETY: a live map value, aligned to 8 bytes.
        unsafe { atomic::fetch_add(epoch, 1) };
    }
}
