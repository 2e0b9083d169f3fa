//! Opening and reading below `/proc`, with as few system calls as it takes: all of it happens while
//! a runtime waits.
//!
//! musl follows every `open` with `O_CLOEXEC` by an `fcntl`, for kernels that do not know the flag;
//! `openat` it does not (src/fcntl/open.c, musl 1.2.5). `std`'s `OpenOptions` is no way around it:
//! it takes what musl counts as the access mode out of its custom flags, and with it `O_PATH`.

use std::{io, os::fd::OwnedFd, path::Path};

use nix::{
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::Mode,
    unistd,
};

/// Opens a file or directory, closed on exec.
pub(super) fn open(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    Ok(openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// What the file says, up to the length of `buffer`: one read is one consistent answer.
pub(super) fn read<'b>(path: &Path, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let len = unistd::read(open(path, OFlag::O_RDONLY)?, buffer)?;
    Ok(&buffer[..len])
}
