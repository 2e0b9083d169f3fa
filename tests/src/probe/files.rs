//! Ways to open a file.

use std::{
    ffi::CString,
    fs::File,
    io::Read as _,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    libc,
    sys::{
        fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
        stat::Mode,
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, chdir, chroot, pipe, setsid},
};

use super::{Failure, Outcome, Step as _};
use crate::sys::{
    self, FileHandle,
    uring::{self, Opened},
};

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("read", [path]) => read_path(path),
        ("read-dir", [path]) => read_dir(path),
        ("openat2", [path]) => openat2(path),
        ("o-path", [path]) => o_path(path),
        ("at", [dir, name, kind @ ("O_PATH" | "O_RDONLY")]) => at(dir, name, kind),
        ("chdir", [dir, name]) => chdir(*dir).step("chdir").and_then(|()| read_path(name)),
        ("chroot", [dir, name]) => enter(dir).and_then(|()| read_path(name)),
        ("uring", [path, kind @ ("inline" | "worker")]) => io_uring(path, *kind == "worker"),
        ("handle", [path]) => handle_of(path),
        ("handle-at", [mount, handle]) => handle_at(mount, handle),
        ("orphan", [path]) => orphan(path),
        ("thread", [path]) => thread(path),
        ("rename", [from, to, path]) => rename(from, to, path),
        ("exchange-read", [one, other, path]) => exchange(one, other, path),
        ("link", [path, link]) => {
            std::fs::hard_link(path, link).step("link").and_then(|()| read_path(link))
        }
        ("symlink", [path, link]) => {
            std::os::unix::fs::symlink(path, link).prepare("symlink").and_then(|()| read_path(link))
        }
        ("fanotify", [watched]) => fanotify(watched),
        _ => return None,
    };
    Some(outcome)
}

/// The first line of an open file.
pub(super) fn read(fd: OwnedFd) -> Outcome {
    let mut content = [0; 256];
    let length = File::from(fd).read(&mut content).step("read")?;
    let text = String::from_utf8_lossy(&content[..length]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Opens for reading, following links.
pub(super) fn open_read(path: &str) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

pub(super) fn read_path(path: &str) -> Outcome {
    open_read(path).step("open").and_then(read)
}

/// The process of this name.
pub(super) fn process_called(command: &str) -> Result<Pid, Failure> {
    let processes = std::fs::read_dir("/proc").prepare("list /proc")?;
    for process in processes.flatten() {
        let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|_| comm.trim() == command) {
            return Ok(Pid::from_raw(pid));
        }
    }
    Err(Failure::Unfit(format!("no process {command}")))
}

/// A path as the raw calls want it.
pub(super) fn c_path(path: &str) -> Result<CString, Failure> {
    CString::new(path).map_err(|_| Failure::Unfit(format!("NUL in {path:?}")))
}

fn read_dir(path: &str) -> Outcome {
    let entries = std::fs::read_dir(path).step("open")?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort_unstable();
    Ok(names.join(" "))
}

fn openat2(path: &str) -> Outcome {
    let how = nix::fcntl::OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC);
    nix::fcntl::openat2(nix::fcntl::AT_FDCWD, path, how).step("openat2").and_then(read)
}

/// `O_PATH` opens no file and is not refused; opening what it refers to is the attack.
fn o_path(path: &str) -> Outcome {
    let fd = open(path, OFlag::O_PATH, Mode::empty()).step("open O_PATH")?;
    open_read(&format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .step("open /proc/self/fd")
        .and_then(read)
}

fn at(dir: &str, name: &str, kind: &str) -> Outcome {
    let kind = if kind == "O_PATH" { OFlag::O_PATH } else { OFlag::O_RDONLY };
    let dir = open(dir, kind | OFlag::O_DIRECTORY, Mode::empty()).step("open directory")?;
    openat(&dir, name, OFlag::O_RDONLY, Mode::empty()).step("openat").and_then(read)
}

fn enter(dir: &str) -> Result<(), Failure> {
    chroot(dir).step("chroot")?;
    chdir("/").step("chdir")
}

fn io_uring(path: &str, forced: bool) -> Outcome {
    match uring::open(&c_path(path)?, forced) {
        Opened::Done(result) => result.step("IORING_OP_OPENAT").and_then(read),
        Opened::Unavailable(errno) => Err(Failure::Refused("io_uring_setup", errno)),
    }
}

/// Takes the handle of the file itself, then opens it relative to the current directory's mount.
fn handle_of(path: &str) -> Outcome {
    let handle = sys::name_to_handle(&c_path(path)?).step("name_to_handle_at")?;
    let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
    chdir(dir).step("chdir")?;
    sys::open_by_handle(libc::AT_FDCWD, &handle).step("open_by_handle_at").and_then(read)
}

/// Opens a handle that was learnt or guessed elsewhere, through any mount of its file system.
fn handle_at(mount: &str, handle: &str) -> Outcome {
    let handle = FileHandle::from_text(handle)
        .ok_or_else(|| Failure::Unfit(format!("no handle: {handle}")))?;
    let mount = open_read(mount).step("open mount")?;
    sys::open_by_handle(mount.as_raw_fd(), &handle).step("open_by_handle_at").and_then(read)
}

/// Reads from a grandchild that has called `setsid(2)` and whose parent is gone.
fn orphan(path: &str) -> Outcome {
    let (reader, writer) = pipe().prepare("pipe")?;
    match sys::fork().prepare("fork")? {
        ForkResult::Parent { child } => {
            drop(writer);
            waitpid(child, None).prepare("waitpid")?;
            let mut line = String::new();
            File::from(reader).read_to_string(&mut line).prepare("read pipe")?;
            match line.split_once(' ') {
                Some(("OK", what)) => Ok(what.to_owned()),
                Some(("ERRNO", code)) => {
                    Err(Failure::Refused("open", Errno::from_raw(code.parse().unwrap_or(0))))
                }
                _ => Err(Failure::Unfit(format!("the grandchild said {line:?}"))),
            }
        }
        ForkResult::Child => {
            drop(reader);
            if let Ok(ForkResult::Child) = setsid().and_then(|_| sys::fork()) {
                let line = match open_read(path) {
                    Ok(fd) => format!("OK {}", read(fd).unwrap_or_default()),
                    Err(errno) => format!("ERRNO {}", errno as i32),
                };
                let _ = nix::unistd::write(&writer, line.as_bytes());
            }
            std::process::exit(0);
        }
    }
}

fn thread(path: &str) -> Outcome {
    std::thread::scope(|scope| {
        scope.spawn(|| read_path(path)).join().map_err(|_| Failure::Unfit("panic".to_owned()))?
    })
}

fn rename(from: &str, to: &str, path: &str) -> Outcome {
    std::fs::rename(from, to).step("rename")?;
    let outcome = read_path(path);
    std::fs::rename(to, from).prepare("rename back")?;
    outcome
}

/// `RENAME_EXCHANGE`: each gets the other's place.
fn exchange(one: &str, other: &str, path: &str) -> Outcome {
    let (one, other) = (c_path(one)?, c_path(other)?);
    sys::exchange(&one, &other).step("renameat2")?;
    let outcome = read_path(path);
    sys::exchange(&one, &other).prepare("renameat2 back")?;
    outcome
}

/// Watches the directory `watched` and reads through the descriptor that an event carries: somebody
/// outside keeps opening the file in it.
fn fanotify(watched: &str) -> Outcome {
    let flags = EventFFlags::O_RDONLY;
    let group = Fanotify::init(InitFlags::FAN_CLASS_NOTIF, flags).step("fanotify_init")?;
    let (mark, mask) =
        (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN | MaskFlags::FAN_EVENT_ON_CHILD);
    group.mark(mark, mask, nix::fcntl::AT_FDCWD, Some(watched)).step("fanotify_mark")?;
    let event = group.read_events().step("read event")?.pop();
    let Some(event) = event else { return Err(Failure::Unfit("no event".to_owned())) };
    let Some(fd) = event.fd() else {
        return Err(Failure::Unfit("the queue overflowed".to_owned()));
    };
    read(fd.try_clone_to_owned().prepare("dup")?)
}
