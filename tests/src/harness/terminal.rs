//! Pseudo-terminals.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::openpty,
    sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr},
};

use crate::sys;

/// What a program prints when it wants to be typed to.
pub(crate) const PROMPT: &str = "type now";

/// Runs `command` with a new terminal as its streams and its controlling terminal; what it printed.
pub(crate) fn run(command: &mut Command, input: &str, deadline: Duration) -> Result<String> {
    sys::control_terminal(command);
    run_beside(command, input, deadline)
}

/// Runs `command` with a new terminal as its streams only, so that its end does not hang up on those
/// it leaves behind.
pub(crate) fn run_beside(command: &mut Command, input: &str, deadline: Duration) -> Result<String> {
    let pty = openpty(None, None).context("openpty")?;
    let slave = File::from(pty.slave);
    // A runtime turns the echo off at a moment of its choice when it couples a terminal to ours, before or
    // after something is typed.
    let mut settings = tcgetattr(&slave).context("tcgetattr")?;
    settings.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&slave, SetArg::TCSANOW, &settings).context("tcsetattr")?;
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    // The command holds the other side of the terminal until it is told otherwise.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let said = converse(pty.master, input, deadline);
    if said.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let said = said?;
    if !status.success() {
        bail!("{command:?}: {status}: {said:?}");
    }
    Ok(said)
}

/// Reads until nobody holds the other side any more; types `input` once, at the [`PROMPT`]: the
/// terminal's echo is then always at the same place.
pub(crate) fn converse(master: OwnedFd, input: &str, deadline: Duration) -> Result<String> {
    let end = Instant::now() + deadline;
    let mut master = File::from(master);
    let mut input = Some(input);
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the terminal is still open; so far {:?}", String::from_utf8_lossy(&said));
        }
        let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)).context("poll")?;
        match master.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => {
                said.extend_from_slice(&chunk[..length]);
                if without_returns(&said).contains(&format!("{PROMPT}\n"))
                    && let Some(input) = input.take()
                {
                    master.write_all(input.as_bytes()).context("write to the terminal")?;
                }
            }
            // The other side is closed.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => break,
            Err(error) => return Err(error).context("read from the terminal"),
        }
    }
    Ok(without_returns(&said))
}

/// The text without carriage returns: when a runtime couples two terminals, it depends on the moment
/// how many of them add one.
fn without_returns(said: &[u8]) -> String {
    String::from_utf8_lossy(said).replace('\r', "")
}

/// A socket on which a runtime hands over a container's terminal.
#[derive(Debug)]
pub(crate) struct ConsoleSocket(UnixListener);

impl ConsoleSocket {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let _ = std::fs::remove_file(path);
        let listener =
            UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))?;
        Ok(Self(listener))
    }

    /// The terminal's master side, once the runtime has sent it.
    pub(crate) fn receive(&self, deadline: Duration) -> Result<OwnedFd> {
        let Self(listener) = self;
        let timeout = PollTimeout::try_from(deadline).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, timeout).context("poll")? == 0 {
            bail!("no terminal within {deadline:?}");
        }
        let (stream, _) = listener.accept().context("accept")?;
        sys::receive_descriptor(&stream).context("receive a descriptor from the runtime")
    }
}
