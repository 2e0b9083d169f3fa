//! What attempts are made on: files and sockets of the daemon's own.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use nix::{
    libc,
    sched::{CpuSet, sched_getaffinity},
    sys::{
        memfd::{MFdFlags, memfd_create},
        resource::{Resource, getrlimit, rlim_t},
        socket::{SockaddrLike as _, UnixAddr},
    },
    unistd::Pid,
};

/// Names in [`Place::directory`].
const FILE: &str = "file";
const LISTENER: &str = "docker.sock";
/// Names beside it.
const FREE: &str = "self-test-allow";
const OWN: &str = "self-test-own";
/// Bytes of [`Place::memory`].
pub(super) const PAGE: usize = 4096;

/// Everything that an attempt needs, made before: between fork and exit nothing is allocated.
#[derive(Debug)]
pub(super) struct Place {
    /// Where rules deny everything.
    directory: PathBuf,
    pub(super) itself: CString,
    pub(super) file: CString,
    /// A file and a directory to be removed, and a file to be renamed.
    pub(super) removed: CString,
    pub(super) removed_directory: CString,
    pub(super) moved: CString,
    /// Names of what is not there yet.
    pub(super) renamed: CString,
    pub(super) linked: CString,
    pub(super) symlink: CString,
    pub(super) fifo: CString,
    pub(super) made_directory: CString,
    /// A name that no rule is about.
    pub(super) device: CString,
    /// A file of lockc's own, open for writing.
    own: File,
    memory: Option<OwnedFd>,
    udp: Option<UdpSocket>,
    _listener: Option<UnixListener>,
    address: Option<UnixAddr>,
    pub(super) daemon: Process,
}

/// The process that forks, as it is.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: libc::pid_t,
    pub(super) priority: i32,
    pub(super) processors: Option<CpuSet>,
    pub(super) core: Option<(rlim_t, rlim_t)>,
}

impl Place {
    /// A directory in which policies may deny everything. `base` is lockc's own.
    pub(super) fn directory(base: &Path) -> PathBuf {
        base.join("self-test-deny")
    }

    /// Makes everything anew, for every time that attempts are made.
    pub(super) fn make(base: &Path) -> io::Result<Self> {
        let directory = Self::directory(base);
        // Left of a daemon that was killed here, or of the last time.
        remove(&directory)?;
        let free = base.join(FREE);
        remove(&free)?;
        fs::create_dir(&free)?;
        fs::create_dir(&directory)?;
        let (removed_directory, removed) = (directory.join("empty"), directory.join("removed"));
        let moved = directory.join("moved");
        fs::create_dir(&removed_directory)?;
        for path in [directory.join(FILE), removed.clone(), moved.clone()] {
            File::options().write(true).create_new(true).mode(0o700).open(path)?.write_all(b"x")?;
        }
        let own = File::create(base.join(OWN))?;
        let path = directory.join(LISTENER);
        let listener = UnixListener::bind(&path).ok();
        Ok(Self {
            itself: name(&directory)?,
            file: name(&directory.join(FILE))?,
            removed: name(&removed)?,
            removed_directory: name(&removed_directory)?,
            moved: name(&moved)?,
            renamed: name(&directory.join("renamed"))?,
            linked: name(&directory.join("linked"))?,
            symlink: name(&directory.join("symlink"))?,
            fifo: name(&directory.join("fifo"))?,
            made_directory: name(&directory.join("made"))?,
            device: name(&free.join("device"))?,
            own,
            memory: memory(),
            udp: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok(),
            _listener: listener,
            address: UnixAddr::new(&path).ok(),
            daemon: Process::this(),
            directory,
        })
    }

    pub(super) fn own(&self) -> RawFd {
        self.own.as_raw_fd()
    }

    /// A page that only has a descriptor.
    pub(super) fn memory(&self) -> Option<RawFd> {
        self.memory.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub(super) fn udp(&self) -> Option<RawFd> {
        self.udp.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The listening socket's address, as calls take it.
    pub(super) fn sockaddr(&self) -> Option<(*const libc::sockaddr, libc::socklen_t)> {
        self.address.as_ref().map(|address| (address.as_ptr().cast(), address.len()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let base = self.directory.parent().unwrap_or(&self.directory);
        for name in [FREE, OWN] {
            let _ = remove(&base.join(name));
        }
        let _ = remove(&self.directory);
    }
}

impl Process {
    fn this() -> Self {
        // SAFETY: no preconditions.
        let priority = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        Self {
            id: Pid::this().as_raw(),
            priority,
            processors: sched_getaffinity(Pid::this()).ok(),
            core: getrlimit(Resource::RLIMIT_CORE).ok(),
        }
    }
}

fn memory() -> Option<OwnedFd> {
    let memory = File::from(memfd_create(c"lockc-self-test", MFdFlags::MFD_CLOEXEC).ok()?);
    // Nothing that could be executed.
    memory.set_len(PAGE as u64).ok()?;
    Some(memory.into())
}

fn name(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
