//! The operations whose cost is measured, on the ground that `bench::ground` lays.

use std::{
    cell::Cell,
    ffi::CStr,
    fmt::Write as _,
    io::Error,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, open, renameat},
    libc,
    mount::{MsFlags, mount, umount},
    sys::{
        signal::kill,
        socket::{setsockopt, sockopt::Linger},
        stat::{Mode, UtimensatFlags, stat, utimensat},
        time::TimeSpec,
        uio::{pread, pwrite},
        wait::{WaitStatus, waitpid},
    },
    unistd::{
        ForkResult, Gid, Uid, UnlinkatFlags, chown, execv, getpid, mkdir, pipe, read, setgroups,
        unlink, unlinkat, write,
    },
};

use super::{
    Failure, Step as _,
    measure::{Operation, Work},
};
use crate::{
    bench::ground::{DEEP, DEEP_OVERLAY, FIRST, FIRST_DEEP, FIRST_FILES},
    sys,
};

/// Rounds of short operations, and how often each is done in one: a round is to end before the next
/// interrupt of the timer, 4 ms later, more often than not.
const ROUNDS: usize = 61;
const TIMES: u32 = 40;
/// Rounds of what is done once per round.
const SINGLE_ROUNDS: usize = 61;

const FILE: &CStr = c"/b/f";

const fn short(name: &'static str, prepare: fn() -> Result<Work, Failure>) -> Operation {
    Operation { name, processes: 1, rounds: ROUNDS, times: TIMES, prepare }
}

const fn single(name: &'static str, prepare: fn() -> Result<Work, Failure>) -> Operation {
    Operation { name, processes: 8, rounds: SINGLE_ROUNDS, times: 1, prepare }
}

/// Files that are new each time there must be enough of.
const fn first(name: &'static str, prepare: fn() -> Result<Work, Failure>) -> Operation {
    Operation { name, processes: 1, rounds: FIRST_FILES, times: 1, prepare }
}

/// Each under the name it has in the results, in their order.
pub(crate) const OPERATIONS: &[Operation] = &[
    short("open", || Ok(open_close(FILE, OFlag::O_RDONLY))),
    short("open-deep", || Ok(open_close(DEEP, OFlag::O_RDONLY))),
    short("open-overlay", || Ok(open_close(DEEP_OVERLAY, OFlag::O_RDONLY))),
    short("open-write", || Ok(open_close(FILE, OFlag::O_WRONLY))),
    first("first-open", || Ok(open_each(FIRST))),
    first("first-open-deep", || Ok(open_each(FIRST_DEEP))),
    short("stat", || Ok(Box::new(|| stat(FILE).map(drop)))),
    short("read", read_byte),
    short("write", write_byte),
    single("exec", || Ok(Box::new(run_program))),
    short("pipe", pipe_round_trip),
    short("unix", unix_round_trip),
    short("unix-connect", unix_connect),
    short("tcp-connect", tcp_connect),
    short("udp-connect", udp_connect),
    short("mkdir-rmdir", || Ok(Box::new(make_remove))),
    short("rename", || Ok(rename_back_and_forth())),
    short("chown", || Ok(Box::new(|| chown(FILE, Some(Uid::from_raw(0)), None)))),
    short("utimes", || Ok(Box::new(touch))),
    short("setgroups", || Ok(Box::new(|| setgroups(&[Gid::from_raw(0)])))),
    short("kill", || Ok(Box::new(|| kill(getpid(), None)))),
    single("mount-umount", || Ok(Box::new(mount_unmount))),
];

fn open_close(path: &'static CStr, flags: OFlag) -> Work {
    Box::new(move || open(path, flags, Mode::empty()).map(drop))
}

/// The next one of the files below `dir` each time.
fn open_each(dir: &'static str) -> Work {
    let next = Cell::new(0);
    let mut path = String::with_capacity(dir.len() + 8);
    Box::new(move || {
        path.clear();
        write!(path, "{dir}/{:06}", next.replace(next.get() + 1)).map_err(|_| Errno::ENOMEM)?;
        open(path.as_str(), OFlag::O_RDONLY, Mode::empty()).map(drop)
    })
}

fn read_byte() -> Result<Work, Failure> {
    let file = open(FILE, OFlag::O_RDONLY, Mode::empty()).prepare("open")?;
    Ok(Box::new(move || pread(&file, &mut [0], 0).map(drop)))
}

fn write_byte() -> Result<Work, Failure> {
    let file = open(FILE, OFlag::O_WRONLY, Mode::empty()).prepare("open")?;
    Ok(Box::new(move || pwrite(&file, b"x", 0).map(drop)))
}

fn run_program() -> nix::Result<()> {
    match sys::fork()? {
        ForkResult::Child => {
            let _ = execv(c"/b/true", &[c"true"]);
            std::process::exit(127)
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(Errno::ENOEXEC),
        },
    }
}

fn pipe_round_trip() -> Result<Work, Failure> {
    let (there, mut back) = (pipe().prepare("pipe")?, pipe().prepare("pipe")?);
    if matches!(sys::fork().prepare("fork")?, ForkResult::Child) {
        drop((there.1, back.0));
        echo(there.0, back.1);
    }
    drop((there.0, back.1));
    let there = there.1;
    Ok(Box::new(move || {
        write(&there, b"x")?;
        read(&mut back.0, &mut [0]).map(drop)
    }))
}

fn unix_round_trip() -> Result<Work, Failure> {
    let (here, there) = UnixStream::pair().prepare("socketpair")?;
    if matches!(sys::fork().prepare("fork")?, ForkResult::Child) {
        drop(here);
        echo(&there, &there);
    }
    drop(there);
    Ok(Box::new(move || {
        write(&here, b"x")?;
        read(&here, &mut [0]).map(drop)
    }))
}

/// What the other process does, until there is nobody any more to do it for.
fn echo(from: impl AsFd, to: impl AsFd) -> ! {
    while read(&from, &mut [0]) == Ok(1) && write(&to, b"x") == Ok(1) {}
    std::process::exit(0)
}

fn unix_connect() -> Result<Work, Failure> {
    const SOCKET: &str = "/b/s";
    let _ = unlink(SOCKET); // of the container before
    let listener = UnixListener::bind(SOCKET).prepare("bind")?;
    Ok(Box::new(move || {
        let client = UnixStream::connect(SOCKET).map_err(|error| errno(&error))?;
        drop((client, listener.accept().map_err(|error| errno(&error))?));
        Ok(())
    }))
}

fn tcp_connect() -> Result<Work, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").prepare("bind")?;
    let address = listener.local_addr().prepare("getsockname")?;
    Ok(Box::new(move || {
        let client = TcpStream::connect(address).map_err(|error| errno(&error))?;
        let server = listener.accept().map_err(|error| errno(&error))?;
        // Or the port would be waited for.
        setsockopt(&client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        drop((client, server));
        Ok(())
    }))
}

fn udp_connect() -> Result<Work, Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0").prepare("bind")?;
    let address = socket.local_addr().prepare("getsockname")?;
    Ok(Box::new(move || socket.connect(address).map_err(|error| errno(&error))))
}

fn errno(error: &Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn make_remove() -> nix::Result<()> {
    mkdir(c"/b/d", Mode::S_IRWXU)?;
    unlinkat(AT_FDCWD, c"/b/d", UnlinkatFlags::RemoveDir)
}

fn rename_back_and_forth() -> Work {
    let mut names = [c"/b/r1", c"/b/r2"];
    // Where the container before has left it.
    if stat(names[0]).is_err() {
        names.reverse();
    }
    Box::new(move || {
        renameat(AT_FDCWD, names[0], AT_FDCWD, names[1])?;
        names.reverse();
        Ok(())
    })
}

fn touch() -> nix::Result<()> {
    let now = TimeSpec::UTIME_NOW;
    utimensat(AT_FDCWD, FILE, &now, &now, UtimensatFlags::FollowSymlink)
}

fn mount_unmount() -> nix::Result<()> {
    mount(Some(c"tmpfs"), c"/b/m", Some(c"tmpfs"), MsFlags::empty(), None::<&CStr>)?;
    umount(c"/b/m")
}
