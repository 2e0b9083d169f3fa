//! Inodes, by type and by address.

use lockc_common::InodeKey;

use super::{
    Inode, OFF_DENTRY_INODE, OFF_DENTRY_SB, OFF_FILE_INODE, OFF_FILE_MODE, OFF_INODE_CTIME_NSEC,
    OFF_INODE_CTIME_SEC, OFF_INODE_END, OFF_INODE_FLAGS, OFF_INODE_GENERATION, OFF_INODE_INO,
    OFF_INODE_MODE, OFF_INODE_NLINK, OFF_INODE_RDEV, OFF_INODE_SB, OFF_SB_DEV, OFF_SB_MAGIC,
    S_IFBLK, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG, Task, file_address, load, opaque, read,
};

impl Inode {
    #[inline(always)]
    pub(crate) fn key(self) -> InodeKey {
        let sb: *const u8 = load(self.0, &OFF_INODE_SB);
        InodeKey {
            ino: load(self.0, &OFF_INODE_INO),
            dev: load(sb, &OFF_SB_DEV),
            generation: load(self.0, &OFF_INODE_GENERATION),
        }
    }

    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        opaque(self.0 as u64)
    }

    /// Inode number.
    #[inline(always)]
    pub(crate) fn number(self) -> u64 {
        load(self.0, &OFF_INODE_INO)
    }

    /// Whether a directory has been removed, which its last users may still have.
    #[inline(always)]
    pub(crate) fn is_removed(self) -> bool {
        const S_DEAD: u32 = 1 << 4; // include/linux/fs.h, 6.1 to 7.0
        load::<u32>(self.0, &OFF_INODE_FLAGS) & S_DEAD != 0
    }

    /// Whether it is a regular file or a directory.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        let mode: u16 = load(self.0, &OFF_INODE_MODE);
        mode & S_IFMT == S_IFREG || mode & S_IFMT == S_IFDIR
    }

    /// Whether no directory has it: deleted, or never named.
    #[inline(always)]
    pub(crate) fn is_unlinked(self) -> bool {
        load::<u32>(self.0, &OFF_INODE_NLINK) == 0
    }

    /// When its content or anything about it was last changed, in ns of the machine's time of day. No user can set it.
    #[inline(always)]
    pub(crate) fn changed(self) -> i64 {
        // Since 6.13 the highest bit says whether somebody has asked for the time.
        const NANOSECONDS: u32 = u32::MAX >> 1;
        let seconds: i64 = load(self.0, &OFF_INODE_CTIME_SEC);
        let rest: u32 = load(self.0, &OFF_INODE_CTIME_NSEC);
        seconds.wrapping_mul(1_000_000_000).wrapping_add(i64::from(rest & NANOSECONDS))
    }

    /// Address of its superblock.
    #[inline(always)]
    pub(crate) fn superblock(self) -> u64 {
        load(self.0, &OFF_INODE_SB)
    }

    /// Whether an inode of overlayfs is, with its content or without, in the writable layer: `__upperdentry`
    /// follows the inode in `struct ovl_inode` (`fs/overlayfs/ovl_entry.h`, 4.13 to 7.0), which a module may define.
    /// In doubt it is.
    #[inline(always)]
    pub(crate) fn is_in_upper_layer(self) -> bool {
        read::<u64>(self.0 as u64 + OFF_INODE_END.load()) != Some(0)
    }

    /// Magic number of its file system.
    #[inline(always)]
    pub(crate) fn magic(self) -> u64 {
        let sb: *const u8 = load(self.0, &OFF_INODE_SB);
        load(sb, &OFF_SB_MAGIC)
    }

    #[inline(always)]
    pub(crate) fn is_block_device(self) -> bool {
        is_block_device(load(self.0, &OFF_INODE_MODE))
    }

    #[inline(always)]
    pub(crate) fn is_directory(self) -> bool {
        let mode: u16 = load(self.0, &OFF_INODE_MODE);
        mode & S_IFMT == S_IFDIR
    }

    /// Device number when the inode is a character device.
    #[inline(always)]
    pub(crate) fn char_device(self) -> Option<u32> {
        let mode: u16 = load(self.0, &OFF_INODE_MODE);
        (mode & S_IFMT == S_IFCHR).then(|| load(self.0, &OFF_INODE_RDEV))
    }
}

/// Whether a mode (`st_mode`) is that of a block device.
#[inline(always)]
pub(crate) fn is_block_device(mode: u16) -> bool {
    mode & S_IFMT == S_IFBLK
}

/// Whether a mode is that of a character device.
#[inline(always)]
pub(crate) fn is_char_device(mode: u16) -> bool {
    mode & S_IFMT == S_IFCHR
}

/// An open file reached by address: what can be said of it without types.
#[derive(Clone, Copy)]
pub(crate) struct OpenFile {
    pub(crate) key: InodeKey,
    pub(crate) mode: u32,
    pub(crate) is_directory: bool,
}

/// Reads the file at `file`, an address from [`Task::file_address`].
#[inline(always)]
pub(crate) fn open_file(file: u64) -> Option<OpenFile> {
    let inode: u64 = read(file + OFF_FILE_INODE.load())?;
    let key = inode_key_at(inode)?;
    let kind: u16 = read(inode + OFF_INODE_MODE.load())?;
    Some(OpenFile {
        key,
        mode: read(file + OFF_FILE_MODE.load())?,
        is_directory: kind & S_IFMT == S_IFDIR,
    })
}

/// Identity of the inode behind descriptor `fd` of the current task.
#[inline(always)]
pub(crate) fn inode_of_fd(fd: u32) -> Option<InodeKey> {
    let file = file_address(Task::current().files(), fd)?;
    inode_key_at(read(file + OFF_FILE_INODE.load())?)
}

/// Address of the superblock of the dentry at `dentry`.
#[inline(always)]
pub(crate) fn superblock_of(dentry: u64) -> Option<u64> {
    read(dentry + OFF_DENTRY_SB.load())
}

/// Magic number of the dentry's file system; 0 if it cannot be read, when there is no path either.
#[inline(always)]
pub(crate) fn magic_of(dentry: u64) -> u64 {
    superblock_of(dentry).and_then(|superblock| read(superblock + OFF_SB_MAGIC.load())).unwrap_or(0)
}

/// Number of the device of the dentry's file system.
#[inline(always)]
pub(crate) fn device_of(dentry: u64) -> Option<u32> {
    read(superblock_of(dentry)? + OFF_SB_DEV.load())
}

/// Identity of the inode of the dentry at `dentry`.
#[inline(always)]
pub(crate) fn dentry_key_at(dentry: u64) -> Option<InodeKey> {
    let inode: u64 = read(dentry + OFF_DENTRY_INODE.load())?;
    if inode == 0 { None } else { inode_key_at(inode) }
}

#[inline(always)]
fn inode_key_at(inode: u64) -> Option<InodeKey> {
    let sb: u64 = read(inode + OFF_INODE_SB.load())?;
    Some(InodeKey {
        ino: read(inode + OFF_INODE_INO.load())?,
        dev: read(sb + OFF_SB_DEV.load())?,
        generation: read(inode + OFF_INODE_GENERATION.load())?,
    })
}
