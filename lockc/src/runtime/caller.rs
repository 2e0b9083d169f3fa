//! The task that executes a runtime, while it is frozen: who it is, and where it
//! stands in the file system.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    unistd::{Gid, Pid, Uid, User, gettid},
};

use super::proc;

/// A caller of an OCI runtime.
#[derive(Debug)]
pub struct Caller {
    /// The thread that called `execve`.
    pub tid: Pid,
    /// Its ids, in the initial user namespace.
    pub ids: Ids,
    /// When the thread started, in clock ticks since boot. With `tid` it names the
    /// thread for good.
    pub start_ticks: u64,
    cwd: OwnedFd,
    root: OwnedFd,
}

/// User and group ids of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Effective user id: whose container it is.
    pub euid: Uid,
    /// File-system user id: whose files it can read.
    pub fsuid: Uid,
    /// File-system group id.
    pub fsgid: Gid,
}

/// Why a caller's facts could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// A file in `/proc/TID` cannot be read; most often the task is gone.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file in `/proc/TID` lacks a field.
    #[error("{} has no {field}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The missing field.
        field: &'static str,
    },
}

impl Caller {
    /// Reads what there is to know about thread `tid`, which must not run
    /// meanwhile.
    pub fn read(tid: Pid) -> Result<Self, CallerError> {
        let dir = PathBuf::from(format!("/proc/{tid}"));
        let start_ticks = field(&dir.join("stat"), "start time", start_ticks)?;
        let ids = field(&dir.join("status"), "Uid or Gid line", Ids::parse)?;
        let cwd = open_path(dir.join("cwd"))?;
        let root = open_path(dir.join("root"))?;
        Ok(Self { tid, ids, start_ticks, cwd, root })
    }

    /// Somebody with `ids` who stands where this thread does: for a caller that is not there.
    pub fn standing_in(ids: Ids) -> Result<Self, CallerError> {
        Ok(Self { ids, ..Self::read(gettid())? })
    }

    /// The caller's working directory, opened with `O_PATH`.
    pub fn cwd(&self) -> BorrowedFd<'_> {
        self.cwd.as_fd()
    }

    /// The caller's root directory, opened with `O_PATH`.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The working directory as a path from the root directory, if it has one:
    /// it may be removed, or lie outside the root.
    pub(super) fn cwd_path(&self) -> io::Result<PathBuf> {
        let root = fs::read_link(format!("/proc/{}/root", self.tid))?;
        let cwd = fs::read_link(format!("/proc/{}/cwd", self.tid))?;
        let inside = cwd.strip_prefix(&root).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(Path::new("/").join(inside))
    }
}

fn field<T>(
    path: &Path,
    field: &'static str,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, CallerError> {
    // A task in hundreds of groups has a longer `status`, whose end is not needed.
    let mut text = [0; 4096];
    let text = proc::read(path, &mut text)
        .map_err(|source| CallerError::Read { path: path.to_owned(), source })?;
    parse(text).ok_or_else(|| CallerError::Field { path: path.to_owned(), field })
}

fn open_path(path: PathBuf) -> Result<OwnedFd, CallerError> {
    // Nothing below it is asked: a file system in user space, which may refuse lockc or never
    // answer it, does not notice.
    proc::open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .map_err(|source| CallerError::Read { path, source })
}

/// Field 22 of `/proc/TID/stat` (`proc_pid_stat(5)`). Field 2, the name, is in
/// parentheses and may itself contain spaces and parentheses, so that fields
/// are counted from the last one.
pub fn start_ticks(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&stat[end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

impl Ids {
    /// The ids of a user's processes. The group of a user that `/etc/passwd` does not have is taken to
    /// be the user's own.
    pub fn of_user(uid: Uid) -> Self {
        let user = User::from_uid(uid).ok().flatten();
        let gid = user.map_or(Gid::from_raw(uid.as_raw()), |user| user.gid);
        Self { euid: uid, fsuid: uid, fsgid: gid }
    }

    /// Understands `/proc/TID/status`. The name in its first line is escaped, so
    /// that it cannot bring a line of its own.
    pub fn parse(status: &[u8]) -> Option<Self> {
        // Real, effective, saved and file-system ids.
        let ids = |key: &[u8]| -> Option<[u32; 4]> {
            let line = status.split(|byte| *byte == b'\n').find(|line| line.starts_with(key))?;
            let line = str::from_utf8(&line[key.len()..]).ok()?;
            let mut ids = line.split_ascii_whitespace().map(|id| id.parse().ok());
            Some([ids.next()??, ids.next()??, ids.next()??, ids.next()??])
        };
        let [_, euid, _, fsuid] = ids(b"Uid:")?;
        let [_, _, _, fsgid] = ids(b"Gid:")?;
        Some(Self {
            euid: Uid::from_raw(euid),
            fsuid: Uid::from_raw(fsuid),
            fsgid: Gid::from_raw(fsgid),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn start_time_behind_any_name() {
        let tail = "S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0 184467";
        for name in ["runc", "a b", "a) S 1 (", "))", "\u{fffd}"] {
            assert_eq!(start_ticks(format!("7 ({name}) {tail}\n").as_bytes()), Some(4711));
        }
        assert_eq!(start_ticks(b"7 (\xff\xfe) S 1"), None);
        assert_eq!(start_ticks(b""), None);
    }

    #[test]
    fn ids_are_the_effective_and_the_file_system_ones() {
        let status =
            b"Name:\tUid:\\n\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t\n";
        let ids = Ids::parse(status).unwrap();
        assert_eq!((ids.euid.as_raw(), ids.fsuid.as_raw(), ids.fsgid.as_raw()), (2, 4, 8));
        assert_eq!(Ids::parse(b"Name:\tx\nUid:\t1\t2\nGid:\t1\t2\t3\t4\n"), None);
    }

    #[test]
    fn oneself() {
        let caller = Caller::read(gettid()).unwrap();
        assert_eq!(caller.ids.euid, nix::unistd::geteuid());
        assert!(caller.start_ticks > 0);
        let cwd = nix::sys::stat::fstat(caller.cwd()).unwrap();
        assert_eq!(cwd.st_ino, fs::metadata(".").unwrap().ino());
        assert_eq!(caller.cwd_path().unwrap(), std::env::current_dir().unwrap());
        for directory in [caller.cwd(), caller.root()] {
            let flags = nix::fcntl::fcntl(directory, nix::fcntl::FcntlArg::F_GETFL).unwrap();
            assert!(OFlag::from_bits_retain(flags).contains(OFlag::O_PATH));
        }
    }

    #[test]
    fn a_task_that_is_gone_is_an_error() {
        let error = Caller::read(Pid::from_raw(i32::MAX)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read /proc/{}/stat", i32::MAX));
    }
}
