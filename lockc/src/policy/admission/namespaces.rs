//! Namespaces that a container shares with the host.

use super::{
    Control,
    mounts::is_read_only,
    path::HostPath,
    text::{Objection, listed, quoted},
};
use crate::runtime::bundle::{Facts, Namespace};

/// Namespaces of the host: PID, IPC and network (the controls of the standards), mount, and cgroup
/// where the container may write to control groups.
///
/// A namespace that is absent is the runtime's own (OCI runtime specification 1.2,
/// config-linux.md, "Namespaces"), which is the host's. The UTS, user and time namespaces are no
/// part of the standards.
pub(super) fn decide(facts: &Facts) -> Option<Objection> {
    let mut shown = Vec::new();
    for kind in ["pid", "ipc", "network", "mount"] {
        let mut entries = of_kind(facts, kind).peekable();
        if entries.peek().is_none() {
            shown.push(format!("the {kind} namespace of the host"));
        }
        let joined = entries.filter_map(joined).filter(|path| kind == "mount" || !is_usual(path));
        shown.extend(joined.map(|path| format!("the {kind} namespace {}", quoted(path))));
    }
    let own_cgroups = of_kind(facts, "cgroup").any(|entry| joined(entry).is_none_or(is_usual));
    if !own_cgroups && writes_cgroups(facts) {
        shown.push("writable control groups in the cgroup namespace of the host".to_owned());
    }
    Some(Objection::new(Control::HostNamespaces, listed("shares", &shown)?))
}

fn of_kind<'a>(facts: &'a Facts, kind: &str) -> impl Iterator<Item = &'a Namespace> {
    facts.linux.namespaces.iter().filter(move |entry| entry.kind == kind)
}

/// The path of a namespace that is not a new one.
fn joined(entry: &Namespace) -> Option<&str> {
    entry.path.as_deref().filter(|path| !path.is_empty())
}

/// Whether the path is one by which engines name namespaces of containers and pods.
///
/// Which namespace is behind it is not a matter of text. What is known to be the host's is not
/// usual: `/proc/1`, the runtime's own `/proc/self`, and `default`, older dockerds' name for the
/// host's network (moby 20.10, `NetworkSettings.SandboxKey` in `daemon/oci_linux.go`).
fn is_usual(path: &str) -> bool {
    let Some(path) = HostPath::new(path) else { return false };
    let other_task = |pid: &str| pid != "1" && pid.bytes().all(|byte| byte.is_ascii_digit());
    match *path.parts() {
        ["proc", pid, "ns", _] => other_task(pid),
        ["proc", pid, "task", tid, "ns", _] => other_task(pid) && other_task(tid),
        ["run", "docker", "netns", name] | ["run", "user", _, "docker", "netns", name] => {
            name != "default"
        }
        // iproute2 and CNI, and CRI-O's pinns.
        ["run", "netns" | "ipcns" | "utsns" | "pidns" | "userns" | "cgroupns", _]
        | ["run", "user", _, "netns", _] => true,
        _ => false,
    }
}

fn writes_cgroups(facts: &Facts) -> bool {
    facts.mounts.iter().any(|mount| {
        matches!(mount.kind.as_deref(), Some("cgroup" | "cgroup2")) && !is_read_only(mount)
    })
}
