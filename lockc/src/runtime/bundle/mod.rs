//! The bundle that a frozen caller points its runtime to.
//!
//! Everything is looked up as the caller sees it, from its own root and working
//! directory, and with its own file-system ids, so that it cannot make lockc
//! read or tell what it could not read itself. Nothing here waits for a FIFO or
//! has the side effects of opening a device. A file system in user space can
//! still hang a read; the watchdog answers for that.

mod facts;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{SFlag, fstat},
    unistd::{Gid, Uid, setfsgid, setfsuid},
};

pub use self::facts::{
    Capabilities, Device, DeviceRule, Facts, Hook, Hooks, Linux, MAX_ENTRIES, Mount, Namespace,
    Process, Resources, Root, Seccomp, SyscallRule, User,
};
use super::{
    caller::{Caller, Ids},
    cmdline::Target,
    regular,
};

/// Most bytes of a `config.json`.
pub const MAX_CONFIG_LEN: u64 = 16 << 20;

/// A bundle that was read.
#[derive(Debug)]
pub struct Bundle {
    /// The bundle's directory, opened with `O_PATH`.
    pub dir: OwnedFd,
    /// What its `config.json` says.
    pub facts: Facts,
    /// The root file system's directory, opened with `O_PATH`. An error here is
    /// the runtime's problem too, and does not make the facts less true.
    pub rootfs: Result<OwnedFd, BundleError>,
}

/// Why a bundle is not understood. Paths are the caller's.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The caller's file-system ids could not be taken on.
    #[error("cannot take on user id {uid} and group id {gid} of the caller")]
    Ids {
        /// The caller's file-system user id.
        uid: Uid,
        /// The caller's file-system group id.
        gid: Gid,
    },
    /// A file or directory cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A symbolic link in the place of the file, or a path through `/proc/PID/fd`
    /// and the like: which file it means is up to who follows it.
    #[error("{} is a symbolic link, or reached through a link in /proc", path.display())]
    Link {
        /// The file or directory.
        path: PathBuf,
    },
    /// The file is a FIFO, a device, a socket or a directory.
    #[error("{} is {kind}, not a regular file", path.display())]
    FileType {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The file is longer than [`MAX_CONFIG_LEN`].
    #[error("{} is longer than {MAX_CONFIG_LEN} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is no JSON, or its fields are not what they must be.
    #[error("cannot understand {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What and where, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// The configuration names no root file system.
    #[error("{} has no root.path", path.display())]
    NoRoot {
        /// The file.
        path: PathBuf,
    },
}

impl Bundle {
    /// Reads the bundle of `target` as `caller` sees it.
    pub fn read(caller: &Caller, target: &Target) -> Result<Self, BundleError> {
        let _ids = AssumedIds::assume(caller.ids)?;
        let from_cwd = Place { caller, start: caller.cwd(), path: None };
        let dir = match &target.bundle {
            Some(bundle) => {
                from_cwd.open(bundle, OFlag::O_PATH | OFlag::O_DIRECTORY, Links::Follow)?
            }
            None => caller.cwd().try_clone_to_owned().map_err(|error| BundleError::Open {
                path: from_cwd.shown(Path::new("")),
                source: Errno::try_from(error).unwrap_or(Errno::EIO),
            })?,
        };
        let in_bundle = Place { caller, start: dir.as_fd(), path: target.bundle.as_deref() };
        let (place, config) = match &target.config {
            Some(config) => (&from_cwd, config.as_path()),
            None => (&in_bundle, Path::new("config.json")),
        };
        let mut facts = place.read_config(config)?;
        for mount in &mut facts.mounts {
            mount.resolved = from_cwd.leads_to(mount.source.as_deref());
        }
        let rootfs = match facts.root.as_ref().map(|root| root.path.as_str()) {
            None | Some("") => Err(BundleError::NoRoot { path: place.shown(config) }),
            Some(root) => {
                in_bundle.open(Path::new(root), OFlag::O_PATH | OFlag::O_DIRECTORY, Links::Follow)
            }
        };
        Ok(Self { dir, facts, rootfs })
    }
}

/// Understands the content of a `config.json`; `path` is for messages.
pub fn parse(json: &[u8], path: &Path) -> Result<Facts, BundleError> {
    serde_json::from_slice(json)
        .and_then(|facts| facts::spelling::check(json).map(|()| facts))
        .map_err(|source| BundleError::Json { path: path.to_owned(), source })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    Follow,
    /// The last component must not be a symbolic link.
    RefuseLast,
}

/// A directory from which the caller's relative paths start.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    caller: &'a Caller,
    start: BorrowedFd<'a>,
    /// From the caller's working directory; `None` for that directory itself.
    path: Option<&'a Path>,
}

impl Place<'_> {
    fn open(&self, path: &Path, flags: OFlag, links: Links) -> Result<OwnedFd, BundleError> {
        let flags = match links {
            Links::Follow => flags,
            Links::RefuseLast => flags | OFlag::O_NOFOLLOW,
        };
        self.resolve(path, flags | OFlag::O_CLOEXEC).map_err(|errno| match errno {
            Errno::ELOOP => BundleError::Link { path: self.shown(path) },
            source => BundleError::Open { path: self.shown(path), source },
        })
    }

    /// Looks `path` up as the caller would.
    ///
    /// A relative path is walked from its directory if that cannot leave it.
    /// Otherwise an absolute symbolic link or `..` has to be resolved below the
    /// *caller's* root, for which the kernel wants the walk to begin there.
    fn resolve(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        if path.is_relative() && !path.components().any(|part| part == Component::ParentDir) {
            let how = OpenHow::new()
                .flags(flags)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            match openat2(self.start, path, how) {
                Err(Errno::ELOOP) => {}
                opened => return opened,
            }
        }
        let absolute = self.absolute(path)?;
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // EAGAIN: a rename or mount anywhere raced with a `..` (openat2(2)).
        let mut tries = 0..8;
        loop {
            match openat2(self.caller.root(), &absolute, how) {
                Err(Errno::EAGAIN) if tries.next().is_some() => {}
                opened => return opened,
            }
        }
    }

    /// Where an absolute `source` of a mount leads through symbolic links, if that is elsewhere. Whoever
    /// can write a directory on the way can lead it elsewhere again before the runtime looks.
    fn leads_to(&self, source: Option<&str>) -> Option<String> {
        let source = Path::new(source.filter(|source| source.starts_with('/'))?);
        // What cannot be opened here the runtime cannot mount either, or it is reached through
        // /proc, which the path shows.
        let target = self.open(source, OFlag::O_PATH, Links::Follow).ok()?;
        let link = format!("/proc/thread-self/fd/{}", target.as_raw_fd());
        let found = std::fs::read_link(link).ok()?;
        (found != source).then(|| found.to_string_lossy().into_owned())
    }

    /// `path` from the caller's root directory.
    fn absolute(&self, path: &Path) -> Result<PathBuf, Errno> {
        let dir = self.path.unwrap_or(Path::new(""));
        let path = dir.join(path);
        if path.is_absolute() {
            return Ok(path);
        }
        let cwd = self.caller.cwd_path().map_err(|_| Errno::ENOENT)?;
        // The directory may be removed, or lie under a later mount.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let (found, expected) =
            (fstat(openat2(self.caller.root(), &cwd, how)?)?, fstat(self.caller.cwd())?);
        if (found.st_dev, found.st_ino) != (expected.st_dev, expected.st_ino) {
            return Err(Errno::ESTALE);
        }
        Ok(cwd.join(path))
    }

    /// `path` as shown in messages.
    fn shown(&self, path: &Path) -> PathBuf {
        let path = self.path.unwrap_or(Path::new("")).join(path);
        match self.caller.cwd_path() {
            Ok(cwd) => cwd.join(path),
            Err(_) => path,
        }
    }

    fn read_config(&self, path: &Path) -> Result<Facts, BundleError> {
        // O_PATH first: opening a FIFO waits, and opening a device acts.
        let fd = self.open(path, OFlag::O_PATH, Links::RefuseLast)?;
        let kind = fstat(&fd)
            .map(|stat| regular::kind(&stat))
            .map_err(|source| BundleError::Open { path: self.shown(path), source })?;
        // O_PATH|O_NOFOLLOW opens the link itself.
        if kind == SFlag::S_IFLNK {
            return Err(BundleError::Link { path: self.shown(path) });
        }
        if kind != SFlag::S_IFREG {
            return Err(BundleError::FileType {
                path: self.shown(path),
                kind: regular::type_name(kind),
            });
        }
        let json = regular::read(fd.as_fd(), MAX_CONFIG_LEN)
            .map_err(|source| BundleError::Read { path: self.shown(path), source })?
            .ok_or_else(|| BundleError::TooLong { path: self.shown(path) })?;
        parse(&json, path).map_err(|error| match error {
            BundleError::Json { source, .. } => {
                BundleError::Json { path: self.shown(path), source }
            }
            other => other,
        })
    }
}

/// This thread's file-system ids are the caller's until it is dropped.
///
/// A user id other than 0 also takes the capabilities away that override file
/// permissions (`cap_emulate_setxuid`, security/commoncap.c, 6.12). Supplementary
/// groups stay lockc's own: the caller's may allow it more than is read here, and
/// then the bundle counts as unreadable.
pub(super) struct AssumedIds {
    previous: Option<(Uid, Gid)>,
}

impl AssumedIds {
    pub(super) fn assume(ids: Ids) -> Result<Self, BundleError> {
        if ids.fsuid.is_root() {
            return Ok(Self { previous: None });
        }
        // The group first: the user may not be allowed to change it.
        let gid = setfsgid(ids.fsgid);
        let uid = setfsuid(ids.fsuid);
        let assumed = Self { previous: Some((uid, gid)) };
        if current_fs_ids() == (ids.fsuid, ids.fsgid) {
            Ok(assumed)
        } else {
            Err(BundleError::Ids { uid: ids.fsuid, gid: ids.fsgid })
        }
    }
}

impl Drop for AssumedIds {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.previous {
            setfsuid(uid);
            setfsgid(gid);
        }
    }
}

/// Ids that do not exist change nothing and return the current ones (setfsuid(2)).
fn current_fs_ids() -> (Uid, Gid) {
    (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)))
}
