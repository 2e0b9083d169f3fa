//! What becomes of processes that ran before lockc.

/// Bits of [`Adoption::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct AdoptionFlags(pub u32);

impl AdoptionFlags {
    /// The container's first process: its root directory and user namespace are the container's.
    pub const FIRST: u32 = 1;
    /// The process' mount namespace is the container's, or one that the container made.
    pub const OWN_NAMESPACE: u32 = 1 << 1;
    /// A runtime that may have entered the container's namespaces already: what it was executed in is its parent's.
    pub const INSIDE: u32 = 1 << 2;
}

/// A process that is to be labelled, keyed by process id in `ADOPTIONS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Adoption {
    /// Handle of the container's record.
    pub container: u64,
    /// Start time of the process in clock ticks since boot (`/proc/PID/stat`, field 22): one that got its number
    /// later is not meant.
    pub start_ticks: u64,
    /// A [`crate::State`].
    pub state: u32,
    /// [`AdoptionFlags`].
    pub flags: u32,
    /// [`crate::LabelFlags`] of a runtime.
    pub label_flags: u32,
    /// Zero.
    pub reserved: u32,
}
