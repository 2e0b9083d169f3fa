//! Sockets of engines and of kubelet: who can talk to one is root on the host.

use std::collections::BTreeSet;

use super::{
    Control,
    mounts::{Exposure, exposures},
    path::{HostPath, Pattern, Place},
    text::{Objection, listed, quoted},
};
use crate::runtime::bundle::Facts;

/// Sockets of engines, or directories that hold them, that the bundle mounts.
///
/// A socket can also lie elsewhere, under any name: what is known is known by its usual place, or
/// by its usual name in any place.
pub(super) fn decide(facts: &Facts) -> Option<Objection> {
    let (mut shown, mut seen) = (Vec::new(), BTreeSet::new());
    for exposure in exposures(facts) {
        let (Exposure::Root(path) | Exposure::Path { path, .. }) = exposure else { continue };
        if HostPath::new(path).is_some_and(|path| leads_to_one(&path)) && seen.insert(path) {
            shown.push(quoted(path));
        }
    }
    Some(Objection::new(Control::RuntimeSockets, listed("access to container engines by", &shown)?))
}

fn leads_to_one(path: &HostPath<'_>) -> bool {
    let place = |root: &&'static str| path.place(Pattern::absolute(root));
    path.parts().last().is_some_and(|name| NAMES.contains(name))
        || SOCKETS.iter().map(place).any(|place| matches!(place, Place::At | Place::Above))
        || DIRECTORIES.iter().map(place).any(|place| place != Place::Apart)
}

/// Names that are known in every place.
const NAMES: &[&str] = &[
    "buildkitd.sock",
    "containerd.sock",
    "containerd.sock.ttrpc",
    "cri-dockerd.sock",
    "crio.sock",
    "docker.sock",
    "dockershim.sock",
    "kubelet.sock",
    "podman.sock",
];

/// Their usual places, as documented by each engine; the directories above are found too.
const SOCKETS: &[&str] = &[
    "/run/buildkit/buildkitd.sock",
    "/run/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
    "/run/crio/crio.sock",
    "/run/docker.sock",
    "/run/docker/containerd/containerd.sock",
    "/run/dockershim.sock",
    "/run/k0s/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/user/*/buildkit/buildkitd.sock",
    "/run/user/*/containerd/containerd.sock",
    "/run/user/*/docker.sock",
    "/run/user/*/podman/podman.sock",
    "/var/lib/kubelet/device-plugins/kubelet.sock",
    "/var/lib/kubelet/pod-resources/kubelet.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// Directories of nothing but such sockets: containerd's shims, Docker's plug-ins, kubelet's plug-ins.
const DIRECTORIES: &[&str] =
    &["/run/containerd/s", "/run/docker/plugins", "/var/lib/kubelet/plugins_registry"];
