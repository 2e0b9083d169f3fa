//! The fanotify group: tasks that execute a marked file stop until they are
//! answered (fanotify(7), `FAN_OPEN_EXEC_PERM`, Linux 5.0).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::EventFd,
        fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
    },
    unistd::{Pid, read, write},
};

/// Size of `struct fanotify_event_metadata` (version 3): what one event takes, as the group
/// reports no further information. Reading one at a time leaves the others to other threads.
const METADATA_LEN: usize = 24;
const METADATA_VERSION: u8 = 3;
const FAN_ALLOW: u32 = 1;
const FAN_DENY: u32 = 2;

/// A task that is frozen in its `execve`.
#[derive(Debug)]
pub struct Frozen {
    /// The thread that called it.
    pub tid: Pid,
    /// The file it executes, open for reading.
    pub exe: OwnedFd,
}

/// What came from the group.
#[derive(Debug)]
pub enum Next {
    /// A task waits.
    Frozen(Frozen),
    /// The group's queue was full: some tasks went on unanswered, and the safe default has them.
    Overflow,
    /// The daemon stops.
    Stopped,
}

/// A fanotify group, shared by the threads of the gate.
#[derive(Debug)]
pub struct Group {
    fanotify: Fanotify,
    stop: EventFd,
}

impl Group {
    /// Makes a group without marks.
    pub fn new() -> io::Result<Self> {
        let fanotify = Fanotify::init(
            InitFlags::FAN_CLASS_CONTENT
                | InitFlags::FAN_CLOEXEC
                | InitFlags::FAN_NONBLOCK
                | InitFlags::FAN_UNLIMITED_QUEUE
                | InitFlags::FAN_UNLIMITED_MARKS
                | InitFlags::FAN_REPORT_TID,
            EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC,
        )?;
        Ok(Self { fanotify, stop: EventFd::new()? })
    }

    /// From now on, tasks that execute the file behind `file` stop.
    pub fn mark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let none: Option<&std::path::Path> = None;
        self.fanotify.mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_EXEC_PERM, file, none)?;
        Ok(())
    }

    /// From now on, tasks that execute the file behind `file` go on at once.
    pub fn unmark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let none: Option<&std::path::Path> = None;
        self.fanotify.mark(
            MarkFlags::FAN_MARK_REMOVE,
            MaskFlags::FAN_OPEN_EXEC_PERM,
            file,
            none,
        )?;
        Ok(())
    }

    /// Waits for the next task.
    pub fn next(&self) -> io::Result<Next> {
        loop {
            let mut fds = [
                PollFd::new(self.fanotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if fds[1].any().unwrap_or(true) {
                return Ok(Next::Stopped);
            }
            let mut buffer = [0_u8; METADATA_LEN];
            match read(&self.fanotify, &mut buffer) {
                Ok(METADATA_LEN) => return parse(buffer),
                // Another thread took it, or its task was killed.
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether a task waits that no thread has taken yet.
    pub fn is_waiting(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.fanotify.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
    }

    /// Lets the task go on, or makes its `execve` fail with EPERM.
    pub fn answer(&self, exe: BorrowedFd<'_>, allow: bool) -> io::Result<()> {
        let mut response = [0_u8; 8];
        response[..4].copy_from_slice(&exe.as_raw_fd().to_ne_bytes());
        let verdict = if allow { FAN_ALLOW } else { FAN_DENY };
        response[4..].copy_from_slice(&verdict.to_ne_bytes());
        write(self.fanotify.as_fd(), &response)?;
        Ok(())
    }

    /// Makes every [`Group::next`] return [`Next::Stopped`], now and later.
    pub fn stop(&self) {
        // An eventfd only refuses a write when its counter is full, and then it is readable.
        let _ = self.stop.write(1);
    }
}

fn parse(buffer: [u8; METADATA_LEN]) -> io::Result<Next> {
    let [_, _, _, _, version, _, _, _, _, _, _, _, _, _, _, _, f0, f1, f2, f3, p0, p1, p2, p3] =
        buffer;
    if version != METADATA_VERSION {
        return Err(io::Error::other(format!(
            "fanotify speaks version {version} of its protocol, lockc version {METADATA_VERSION}"
        )));
    }
    let fd = i32::from_ne_bytes([f0, f1, f2, f3]);
    if fd < 0 {
        return Ok(Next::Overflow);
    }
    // SAFETY: the kernel has just opened this descriptor for the reader of the event.
    let exe = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Next::Frozen(Frozen { tid: Pid::from_raw(i32::from_ne_bytes([p0, p1, p2, p3])), exe }))
}
