//! What the mounts of a bundle show of the host.

use crate::runtime::bundle::{Facts, MAX_ENTRIES, Mount};

/// Something of the host inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposure<'a> {
    /// The root file system is this directory.
    Root(&'a str),
    /// A file or directory of the host is mounted.
    Path {
        /// The host's path, as the bundle has it.
        path: &'a str,
        /// Whether it is mounted read-only.
        read_only: bool,
        /// Whether the bundle has another path, whose symbolic links lead here.
        led: bool,
    },
    /// A file system of that type is mounted, which may hold anything.
    FileSystem(&'a str),
    /// There are more than are looked at: layers of overlays make them cheap, and a verdict must not
    /// come late.
    Excess,
}

/// File systems that start empty or show the container its own kernel objects; what `proc`, `sysfs`
/// and `cgroup` show besides is a matter of namespaces and masked paths.
const VIRTUAL: &[&str] =
    &["cgroup", "cgroup2", "devpts", "mqueue", "proc", "ramfs", "sysfs", "tmpfs"];

/// Everything, in the order of the bundle, at most [`MAX_ENTRIES`] of them and [`Exposure::Excess`].
pub(super) fn exposures(facts: &Facts) -> Vec<Exposure<'_>> {
    let root = facts.root.as_ref().map(|root| Exposure::Root(&root.path));
    let all = root.into_iter().chain(facts.mounts.iter().flat_map(of_mount));
    let mut exposures: Vec<_> = all.take(MAX_ENTRIES + 1).collect();
    if let Some(last) = exposures.get_mut(MAX_ENTRIES) {
        *last = Exposure::Excess;
    }
    exposures
}

fn of_mount(mount: &Mount) -> Vec<Exposure<'_>> {
    let kind = mount.kind.as_deref().unwrap_or_default();
    let read_only = is_read_only(mount);
    if is_bind(mount) {
        let path = mount.source.as_deref().unwrap_or_default();
        let led =
            mount.resolved.as_deref().map(|path| Exposure::Path { path, read_only, led: true });
        return [Exposure::Path { path, read_only, led: false }].into_iter().chain(led).collect();
    }
    if VIRTUAL.contains(&kind) {
        return Vec::new();
    }
    if kind != "overlay" {
        return vec![Exposure::FileSystem(kind)];
    }
    // A backslash takes the meaning of the next character away, whichever it is
    // (Documentation/filesystems/overlayfs.rst, 6.12): such a path is not read here.
    let mut options = mount.options.iter().flat_map(|option| option.split(','));
    if options.clone().any(|option| option.contains('\\')) {
        return vec![Exposure::FileSystem(kind)];
    }
    let is_path =
        |key: &str| ["lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"].contains(&key);
    let directories = options
        .by_ref()
        .filter_map(|option| option.split_once('='))
        .filter(|(key, _)| is_path(key))
        .flat_map(|(_, paths)| paths.split(':').filter(|path| !path.is_empty()));
    directories
        .map(|path| Exposure::Path { path, read_only, led: false })
        .take(MAX_ENTRIES + 1)
        .collect()
}

/// A bind mount by type or by option (OCI runtime specification 1.2, config.md, "Mounts"): runtimes
/// differ in which of them they look at.
fn is_bind(mount: &Mount) -> bool {
    let binds = |word: &str| matches!(word, "bind" | "rbind");
    mount.kind.as_deref().is_some_and(binds) || mount.options.iter().any(|option| binds(option))
}

/// Whether nothing can be written through it; in doubt not.
pub(super) fn is_read_only(mount: &Mount) -> bool {
    let has =
        |words: [&str; 2]| mount.options.iter().any(|option| words.contains(&option.as_str()));
    has(["ro", "rro"]) && !has(["rw", "rrw"])
}
