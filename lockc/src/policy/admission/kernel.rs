//! Kernel interfaces: `/proc`, `/sys` and kernel parameters.

use super::{
    Control,
    mounts::is_read_only,
    path::HostPath,
    text::{Objection, listed, quoted},
};
use crate::runtime::bundle::Facts;

/// Paths that Docker, podman, containerd and kubelet all hide (moby 20.10 to 28,
/// `oci/defaults.go`; Kubernetes 1.33, `pkg/securitycontext/util.go`). Some engines hide more.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

/// Paths that they all make read-only.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Paths of `/proc` and `/sys` that are not hidden or not read-only as usual, and a `/sys` that is
/// mounted for writing.
pub(super) fn proc_mount(facts: &Facts) -> Option<Objection> {
    let masked = paths(&facts.linux.masked_paths);
    let read_only = paths(&facts.linux.readonly_paths);
    let is_in = |path: &str, list: &[HostPath<'_>]| {
        HostPath::new(path).is_some_and(|path| list.iter().any(|above| path.is_in(above)))
    };
    let mut shown: Vec<String> = MASKED
        .iter()
        .filter(|path| !is_in(path, &masked))
        .map(|path| format!("{path} is not masked"))
        .collect();
    let writable =
        READ_ONLY.iter().filter(|path| !is_in(path, &read_only) && !is_in(path, &masked));
    shown.extend(writable.map(|path| format!("{path} is not read-only")));
    let writable = |mount: &&crate::runtime::bundle::Mount| {
        mount.kind.as_deref() == Some("sysfs") && !is_read_only(mount)
    };
    let sysfs = facts.mounts.iter().filter(writable);
    shown.extend(sysfs.map(|mount| format!("{} is writable", quoted(&mount.destination))));
    Some(Objection::new(Control::ProcMount, listed("kernel interfaces:", &shown)?))
}

fn paths(list: &[String]) -> Vec<HostPath<'_>> {
    list.iter().filter_map(|path| HostPath::new(path)).collect()
}

/// Parameters of the container's own namespaces that harm nobody else (Kubernetes 1.33, "Pod
/// Security Standards", "Sysctls").
const SAFE: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Kernel parameters that are not in the safe set.
pub(super) fn sysctls(facts: &Facts) -> Option<Objection> {
    let unsafe_ones = facts.linux.sysctl.keys().filter(|name| !SAFE.contains(&name.as_str()));
    let shown: Vec<String> = unsafe_ones.map(|name| quoted(name)).collect();
    Some(Objection::new(Control::Sysctls, listed("kernel parameters", &shown)?))
}
