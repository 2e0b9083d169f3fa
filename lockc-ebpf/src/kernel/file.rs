//! Open files, and names in directories.

use lockc_common::InodeKey;

use super::{
    Dentry, FMODE_WRITE, File, Inode, Location, MemoryArea, Name, OFF_DENTRY_HASH,
    OFF_DENTRY_INODE, OFF_DENTRY_PARENT, OFF_FILE_FLAGS, OFF_FILE_INODE, OFF_FILE_MODE,
    OFF_FILE_PATH, OFF_IATTR_VALID, OFF_PATH_DENTRY, OFF_PATH_MNT, OFF_QSTR_NAME, OFF_VMA_FILE,
    OFF_VMA_FLAGS, Path, load, opaque, read,
};

/// `ia_valid` of the `struct iattr` at `attributes`: what is to be changed.
#[inline(always)]
pub(crate) fn changed_attributes(attributes: u64) -> u32 {
    read(attributes + OFF_IATTR_VALID.load()).unwrap_or(u32::MAX)
}

impl Name {
    /// Its first eight bytes: names have at least as many, with what follows them. `None` if they cannot be read.
    #[inline(always)]
    pub(crate) fn start(self) -> Option<u64> {
        read(load(self.0, &OFF_QSTR_NAME))
    }
}

impl File {
    #[inline(always)]
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    #[inline(always)]
    pub(crate) fn location(self) -> Location {
        let path = OFF_FILE_PATH.load();
        // SAFETY: typed loads, checked by the verifier.
        let mount = unsafe {
            self.0.add((path + OFF_PATH_MNT.load()) as usize).cast::<u64>().read_volatile()
        };
        // SAFETY: as above.
        let dentry = unsafe {
            self.0.add((path + OFF_PATH_DENTRY.load()) as usize).cast::<u64>().read_volatile()
        };
        Location { mount: opaque(mount), dentry: opaque(dentry) }
    }

    #[inline(always)]
    pub(crate) fn inode(self) -> Inode {
        Inode(load(self.0, &OFF_FILE_INODE))
    }

    /// The path in it: the verifier knows it by where it is in the file.
    #[inline(always)]
    pub(crate) fn path(self) -> Path {
        // SAFETY: what is read there is checked by the verifier.
        Path(unsafe { self.0.add(OFF_FILE_PATH.load() as usize) })
    }

    #[inline(always)]
    pub(crate) fn dentry(self) -> Dentry {
        self.path().dentry()
    }

    /// Whether it was opened for writing.
    #[inline(always)]
    pub(crate) fn is_writable(self) -> bool {
        load::<u32>(self.0, &OFF_FILE_MODE) & FMODE_WRITE != 0
    }

    /// `FMODE_` bits. An open with `O_TRUNC` writes, whatever it says of itself: the flag is there until the open
    /// has succeeded (`do_dentry_open`, fs/open.c, 6.12).
    #[inline(always)]
    pub(crate) fn mode(self) -> u32 {
        const O_TRUNC: u32 = 0o1000; // include/uapi/asm-generic/fcntl.h, 6.12
        let mode: u32 = load(self.0, &OFF_FILE_MODE);
        let flags: u32 = load(self.0, &OFF_FILE_FLAGS);
        if flags & O_TRUNC == 0 { mode } else { mode | FMODE_WRITE }
    }
}

impl MemoryArea {
    /// The file that is mapped there; null for none.
    #[inline(always)]
    pub(crate) fn file(self) -> File {
        File(load(self.0, &OFF_VMA_FILE))
    }

    /// Whether what is there may be executed already.
    #[inline(always)]
    pub(crate) fn is_executable(self) -> bool {
        const VM_EXEC: u64 = 4; // include/linux/mm.h, 6.12
        load::<u64>(self.0, &OFF_VMA_FLAGS) & VM_EXEC != 0
    }
}

impl Dentry {
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        opaque(self.0 as u64)
    }

    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Self(load(self.0, &OFF_DENTRY_PARENT))
    }

    /// Whether its directory has the name: not after it was removed, nor before a file without one gets it (`d_unhashed`,
    /// include/linux/dcache.h, 6.1 to 7.0).
    #[inline(always)]
    pub(crate) fn is_listed(self) -> bool {
        load::<u64>(self.0, &OFF_DENTRY_HASH) != 0
    }

    /// Its inode; `None` for a negative dentry. Checked twice. The verifier of 7.0 knows that there may be none, and wants to
    /// see a check. That of 6.12 believes that there always is one (`BTF_TYPE_SAFE_TRUSTED(struct dentry)`,
    /// kernel/bpf/verifier.c), removes such a check, and reads without one of its own: so it is not told what the second
    /// one is about.
    #[inline(always)]
    pub(crate) fn node(self) -> Option<Inode> {
        let inode: *const u8 = load(self.0, &OFF_DENTRY_INODE);
        if inode.is_null() || opaque(inode as u64) == 0 { None } else { Some(Inode(inode)) }
    }

    #[inline(always)]
    pub(crate) fn is_negative(self) -> bool {
        self.node().is_none()
    }

    #[inline(always)]
    pub(crate) fn is_directory(self) -> bool {
        self.node().is_some_and(Inode::is_directory)
    }

    /// Identity of the inode; `None` for a negative dentry.
    #[inline(always)]
    pub(crate) fn inode(self) -> Option<InodeKey> {
        if self.0.is_null() { None } else { self.node().map(Inode::key) }
    }
}
