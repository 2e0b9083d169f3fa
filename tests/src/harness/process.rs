//! Running programs with a deadline.

use std::{
    fmt, fs,
    io::{self, ErrorKind, Read, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::sys;

/// Longest output kept of a program, in bytes per stream.
const MAX_OUTPUT: usize = 8 << 20;

/// What a program left.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Fails with the program's own words unless it succeeded.
    pub(crate) fn success(self, what: impl fmt::Display) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("{what}: {self}")
    }
}

impl fmt::Display for Output {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, stdout, stderr } = self;
        write!(out, "{status}; stdout {:?}; stderr {:?}", stdout.trim_end(), stderr.trim_end())
    }
}

/// A program that runs; its whole process group is killed when this is dropped before the end.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    what: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Running {
    /// Starts `command` in a process group of its own with both output streams captured.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_as_is(command)
    }

    /// Starts `command` in a process group of its own; only piped streams are captured.
    pub(crate) fn start_as_is(command: &mut Command) -> Result<Self> {
        let what = format!("{command:?}");
        let child = command.process_group(0).spawn().with_context(|| format!("start {what}"))?;
        let running = Self { child, what, stdout: Vec::new(), stderr: Vec::new() };
        let Self { child, .. } = &running;
        for stream in [
            child.stdin.as_ref().map(|pipe| pipe.as_fd()),
            child.stdout.as_ref().map(|pipe| pipe.as_fd()),
            child.stderr.as_ref().map(|pipe| pipe.as_fd()),
        ]
        .into_iter()
        .flatten()
        {
            fcntl(stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("set O_NONBLOCK")?;
        }
        Ok(running)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(self.pid(), signal)
            .with_context(|| format!("send {signal} to {}", self.what))
    }

    /// Writes to the program's standard input, which must be a pipe, and closes it.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<()> {
        let mut pipe = self.child.stdin.take().context("standard input is no pipe")?;
        pipe.write_all(input).with_context(|| format!("write to {}", self.what))
    }

    /// Everything the program has written to standard error so far.
    pub(crate) fn stderr(&mut self) -> String {
        self.collect();
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Everything the program has written to standard output so far.
    pub(crate) fn stdout(&mut self) -> String {
        self.collect();
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The exit status, if the program has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.what))
    }

    /// Waits until the program has ended.
    pub(crate) fn finish(mut self, deadline: Duration) -> Result<Output> {
        let end = Instant::now() + deadline;
        // One that was found to have ended has no process id any more.
        let pidfd = match self.ended()? {
            None => Some(sys::pidfd(self.pid()).context("pidfd_open")?),
            Some(_) => None,
        };
        loop {
            // The status first: what the program wrote before its end is then in the pipes.
            let status = self.ended()?;
            self.collect();
            if let Some(status) = status {
                return Ok(Output {
                    status,
                    stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
                });
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let threads = threads(self.pid());
                self.kill();
                self.collect();
                bail!(
                    "{}: not finished within {deadline:?}; stdout {:?}; stderr {:?}; its threads:\n{threads}",
                    self.what,
                    String::from_utf8_lossy(&self.stdout),
                    String::from_utf8_lossy(&self.stderr)
                );
            }
            let mut fds: Vec<_> =
                pidfd.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
            fds.extend(
                self.child.stdout.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            );
            fds.extend(
                self.child.stderr.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            );
            poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
                .context("poll")?;
        }
    }

    /// Reads what is in the pipes, and closes those that are at their end.
    fn collect(&mut self) {
        let Self { child, stdout, stderr, .. } = self;
        if child.stdout.as_mut().is_some_and(|pipe| drain(pipe, stdout)) {
            child.stdout = None;
        }
        if child.stderr.as_mut().is_some_and(|pipe| drain(pipe, stderr)) {
            child.stderr = None;
        }
    }

    /// Kills the whole process group and reaps the program.
    pub(crate) fn kill(&mut self) {
        // Both fail only when the program is gone already.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.kill();
        }
    }
}

/// As [`threads`], of every process that has an executable.
pub(super) fn all_threads() -> String {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let described = pids.filter_map(|pid: i32| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some(format!("{pid} {}\n{}", exe.display(), threads(Pid::from_raw(pid))))
    });
    described.collect::<Vec<_>>().join("\n")
}

/// Where each thread of a process is: its name, its system call, and what the kernel says that it waits for.
fn threads(pid: Pid) -> String {
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(format!("/proc/{pid}/task"))?.map(|task| Ok(thread(&task?.path()))).collect()
    };
    list().map_or_else(|error| error.to_string(), |threads| threads.join("\n"))
}

fn thread(task: &Path) -> String {
    let read = |name: &str| {
        let text = fs::read_to_string(task.join(name)).unwrap_or_else(|error| error.to_string());
        text.trim().replace('\n', " < ")
    };
    format!("{}: syscall {}; {}", read("comm"), read("syscall"), read("stack"))
}

/// Reads all there is; whether the pipe is at its end.
fn drain(pipe: &mut impl Read, into: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 8192];
    loop {
        match pipe.read(&mut chunk) {
            Ok(0) => return true,
            Ok(length) if into.len() < MAX_OUTPUT => into.extend_from_slice(&chunk[..length]),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Runs `command` to its end with both output streams captured.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<Output> {
    Running::start(command.stdin(Stdio::null()))?.finish(deadline)
}

/// Waits until `condition` gives something; asks every few milliseconds.
pub(crate) fn wait_for<T>(
    what: impl fmt::Display,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {deadline:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
