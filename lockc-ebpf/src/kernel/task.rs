//! Tasks, and what they hold.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task_btf, generated::bpf_task_pt_regs},
};
use lockc_common::call::Abi;

use super::{
    Credentials, FIRST_ERROR_POINTER, Location, OFF_FDTABLE_FD, OFF_FDTABLE_MAX_FDS, OFF_FILES_FDT,
    OFF_FS_PWD, OFF_FS_ROOT, OFF_MNTNS_SEQ, OFF_NSPROXY_MNT, OFF_NSPROXY_PID, OFF_PATH_DENTRY,
    OFF_PATH_MNT, OFF_PIDNS_LEVEL, OFF_PT_REGS_SYSCALL, OFF_TASK_ABI, OFF_TASK_BPF_STORAGE,
    OFF_TASK_CRED, OFF_TASK_FILES, OFF_TASK_FS, OFF_TASK_GROUP_LEADER, OFF_TASK_NSPROXY,
    OFF_TASK_PERSONALITY, OFF_TASK_REAL_CRED, OFF_TASK_REAL_PARENT, OFF_TASK_START_BOOTTIME,
    OFF_TASK_TGID, Task, load, opaque, read,
};

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

    /// Whether memory that it may read is memory that it may execute (personality(2)).
    #[inline(always)]
    pub(crate) fn executes_what_it_reads(self) -> bool {
        const READ_IMPLIES_EXEC: u32 = 0x40_0000; // include/uapi/linux/personality.h, 6.12
        load::<u32>(self.0, &OFF_TASK_PERSONALITY) & READ_IMPLIES_EXEC != 0
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
