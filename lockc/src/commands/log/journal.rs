//! systemd's journal, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>): entries of fields, one a datagram.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind, Write},
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use log::{
    Level,
    kv::{Error, Key, Source, Value, VisitSource},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::fstat,
};

use crate::event::record::cut_at;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// Most bytes of a value: with the few other fields, which are bounded by themselves, an entry stays below what a datagram
/// holds (`net.core.wmem_default`, 208 KiB).
const MAX_VALUE: usize = 32 << 10;
/// How long an entry waits for a journal that takes none.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether `stream` is connected to the journal, as `JOURNAL_STREAM` says (systemd.exec(5)).
pub(super) fn is_stream(variable: Option<&OsStr>, stream: impl AsFd) -> bool {
    let numbers = |text: &str| -> Option<(u64, u64)> {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    };
    let Some(wanted) = variable.and_then(OsStr::to_str).and_then(numbers) else { return false };
    fstat(stream).is_ok_and(|found| (found.st_dev, found.st_ino) == wanted)
}

/// An entry: `message`, and `fields` under the names that they have.
pub(super) fn entry(level: Level, message: &str, fields: &dyn Source) -> Vec<u8> {
    let mut entry = Entry::default();
    entry.field("MESSAGE", message);
    // As syslog(3) counts.
    let priority = match level {
        Level::Error => "3",
        Level::Warn => "4",
        Level::Info => "6",
        Level::Debug | Level::Trace => "7",
    };
    entry.field("PRIORITY", priority);
    entry.field("SYSLOG_IDENTIFIER", "lockc");
    // A visitor that does not fail.
    let _ = fields.visit(&mut entry);
    entry.0
}

#[derive(Default)]
struct Entry(Vec<u8>);

impl Entry {
    /// Always with the length, the form in which a value may hold anything, line breaks too.
    fn field(&mut self, name: &str, value: &str) {
        let value = cut_at(value, MAX_VALUE);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}

impl<'kvs> VisitSource<'kvs> for Entry {
    fn visit_pair(&mut self, name: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        match value.to_borrowed_str() {
            Some(text) => self.field(name.as_str(), text),
            None => self.field(name.as_str(), &value.to_string()),
        }
        Ok(())
    }
}

/// Where entries go. One that the journal does not take in time is an error, which who writes counts.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Journal {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), socket: connect(path)? })
    }

    fn wait(&self, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        // Whole milliseconds, of which poll would cut the last one off.
        let left = left + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, timeout)? == 0 { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Write for Journal {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let end = Instant::now() + PATIENCE;
        let mut is_new = false;
        loop {
            match self.socket.send(entry) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(end)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another journald may listen there by now.
                Err(error) if is_gone(&error) && !is_new => {
                    self.socket = connect(&self.path)?;
                    is_new = true;
                }
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
}

#[cfg(test)]
mod tests;
