//! The only module that reads kernel structures: how is here, and which ones in the modules below.
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

mod credentials;
mod file;
mod inode;
mod mount;
mod socket;
mod task;

use core::{arch::asm, ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};

pub(crate) use self::{
    file::changed_attributes,
    inode::{
        dentry_key_at, device_of, inode_of_fd, is_block_device, is_char_device, magic_of,
        open_file, superblock_of,
    },
    mount::{Location, MountOwner, Step, is_mount_of, mount_owner},
    socket::UnixAddress,
    task::{MountNamespace, file_address},
};

macro_rules! offsets {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] static $name: Global<u64> = Global::new(0);)*
    };
}

// The daemon's `bpf::layout` names the structure and field behind each of these.
offsets! {
    OFF_BPRM_CRED, OFF_BPRM_FILE, OFF_CRED_CAP_PERMITTED, OFF_CRED_EUID, OFF_CRED_FSUID,
    OFF_CRED_SUID, OFF_CRED_UID, OFF_CRED_USER_NS, OFF_DENTRY_FLAGS, OFF_DENTRY_HASH, OFF_DENTRY_INODE,
    OFF_DENTRY_NAME, OFF_DENTRY_NAME_LEN, OFF_DENTRY_PARENT, OFF_DENTRY_SB, OFF_FDTABLE_FD,
    OFF_FDTABLE_MAX_FDS, OFF_FILES_FDT, OFF_FILE_FLAGS, OFF_FILE_INODE, OFF_FILE_MODE,
    OFF_FILE_PATH, OFF_FS_PWD, OFF_FS_ROOT, OFF_IATTR_VALID, OFF_IDMAP_EXTENT, OFF_IDMAP_EXTENTS,
    OFF_IDMAP_FORWARD, OFF_INODE_CTIME_NSEC, OFF_INODE_CTIME_SEC, OFF_INODE_END,
    OFF_INODE_FLAGS, OFF_INODE_GENERATION, OFF_INODE_INO, OFF_INODE_MODE, OFF_INODE_NLINK, OFF_INODE_RDEV,
    OFF_INODE_SB, OFF_MNTNS_SEQ, OFF_MOUNT_MNT, OFF_MOUNT_MOUNTPOINT, OFF_MOUNT_NS,
    OFF_MOUNT_PARENT, OFF_MSGHDR_NAME, OFF_NSPROXY_MNT, OFF_NSPROXY_PID, OFF_PATH_DENTRY,
    OFF_PATH_MNT, OFF_PIDNS_LEVEL, OFF_PT_REGS_SYSCALL, OFF_QSTR_NAME, OFF_SB_DEV, OFF_SB_MAGIC,
    OFF_SOCKET_SK, OFF_SOCK_FAMILY, OFF_SOCK_NUM, OFF_SOCK_RCV_SADDR, OFF_SOCK_V6_RCV_SADDR,
    OFF_TASK_ABI, OFF_TASK_BPF_STORAGE, OFF_TASK_CRED, OFF_TASK_FILES, OFF_TASK_FS,
    OFF_TASK_GROUP_LEADER, OFF_TASK_NSPROXY, OFF_TASK_PERSONALITY, OFF_TASK_REAL_CRED, OFF_TASK_REAL_PARENT,
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
const S_IFREG: u16 = 0o100_000;
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

/// Reads a `T`, which is made of integers, at an address that the verifier knows nothing about. Nothing is written to it
/// before: LLVM calls `memset` for it, which takes five instructions for each byte.
#[inline(always)]
pub(crate) fn read<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: `value` is as large as the length says; the helper survives any source address.
    let failed = unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        )
    };
    // SAFETY: the helper has written all of it.
    (failed == 0).then(|| unsafe { value.assume_init() })
}

/// Bytes that can be written as words.
#[repr(C, align(8))]
struct Words<const N: usize>([u8; N]);

/// Reads a name of `len` bytes, with zeros behind it; `len` is taken modulo `N`, a power of two and not below 8.
#[inline(always)]
pub(crate) fn read_name<const N: usize>(address: u64, len: u32) -> Option<[u8; N]> {
    let mut name = MaybeUninit::<Words<N>>::uninit();
    for word in 0..N / 8 {
        // SAFETY: inside of `name`, which is aligned. Volatile, or it would be a `memset`: see `read`.
        unsafe { name.as_mut_ptr().cast::<u64>().add(word).write_volatile(0) };
    }
    // The mask tells the verifier that it fits; the compiler must not know that it does nothing.
    let len = opaque(u64::from(len)) as u32 & (N as u32 - 1);
    // SAFETY: fewer than `N` bytes; the helper survives any source address.
    let failed =
        unsafe { bpf_probe_read_kernel(name.as_mut_ptr().cast(), len, address as *const c_void) };
    // SAFETY: all of it is written above.
    (failed == 0).then(|| unsafe { name.assume_init() }.0)
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
pointer!(/** `struct inode`, typed. */ Inode);
