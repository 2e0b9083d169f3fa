//! Containers that kubelet asked for: what Kubernetes leaves open, no bundle can say.

use crate::runtime::bundle::Facts;

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The process that holds the namespaces of the pod, and comes from the CRI runtime.
    Sandbox,
    /// A container of the pod.
    Container,
}

/// What a container is to its pod, if kubelet made it: by what the CRI runtime notes, and by the
/// control group of pods.
///
/// Annotations alone prove nothing, as Docker and podman take them from the user. With the cgroup
/// driver `systemd` they note themselves in the path of the control group. With `cgroupfs` the user
/// can choose a path that looks like a pod's, and is then taken for kubelet.
pub(super) fn role(facts: &Facts) -> Option<Role> {
    let path = facts.linux.cgroups_path.as_deref().unwrap_or_default();
    let in_pods = match path.split(':').collect::<Vec<_>>()[..] {
        [slice, "cri-containerd" | "crio", _] => slice.starts_with("kubepods"),
        [path] => path.split('/').any(|part| part == "kubepods"),
        _ => false,
    };
    // containerd 1.7, pkg/cri/annotations; CRI-O 1.33, pkg/annotations.
    let note = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]
        .iter()
        .find_map(|key| facts.annotations.get(*key));
    match note.map(String::as_str) {
        Some("sandbox") if in_pods => Some(Role::Sandbox),
        Some("container") if in_pods => Some(Role::Container),
        _ => None,
    }
}
