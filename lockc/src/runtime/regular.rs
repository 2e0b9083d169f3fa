//! Reading regular files that may be something else, of any length.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use nix::{
    fcntl::OFlag,
    sys::stat::{FileStat, SFlag},
};

/// What kind of file it is.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// The kind, for people.
pub(super) fn type_name(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFCHR => "a character device",
        SFlag::S_IFBLK => "a block device",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFLNK => "a symbolic link",
        _ => "something else",
    }
}

/// The content of a regular file that was opened with `O_PATH`; `None` if it is longer than `max`
/// bytes. The caller has made sure of the kind: opening a FIFO waits, and opening a device acts.
pub(super) fn read(fd: BorrowedFd<'_>, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))?;
    let len = file.metadata()?.len();
    if len > max {
        return Ok(None);
    }
    let mut content = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1);
    // It may grow meanwhile.
    file.take(max + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= max).then_some(content))
}
