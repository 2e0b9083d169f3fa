//! What the daemon says through its uprobes, and what the programs keep of it.

/// Longest container id kept for messages, in bytes. runc bounds ids to 1024
/// (`libcontainer/factory_linux.go`, 1.1); a longer one is shown cut, and matched whole by the daemon.
pub const CONTAINER_ID_LEN: usize = 1024;

/// Longest runtime name the kernel side recognises, in bytes.
pub const NAME_LEN: usize = 32;

/// Bits of [`Pending::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct RegistrationFlags(pub u32);

impl RegistrationFlags {
    /// See [`crate::LabelFlags::HOOKS`].
    pub const HOOKS: u32 = crate::LabelFlags::HOOKS;
    /// See [`crate::LabelFlags::CRIU`].
    pub const CRIU: u32 = crate::LabelFlags::CRIU;
}

/// A registration waiting for its task's `execve`, keyed by thread id in `PENDING`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Pending {
    /// Handle of the container record.
    pub container: u64,
    /// Start time of the task in clock ticks since boot (`/proc/PID/stat`, field 22): a reused
    /// thread id does not inherit the registration.
    pub start_ticks: u64,
    /// [`RegistrationFlags`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// The file that is being executed: if that `execve` fails, another one of the same thread
    /// does not take up the registration.
    pub exe: crate::InodeKey,
}

/// A container, keyed by handle in `CONTAINERS`. Dropped with its last task.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Container {
    /// Policy id.
    pub policy: u32,
    /// Zero.
    pub reserved: u32,
    /// Labelled tasks, plus registrations that still wait for their `execve`.
    pub tasks: u64,
    /// How often a task or a registration was added to `tasks`.
    pub joins: u64,
    /// Start of the current rate-limit window, in ns since boot.
    pub window_start: u64,
    /// Events in the current window.
    pub window_events: u64,
    /// Denials and audits that were not reported because the container made too many.
    pub suppressed: u64,
    /// Denials and audits in all.
    pub denied: u64,
    /// When its first task was contained, in ns since boot (`CLOCK_BOOTTIME`); 0 before.
    pub started: u64,
    /// The smallest difference in ns between the time of day and that since boot in the container's life.
    pub clock: i64,
    /// Directory of the root file system on the host; inode number 0 when unknown.
    pub rootfs: crate::InodeKey,
}

/// A container's id, keyed by handle in `CONTAINER_NAMES`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ContainerName {
    /// Bytes used in `id`.
    pub len: u32,
    /// User id of who started the runtime.
    pub owner: u32,
    /// The id's bytes.
    pub id: [u8; CONTAINER_ID_LEN],
}

/// How the base names of OCI runtimes begin, zero-padded; key of `RUNTIME_NAMES`. A name that stands for itself has one
/// zero more that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RuntimeName {
    /// The name's bytes.
    pub name: [u8; NAME_LEN],
}

/// How a base name that begins like a [`RuntimeName`] ends; value of `RUNTIME_NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NameEnd {
    /// Bytes used in `end`; 0 if the beginning says it all.
    pub len: u32,
    /// Bytes of the beginning that are part of the name.
    pub begin: u32,
    /// The end's bytes, zero-padded.
    pub end: [u8; NAME_LEN],
}

/// What a file of the host is to lockc, and the number of the scan that found it; value of `KNOWN_FILES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct KnownFile(pub u64);

impl KnownFile {
    /// An OCI runtime: who executes it is followed, and no container changes it.
    pub const RUNTIME: u64 = 0;
    /// A file of lockc's, or a directory in which all are: no container changes it, or what is in it.
    pub const OWN: u64 = 1;
    /// A directory above one: no container renames or removes it.
    pub const ABOVE: u64 = 2;
    const SHIFT: u32 = 62;

    /// `kind` is one of the constants; the number has less than 62 bits.
    #[must_use]
    pub const fn new(kind: u64, scan: u64) -> Self {
        Self(kind << Self::SHIFT | scan & ((1 << Self::SHIFT) - 1))
    }

    /// One of the constants.
    #[must_use]
    pub const fn kind(self) -> u64 {
        self.0 >> Self::SHIFT
    }

    /// Number of the scan.
    #[must_use]
    pub const fn scan(self) -> u64 {
        self.0 & ((1 << Self::SHIFT) - 1)
    }
}
