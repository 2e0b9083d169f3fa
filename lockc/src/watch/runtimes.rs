//! Which files are OCI runtimes now, and noticing when that changes.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use lockc_common::KnownFile;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        stat::fstat,
    },
};

use super::{
    group::Group,
    own::{self, own_files},
};
use crate::{
    adopt::real_paths,
    bpf::{calls, maps::Maps},
    config::{NamePattern, Runtime, expand, name_patterns},
};

/// How the name of runc's copy of itself begins, whatever the name of its file was: `memfd:` of the kernel's, and
/// runc's own comment (`libcontainer/exeseal/cloned_binary_linux.go`, 1.3).
const MEMFD: &[u8] = b"memfd:runc_cloned:";

/// The configured runtimes and the files they are at present.
#[derive(Debug)]
pub struct Runtimes {
    group: Arc<Group>,
    inotify: Inotify,
    /// The configuration's main file.
    config: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    configured: Vec<Runtime>,
    scan: u64,
    /// Name and path by device and inode number: the path of a file that is executed through a
    /// private mount says nothing (crun executes itself so).
    files: BTreeMap<(u64, u64), (String, PathBuf)>,
}

impl Runtimes {
    /// Marks the files of all configured runtimes, so that whoever executes one waits for the gate.
    /// `config` is where the configuration is: it is kept from containers with the other files of lockc's.
    pub fn mark(configured: Vec<Runtime>, config: &Path, group: Arc<Group>) -> io::Result<Self> {
        // `notify` would watch for opens too, and wake the daemon for every program that is
        // started from /usr/bin.
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let state = Mutex::new(State { configured, scan: 0, files: BTreeMap::new() });
        let runtimes = Self { group, inotify, config: config.to_owned(), state };
        runtimes.scan(None);
        Ok(runtimes)
    }

    /// From now on, `configured` are the runtimes.
    pub fn configure(&self, configured: Vec<Runtime>, maps: &Maps) {
        self.state().configured = configured;
        self.scan(Some(maps));
    }

    /// Name and path of the runtime whose file is behind `exe`, if it is a configured one.
    pub fn identify(&self, exe: BorrowedFd<'_>) -> Option<(String, PathBuf)> {
        let key = identity(exe).ok()?;
        self.state().files.get(&key).cloned()
    }

    /// The real path of every file, and the name of its runtime.
    pub fn real_paths(&self) -> Vec<(PathBuf, String)> {
        let state = self.state();
        real_paths(state.files.values().map(|(name, path)| (path.as_path(), name.as_str())))
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.state().files.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for the files again, marks them, and with `maps` tells the kernel side. A file that
    /// cannot be opened or marked is logged and left to the kernel side, which knows its name.
    pub fn scan(&self, maps: Option<&Maps>) {
        let mut state = self.state();
        state.scan += 1;
        // A daemon that starts later must not find its predecessor's files fresh.
        let scan = u64::from(std::process::id()) << 32 | state.scan;
        let before = std::mem::take(&mut state.files);
        let mut known_by = vec![NamePattern { begin: MEMFD.to_vec(), end: Some(Vec::new()) }];
        for runtime in &state.configured.clone() {
            self.watch(&expand(&runtime.paths).directories);
            // After the watches, so that what appears meanwhile is not missed.
            let expansion = expand(&runtime.paths);
            if expansion.cut {
                log::warn!(
                    "the paths of runtime {} stand for too many files; some are not marked",
                    runtime.name
                );
            }
            known_by.extend(runtime.paths.iter().filter_map(|path| name_patterns(path)).flatten());
            for path in expansion.files {
                match self.mark_file(&path) {
                    Ok((file, key)) => {
                        let known = KnownFile::new(KnownFile::RUNTIME, scan);
                        calls::add_file(fd_argument(&file), known.0);
                        let name = path.file_name();
                        known_by
                            .extend(name.map(|name| NamePattern::exact(name.as_encoded_bytes())));
                        state.files.insert(key, (runtime.name.clone(), path));
                    }
                    Err(error) => log::error!("cannot watch runtime {}: {error}", path.display()),
                }
            }
        }
        for (key, (_, path)) in before {
            if !state.files.contains_key(&key) {
                self.release(&path, key);
            }
        }
        if let Some(maps) = maps {
            for NamePattern { begin, end } in maps.set_runtime_names(known_by) {
                let (star, end) = end.map_or(("", Vec::new()), |end| ("*", end));
                log::warn!(
                    "runtimes are not recognised by the name {}{star}{} alone: it is too long, or another one hides it",
                    begin.escape_ascii(),
                    end.escape_ascii()
                );
            }
            self.name_own_files(scan);
            maps.prune_known_files(scan);
        }
    }

    /// Tells the kernel side which files are lockc's.
    fn name_own_files(&self, scan: u64) {
        for (path, kind) in own_files(&self.config) {
            match own::open(&path) {
                Ok(file) => calls::add_file(fd_argument(&file), KnownFile::new(kind, scan).0),
                Err(error) => log::error!("containers can change {}: {error}", path.display()),
            }
        }
    }

    /// Takes the mark from a file that is no runtime any more, if it is still there: those that
    /// execute it need not wait.
    fn release(&self, path: &Path, key: (u64, u64)) {
        if let Ok(file) = open(path)
            && identity(file.as_fd()).is_ok_and(|found| found == key)
            && let Err(error) = self.group.unmark(file.as_fd())
        {
            log::error!("cannot stop watching {}: {error}", path.display());
        }
    }

    fn mark_file(&self, path: &Path) -> io::Result<(File, (u64, u64))> {
        let file = open(path)?;
        self.group.mark(file.as_fd())?;
        self.watch(real_path(path).parent().map(Path::to_owned).iter());
        let key = identity(file.as_fd())?;
        Ok((file, key))
    }

    fn watch<'a>(&self, directories: impl IntoIterator<Item = &'a PathBuf>) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        for directory in directories {
            if let Err(errno) = self.inotify.add_watch(directory, flags) {
                log::error!("cannot watch {}: {errno}", directory.display());
            }
        }
    }

    /// Scans again whenever something changes where runtimes may be, in a thread of its own.
    pub fn follow(self: &Arc<Self>, maps: Arc<Maps>) -> io::Result<()> {
        let runtimes = Arc::clone(self);
        thread::Builder::new().name("runtimes".into()).spawn(move || {
            loop {
                match runtimes.inotify.read_events() {
                    Ok(_) | Err(Errno::EINTR) => runtimes.scan(Some(&maps)),
                    Err(errno) => {
                        log::error!("new runtimes are not noticed any more: {errno}");
                        return;
                    }
                }
            }
        })?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

fn identity(file: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn real_path(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A descriptor as an argument of [`calls`].
pub fn fd_argument(file: &impl std::os::fd::AsFd) -> u64 {
    u64::try_from(file.as_fd().as_raw_fd()).unwrap_or(calls::NO_FD)
}
