//! Types that the daemon and the BPF programs share through maps, uprobe
//! arguments and the ring buffer.
//!
//! Every struct here is `repr(C)`, has no implicit padding (asserted below) and
//! is valid for any bit pattern. A change of any of them is a change of
//! [`LAYOUT_VERSION`], which is part of the pin directory's name.
#![no_std]

mod adoption;
pub mod call;
pub mod engine;
mod event;
pub mod interface;
mod label;
pub mod network;
mod number;
mod policy;
mod registration;

pub use adoption::{Adoption, AdoptionFlags};
pub use event::{Counter, EVENT_PATH_LEN, Event, Operation, RATE_LIMIT, RATE_WINDOW_NS, Verdict};
pub use label::{InodeKey, Label, LabelFlags, NO_USER, State, Stdio};
pub use network::{NetworkKey, NetworkVerdict};
pub use number::Number;
pub use policy::{
    EXEC_RULES, HOST_PREFIX, HOST_RULES, HostDevice, MAX_POLICIES, PATH_RULE_LEN, POLICY_NAME_LEN,
    PathKey, PathRule, PathVerdict, PathsBelow, Policy, PolicyFlags, PolicyName,
};
pub use registration::{
    CONTAINER_ID_LEN, Container, ContainerName, KnownFile, NAME_LEN, NameEnd, Pending,
    RegistrationFlags, RuntimeName,
};

/// Version of everything in this crate, as used in `/sys/fs/bpf/lockc/v<N>/`.
pub const LAYOUT_VERSION: u32 = 11;

/// The record of tasks that nobody registered: the safe default. Its policy is
/// the configured default, and it is never removed.
pub const UNATTRIBUTED: u64 = 1;

/// What the record of [`UNATTRIBUTED`] counts without any task: it is never dropped, so its count may not reach 0.
pub const UNATTRIBUTED_TASKS: u64 = 1 << 32;

/// Handles with this bit belong to the self-test of one daemon process. A program
/// ignores such a label unless it was loaded by that very process, so that the
/// programs of a daemon that is being replaced cannot answer for the new ones.
pub const SELF_TEST: u64 = 1 << 63;

/// Handles with this bit are records that the kernel side made for runtimes of users, whom nobody registered; there
/// are [`MADE_BY_USERS`] at most, so that users cannot fill the table of containers.
pub const BY_USER: u64 = 1 << 61;

/// See [`BY_USER`]: a quarter of the table. What comes beyond has the record [`UNATTRIBUTED`] in common.
pub const MADE_BY_USERS: u64 = 8192;

macro_rules! assert_plain {
    ($($t:ty => $size:expr),* $(,)?) => {
        $(const _: () = assert!(core::mem::size_of::<$t>() == $size);)*
        // SAFETY: each type is `repr(C)`, made of integers and arrays of integers, and its size is
        // the sum of its fields' sizes (asserted above), so it has no padding and no invalid value.
        $(#[cfg(feature = "user")] unsafe impl aya::Pod for $t {})*
    };
}

assert_plain! {
    Adoption => 32,
    Container => 88,
    ContainerName => 8 + CONTAINER_ID_LEN,
    Event => 72 + EVENT_PATH_LEN,
    HostDevice => 8,
    InodeKey => 16,
    KnownFile => 8,
    Label => 112,
    NameEnd => 8 + NAME_LEN,
    NetworkKey => 24,
    Number => 8,
    PathKey => 256,
    Pending => 40,
    Policy => 8,
    PolicyName => 16 + POLICY_NAME_LEN,
    RuntimeName => NAME_LEN,
}
