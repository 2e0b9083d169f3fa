//! Containers that runtimes keep on this machine: their state directories.
//!
//! Runtimes of users other than root keep theirs below `/run/user`, where the user writes what they
//! like: whose container it is, is said by the owner of its directory, and nothing else there is
//! believed more than a command line would be.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{SFlag, fstatat},
    unistd::Uid,
};
use serde::Deserialize;

use super::{
    caller::{Caller, CallerError, Ids},
    cmdline::{ContainerId, Dialect},
    engine::kept::{self, KeptError},
    regular,
};
use crate::config::Config;

/// Where state directories are, unless a test says otherwise.
pub const RUN: &str = "/run";

/// State directories of root's runtimes, below [`RUN`]; `*` is every directory. Those of runc and youki,
/// and of crun (`get_run_directory`, `src/libcrun/status.c`), also of podman's and CRI-O's containers;
/// what Docker 26.1 tells its runtime; containerd's (`RuncRoot`,
/// `cmd/containerd-shim-runc-v2/process/init.go`, 2.0), also of k3s unless that is told another.
pub const SYSTEM: [&str; 6] = [
    "runc",
    "crun",
    "youki",
    "docker/runtime-runc/*",
    "containerd/runc/*",
    "k3s/containerd/runc/*",
];

/// State directories of users' runtimes, below [`RUN`].
pub const OF_USERS: [&str; 4] =
    ["user/*/runc", "user/*/crun", "user/*/youki", "user/*/docker/runtime-runc/*"];

/// Most entries of one directory that are looked at.
pub const MAX_ENTRIES: usize = 4096;

/// Containers that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The containers, in the order of their places and ids.
    pub containers: Vec<Kept>,
    /// What could not be looked at, for people. What is not there is not meant.
    pub troubles: Vec<String>,
}

/// A container that a runtime keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: ContainerId,
    /// Its own state directory.
    pub dir: PathBuf,
    /// Who that belongs to.
    pub owner: Uid,
}

/// What a runtime says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Whose state it is, by its form.
    pub dialect: Dialect,
    /// The bundle: an absolute path.
    pub bundle: PathBuf,
    /// Its first process, if it has one.
    pub first: Option<First>,
}

impl State {
    /// The name in the configuration of a runtime that keeps its state so; the first one if there is none.
    pub fn runtime<'c>(&self, config: &'c Config) -> &'c str {
        let names = || config.runtimes.iter().map(|runtime| runtime.name.as_str());
        names()
            .find(|name| Dialect::of(name) == self.dialect)
            .or_else(|| names().next())
            .unwrap_or("runc")
    }
}

/// The first process of a container, as its runtime has noted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since boot; youki does not note it.
    pub start_ticks: Option<u64>,
    /// It is the runtime's, and waits to be started.
    pub waits: bool,
}

/// Why a container's state is not understood.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Its owner cannot be stood in for.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The state cannot be read. Its text says which file, and why.
    #[error("{0}")]
    Read(String),
    /// It is no JSON, or something in it is not what it must be.
    #[error("cannot understand {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What and where.
        #[source]
        source: serde_json::Error,
    },
    /// It names no bundle, or one that cannot be.
    #[error("{} names no bundle by an absolute path; give its bundle instead", path.display())]
    NoBundle {
        /// The file.
        path: PathBuf,
    },
}

/// Containers below the places that `patterns` name, themselves below `run`.
pub fn list(run: &Path, patterns: &[&str]) -> Listing {
    let mut listing = Listing::default();
    for pattern in patterns {
        let mut places = vec![run.to_owned()];
        for part in pattern.split('/') {
            places = match part {
                "*" => places.iter().flat_map(|place| listing.directories(place)).collect(),
                name => places.iter().map(|place| place.join(name)).collect(),
            };
        }
        for place in places {
            listing.add(&place);
        }
    }
    listing
}

impl Listing {
    /// The containers in one state directory (`--root`).
    pub fn of_root(root: &Path) -> Self {
        let mut listing = Self::default();
        listing.add(root);
        listing
    }

    /// The containers with this id; if there is none, those whose ids begin with it.
    pub fn named(&self, id: &[u8]) -> Vec<&Kept> {
        let all = self.containers.iter();
        let same: Vec<_> = all.clone().filter(|kept| kept.id.as_bytes() == id).collect();
        if same.is_empty() && !id.is_empty() {
            all.filter(|kept| kept.id.as_bytes().starts_with(id)).collect()
        } else {
            same
        }
    }

    fn add(&mut self, place: &Path) {
        for dir in self.directories(place) {
            let id = dir.file_name().map(OsStr::as_bytes).unwrap_or_default();
            if let Some((id, owner)) = ContainerId::new(id).zip(owner(&dir)) {
                self.containers.push(Kept { id, dir, owner });
            }
        }
    }

    /// The directories in one, in the order of their names, without links.
    fn directories(&mut self, place: &Path) -> Vec<PathBuf> {
        let (mut found, cut) = match directories(place) {
            Ok(found) => found,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Vec::new(),
            Err(error) => {
                self.troubles.push(format!("cannot read {}: {error}", place.display()));
                return Vec::new();
            }
        };
        if cut {
            let place = place.display();
            self.troubles.push(format!("{place} has more than {MAX_ENTRIES} entries"));
        }
        found.sort();
        found
    }
}

/// The directories in one, and whether there may be more.
fn directories(place: &Path) -> Result<(Vec<PathBuf>, bool), Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let mut dir = Dir::from_fd(openat2(AT_FDCWD, place, how)?)?;
    let mut found = Vec::new();
    for (count, entry) in dir.iter().enumerate() {
        if count == MAX_ENTRIES {
            return Ok((found, true));
        }
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let path = place.join(OsStr::from_bytes(name));
        if name != b"." && name != b".." && owner(&path).is_some() {
            found.push(path);
        }
    }
    Ok((found, false))
}

/// Who a directory belongs to; `None` if it is something else.
fn owner(path: &Path) -> Option<Uid> {
    let stat = fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    (regular::kind(&stat) == SFlag::S_IFDIR).then(|| Uid::from_raw(stat.st_uid))
}

/// State files of runc and youki, and of crun.
pub const FILES: [&str; 2] = ["state.json", "status"];

impl Kept {
    /// Reads what the runtime says, with the owner's rights.
    pub fn state(&self) -> Result<State, StateError> {
        let caller = Caller::standing_in(Ids::of_user(self.owner))?;
        let mut absent = None;
        for name in FILES {
            let path = self.dir.join(name);
            match kept::read_as(&caller, &path) {
                Ok(json) => {
                    let mut state = understand(&json, name, path)?;
                    if let Some(first) = &mut state.first {
                        first.waits |= self.waits();
                    }
                    return Ok(state);
                }
                Err(KeptError::Open { source: Errno::ENOENT, .. }) => absent = Some(path),
                Err(error) => return Err(StateError::Read(error.to_string())),
            }
        }
        let error = io::Error::from(Errno::ENOENT);
        let path = absent.unwrap_or_else(|| self.dir.clone());
        Err(StateError::Read(format!("cannot open {}: {error}", path.display())))
    }
}

/// A runtime's init opens this to be told to go on, and it is removed then (`EXEC_FIFO`: runc's
/// `libcontainer/container_linux.go`, 1.1; crun's `src/libcrun/status.c`, 1.14).
const FIFO: &str = "exec.fifo";

/// What crun makes beside the directories of containers, whose ids do not begin so in its newer versions
/// (`SECCOMP_CACHE_DIR` in `src/libcrun/seccomp.c`, `get_shared_empty_directory_path` in `src/libcrun/status.c`, 0138c64).
const NO_CONTAINERS: [&[u8]; 2] = [b".cache", b".empty-directory"];

impl Kept {
    /// Whether it is no container, but something of its runtime's own.
    pub fn is_of_runtime(&self) -> bool {
        let has = |name: &&str| {
            fstatat(AT_FDCWD, &self.dir.join(name), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
        };
        NO_CONTAINERS.contains(&self.id.as_bytes()) && !FILES.iter().any(has)
    }

    fn waits(&self) -> bool {
        fstatat(AT_FDCWD, &self.dir.join(FIFO), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }
}

/// State of runc, crun (`libcrun_write_container_status`, `src/libcrun/status.c`) or youki, as far as it
/// is needed.
#[derive(Debug, Deserialize)]
struct Raw {
    bundle: Option<String>,
    config: Option<RawConfig>,
    /// runc's (`BaseState`, `libcontainer/container.go`, 1.1).
    init_process_pid: Option<i64>,
    init_process_start: Option<u64>,
    /// crun's and youki's.
    pid: Option<i64>,
    #[serde(rename = "process-start-time")]
    process_start_time: Option<u64>,
    /// youki's.
    status: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawConfig {
    labels: Option<Vec<String>>,
}

/// Understands the file `name` of [`FILES`]; `path` is for messages.
pub fn understand(json: &[u8], name: &str, path: PathBuf) -> Result<State, StateError> {
    let raw: Raw = match serde_json::from_slice(json) {
        Ok(raw) => raw,
        Err(source) => return Err(StateError::Json { path, source }),
    };
    let pid = raw.init_process_pid.or(raw.pid).and_then(|pid| u32::try_from(pid).ok());
    let first = pid.filter(|pid| *pid > 0).map(|pid| First {
        pid,
        start_ticks: raw.init_process_start.or(raw.process_start_time).filter(|ticks| *ticks > 0),
        waits: matches!(raw.status.as_deref(), Some("creating" | "created")),
    });
    let (dialect, bundle) = match (name, raw.bundle) {
        ("status", bundle) => (Dialect::Crun, bundle),
        (_, Some(bundle)) => (Dialect::Youki, Some(bundle)),
        // runc makes labels of annotations, one of which may be called `bundle`, and puts its own
        // behind them (CreateLibcontainerConfig, libcontainer/specconv/spec_linux.go).
        (_, None) => {
            let labels = raw.config.and_then(|config| config.labels).unwrap_or_default();
            let bundle = labels.iter().rev().find_map(|label| label.strip_prefix("bundle="));
            (Dialect::Runc, bundle.map(str::to_owned))
        }
    };
    let possible = |bundle: &String| {
        bundle.starts_with('/') && bundle.len() <= kept::MAX_PATH_LEN && !bundle.contains('\0')
    };
    match bundle.filter(possible) {
        Some(bundle) => Ok(State { dialect, bundle: bundle.into(), first }),
        None => Err(StateError::NoBundle { path }),
    }
}
