//! The mount API, old and new.

use std::{
    ffi::CString,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    fcntl::{OFlag, openat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::Mode,
    unistd::pivot_root,
};

use super::{Failure, Outcome, Step as _, files};
use crate::sys;

/// No string argument for `mount(2)`.
const NONE: Option<&str> = None;

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("mount", [fs, dir]) => {
            mount(Some("none"), *dir, Some(*fs), MsFlags::empty(), NONE).step("mount").map(done)
        }
        ("mount-data", [fs, dir, data]) => {
            mount(Some("none"), *dir, Some(*fs), MsFlags::empty(), Some(*data))
                .step("mount")
                .map(done)
        }
        ("bind", [from, to]) => flagged(from, to, MsFlags::MS_BIND),
        ("rbind", [from, to]) => flagged(from, to, MsFlags::MS_BIND | MsFlags::MS_REC),
        ("bind-read", [from, to, name]) => {
            flagged(from, to, MsFlags::MS_BIND).and_then(|_| files::read_path(name))
        }
        ("move-mount", [from, to]) => flagged(from, to, MsFlags::MS_MOVE),
        ("remount", [dir]) => flagged("none", dir, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY),
        ("remount-bind", [dir]) => {
            flagged("none", dir, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID)
        }
        ("propagation", [dir]) => flagged("none", dir, MsFlags::MS_SHARED),
        ("umount", [dir]) => umount2(*dir, MntFlags::empty()).step("umount").map(done),
        ("detach", [dir]) => umount2(*dir, MntFlags::MNT_DETACH).step("umount").map(done),
        ("pivot", [root, old]) => pivot_root(*root, *old).step("pivot_root").map(done),
        ("fsmount", [fs, dir]) => fsmount(fs).and_then(|tree| attach(&tree, dir)),
        ("fsmount-read", [fs, name]) => fsmount(fs).and_then(|tree| read_below(&tree, name)),
        ("tree", [from, dir]) => clone(from).and_then(|tree| attach(&tree, dir)),
        ("tree-read", [from, name]) => clone(from).and_then(|tree| read_below(&tree, name)),
        ("tree-fd-read", [from, name]) => clone(from).and_then(|tree| {
            files::read_path(&format!("/proc/self/fd/{}/{name}", tree.as_raw_fd()))
        }),
        ("setattr", [dir]) => {
            c(dir).and_then(|dir| sys::mount_make_writable(&dir).step("mount_setattr")).map(done)
        }
        _ => return None,
    };
    Some(outcome)
}

fn done((): ()) -> String {
    "done".to_owned()
}

fn c(text: &str) -> Result<CString, Failure> {
    files::c_path(text)
}

fn flagged(from: &str, to: &str, flags: MsFlags) -> Outcome {
    mount(Some(from), to, NONE, flags, NONE).step("mount").map(done)
}

/// A new mount of a file system type, attached nowhere.
fn fsmount(fs: &str) -> Result<OwnedFd, Failure> {
    let context = sys::fsopen(&c(fs)?).step("fsopen")?;
    sys::fsconfig_set(&context, c"source", c"none").step("fsconfig")?;
    sys::fsconfig_create(&context).step("fsconfig create")?;
    sys::fsmount(&context).step("fsmount")
}

/// A copy of a mount, attached nowhere.
fn clone(from: &str) -> Result<OwnedFd, Failure> {
    sys::open_tree_clone(&c(from)?).step("open_tree")
}

fn attach(tree: &OwnedFd, dir: &str) -> Outcome {
    sys::move_mount(tree, &c(dir)?).step("move_mount").map(done)
}

fn read_below(tree: &OwnedFd, name: &str) -> Outcome {
    openat(tree, name, OFlag::O_RDONLY, Mode::empty()).step("openat").and_then(files::read)
}
