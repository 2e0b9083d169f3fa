//! Mounts, the namespaces they belong to, and where in them something is.

use super::{
    Dentry, FIRST_ERROR_POINTER, MNT_UMOUNT, OFF_DENTRY_FLAGS, OFF_DENTRY_NAME,
    OFF_DENTRY_NAME_LEN, OFF_DENTRY_PARENT, OFF_DENTRY_SB, OFF_MOUNT_MNT, OFF_MOUNT_MOUNTPOINT,
    OFF_MOUNT_NS, OFF_MOUNT_PARENT, OFF_PATH_DENTRY, OFF_PATH_MNT, OFF_VFSMOUNT_FLAGS,
    OFF_VFSMOUNT_ROOT, OFF_VFSMOUNT_SB, Path, load, opaque, read,
};

/// A mount (address of its `struct vfsmount`) and a dentry, by address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) mount: u64,
    pub(crate) dentry: u64,
}

/// To which namespace a mount belongs.
#[derive(Clone, Copy)]
pub(crate) enum MountOwner {
    /// None: the kernel's own (pipes, memfd, layers of an overlay).
    Internal,
    /// None any more: it was unmounted lazily and lives on through open files.
    Detached,
    Namespace(u64),
    Unreadable,
}

/// Owner of the mount whose `struct vfsmount` is at `vfsmount`.
#[inline(always)]
pub(crate) fn mount_owner(vfsmount: u64) -> MountOwner {
    let mount = vfsmount.wrapping_sub(OFF_MOUNT_MNT.load());
    let Some(namespace) = read::<u64>(mount + OFF_MOUNT_NS.load()) else {
        return MountOwner::Unreadable;
    };
    if namespace >= FIRST_ERROR_POINTER {
        return MountOwner::Internal; // MNT_NS_INTERNAL, fs/mount.h
    }
    if namespace != 0 {
        return MountOwner::Namespace(namespace);
    }
    match read::<u32>(vfsmount + OFF_VFSMOUNT_FLAGS.load()) {
        Some(flags) if flags & MNT_UMOUNT == 0 => MountOwner::Internal,
        Some(_) => MountOwner::Detached,
        None => MountOwner::Unreadable,
    }
}

/// One step of a walk towards the root; see `path::build`.
pub(crate) struct Step;

impl Step {
    #[inline(always)]
    pub(crate) fn mount_root(vfsmount: u64) -> Option<u64> {
        read(vfsmount + OFF_VFSMOUNT_ROOT.load())
    }

    /// `struct vfsmount` of the mount that `vfsmount` is mounted on; itself at the top.
    #[inline(always)]
    pub(crate) fn parent_mount(vfsmount: u64) -> Option<u64> {
        let mount = vfsmount.wrapping_sub(OFF_MOUNT_MNT.load());
        let parent: u64 = read(mount + OFF_MOUNT_PARENT.load())?;
        Some(parent + OFF_MOUNT_MNT.load())
    }

    #[inline(always)]
    pub(crate) fn mountpoint(vfsmount: u64) -> Option<u64> {
        read(vfsmount.wrapping_sub(OFF_MOUNT_MNT.load()) + OFF_MOUNT_MOUNTPOINT.load())
    }

    #[inline(always)]
    pub(crate) fn parent(dentry: u64) -> Option<u64> {
        read(dentry + OFF_DENTRY_PARENT.load())
    }

    /// Whether a dentry without a parent is the top of its file system, or of a part that is mounted alone (NFS), and
    /// not a handle whose parents are not in the cache. `None` if it cannot be read.
    #[inline(always)]
    pub(crate) fn is_top(dentry: u64) -> Option<bool> {
        const DCACHE_DISCONNECTED: u32 = 1 << 5; // include/linux/dcache.h, 6.1 to 7.0
        let flags: u32 = read(dentry + OFF_DENTRY_FLAGS.load())?;
        Some(flags & DCACHE_DISCONNECTED == 0)
    }

    /// Address and length of the dentry's name.
    #[inline(always)]
    pub(crate) fn name(dentry: u64) -> Option<(u64, u32)> {
        Some((read(dentry + OFF_DENTRY_NAME.load())?, Self::name_len(dentry)?))
    }

    #[inline(always)]
    pub(crate) fn name_len(dentry: u64) -> Option<u32> {
        read(dentry + OFF_DENTRY_NAME_LEN.load())
    }

    /// The dentry's parent, and the address and length of its name. One read, where the kernel has them side by side, as
    /// 6.1 to 7.0 have (`struct dentry`): a walk to the root consists of little else.
    #[inline(always)]
    pub(crate) fn entry(dentry: u64) -> Option<(u64, u64, u32)> {
        let first = OFF_DENTRY_PARENT.load();
        if OFF_DENTRY_NAME.load() == first + 16 && OFF_DENTRY_NAME_LEN.load() == first + 12 {
            let [parent, hash_and_len, name]: [u64; 3] = read(dentry + first)?;
            return Some((parent, name, (hash_and_len >> u32::BITS) as u32));
        }
        let (name, len) = Self::name(dentry)?;
        Some((Self::parent(dentry)?, name, len))
    }
}

/// Whether the mount whose `struct vfsmount` is at `mount` shows the file system of the dentry at `dentry`. `true`
/// when it cannot be read: then there is no path either.
#[inline(always)]
pub(crate) fn is_mount_of(mount: u64, dentry: u64) -> bool {
    let shown: u64 = read(mount + OFF_VFSMOUNT_SB.load()).unwrap_or(0);
    let own: u64 = read(dentry + OFF_DENTRY_SB.load()).unwrap_or(0);
    shown == own || shown == 0 || own == 0
}

impl Path {
    #[inline(always)]
    pub(crate) fn dentry(self) -> Dentry {
        Dentry(load(self.0, &OFF_PATH_DENTRY))
    }

    /// Address of its `struct vfsmount`, and of the dentry that is the root of that.
    #[inline(always)]
    pub(crate) fn mount(self) -> (u64, u64) {
        let mount: *const u8 = load(self.0, &OFF_PATH_MNT);
        (opaque(mount as u64), opaque(load(mount, &OFF_VFSMOUNT_ROOT)))
    }

    #[inline(always)]
    pub(crate) fn location(self) -> Location {
        Location {
            mount: opaque(load(self.0, &OFF_PATH_MNT)),
            dentry: opaque(load(self.0, &OFF_PATH_DENTRY)),
        }
    }
}
