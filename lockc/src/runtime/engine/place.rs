//! Where a bundle lies, who can write there, and which engine it is the place of.
//!
//! Anybody can write anything into a bundle of their own, so what a bundle says is worth something
//! only if an engine made it. Engines make bundles in directories of their own, on which only root
//! can write: that, and not what the bundle says, is what an engine is known by.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{fcntl::OFlag, sys::stat::fstat};

use super::{Engine, Fact, kept, kubernetes, local};
use crate::runtime::{
    bundle::{Bundle, Facts},
    caller::Caller,
    cmdline::{ContainerId, Target},
    proc,
};

/// Where a bundle lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundlePlace {
    /// The bundle's directory, from the root directory; empty if it has no path.
    pub path: PathBuf,
    /// Who can have written the bundle.
    pub keeper: Keeper,
}

/// Who can have written a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Root called the runtime, and nobody but root can write the bundle, its `config.json` or a
    /// directory above.
    Root,
    /// A user who is not root called the runtime.
    User,
    /// Root called the runtime, with a bundle that others may have written.
    Anyone,
}

/// The engines' ways to lay out bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout<'p> {
    /// containerd's: `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID`
    /// (core/runtime/v2/bundle.go, containerd 2.0), `io.containerd.runtime.v1.linux` before 2.0.
    Containerd {
        /// containerd's namespace, which its client chooses.
        namespace: &'p OsStr,
    },
    /// That of podman and CRI-O: `ROOT/DRIVER-containers/ID/userdata`
    /// (store.go, containers/storage 1.55).
    Storage {
        /// `ROOT/DRIVER-containers`.
        containers: &'p Path,
    },
}

impl BundlePlace {
    /// Finds out where a bundle lies. Also gives back why root's bundle is not taken for root's.
    pub fn find(bundle: &Bundle, target: &Target, caller: &Caller) -> (Self, Option<String>) {
        let link = format!("/proc/thread-self/fd/{}", bundle.dir.as_raw_fd());
        let path = fs::read_link(link).unwrap_or_default();
        if !(caller.ids.euid.is_root() && caller.ids.fsuid.is_root()) {
            return (Self { path, keeper: Keeper::User }, None);
        }
        match only_root_wrote(&path, bundle, target, caller) {
            Ok(()) => (Self { path, keeper: Keeper::Root }, None),
            Err(note) => (Self { path, keeper: Keeper::Anyone }, Some(note)),
        }
    }

    /// How engines lay out this place, if one does for the bundle of container `id`.
    pub(super) fn layout(&self, id: &ContainerId) -> Option<Layout<'_>> {
        let id = OsStr::from_bytes(id.as_bytes());
        let name = self.path.file_name()?;
        let above = self.path.parent()?;
        if name == id {
            let tasks = above.parent()?.file_name()?.as_bytes();
            let known = [&b"io.containerd.runtime.v2.task"[..], b"io.containerd.runtime.v1.linux"];
            let namespace = above.file_name()?;
            return known.contains(&tasks).then_some(Layout::Containerd { namespace });
        }
        let containers = above.parent()?;
        let of_storage = name == "userdata"
            && above.file_name()? == id
            && containers.file_name()?.as_bytes().ends_with(b"-containers");
        of_storage.then_some(Layout::Storage { containers })
    }

    /// The engine that made the bundle of container `id`.
    pub(super) fn engine(&self, facts: &Facts, id: &ContainerId) -> Fact<Engine> {
        let has = |key: &str| facts.annotations.contains_key(key);
        let (engine, proven) = match self.layout(id) {
            None => (Engine::None, false),
            Some(Layout::Containerd { namespace }) => match namespace.as_bytes() {
                // dockerd's, for containers and for plug-ins (cmd/dockerd/config.go, 26.1).
                b"moby" | b"plugins.moby" => (Engine::Docker, true),
                // Before CRI: nerdctl makes annotations of labels, an image's labels among them.
                _ if facts.annotations.keys().any(|key| key.starts_with(local::NERDCTL)) => {
                    (Engine::Nerdctl, false)
                }
                b"k8s.io" if has(kubernetes::CRI_TYPE) => (Engine::Cri, true),
                _ => (Engine::Containerd, true),
            },
            Some(Layout::Storage { containers }) => {
                let manager = facts.annotations.get("io.container.manager").map(String::as_str);
                // podman leaves a manager alone that its user chose, and older CRI-O one that a pod
                // chose. So each must also be where the other is not: CRI-O's bundles are in the
                // run root, podman's in the graph root, and no CRI-O bundle lacks the metadata.
                let run = containers.starts_with("/run");
                let metadata = has(kubernetes::CRI_O_METADATA);
                match manager {
                    Some("cri-o") => (Engine::CriO, run && metadata),
                    _ => (Engine::Podman, manager == Some("libpod") && !run && !metadata),
                }
            }
        };
        let source = match engine {
            Engine::None => "no engine's place".to_owned(),
            _ => self.path.to_string_lossy().into_owned(),
        };
        Fact { value: engine, source, trusted: proven && self.keeper == Keeper::Root }
    }
}

/// Checks that nobody but root can have written what the runtime will read.
fn only_root_wrote(
    path: &Path,
    bundle: &Bundle,
    target: &Target,
    caller: &Caller,
) -> Result<(), String> {
    if target.config.is_some() {
        return Err("the configuration is not the bundle's own".to_owned());
    }
    // A container's root directory has other files under the same names.
    let root = proc::open(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY);
    if !root.is_ok_and(|root| is_same(root.as_fd(), caller.root()).unwrap_or(false)) {
        return Err("the caller's root directory is not the host's".to_owned());
    }
    let dir = kept::directory(path).map_err(|error| error.to_string())?;
    // The caller may be in another mount namespace.
    if !is_same(dir.as_fd(), bundle.dir.as_fd()).unwrap_or(false) {
        return Err(format!("{} is not the same for the host", path.display()));
    }
    let name = "config.json";
    kept::file(dir.as_fd(), name, &path.join(name)).map_err(|error| error.to_string())?;
    Ok(())
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
