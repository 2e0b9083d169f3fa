//! Host paths: which mounts show the container what belongs to the host.

use std::collections::BTreeSet;

use super::{
    Admission, Control, Standard, known,
    mounts::{Exposure, exposures},
    path::{HostPath, Pattern, Place, patterns},
    text::{Objection, exceptions, listed, quoted},
};
use crate::runtime::bundle::Facts;

/// Host paths that the bundle shows and the standard does not admit.
///
/// Baseline objects to the host's system directories and to the state of engines, Restricted to
/// everything that is not a volume of an engine or of kubelet.
pub(super) fn decide(facts: &Facts, rules: &Admission, standard: Standard) -> Option<Objection> {
    let allowed: Vec<_> = rules.host_paths.iter().filter_map(|path| HostPath::new(path)).collect();
    let (mut shown, mut paths, mut certain) = (Vec::new(), Vec::new(), true);
    let mut seen = BTreeSet::new();
    for exposure in exposures(facts) {
        let (text, exception) = match exposure {
            Exposure::Root(path) | Exposure::Path { path, .. } => {
                let parsed = HostPath::new(path);
                if is_admitted(exposure, parsed.as_ref(), standard, &allowed) {
                    continue;
                }
                (quoted(path), parsed.map(|_| path))
            }
            Exposure::FileSystem(kind) => (format!("file system of type {}", quoted(kind)), None),
            Exposure::Excess => ("too many mounts".to_owned(), None),
        };
        certain &= exception.is_some();
        // A mount may be there twice; the order stays that of the bundle.
        if seen.insert(text.clone()) {
            shown.push(text);
            paths.extend(exception);
        }
    }
    let remedy =
        exceptions(Control::HostPaths, "allow_host_paths", if certain { &paths } else { &[] });
    Some(Objection { found: listed("mounts of the host:", &shown)?, remedy })
}

fn is_admitted(
    exposure: Exposure<'_>,
    path: Option<&HostPath<'_>>,
    standard: Standard,
    allowed: &[HostPath<'_>],
) -> bool {
    let Some(path) = path else {
        // A root file system in the bundle is the ordinary case.
        return matches!(exposure, Exposure::Root(root) if is_inside_bundle(root));
    };
    if allowed.iter().any(|allowed| path.is_in(allowed)) {
        return true;
    }
    let read_only = match exposure {
        Exposure::Root(_) => return known::is_root(path) || !is_sensitive(path),
        // Where a path leads says nothing of who manages it.
        Exposure::Path { read_only, led: true, .. } => {
            return read_only && is_public(path) || !is_sensitive(path);
        }
        Exposure::Path { read_only, .. } => read_only,
        Exposure::FileSystem(_) | Exposure::Excess => return false,
    };
    if known::is_managed(path, read_only) {
        return true;
    }
    standard == Standard::Baseline && (read_only && is_public(path) || !is_sensitive(path))
}

fn is_inside_bundle(root: &str) -> bool {
    !root.starts_with('/') && !root.contains('\0') && root.split('/').all(|part| part != "..")
}

fn is_sensitive(path: &HostPath<'_>) -> bool {
    let system = SYSTEM.iter().map(|root| Pattern::absolute(root));
    system.chain(patterns(HOMES, IN_HOMES)).any(|pattern| path.place(pattern) != Place::Apart)
}

/// Files that everybody on the host may know, and that containers are often given read-only.
fn is_public(path: &HostPath<'_>) -> bool {
    PUBLIC
        .iter()
        .any(|root| matches!(path.place(Pattern::absolute(root)), Place::At | Place::Below))
}

/// What belongs to the host: these, what is below them, and the directories above them.
const SYSTEM: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/opt/cni",
    "/opt/containerd",
    "/ostree",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/snap",
    "/swap.img",
    "/swapfile",
    "/sys",
    "/sysroot",
    "/usr",
    "/var/backups",
    "/var/lib/apt",
    "/var/lib/buildkit",
    "/var/lib/cloud",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/crio",
    "/var/lib/dbus",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/etcd",
    "/var/lib/k0s",
    "/var/lib/kubelet",
    "/var/lib/lockc",
    "/var/lib/NetworkManager",
    "/var/lib/nerdctl",
    "/var/lib/polkit-1",
    "/var/lib/private",
    "/var/lib/rancher",
    "/var/lib/rpm",
    "/var/lib/snapd",
    "/var/lib/sudo",
    "/var/lib/systemd",
    "/var/lock",
    "/var/log",
    "/var/snap",
    "/var/spool/at",
    "/var/spool/cron",
];

/// Home directories besides `/root`, which is a system directory.
const HOMES: &[&str] = &["/home/*", "/var/home/*"];

/// What of a home directory makes a login or an engine do something, or is a credential.
const IN_HOMES: &[&str] = &[
    ".aws",
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".config/autostart",
    ".config/containers",
    ".config/docker",
    ".config/environment.d",
    ".config/fish",
    ".config/systemd",
    ".docker",
    ".gnupg",
    ".kube",
    ".local/bin",
    ".local/share/containerd",
    ".local/share/containers",
    ".local/share/docker",
    ".local/share/nerdctl",
    ".local/share/systemd",
    ".netrc",
    ".pam_environment",
    ".profile",
    ".rancher",
    ".ssh",
    ".zprofile",
    ".zshenv",
    ".zshrc",
];

const PUBLIC: &[&str] = &[
    "/etc/ca-certificates",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/os-release",
    "/etc/resolv.conf",
    "/etc/ssl/certs",
    "/etc/timezone",
    "/run/systemd/resolve/resolv.conf",
    "/run/systemd/resolve/stub-resolv.conf",
    "/usr/lib/os-release",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
];
