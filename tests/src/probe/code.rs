//! Ways to get code to run: executed, interpreted, mapped.

use std::{
    fs::{self, File, FileTimes, Permissions},
    io::Write as _,
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    path::Path,
    process::Command,
    time::SystemTime,
};

use nix::{
    fcntl::{OFlag, open},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::Mode,
    },
};

use super::{
    Failure, Outcome, Step as _,
    files::{c_path, open_read},
};
use crate::sys::{self, code};

/// A program that takes any name.
const PROGRAM: &str = "/bin/busybox";

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("run", [path]) => run(path),
        ("run-copy", [path]) => copy(path).and_then(|()| run(path)),
        ("run-open", [path]) => open_read(path)
            .prepare("open")
            .and_then(|file| run(&format!("/proc/self/fd/{}", file.as_raw_fd()))),
        ("run-renamed", [from, to]) => renamed(from, to),
        ("run-exchanged", [one, other]) => exchanged(one, other),
        ("run-linked", [from, to]) => {
            let _ = fs::remove_file(to);
            fs::hard_link(from, to).step("link").and_then(|()| run(to))
        }
        ("run-copy-renamed", [from, to]) => {
            copy(from).and_then(|()| fs::rename(from, to).prepare("rename")).and_then(|()| run(to))
        }
        ("run-appended", [path]) => append(path).and_then(|()| run(path)),
        ("run-dated", [path]) => dated(path).and_then(|()| run(path)),
        ("run-mapped", [path]) => overwrite(path).and_then(|()| run(path)),
        ("run-deleted", [path]) => deleted(path),
        ("run-unnamed", [directory]) => unnamed(directory),
        ("run-memfd", []) => memfd().and_then(|file| run(&of(&file))),
        ("map-memfd", []) => {
            memfd().and_then(|file| code::map(&file).step("mmap")).map(|()| "done".to_owned())
        }
        ("map", [path]) => opened(path).and_then(|file| code::map(&file).step("mmap")).map(done),
        ("map-implied", [path]) => opened(path).and_then(|file| {
            let is_code = code::map_implied(&file).step("mmap")?;
            if is_code { Ok("done".to_owned()) } else { Ok("no code".to_owned()) }
        }),
        ("protect", [path]) => {
            opened(path).and_then(|file| code::protect(&file).step("mprotect")).map(done)
        }
        ("generate", []) => code::generate().step("mprotect").map(done),
        ("rename-there-and-back", [from, to]) => fs::rename(from, to)
            .step("rename")
            .and_then(|()| fs::rename(to, from).step("rename back"))
            .map(done),
        _ => return None,
    };
    Some(outcome)
}

fn done((): ()) -> String {
    "done".to_owned()
}

fn opened(path: &str) -> Result<File, Failure> {
    open_read(path).prepare("open").map(File::from)
}

fn of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Executes the program at `path` as `true`.
fn run(path: &str) -> Outcome {
    let status = Command::new(path).arg0("true").status().step("execve")?;
    if status.success() {
        return Ok("done".to_owned());
    }
    Err(Failure::Unfit(format!("{path}: {status}")))
}

fn copy(path: &str) -> Result<(), Failure> {
    let _ = fs::remove_file(path);
    fs::copy(PROGRAM, path).map(drop).prepare("copy")
}

fn renamed(from: &str, to: &str) -> Outcome {
    let leaf = Path::new(from).file_name().unwrap_or_default();
    let target = Path::new(to);
    fs::rename(from, to).step("rename")?;
    // What was renamed is the program, or the directory that it is in.
    let program = if target.is_dir() { target.join("true") } else { target.to_owned() };
    let outcome = run(&program.to_string_lossy());
    fs::rename(to, from).prepare(&format!("rename {} back", leaf.display()))?;
    outcome
}

/// `RENAME_EXCHANGE`, and runs the first under the second one's name.
fn exchanged(one: &str, other: &str) -> Outcome {
    let (from, to) = (c_path(other)?, c_path(one)?);
    sys::exchange(&from, &to).step("renameat2")?;
    let outcome = run(other);
    sys::exchange(&from, &to).prepare("renameat2 back")?;
    outcome
}

/// What follows an ELF file's last section does not matter.
fn append(path: &str) -> Result<(), Failure> {
    let mut file = File::options().append(true).open(path).prepare("open for appending")?;
    file.write_all(b"\n").prepare("write")
}

/// A copy that says it is from 1970.
fn dated(path: &str) -> Result<(), Failure> {
    copy(path)?;
    let file = File::options().write(true).open(path).prepare("open")?;
    let times =
        FileTimes::new().set_modified(SystemTime::UNIX_EPOCH).set_accessed(SystemTime::UNIX_EPOCH);
    file.set_times(times).prepare("set times")
}

/// Writes through shared memory.
fn overwrite(path: &str) -> Result<(), Failure> {
    let file = File::options().read(true).write(true).open(path).prepare("open for writing")?;
    code::overwrite(&file).prepare("write to memory")
}

fn deleted(path: &str) -> Outcome {
    copy(path)?;
    let file = opened(path)?;
    fs::remove_file(path).prepare("remove")?;
    run(&of(&file))
}

/// `O_TMPFILE`, and executed without ever having a name.
fn unnamed(directory: &str) -> Outcome {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file: File = open(directory, flags, Mode::S_IRWXU).prepare("open O_TMPFILE")?.into();
    fill(file)
}

fn memfd() -> Result<File, Failure> {
    let file: File = memfd_create("program", MFdFlags::MFD_CLOEXEC).prepare("memfd_create")?.into();
    filled(file)
}

fn fill(file: File) -> Outcome {
    filled(file).and_then(|file| run(&of(&file)))
}

/// The file with the program in it, open for reading only: what is open for writing cannot be executed.
fn filled(mut file: File) -> Result<File, Failure> {
    let program = fs::read(PROGRAM).prepare("read the program")?;
    file.write_all(&program).prepare("write")?;
    file.set_permissions(Permissions::from_mode(0o755)).prepare("chmod")?;
    let reader = opened(&of(&file))?;
    drop(file);
    Ok(reader)
}
