//! The object `linux` (OCI runtime specification 1.0 to 1.2, config-linux.md).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{list, map, or_default};

/// `linux`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    /// Namespaces that are created or joined; those absent are the runtime's own.
    #[serde(deserialize_with = "list")]
    pub namespaces: Vec<Namespace>,
    /// The seccomp filter.
    pub seccomp: Option<Seccomp>,
    /// Kernel parameters by name, and what the runtime writes into them.
    #[serde(deserialize_with = "map")]
    pub sysctl: BTreeMap<String, String>,
    /// Device nodes besides those that every runtime makes.
    #[serde(deserialize_with = "list")]
    pub devices: Vec<Device>,
    /// Limits of the control group.
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
    /// Paths that are hidden.
    #[serde(deserialize_with = "list")]
    pub masked_paths: Vec<String>,
    /// Paths that are read-only.
    #[serde(deserialize_with = "list")]
    pub readonly_paths: Vec<String>,
    /// Path of the control group.
    pub cgroups_path: Option<String>,
    /// Propagation of the root mount.
    pub rootfs_propagation: Option<String>,
}

/// One of `linux.namespaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup` or `time`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// The namespace to join; without it a new one is made.
    pub path: Option<String>,
}

/// `linux.seccomp`, without the names of the system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens to a system call that no rule is about (`SCMP_ACT_…`).
    #[serde(deserialize_with = "or_default")]
    pub default_action: String,
    /// Rules.
    #[serde(deserialize_with = "list")]
    pub syscalls: Vec<SyscallRule>,
}

/// One of `linux.seccomp.syscalls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SyscallRule {
    /// What happens to the system calls of the rule (`SCMP_ACT_…`).
    #[serde(deserialize_with = "or_default")]
    pub action: String,
}

/// One of `linux.devices`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Device {
    /// `c` or `u` (character), `b` (block) or `p` (FIFO).
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Where, inside the container.
    #[serde(deserialize_with = "or_default")]
    pub path: String,
    /// Major number; a FIFO has none.
    pub major: Option<i64>,
    /// Minor number; a FIFO has none.
    pub minor: Option<i64>,
}

/// `linux.resources`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// The device allow list: later rules override earlier ones.
    #[serde(deserialize_with = "list")]
    pub devices: Vec<DeviceRule>,
}

/// One of `linux.resources.devices`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Whether access is given or taken.
    #[serde(deserialize_with = "or_default")]
    pub allow: bool,
    /// `a` (all), `c` or `b`; absent means all.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Major number; absent or -1 means all.
    pub major: Option<i64>,
    /// Minor number; absent or -1 means all.
    pub minor: Option<i64>,
    /// Of `r` (read), `w` (write) and `m` (make a node).
    pub access: Option<String>,
}
