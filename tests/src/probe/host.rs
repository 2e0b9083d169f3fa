//! Ways to reach what belongs to the host: its files, its runtime binaries, its kernel log.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    libc,
    sys::stat::Mode,
    unistd::fchdir,
};

use super::{Failure, Outcome, Step as _, files};
use crate::sys;

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("fd-at", [fd, name]) => leaked(fd).and_then(|dir| {
            openat(&dir, *name, OFlag::O_RDONLY, Mode::empty()).step("openat").and_then(files::read)
        }),
        ("fd-cwd", [fd, name]) => leaked(fd)
            .and_then(|dir| fchdir(&dir).step("fchdir"))
            .and_then(|()| files::read_path(name)),
        ("fd-start", [fd]) => leaked(fd)
            .and_then(|dir| fchdir(&dir).step("fchdir"))
            .and_then(|()| execute("/bin/probe", &["hello"])),
        ("fd-exec", [fd, program]) => leaked(fd).and_then(|dir| {
            execute(&format!("/proc/self/fd/{}/{program}", dir.as_raw_fd()), &["hello"])
        }),
        ("exec", [program, args @ ..]) => execute(program, args),
        ("hello", []) => Ok("hello".to_owned()),
        ("write", [path, text]) => write(OpenOptions::new().write(true), path, text),
        ("append", [path, text]) => write(OpenOptions::new().append(true), path, text),
        ("rewrite", [path, text]) => {
            write(OpenOptions::new().write(true).truncate(true), path, text)
        }
        ("empty", [path]) => OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_TRUNC)
            .open(path)
            .step("open")
            .map(|_| "done".to_owned()),
        ("truncate", [path]) => {
            files::c_path(path).and_then(|path| sys::truncate(&path).step("truncate")).map(done)
        }
        ("move", [from, to]) => std::fs::rename(from, to).step("rename").map(done),
        ("exchange", [one, other]) => exchange(one, other),
        ("link-write", [path, link, text]) => std::fs::hard_link(path, link)
            .step("link")
            .and_then(|()| write(OpenOptions::new().write(true), link, text)),
        ("unlink", [path]) => std::fs::remove_file(path).step("unlink").map(done),
        ("fd-write", [path, text]) => reopen_for_writing(path, text),
        ("exe-write", [pid, text]) => write_executable(pid, text),
        ("syslog", []) => sys::read_kernel_log().step("syslog").map(|_| "log".to_owned()),
        ("kmsg-read", [path]) => read_kmsg(path),
        ("kmsg-write", [path]) => write(OpenOptions::new().write(true), path, "lockc-tests\n"),
        ("cwd-of", [command, name]) => cwd_of(command, name),
        _ => return None,
    };
    Some(outcome)
}

fn done((): ()) -> String {
    "done".to_owned()
}

/// The descriptor that the runtime was made to leak.
fn leaked(fd: &str) -> Result<OwnedFd, Failure> {
    let number: RawFd = fd.parse().map_err(|_| Failure::Unfit(format!("no number: {fd}")))?;
    sys::inherited(number).ok_or_else(|| Failure::Unfit(format!("no descriptor {number}")))
}

/// Starts a program and gives the first line of its output.
pub(super) fn execute(program: &str, args: &[&str]) -> Outcome {
    let output = Command::new(program).args(args).output().step("execve")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    if output.status.success() {
        return Ok(line.to_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Unfit(format!("{program}: {}: {line} {}", output.status, error.trim())))
}

fn write(options: &mut OpenOptions, path: &str, text: &str) -> Outcome {
    let mut file = options.open(path).step("open")?;
    file.write_all(text.as_bytes()).step("write").map(done)
}

fn exchange(one: &str, other: &str) -> Outcome {
    let (one, other) = (files::c_path(one)?, files::c_path(other)?);
    sys::exchange(&one, &other).step("renameat2").map(done)
}

/// Opens without any right, then reopens the same file for writing.
fn reopen_for_writing(path: &str, text: &str) -> Outcome {
    let fd = open(path, OFlag::O_PATH, Mode::empty()).step("open O_PATH")?;
    write(OpenOptions::new().write(true), &format!("/proc/self/fd/{}", fd.as_raw_fd()), text)
}

/// The shape of CVE-2019-5736: gets hold of the executable of a runtime that is running, waits for
/// the runtime to end, which lifts `ETXTBSY`, and writes.
fn write_executable(pid: &str, text: &str) -> Outcome {
    let executable = format!("/proc/{pid}/exe");
    let fd = open(executable.as_str(), OFlag::O_PATH, Mode::empty()).step("open O_PATH")?;
    let held = format!("/proc/self/fd/{}", fd.as_raw_fd());
    // The harness ends the runtime once it reads this.
    super::say(format_args!("holding"));
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match write(OpenOptions::new().write(true), &held, text) {
            Err(Failure::Refused(_, Errno::ETXTBSY)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

fn read_kmsg(path: &str) -> Outcome {
    let mut options = OpenOptions::new();
    let mut file: File =
        options.read(true).custom_flags(libc::O_NONBLOCK).open(path).step("open")?;
    let mut record = [0; 8192];
    match file.read(&mut record) {
        // An empty log is as good as a full one: nothing stood in the way.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok("log".to_owned()),
        result => result.step("read").map(|_| "log".to_owned()),
    }
}

/// Opens `name` relative to the working directory of the process called `command`.
fn cwd_of(command: &str, name: &str) -> Outcome {
    let pid = files::process_called(command)?;
    files::read_path(&format!("/proc/{pid}/cwd/{name}"))
}
