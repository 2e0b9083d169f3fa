//! What a task carries: its label in task-local storage.

/// Where a labelled task stands between its runtime and its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum State {
    /// Registered, but its `execve` has not reached the programs yet. Treated as unlabelled.
    Pending = 0,
    /// The OCI runtime and its host-side hooks: tracked, not restricted.
    Runtime = 1,
    /// Container code: every hook applies. Never left again.
    Contained = 2,
}

/// Bits of [`Label::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct LabelFlags(pub u32);

impl LabelFlags {
    /// The task changed its root (`pivot_root`, `chroot`) while it was a runtime task, so its next
    /// `execve` runs container code even when the mount namespace says nothing.
    pub const ENTERED: u32 = 1;
    /// The bundle has `createContainer` hooks: an `execve` in the container's mount namespace
    /// before the root changes may be one of them.
    pub const HOOKS: u32 = 1 << 1;
    /// The runtime may execute CRIU (checkpoint, or a policy that allows restore).
    pub const CRIU: u32 = 1 << 2;
    /// Nobody registered this runtime; the kernel side recognised it.
    pub const UNREGISTERED: u32 = 1 << 3;
    /// The task ran before lockc.
    pub const ADOPTED: u32 = 1 << 4;
}

/// No user has this id (`INVALID_UID`, include/linux/uidgid.h, 6.12).
pub const NO_USER: u32 = u32::MAX;

/// A file that a task was given as standard input, output or error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stdio {
    /// Inode number; 0 when the descriptor was closed or a directory.
    pub ino: u64,
    /// `s_dev` of the superblock, in the kernel's encoding.
    pub dev: u32,
    /// `FMODE_READ` and `FMODE_WRITE` bits it was opened with.
    pub mode: u32,
}

/// The value of the `LABELS` task storage.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Label {
    /// Handle of the container record; see [`crate::UNATTRIBUTED`].
    pub container: u64,
    /// A [`State`].
    pub state: u32,
    /// [`LabelFlags`].
    pub flags: u32,
    /// Sequence number of the mount namespace in which the runtime was executed.
    pub home_ns: u64,
    /// Sequence number of the container's mount namespace, once contained.
    pub ns: u64,
    /// Address of the `struct vfsmount` of the container's root, once contained. Compared, never
    /// dereferenced.
    pub root_mnt: u64,
    /// Address of the `struct dentry` of the container's root, once contained. Compared only.
    pub root_dentry: u64,
    /// What the runtime passed as descriptors 0, 1 and 2.
    pub stdio: [Stdio; 3],
    /// Address of the `struct vfsmount` that the task is changing something on; 0 for none. Compared, and read for
    /// the path of what is changed.
    pub written_mnt: u64,
    /// The machine's number of the user that is 0 in the container's user namespace, once contained;
    /// [`NO_USER`] when there is none.
    pub root_uid: u32,
    /// How deep the container's user namespace is nested, once contained: 0 is the machine's.
    pub user_level: u32,
}

/// Identity of an inode, captured by the kernel side so that it is right on every file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InodeKey {
    /// Inode number.
    pub ino: u64,
    /// `s_dev` of the superblock, in the kernel's encoding.
    pub dev: u32,
    /// `i_generation`: tells a reused inode number from the old one.
    pub generation: u32,
}
