//! Ways to change a file, a directory or their names.

use std::{
    ffi::CStr,
    fs::{self, OpenOptions, Permissions},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{OpenOptionsExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, open},
    libc,
    sys::{
        stat::{Mode, UtimensatFlags, futimens, utimensat},
        time::TimeSpec,
    },
    unistd::{self, Gid, Uid},
};

use super::{
    Failure, Outcome, Step as _,
    files::{c_path, open_read},
};
use crate::sys::{
    attributes::{self, ACL, CAPABILITY, NO_CAPABILITIES, READABLE_FOR_1000},
    uring::{self, Opened},
};

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let result = match (verb, args) {
        ("chmod", [path]) => fs::set_permissions(path, Permissions::from_mode(0o666)).step("chmod"),
        ("fchmod", [path]) => {
            on(path, |file| nix::sys::stat::fchmod(file, Mode::from_bits_truncate(0o666)))
        }
        ("chown", [path]) => unistd::chown(*path, Some(Uid::from_raw(1)), None).step("chown"),
        ("fchown", [path]) => on(path, |file| unistd::fchown(file, None, Some(Gid::from_raw(1)))),
        ("utimes", [path]) => touch(path).step("utimensat"),
        ("futimes", [path]) => on(path, |file| futimens(file, &TIME, &TIME)),
        ("setxattr", [path]) => set(path, CAPABILITY, &NO_CAPABILITIES),
        ("fsetxattr", [path]) => {
            on(path, |file| attributes::set_open(file, CAPABILITY, &NO_CAPABILITIES))
        }
        ("removexattr", [path]) => remove(path, CAPABILITY),
        ("acl", [path]) => set(path, ACL, &READABLE_FOR_1000),
        ("remove-acl", [path]) => remove(path, ACL),
        ("mkdir", [path]) => fs::create_dir(path).step("mkdir"),
        ("rmdir", [path]) => fs::remove_dir(path).step("rmdir"),
        ("fifo", [path]) => unistd::mkfifo(*path, Mode::from_bits_truncate(0o600)).step("mknod"),
        ("bind-unix", [path]) => UnixListener::bind(path).step("bind").map(drop),
        ("make-link", [path]) => std::os::unix::fs::symlink("/tmp", path).step("symlink"),
        ("hard-link", [path, link]) => fs::hard_link(path, link).step("link"),
        ("create", [path]) => {
            OpenOptions::new().write(true).create_new(true).open(path).step("open").map(drop)
        }
        ("unnamed", [dir]) => {
            let options = &mut OpenOptions::new();
            options.write(true).custom_flags(libc::O_TMPFILE).open(dir).step("open").map(drop)
        }
        ("reopen-write", [path]) => reopen(path),
        ("root-write", [dir, path]) => {
            unistd::chroot(*dir).prepare("chroot").and_then(|()| open_write(path))
        }
        ("uring-write", [path]) => uring_write(path),
        ("late-write", [changed, fixed, path]) => late(changed, fixed, path),
        ("deep", [dir]) => deep(dir),
        _ => return None,
    };
    Some(result.map(|()| "done".to_owned()))
}

const TIME: TimeSpec = TimeSpec::new(1_000_000_000, 0);

fn touch(path: &str) -> nix::Result<()> {
    utimensat(AT_FDCWD, path, &TIME, &TIME, UtimensatFlags::FollowSymlink)
}

/// Acts on a descriptor that is open for reading only.
fn on(path: &str, act: impl FnOnce(&OwnedFd) -> nix::Result<()>) -> Result<(), Failure> {
    let file = open_read(path).step("open")?;
    act(&file).step("change")
}

fn set(path: &str, name: &CStr, value: &[u8]) -> Result<(), Failure> {
    attributes::set(&c_path(path)?, name, value).step("setxattr")
}

fn remove(path: &str, name: &CStr) -> Result<(), Failure> {
    attributes::remove(&c_path(path)?, name).step("removexattr")
}

fn open_write(path: &str) -> Result<(), Failure> {
    open(path, OFlag::O_WRONLY, Mode::empty()).step("open").map(drop)
}

/// What may be opened for reading is opened once more.
fn reopen(path: &str) -> Result<(), Failure> {
    let file = open_read(path).step("open to read")?;
    open_write(&format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn uring_write(path: &str) -> Result<(), Failure> {
    match uring::open_for_writing(&c_path(path)?) {
        Opened::Done(result) => result.step("IORING_OP_OPENAT").map(drop),
        // The kernel has none: what it would have come to is tried by hand.
        Opened::Unavailable(_) => open_write(path),
    }
}

/// Opens `path` after a change of `changed`, and of `fixed`, which lies on a read-only mount.
fn late(changed: &str, fixed: &str, path: &str) -> Result<(), Failure> {
    // Looked up for the first time, it would have the kernel write to its mount once more.
    open_read(path).prepare("look up")?;
    touch(changed).prepare("change")?;
    match touch(fixed) {
        Err(Errno::EROFS) => open_write(path),
        other => Err(Failure::Unfit(format!("change of what is read-only: {other:?}"))),
    }
}

/// Changes something whose path is longer than any path may be.
fn deep(dir: &str) -> Result<(), Failure> {
    unistd::chdir(dir).prepare("chdir")?;
    let name = "d".repeat(250);
    for _ in 0..17 {
        fs::create_dir(&name).step("mkdir")?;
        unistd::chdir(&*name).step("chdir")?;
    }
    fs::write("file", "").step("write")?;
    fs::set_permissions("file", Permissions::from_mode(0o600)).step("chmod")
}
