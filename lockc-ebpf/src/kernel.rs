//! The only file that reads kernel structures.
//!
//! Rust emits no CO-RE relocations, so the daemon computes every offset from
//! the running kernel's BTF and passes it as a frozen global: the verifier sees
//! a constant. There are two kinds of reads:
//!
//! * *typed*: a plain load through a pointer that the verifier knows by type (a
//!   hook argument, the current task, and what they lead to). It checks the
//!   offset against the type at load time, so a wrong one is refused.
//! * *untyped*: `bpf_probe_read_kernel` through an address. Needed where the
//!   kernel's own code uses `container_of` or follows arrays and strings; a
//!   wrong offset is *not* noticed there, hence the daemon's golden tables.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_task_btf,
        generated::{bpf_probe_read_kernel, bpf_task_pt_regs},
    },
};
use lockc_common::{
    InodeKey, NO_USER,
    call::Abi,
    engine,
    network::{Target, family},
};

macro_rules! offsets {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] static $name: Global<u64> = Global::new(0);)*
    };
}

// The daemon's `bpf::layout` names the structure and field behind each of these.
offsets! {
    OFF_BPRM_CRED, OFF_BPRM_FILE, OFF_CRED_CAP_PERMITTED, OFF_CRED_EUID, OFF_CRED_FSUID,
    OFF_CRED_SUID, OFF_CRED_UID, OFF_CRED_USER_NS, OFF_DENTRY_FLAGS, OFF_DENTRY_INODE,
    OFF_DENTRY_NAME, OFF_DENTRY_NAME_LEN, OFF_DENTRY_PARENT, OFF_DENTRY_SB, OFF_FDTABLE_FD,
    OFF_FDTABLE_MAX_FDS, OFF_FILES_FDT, OFF_FILE_FLAGS, OFF_FILE_INODE, OFF_FILE_MODE,
    OFF_FILE_PATH, OFF_FS_PWD, OFF_FS_ROOT, OFF_IATTR_VALID, OFF_IDMAP_EXTENT, OFF_IDMAP_EXTENTS,
    OFF_IDMAP_FORWARD, OFF_INODE_CTIME_NSEC, OFF_INODE_CTIME_SEC, OFF_INODE_END,
    OFF_INODE_GENERATION, OFF_INODE_INO, OFF_INODE_MODE, OFF_INODE_NLINK, OFF_INODE_RDEV,
    OFF_INODE_SB, OFF_MNTNS_SEQ, OFF_MOUNT_MNT, OFF_MOUNT_MOUNTPOINT, OFF_MOUNT_NS,
    OFF_MOUNT_PARENT, OFF_MSGHDR_NAME, OFF_NSPROXY_MNT, OFF_NSPROXY_PID, OFF_PATH_DENTRY,
    OFF_PATH_MNT, OFF_PIDNS_LEVEL, OFF_PT_REGS_SYSCALL, OFF_QSTR_NAME, OFF_SB_DEV, OFF_SB_MAGIC,
    OFF_SOCKET_SK, OFF_SOCK_FAMILY, OFF_SOCK_NUM, OFF_SOCK_RCV_SADDR, OFF_SOCK_V6_RCV_SADDR,
    OFF_TASK_ABI, OFF_TASK_BPF_STORAGE, OFF_TASK_CRED, OFF_TASK_FILES, OFF_TASK_FS,
    OFF_TASK_GROUP_LEADER, OFF_TASK_NSPROXY, OFF_TASK_REAL_CRED, OFF_TASK_REAL_PARENT,
    OFF_TASK_START_BOOTTIME, OFF_TASK_TGID,
    OFF_UNIX_ADDRESS_NAME, OFF_UNIX_SOCK_ADDR, OFF_UNIX_SOCK_PATH, OFF_USERNS_LEVEL,
    OFF_USERNS_UID_MAP, OFF_VFSMOUNT_FLAGS, OFF_VFSMOUNT_ROOT, OFF_VFSMOUNT_SB, OFF_VMA_FILE,
    OFF_VMA_FLAGS,
}

/// `FMODE_READ` and `FMODE_WRITE` (include/linux/fs.h): unchanged since 2.6.
pub(crate) const FMODE_READ: u32 = 1;
/// See [`FMODE_READ`].
pub(crate) const FMODE_WRITE: u32 = 2;
/// `FMODE_EXEC` (include/linux/fs.h, 6.12): opened by `execve`.
pub(crate) const FMODE_EXEC: u32 = 1 << 5;
const S_IFMT: u16 = 0o170_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFBLK: u16 = 0o060_000;
/// `MNT_UMOUNT` (include/linux/mount.h): the mount was detached from its namespace.
const MNT_UMOUNT: u32 = 0x800_0000;
/// Addresses from here on are error pointers (include/linux/err.h, `MAX_ERRNO`).
const FIRST_ERROR_POINTER: u64 = u64::MAX - 4094;

#[inline(always)]
fn load<T: Copy>(base: *const u8, offset: &Global<u64>) -> T {
    // SAFETY: `base` is a pointer the verifier knows by type; it checks this load.
    unsafe { base.add(offset.load() as usize).cast::<T>().read_volatile() }
}

/// Reads a `T` at an address that the verifier knows nothing about.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: `value` is as large as the length says; the helper survives any source address.
    let failed = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        )
    };
    (failed == 0).then_some(value)
}

/// Reads a name of `len` bytes, with zeros behind it; `len` is taken modulo `N`, a power of two.
#[inline(always)]
pub(crate) fn read_name<const N: usize>(address: u64, len: u32) -> Option<[u8; N]> {
    let mut name = [0; N];
    // The mask tells the verifier that it fits; the compiler must not know that it does nothing.
    let len = opaque(u64::from(len)) as u32 & (N as u32 - 1);
    // SAFETY: fewer than `N` bytes; the helper survives any source address.
    let failed =
        unsafe { bpf_probe_read_kernel((&raw mut name).cast(), len, address as *const c_void) };
    (failed == 0).then_some(name)
}

/// The value, as a number of which neither the compiler nor the verifier knows anything from here on. The compiler
/// leaves out a mask where it knows the bound, which the verifier of 6.1 may not. And the verifier lets no pointer that
/// it knows by type into a function which it looks at on its own (see `path::view_path`): what is negated is a number to
/// it (`check_alu_op`, kernel/bpf/verifier.c, 6.1 to 7.0).
#[inline(always)]
pub(crate) fn opaque(mut value: u64) -> u64 {
    // SAFETY: changes a register, twice, to what it was.
    unsafe { asm!("{value} = -{value}", "{value} = -{value}", value = inout(reg) value) };
    value
}

/// Argument `number` of the hook whose context is at `context`: an array of 64-bit words. `None` if it cannot be
/// read.
#[inline(always)]
pub(crate) fn argument(context: u64, number: u64) -> Option<u64> {
    read(context + 8 * number)
}

macro_rules! pointer {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name(*const u8);

        impl $name {
            #[inline(always)]
            pub(crate) fn new(pointer: *const u8) -> Self {
                Self(pointer)
            }
        }
    };
}

pointer!(/** `struct task_struct`, typed. */ Task);
pointer!(/** `struct linux_binprm`, typed. */ Bprm);
pointer!(/** `struct file`, typed. */ File);
pointer!(/** `struct path`, typed. */ Path);
pointer!(/** `struct dentry`, typed. */ Dentry);
pointer!(/** `struct msghdr`, typed. */ Message);
pointer!(/** `struct socket`, typed. */ Socket);
pointer!(/** `struct vm_area_struct`, typed. */ MemoryArea);
pointer!(/** `struct cred`, typed. */ Credentials);
pointer!(/** `struct user_namespace`, typed. */ UserNamespace);
pointer!(/** `struct qstr`, typed. */ Name);
/// `struct sock`, typed.
#[derive(Clone, Copy)]
pub(crate) struct Sock(*const u8);
/// `struct inode`, typed.
#[derive(Clone, Copy)]
pub(crate) struct Inode(*const u8);

impl Task {
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: no preconditions.
        Self(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    }

    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut u8 {
        self.0.cast_mut()
    }

    /// Sequence number of the mount namespace: unlike its address and its inode number it is
    /// never reused (`alloc_mnt_ns`, fs/namespace.c, 6.12). 0 for a task that is exiting.
    #[inline(always)]
    pub(crate) fn mount_namespace(self) -> MountNamespace {
        let nsproxy: *const u8 = load(self.0, &OFF_TASK_NSPROXY);
        if nsproxy.is_null() {
            return MountNamespace { address: 0, seq: 0 };
        }
        let namespace: *const u8 = load(nsproxy, &OFF_NSPROXY_MNT);
        if namespace.is_null() {
            return MountNamespace { address: 0, seq: 0 };
        }
        MountNamespace { address: namespace as u64, seq: load(namespace, &OFF_MNTNS_SEQ) }
    }

    /// Address of the PID namespace that its children are in, and how deep it is nested: 0 is the
    /// machine's. Address 0 for a task that is exiting: an `Option` would leave a register without a
    /// value on one way, and the verifier refuses what LLVM makes of that.
    #[inline(always)]
    pub(crate) fn pid_namespace(self) -> (u64, u32) {
        let nsproxy: *const u8 = load(self.0, &OFF_TASK_NSPROXY);
        if nsproxy.is_null() {
            return (0, 0);
        }
        let namespace: *const u8 = load(nsproxy, &OFF_NSPROXY_PID);
        if namespace.is_null() {
            return (0, 0);
        }
        (namespace as u64, load(namespace, &OFF_PIDNS_LEVEL))
    }

    /// Process id in the machine's PID namespace.
    #[inline(always)]
    pub(crate) fn process(self) -> u32 {
        load(self.0, &OFF_TASK_TGID)
    }

    /// Start time in clock ticks since boot, as in `/proc/PID/stat` (`nsec_to_clock_t`,
    /// `fs/proc/array.c`, with 100 ticks per second on every architecture we build for).
    #[inline(always)]
    pub(crate) fn start_ticks(self) -> u64 {
        self.started() / 10_000_000
    }

    /// Start time in ns since boot.
    #[inline(always)]
    pub(crate) fn started(self) -> u64 {
        load(self.0, &OFF_TASK_START_BOOTTIME)
    }

    /// The first thread of its process.
    #[inline(always)]
    pub(crate) fn leader(self) -> Self {
        Self(load(self.0, &OFF_TASK_GROUP_LEADER))
    }

    /// The process that waits for its end.
    #[inline(always)]
    pub(crate) fn parent(self) -> Self {
        Self(load(self.0, &OFF_TASK_REAL_PARENT))
    }

    /// An iterator's task is none after the last one.
    #[inline(always)]
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Whether some task storage has a value for the task.
    #[inline(always)]
    pub(crate) fn has_storage(self) -> bool {
        load::<u64>(self.0, &OFF_TASK_BPF_STORAGE) != 0
    }

    /// Whether the kernel lets the task act as somebody else for now, as overlayfs does with its layers
    /// (`override_creds`, kernel/cred.c, 6.12).
    #[inline(always)]
    pub(crate) fn acts_for_another(self) -> bool {
        load::<u64>(self.0, &OFF_TASK_CRED) != load::<u64>(self.0, &OFF_TASK_REAL_CRED)
    }

    /// Number of the system call the task is in, and by which table it is to be read. The register is 64 bits
    /// on `x86_64` and 32 on arm64; both are little-endian, and numbers are small.
    #[inline(always)]
    pub(crate) fn system_call(self) -> (Abi, u32) {
        // SAFETY: a typed task.
        let registers = unsafe { bpf_task_pt_regs(self.as_ptr().cast()) };
        let number: u32 = read(registers.cast_unsigned() + OFF_PT_REGS_SYSCALL.load()).unwrap_or(0);
        let flags: u32 = load(self.0, &OFF_TASK_ABI);
        if cfg!(bpf_target_arch = "aarch64") {
            const TIF_32BIT: u32 = 1 << 22; // arch/arm64/include/asm/thread_info.h, 6.12
            (if flags & TIF_32BIT == 0 { Abi::Arm64 } else { Abi::Arm }, number)
        } else {
            const TS_COMPAT: u32 = 2; // arch/x86/include/asm/thread_info.h, 6.12
            // Of the x32 table, which has the same numbers (`__X32_SYSCALL_BIT`, asm/unistd.h).
            let number = number & !0x4000_0000;
            (if flags & TS_COMPAT == 0 { Abi::X86_64 } else { Abi::I386 }, number)
        }
    }

    /// The credentials that it acts with.
    #[inline(always)]
    pub(crate) fn credentials(self) -> Credentials {
        Credentials(load(self.0, &OFF_TASK_CRED))
    }

    /// The task's root directory.
    #[inline(always)]
    pub(crate) fn root(self) -> Location {
        self.fs_path(&OFF_FS_ROOT)
    }

    /// The task's working directory.
    #[inline(always)]
    pub(crate) fn cwd(self) -> Location {
        self.fs_path(&OFF_FS_PWD)
    }

    #[inline(always)]
    fn fs_path(self, field: &Global<u64>) -> Location {
        let fs: *const u8 = load(self.0, &OFF_TASK_FS);
        if fs.is_null() {
            return Location { mount: 0, dentry: 0 };
        }
        // Read by address: the two fields are embedded, and older verifiers do not follow a
        // nested structure's pointers through a task's `fs`.
        let base = fs as u64 + field.load();
        Location {
            mount: read(base + OFF_PATH_MNT.load()).unwrap_or(0),
            dentry: read(base + OFF_PATH_DENTRY.load()).unwrap_or(0),
        }
    }

    /// Address of its descriptor table, a `struct files_struct`; 0 for a task that is exiting.
    #[inline(always)]
    pub(crate) fn files(self) -> u64 {
        opaque(load(self.0, &OFF_TASK_FILES))
    }
}

/// Address of the `struct file` behind descriptor `fd` of the table from [`Task::files`].
#[inline(always)]
pub(crate) fn file_address(files: u64, fd: u32) -> Option<u64> {
    if files == 0 {
        return None;
    }
    let table: u64 = read(files + OFF_FILES_FDT.load())?;
    let limit: u32 = read(table + OFF_FDTABLE_MAX_FDS.load())?;
    if fd >= limit {
        return None;
    }
    let array: u64 = read(table + OFF_FDTABLE_FD.load())?;
    let file: u64 = read(array + u64::from(fd) * 8)?;
    (file != 0).then_some(file)
}

/// A mount namespace: where it is now, and which one it is.
#[derive(Clone, Copy)]
pub(crate) struct MountNamespace {
    pub(crate) address: u64,
    pub(crate) seq: u64,
}

impl MountNamespace {
    /// From an address that is known to be one.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self { address, seq: read(address + OFF_MNTNS_SEQ.load()).unwrap_or(0) }
    }

    /// True when `address` is an error pointer.
    #[inline(always)]
    pub(crate) fn is_error(self) -> bool {
        self.address >= FIRST_ERROR_POINTER
    }
}

/// A mount (address of its `struct vfsmount`) and a dentry, by address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) mount: u64,
    pub(crate) dentry: u64,
}

/// To which namespace a mount belongs.
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
        Some((read(dentry + OFF_DENTRY_NAME.load())?, read(dentry + OFF_DENTRY_NAME_LEN.load())?))
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

/// `ia_valid` of the `struct iattr` at `attributes`: what is to be changed.
#[inline(always)]
pub(crate) fn changed_attributes(attributes: u64) -> u32 {
    read(attributes + OFF_IATTR_VALID.load()).unwrap_or(u32::MAX)
}

impl Bprm {
    #[inline(always)]
    pub(crate) fn file(self) -> File {
        File(load(self.0, &OFF_BPRM_FILE))
    }

    /// What the program will run with.
    #[inline(always)]
    pub(crate) fn credentials(self) -> Credentials {
        Credentials(load(self.0, &OFF_BPRM_CRED))
    }
}

impl Credentials {
    /// Real, effective, saved and file system user, as the machine numbers them.
    #[inline(always)]
    pub(crate) fn users(self) -> [u32; 4] {
        if self.0.is_null() {
            return [0; 4]; // cannot be; root, then
        }
        [
            load(self.0, &OFF_CRED_UID),
            load(self.0, &OFF_CRED_EUID),
            load(self.0, &OFF_CRED_SUID),
            load(self.0, &OFF_CRED_FSUID),
        ]
    }

    /// Permitted capabilities, by their numbers.
    #[inline(always)]
    pub(crate) fn permitted(self) -> u64 {
        if self.0.is_null() { 0 } else { load(self.0, &OFF_CRED_CAP_PERMITTED) }
    }

    /// The user namespace that they are from.
    #[inline(always)]
    pub(crate) fn namespace(self) -> UserNamespace {
        if self.0.is_null() {
            return UserNamespace(core::ptr::null());
        }
        UserNamespace(load(self.0, &OFF_CRED_USER_NS))
    }
}

impl UserNamespace {
    /// How deep it is nested: 0 is the machine's.
    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        if self.0.is_null() { 0 } else { load(self.0, &OFF_USERNS_LEVEL) }
    }

    /// What its user 0 is on the machine: [`NO_USER`] for none, `None` if it cannot be read. The map holds numbers
    /// of the machine (`map_write`, `kernel/user_namespace.c`, 6.12).
    #[inline(always)]
    pub(crate) fn root(self) -> Option<u32> {
        const INLINE: u32 = 5; // UID_GID_MAP_MAX_BASE_EXTENTS, include/linux/user_namespace.h, 6.12
        const EXTENT: u64 = 12; // `struct uid_gid_extent`: first, lower_first, count
        let map = self.0 as u64 + OFF_USERNS_UID_MAP.load();
        let count: u32 = read(map + OFF_IDMAP_EXTENTS.load())?;
        if count > INLINE {
            // Sorted by `first` (`sort_idmaps`).
            let extents: u64 = read(map + OFF_IDMAP_FORWARD.load())?;
            let [first, lower]: [u32; 2] = read(extents)?;
            return Some(if first == 0 { lower } else { NO_USER });
        }
        let extents = map + OFF_IDMAP_EXTENT.load();
        for index in 0..INLINE {
            let [first, lower]: [u32; 2] = read(extents + EXTENT * u64::from(index))?;
            if index < count && first == 0 {
                return Some(lower);
            }
        }
        Some(NO_USER)
    }
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

impl Path {
    #[inline(always)]
    pub(crate) fn location(self) -> Location {
        Location {
            mount: opaque(load(self.0, &OFF_PATH_MNT)),
            dentry: opaque(load(self.0, &OFF_PATH_DENTRY)),
        }
    }
}

impl Dentry {
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        opaque(self.0 as u64)
    }

    /// Identity of the inode; `None` for a negative dentry.
    #[inline(always)]
    pub(crate) fn inode(self) -> Option<InodeKey> {
        if self.0.is_null() {
            return None;
        }
        let inode: *const u8 = load(self.0, &OFF_DENTRY_INODE);
        if inode.is_null() { None } else { Some(Inode(inode).key()) }
    }
}

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
    pub(crate) fn as_ptr(self) -> *mut u8 {
        self.0.cast_mut()
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

impl Socket {
    /// What is behind it: never null between `socket(2)` and `close(2)`.
    #[inline(always)]
    pub(crate) fn sock(self) -> Sock {
        Sock(load(self.0, &OFF_SOCKET_SK))
    }
}

impl Sock {
    /// Its address family; `AF_UNSPEC` for none.
    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        if self.0.is_null() { family::UNSPEC } else { load(self.0, &OFF_SOCK_FAMILY) }
    }

    /// The address that it is bound to, with port 0 if it is not.
    #[inline(always)]
    pub(crate) fn local(self) -> Target {
        if self.0.is_null() {
            return Target::default();
        }
        let port: u16 = load(self.0, &OFF_SOCK_NUM);
        match load::<u16>(self.0, &OFF_SOCK_FAMILY) {
            family::INET => {
                let address = [load(self.0, &OFF_SOCK_RCV_SADDR), 0, 0, 0];
                Target { kind: family::INET, port, address }
            }
            family::INET6 => {
                let at = self.0 as u64 + OFF_SOCK_V6_RCV_SADDR.load();
                Target::of_ipv6(port, read(at).unwrap_or_default())
            }
            _ => Target::default(),
        }
    }
}

impl Message {
    /// Address of the `struct sockaddr` that it is for; 0 for none.
    #[inline(always)]
    pub(crate) fn name(self) -> u64 {
        load(self.0, &OFF_MSGHDR_NAME)
    }
}

/// Where a socket of family `AF_UNIX` is bound.
pub(crate) struct UnixAddress {
    /// Whether it has a name in its network namespace instead of the file system.
    pub(crate) is_abstract: bool,
    /// The first 16 bytes of that name.
    pub(crate) name: [u64; 2],
    /// The file; zeros for none, or when it cannot be read.
    pub(crate) at: Location,
}

impl UnixAddress {
    /// Of the `struct sock` at `sock`: `struct unix_sock` begins with it (`include/net/af_unix.h`, 6.12).
    #[inline(always)]
    pub(crate) fn of(sock: u64) -> Self {
        let path = sock + OFF_UNIX_SOCK_PATH.load();
        let at = Location {
            mount: read(path + OFF_PATH_MNT.load()).unwrap_or(0),
            dentry: read(path + OFF_PATH_DENTRY.load()).unwrap_or(0),
        };
        let address = read::<u64>(sock + OFF_UNIX_SOCK_ADDR.load()).unwrap_or(0);
        if at.dentry != 0 || address == 0 {
            return Self { is_abstract: false, name: [0; 2], at };
        }
        // `struct sockaddr_un`: the family, then a zero byte, then the name.
        let name = address + OFF_UNIX_ADDRESS_NAME.load() + 3;
        Self { is_abstract: true, name: read(name).unwrap_or(engine::SHIM), at }
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
