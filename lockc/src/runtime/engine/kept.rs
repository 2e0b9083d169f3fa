//! Files that only root can have written, and files of a user, read as that user.
//!
//! A path is as good as the weakest directory on it: whoever can write to one of them can put
//! something else in the place of everything below. So the path is walked from the root directory,
//! one name at a time, without following links, and every step is looked at.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{FileStat, SFlag, fstat},
    unistd::Uid,
};

use crate::runtime::{
    bundle::{AssumedIds, BundleError},
    caller::Caller,
    regular,
};

/// Most bytes of a record. Docker's has some 10 KiB; podman's has all containers of a user, of less
/// than 1 KiB each.
pub const MAX_RECORD_LEN: u64 = 1 << 20;

/// Longest path: the kernel's own limit.
pub(in crate::runtime) const MAX_PATH_LEN: usize = 4096;

/// Why a file or directory is not used.
#[derive(Debug, thiserror::Error)]
pub(in crate::runtime) enum KeptError {
    /// It cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: Errno },
    /// Others can write it.
    #[error("{} can be written by others than {keeper} (owner {owner}, mode {mode:04o})", path.display())]
    Exposed { path: PathBuf, keeper: &'static str, owner: u32, mode: u32 },
    /// It is something else than it should be.
    #[error("{} is {kind}, not {wanted}", path.display())]
    Kind { path: PathBuf, kind: &'static str, wanted: &'static str },
    /// It is longer than [`MAX_RECORD_LEN`].
    #[error("{} is longer than {MAX_RECORD_LEN} bytes", path.display())]
    TooLong { path: PathBuf },
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The path is relative, or has `..`.
    #[error("{} is not a plain absolute path", path.display())]
    Path { path: PathBuf },
    /// The user's ids cannot be taken on.
    #[error(transparent)]
    Ids(#[from] BundleError),
}

/// Opens the directory `path` of the host, on which only root can write anywhere, with `O_PATH`.
pub(super) fn directory(path: &Path) -> Result<OwnedFd, KeptError> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return Err(KeptError::Path { path: path.to_owned() });
    }
    let mut walked = PathBuf::new();
    let mut dir: Option<OwnedFd> = None;
    for part in path.components() {
        walked.push(part);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = match &dir {
            None => open(AT_FDCWD, Path::new("/"), flags, ResolveFlag::RESOLVE_NO_SYMLINKS),
            Some(dir) => open(dir.as_fd(), Path::new(&part), flags, ONE_STEP),
        };
        let next = next.map_err(|source| KeptError::Open { path: walked.clone(), source })?;
        only_root_writes(&stat(next.as_fd(), &walked)?, &walked)?;
        dir = Some(next);
    }
    dir.ok_or_else(|| KeptError::Path { path: path.to_owned() })
}

/// Reads the record `name` in the directory `dir` of the host, which only root can have written.
pub(super) fn read(dir: &Path, name: &str) -> Result<Vec<u8>, KeptError> {
    let path = dir.join(name);
    let file = file(directory(dir)?.as_fd(), name, &path)?;
    content(file.as_fd(), path)
}

/// Opens the regular file `name` in `dir` with `O_PATH`, which only root can have written.
pub(super) fn file(dir: BorrowedFd<'_>, name: &str, path: &Path) -> Result<OwnedFd, KeptError> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = open(dir, Path::new(name), flags, ONE_STEP)
        .map_err(|source| KeptError::Open { path: path.to_owned(), source })?;
    let stat = stat(file.as_fd(), path)?;
    regular_only(&stat, path)?;
    only_root_writes(&stat, path)?;
    Ok(file)
}

/// Reads the record at `path` as `caller` sees it and with its rights. It must belong to them, or
/// to root: no other user shall put words into their mouth.
pub(in crate::runtime) fn read_as(caller: &Caller, path: &Path) -> Result<Vec<u8>, KeptError> {
    let _ids = AssumedIds::assume(caller.ids)?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let file = open(caller.root(), path, flags, resolve)
        .map_err(|source| KeptError::Open { path: path.to_owned(), source })?;
    let stat = stat(file.as_fd(), path)?;
    regular_only(&stat, path)?;
    let owner = Uid::from_raw(stat.st_uid);
    if (owner != caller.ids.euid && !owner.is_root()) || stat.st_mode & OTHERS_WRITE != 0 {
        return Err(exposed(&stat, path, "its user"));
    }
    content(file.as_fd(), path.to_owned())
}

/// The kernel's `S_IWGRP | S_IWOTH`. An access control list that lets somebody write shows as the
/// group's bit (acl(5)).
const OTHERS_WRITE: u32 = 0o022;

/// One name, no links.
const ONE_STEP: ResolveFlag = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_SYMLINKS);

fn open(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    resolve: ResolveFlag,
) -> Result<OwnedFd, Errno> {
    openat2(dir, path, OpenHow::new().flags(flags).resolve(resolve))
}

fn stat(fd: BorrowedFd<'_>, path: &Path) -> Result<FileStat, KeptError> {
    fstat(fd).map_err(|source| KeptError::Open { path: path.to_owned(), source })
}

fn only_root_writes(stat: &FileStat, path: &Path) -> Result<(), KeptError> {
    if stat.st_uid != 0 || stat.st_mode & OTHERS_WRITE != 0 {
        return Err(exposed(stat, path, "root"));
    }
    Ok(())
}

fn exposed(stat: &FileStat, path: &Path, keeper: &'static str) -> KeptError {
    let (owner, mode) = (stat.st_uid, stat.st_mode & 0o7777);
    KeptError::Exposed { path: path.to_owned(), keeper, owner, mode }
}

fn regular_only(stat: &FileStat, path: &Path) -> Result<(), KeptError> {
    let kind = regular::kind(stat);
    if kind == SFlag::S_IFREG {
        return Ok(());
    }
    let kind = regular::type_name(kind);
    Err(KeptError::Kind { path: path.to_owned(), kind, wanted: "a regular file" })
}

fn content(file: BorrowedFd<'_>, path: PathBuf) -> Result<Vec<u8>, KeptError> {
    match regular::read(file, MAX_RECORD_LEN) {
        Ok(Some(content)) => Ok(content),
        Ok(None) => Err(KeptError::TooLong { path }),
        Err(source) => Err(KeptError::Read { path, source }),
    }
}
