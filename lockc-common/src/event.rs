//! What the programs report through the ring buffer.

/// Longest path or object name in an event, in bytes; a longer one keeps its end.
pub const EVENT_PATH_LEN: usize = 256;

/// Events that one container may cause per window; more are counted as suppressed.
pub const RATE_LIMIT: u64 = 64;

/// Length of the rate-limit window in ns.
pub const RATE_WINDOW_NS: u64 = 1_000_000_000;

/// What was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// A blocked path was opened.
    Open = 1,
    /// A file on a mount of another namespace was opened.
    ForeignOpen = 2,
    /// A file on a mount of another namespace was executed.
    ForeignExec = 3,
    /// A program was started with a working directory on a mount of another namespace.
    ForeignCwd = 4,
    /// A runtime binary was opened for writing, renamed, removed or truncated.
    RuntimeFile = 5,
    /// The kernel log was read or written.
    KernelLog = 6,
    /// A mount operation.
    Mount = 7,
    /// A blocked path, or a directory above one, was renamed or linked.
    Rename = 8,
    /// CRIU was started by a runtime that may not restore.
    Restore = 9,
    /// A runtime was executed that nobody had registered.
    Unregistered = 10,
    /// The last task of a container is gone.
    Gone = 11,
    /// A file that steers the machine's kernel was opened.
    KernelInterface = 12,
    /// A block device, or one that gives memory, was opened or made.
    Device = 13,
    /// A capability for the whole machine was used; the detail is its number.
    Capability = 14,
    /// `bpf(2)` was called; the detail is the command.
    Bpf = 15,
    /// `perf_event_open(2)` was called.
    PerfEvent = 16,
    /// A process of others was traced or looked into; the detail is its id.
    Trace = 17,
    /// A process of others was sent a signal; the detail is its id.
    Signal = 18,
    /// Scheduling or limits of a process of others were to be changed; the detail is its id.
    Schedule = 19,
    /// A socket of a family was to be made; the detail is the family.
    Socket = 20,
    /// Something was to be sent to an address, or a connection made: the path is the address, 4 or 16 bytes in
    /// network byte order, the detail is the port.
    Connect = 21,
    /// A socket was to have an address of the machine, or to wait for connections there; as for `Connect`.
    Bind = 22,
    /// A socket of a container engine was to be connected to.
    RuntimeSocket = 23,
    /// A file was to be executed, or mapped to be, that the policy does not let be executed.
    Exec = 26,
    /// A file without a name was to be executed, or mapped to be.
    Fileless = 27,
    /// A file that changed in the container's life was to be executed, or mapped to be.
    Drift = 28,
    /// A path that rules keep as it is was to be changed, made or removed without being opened.
    Change = 24,
    /// A program was to run as root, or with capabilities of its file, or a task to become root.
    Root = 40,
    /// A user namespace was to be made.
    UserNamespace = 41,
    /// A ring (`io_uring_setup(2)`) was to be made.
    IoUring = 42,
    /// Something was to be typed into a terminal; the detail is the request.
    TerminalInput = 43,
    /// A namespace was to be joined; the detail is the number of the system call.
    Namespace = 44,
    /// A system call for the whole machine; the detail is its number.
    MachineCall = 45,
    /// A path of the host that is out of reach was to be opened, changed or connected to.
    HostPath = 29,
    /// A file of lockc's, or what is in a directory of its, was to be changed; or the name of a directory above.
    OwnFile = 46,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Refused with EPERM.
    Denied = 1,
    /// Would have been refused; the policy is in audit mode.
    Audited = 2,
    /// A notice about the life of a container; nothing was refused.
    Notice = 3,
}

/// One record of the `EVENTS` ring buffer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Event {
    /// Time in ns since boot (`CLOCK_MONOTONIC`).
    pub time: u64,
    /// Handle of the container.
    pub container: u64,
    /// An [`Operation`].
    pub operation: u32,
    /// A [`Verdict`].
    pub verdict: u32,
    /// Policy id.
    pub policy: u32,
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Thread id in the initial namespace.
    pub tid: u32,
    /// Operation-specific: `syslog(2)` action, mount hook number.
    pub detail: u32,
    /// Inode number of the object; 0 when there is none.
    pub ino: u64,
    /// Bytes used in `path`.
    pub path_len: u32,
    /// 1 when the path is longer than `path`.
    pub path_cut: u32,
    /// The thread's name, NUL-padded.
    pub comm: [u8; 16],
    /// Path in the container's view, or the object's name or address.
    pub path: [u8; EVENT_PATH_LEN],
}

/// Indices of the per-CPU `COUNTERS` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Operations refused.
    Denied = 0,
    /// Operations that audit mode let pass.
    Audited = 1,
    /// Events lost because the ring buffer was full.
    Lost = 2,
    /// Events not sent because their container made too many.
    Suppressed = 3,
    /// Runtimes that were executed unregistered.
    Unregistered = 4,
    /// Tasks whose end could not be counted (kernels before 6.2): records of ended containers are left to
    /// the daemon.
    Uncounted = 5,
    /// Tasks that ran before lockc and have a label now.
    Adopted = 6,
}

impl Counter {
    /// Number of counters.
    pub const COUNT: u32 = 7;
}
