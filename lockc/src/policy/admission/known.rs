//! Where engines and kubelet keep what they mount into containers themselves.
//!
//! Patterns name files and volumes, never a directory of an engine as a whole: whoever can write to
//! the state of another container owns it. Nor do they match what lies below a volume, whatever its
//! name: there a container can have made a symbolic link to anywhere.

use super::path::{HostPath, Place, patterns};

/// Docker's data directory, also with `userns-remap`, of the snap and without root.
const DOCKER: &[&str] = &[
    "/var/lib/docker",
    "/var/lib/docker/#.#",
    "/var/snap/docker/common/var-lib-docker",
    "/root/.local/share/docker",
    "/home/*/.local/share/docker",
    "/var/home/*/.local/share/docker",
];

/// containers/storage of podman and CRI-O, permanent and run-time, with and without root.
const STORAGE: &[&str] = &[
    "/var/lib/containers/storage",
    "/run/containers/storage",
    "/run/user/*/containers",
    "/root/.local/share/containers/storage",
    "/home/*/.local/share/containers/storage",
    "/var/home/*/.local/share/containers/storage",
];

/// containerd's data and run-time directories, also of k3s, RKE2, k0s and `MicroK8s`.
const CONTAINERD: &[&str] = &[
    "/var/lib/containerd",
    "/run/containerd",
    "/var/lib/rancher/k3s/agent/containerd",
    "/run/k3s/containerd",
    "/var/lib/rancher/rke2/agent/containerd",
    "/var/lib/k0s/containerd",
    "/run/k0s/containerd",
    "/var/snap/microk8s/common/var/lib/containerd",
    "/var/snap/microk8s/common/run/containerd",
];

const KUBELET: &[&str] =
    &["/var/lib/kubelet", "/var/lib/k0s/kubelet", "/var/snap/microk8s/common/var/lib/kubelet"];

const NERDCTL: &[&str] = &[
    "/var/lib/nerdctl/*",
    "/root/.local/share/nerdctl/*",
    "/home/*/.local/share/nerdctl/*",
    "/var/home/*/.local/share/nerdctl/*",
];

/// Directories of the provisioner of persistent volumes that k3s comes with.
const LOCAL_PATH: &[&str] = &["/var/lib/rancher/k3s/storage", "/opt/local-path-provisioner"];

/// Roots, and what is mounted from below them.
const MANAGED: &[(&[&str], &[&str])] = &[
    (
        DOCKER,
        &[
            "containers/*/hostname",
            "containers/*/hosts",
            "containers/*/mounts/configs/*",
            "containers/*/mounts/secrets/*",
            "containers/*/mounts/shm",
            "containers/*/resolv.conf",
            "volumes/*/_data",
        ],
    ),
    (
        STORAGE,
        &[
            "*/*/userdata/.containerenv",
            "*/*/userdata/group",
            "*/*/userdata/hostname",
            "*/*/userdata/hosts",
            // A mount of podman with option `O`: `upper` and `work`.
            "*/*/userdata/overlay/*/*",
            "*/*/userdata/passwd",
            "*/*/userdata/resolv.conf",
            "*/*/userdata/run/secrets",
            "*/*/userdata/secrets/*",
            "*/*/userdata/shm",
            "volumes/*/_data",
        ],
    ),
    (
        CONTAINERD,
        &[
            "io.containerd.grpc.v1.cri/containers/*/volumes/*",
            "io.containerd.grpc.v1.cri/sandboxes/*/hostname",
            "io.containerd.grpc.v1.cri/sandboxes/*/hosts",
            "io.containerd.grpc.v1.cri/sandboxes/*/resolv.conf",
            "io.containerd.grpc.v1.cri/sandboxes/*/shm",
        ],
    ),
    (
        KUBELET,
        &[
            "pods/*/containers/*/*",
            "pods/*/etc-hosts",
            // Volume, container, number of the mount.
            "pods/*/volume-subpaths/*/*/*",
            // Plug-in and volume; CSI mounts below.
            "pods/*/volumes/*/*",
            "pods/*/volumes/kubernetes.io~csi/*/mount",
        ],
    ),
    (
        NERDCTL,
        &[
            "containers/*/*/hostname",
            "containers/*/*/resolv.conf",
            "etchosts/*/*/hosts",
            "volumes/*/*/_data",
        ],
    ),
    (LOCAL_PATH, &["*"]),
];

/// Programs that `--init` puts into a container, read-only.
const INIT: &[&str] = &[
    "/usr/bin/catatonit",
    "/usr/bin/docker-init",
    "/usr/bin/tini",
    "/usr/bin/tini-static",
    "/usr/lib/podman/catatonit",
    "/usr/libexec/docker/docker-init",
    "/usr/libexec/podman/catatonit",
    "/usr/local/bin/docker-init",
    "/usr/local/bin/tini",
    "/usr/sbin/docker-init",
];

/// Root file systems.
const ROOTS: &[(&[&str], &[&str])] = &[
    (DOCKER, &["*/*/merged", "btrfs/subvolumes/*", "rootfs/*/*", "vfs/dir/*", "zfs/graph/*"]),
    (STORAGE, &["btrfs/subvolumes/*", "overlay/*/merged", "vfs/dir/*", "zfs/graph/*"]),
    (CONTAINERD, &["io.containerd.runtime.v2.task/*/*/rootfs"]),
];

/// Whether it is a volume, or a file that an engine makes for the container.
pub(super) fn is_managed(path: &HostPath<'_>, read_only: bool) -> bool {
    is_one_of(path, MANAGED) || read_only && is_one_of(path, &[(INIT, &[""])])
}

/// Whether it is a root file system that an engine made.
pub(super) fn is_root(path: &HostPath<'_>) -> bool {
    is_one_of(path, ROOTS)
}

fn is_one_of(path: &HostPath<'_>, table: &'static [(&[&str], &[&str])]) -> bool {
    table
        .iter()
        .flat_map(|(roots, below)| patterns(roots, below))
        .any(|pattern| path.place(pattern) == Place::At)
}
