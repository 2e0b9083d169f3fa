//! What the programs need to know about a policy.

/// Policies that may be installed at once; ids are indices.
pub const MAX_POLICIES: u32 = 1024;

/// Longest path rule, in bytes, with its closing `/`. The kernel bounds an LPM trie key to 256
/// bytes (`LPM_DATA_SIZE_MAX`, `kernel/bpf/lpm_trie.c`, 6.12), four of which hold the number of the rules.
pub const PATH_RULE_LEN: usize = 252;

/// Bits of [`Policy::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PolicyFlags(pub u32);

impl PolicyFlags {
    /// Deny opening, executing and starting in files on mounts of other namespaces.
    pub const FOREIGN_MOUNT: u32 = 1;
    /// Deny `syslog(2)`, `/dev/kmsg` and `/proc/kmsg`.
    pub const KERNEL_LOG: u32 = 1 << 1;
    /// Deny mounting, remounting, unmounting and pivoting, by the old and the new mount API.
    pub const MOUNT: u32 = 1 << 2;
    /// Deny writing to the node's runtime binaries.
    pub const RUNTIME_FILES: u32 = 1 << 3;
    /// The policy has path rules.
    pub const PATHS: u32 = 1 << 4;
    /// Report what would be denied, and allow it.
    pub const AUDIT: u32 = 1 << 5;
    /// Deny files that steer the machine's kernel: settings in procfs, sysfs and their kin.
    pub const KERNEL_INTERFACES: u32 = 1 << 6;
    /// Deny block devices and memory, and making devices.
    pub const DEVICES: u32 = 1 << 7;
    /// Deny calls that act on the machine's kernel: `bpf(2)`, `perf_event_open(2)`, and what takes a capability
    /// for the whole machine.
    pub const KERNEL_CALLS: u32 = 1 << 8;
    /// Deny to trace, signal and schedule processes of others.
    pub const PROCESSES: u32 = 1 << 9;
    /// Deny every socket but those within the machine's memory: `AF_UNIX` and `AF_NETLINK`.
    pub const NETWORK_NONE: u32 = 1 << 10;
    /// The policy has rules about addresses.
    pub const NETWORK_RULES: u32 = 1 << 11;
    /// Deny making sockets of unusual families.
    pub const SOCKET_FAMILIES: u32 = 1 << 12;
    /// Deny connecting to the sockets of container engines.
    pub const RUNTIME_SOCKETS: u32 = 1 << 13;
    /// The policy has rules about executing files.
    pub const EXEC: u32 = 1 << 16;
    /// Deny executing files that have no name.
    pub const FILELESS: u32 = 1 << 17;
    /// Deny executing files that did not come with the image.
    pub const DRIFT: u32 = 1 << 18;
    /// The policy has rules about paths of the host.
    pub const HOST_PATHS: u32 = 1 << 19;
    /// Those that are about executing.
    pub const CODE: u32 = Self::EXEC | Self::FILELESS | Self::DRIFT;
    /// Deny becoming root: user 0 of the machine, or of the container's user namespace.
    pub const ROOT: u32 = 1 << 22;
    /// Deny making user namespaces, and joining those that lie in the container's own.
    pub const USER_NAMESPACES: u32 = 1 << 23;
    /// Deny making rings.
    pub const IO_URING: u32 = 1 << 24;
    /// Deny typing into terminals.
    pub const TERMINAL_INPUT: u32 = 1 << 25;
    /// Deny joining namespaces.
    pub const NAMESPACES: u32 = 1 << 26;
    /// All that can be denied without a rule, except for `ROOT`: of containers in which root is
    /// expected that would leave nothing.
    pub const EVERYTHING: u32 = Self::FOREIGN_MOUNT
        | Self::KERNEL_LOG
        | Self::MOUNT
        | Self::RUNTIME_FILES
        | Self::KERNEL_INTERFACES
        | Self::DEVICES
        | Self::KERNEL_CALLS
        | Self::PROCESSES
        | Self::SOCKET_FAMILIES
        | Self::RUNTIME_SOCKETS
        | Self::USER_NAMESPACES
        | Self::IO_URING
        | Self::TERMINAL_INPUT
        | Self::NAMESPACES;
    /// Set in every policy that is installed.
    pub const INSTALLED: u32 = 1 << 31;
}

/// One entry of the `POLICIES` array: flags and the number of the rules in one word, so that a policy
/// changes as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Policy(pub u64);

impl Policy {
    /// A policy with [`PolicyFlags`] and the rules under `rules`, 0 for none.
    pub const fn new(flags: u32, rules: u32) -> Self {
        Self((rules as u64) << 32 | flags as u64)
    }

    /// [`PolicyFlags`].
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub const fn flags(self) -> u32 {
        self.0 as u32
    }

    /// First part of the keys of its rules about paths and addresses: a number that no other policy uses, and that the
    /// same policy has only until its rules change.
    pub const fn rules(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Set in [`PathKey::rules`] of rules about executing, which share their map with those about opening.
pub const EXEC_RULES: u32 = 1 << 31;

/// Set in [`PathKey::rules`] of rules about paths of the host, which share that map, too. Numbers of rules are
/// smaller.
pub const HOST_RULES: u32 = 1 << 30;

/// What comes before the path in a rule about the host: `/`, and the number of the file system's device
/// (`super_block.s_dev`, include/linux/fs.h, 6.12) as four bytes, the lowest first.
pub const HOST_PREFIX: usize = 5;

/// Data of a `HOST_DEVICES` key, all of which counts, as of a [`crate::Number`]: a file system that a rule about the host is
/// about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HostDevice {
    /// [`Policy::rules`].
    pub rules: u32,
    /// `super_block.s_dev`.
    pub device: u32,
}

impl HostDevice {
    /// Bits of a key.
    pub const BITS: u32 = 64;
}

/// Data of a `PATH_RULES` key: the trie matches `(rules, path)` bit by bit. A rule's path ends
/// with `/`, and so does a looked-up path, so that rules match at component boundaries.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PathKey {
    /// [`Policy::rules`], and [`EXEC_RULES`] or [`HOST_RULES`].
    pub rules: u32,
    /// Path as the container sees it, zero-padded. With [`HOST_RULES`] the path on its file system, after
    /// [`HOST_PREFIX`] bytes.
    pub path: [u8; PATH_RULE_LEN],
}

/// What rules say of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PathVerdict {
    /// An exception below a denied path.
    Allow = 0,
    /// Nothing at or below the path may be opened or changed, or executed.
    Deny = 1,
    /// What is at or below the path may be read and executed, and not changed.
    ReadOnly = 2,
    /// No rule is about the path: as `Deny`, but the directories above an exception may be listed, and programs
    /// change their places. Of `/` only.
    Default = 3,
    /// Nothing at or below the path may be opened or changed, except by a container that has the whole file system as
    /// its root. Of the tops of file systems of the host only.
    NotRoot = 4,
}

/// Value of a `PATH_RULES` entry. There is one for each path that has a rule, and for every directory above: the longest
/// that covers a path says all there is to say of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PathRule(pub u32);

impl PathRule {
    const BELOW: u32 = 8;
    const LEN: u32 = 16;

    /// `len` are the bytes of the entry's path, at most [`PATH_RULE_LEN`].
    pub const fn new(verdict: PathVerdict, below: PathsBelow, len: u32) -> Self {
        Self(verdict as u32 | below.0 << Self::BELOW | len << Self::LEN)
    }

    /// A [`PathVerdict`], by the longest rule that covers the entry's path. Without an entry nothing is denied.
    pub const fn verdict(self) -> u32 {
        self.0 & 0xff
    }

    /// Bits of [`PathsBelow`], of the entry's path.
    pub const fn below(self) -> u32 {
        self.0 >> Self::BELOW & 0xff
    }

    /// Bytes of the entry's path: those that have been matched.
    pub const fn len(self) -> u32 {
        self.0 >> Self::LEN
    }

    /// Whether there is no entry at all.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Bits for what rules say of paths below a directory, and of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct PathsBelow(pub u32);

impl PathsBelow {
    /// Some are denied.
    pub const DENIED: u32 = 1;
    /// Some may be read only.
    pub const READ_ONLY: u32 = 1 << 1;
    /// Some may be opened where the default is to deny.
    pub const ALLOWED: u32 = 1 << 2;
}

/// Longest policy name, in bytes.
pub const POLICY_NAME_LEN: usize = 64;

/// Value of `POLICY_NAMES`: lets a restarted daemon find the policies it installed before.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PolicyName {
    /// Digest of flags and rules: equal digests are equal policies.
    pub digest: u64,
    /// Bytes used in `name`.
    pub len: u64,
    /// The name's bytes.
    pub name: [u8; POLICY_NAME_LEN],
}
