//! The socket on which the daemon tells of itself. One who asks is answered after another, and nobody keeps the others
//! waiting for longer than [`PATIENCE`] twice.

use std::{
    fs::{self, Permissions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use lockc_common::{Counter, State};
use nix::{
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket,
        sockopt::PeerCredentials,
    },
    unistd::{Gid, Pid, setfsgid},
};

use super::{force::InForce, meter::Meter, registry::Registry, status::Status};
use crate::{
    bpf::{labels::Labels, maps::Maps},
    event::store::Journal,
    state::{Container, Containers, Counters, Query, SCHEMA, SOCKET},
};

/// How long a question or the taking of an answer may last.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest question.
const MAX_LINE: usize = 64;
/// Pause after an error of the socket itself, so that it cannot keep a core busy.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What there is to tell.
#[derive(Debug)]
pub(super) struct Teller {
    pub(super) status: Arc<Status>,
    pub(super) maps: Arc<Maps>,
    pub(super) labels: Arc<Labels>,
    pub(super) registry: Arc<Registry>,
    pub(super) in_force: Arc<InForce>,
    pub(super) meter: Arc<Meter>,
    pub(super) journal: Journal,
}

impl Teller {
    /// Answers at the socket in `directory` from now on, in a thread that ends with the process. Members of `group` may
    /// ask, beside root. Who asks when this has returned finds the socket.
    pub(super) fn start(self, directory: &Path, group: Option<u32>) -> io::Result<()> {
        let path = directory.join(SOCKET);
        let (send, listens) = mpsc::channel();
        thread::Builder::new().name("state".into()).spawn(move || {
            let listener = listener(&path, group);
            // Fails only when the daemon ends.
            let _ = send.send(());
            match listener {
                Ok(listener) => self.serve(&listener),
                // Nothing but questions depends on it.
                Err(error) => log::error!("cannot listen at {}: {error}", path.display()),
            }
        })?;
        // It ends without having sent anything only if it panics, which ends the process.
        let _ = listens.recv();
        Ok(())
    }

    fn serve(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            let outcome = stream.and_then(|mut stream| self.answer(&mut stream));
            if let Err(error) = outcome {
                log::debug!("somebody who asked has no answer: {error}");
                thread::sleep(ERROR_PAUSE);
            }
        }
    }

    fn answer(&self, stream: &mut UnixStream) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        self.admit(stream)?;
        let answer = match Query::parse(&line(stream, end)?) {
            Some(Query::Status) => serde_json::to_vec(&self.status())?,
            Some(Query::Containers) => serde_json::to_vec(&self.containers())?,
            None => return Err(io::Error::other("there is no such question")),
        };
        put(stream, &answer, Instant::now() + PATIENCE)
    }

    /// Who may open the socket may ask, except who is in a container: root there may be root here.
    fn admit(&self, stream: &UnixStream) -> io::Result<()> {
        let peer = getsockopt(stream, PeerCredentials)?;
        let label = self.labels.of_process(Pid::from_raw(peer.pid()))?;
        if label.is_some_and(|label| label.state == State::Contained as u32) {
            log::warn!(
                "process {} of a container asked what lockc knows: not answered",
                peer.pid()
            );
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }

    fn status(&self) -> crate::state::Status {
        let count = |counter| self.maps.counter(counter);
        crate::state::Status {
            containers: self.records().count(),
            counters: Counters {
                denied: count(Counter::Denied),
                audited: count(Counter::Audited),
                lost: count(Counter::Lost),
                suppressed: count(Counter::Suppressed),
                unregistered: count(Counter::Unregistered),
                adopted: count(Counter::Adopted),
            },
            gate: self.meter.read(),
            unkept: self.journal.lost(),
            ..self.status.read()
        }
    }

    fn containers(&self) -> Containers {
        let records = self.records();
        let mut containers: Vec<_> =
            records.map(|(handle, policy, it)| self.describe(handle, policy, it)).collect();
        containers.sort_by(|a, b| (a.started, &a.record).cmp(&(b.started, &b.record)));
        Containers { schema: SCHEMA, daemon: true, containers }
    }

    /// What the programs know of each container, with its handle and its policy's number.
    fn records(&self) -> impl Iterator<Item = (u64, u32, Container)> {
        self.maps.handles().into_iter().filter_map(|handle| {
            let record = self.maps.container(handle)?;
            Some((handle, record.policy, Container::of_record(handle, &record)?))
        })
    }

    fn describe(&self, handle: u64, policy: u32, mut container: Container) -> Container {
        if let Some(key) = self.registry.key(handle) {
            container.id = Some(key.id.to_string());
            container.owner = Some(key.owner.as_raw());
        }
        let force = self.in_force.get();
        match force.named(policy) {
            Some((policy, mode)) => {
                container.policy = Some(policy.to_owned());
                container.mode = Some(mode.name().to_owned());
            }
            None => container.policy = self.maps.policy_name(policy),
        }
        if let Some(origin) = self.registry.origin(handle) {
            let identity = &origin.identity;
            container.engine = Some(identity.engine.value.name().to_owned());
            container.name = identity.container.as_ref().map(|fact| fact.value.clone());
            container.image = identity.image.as_ref().map(|fact| fact.value.clone());
            container.namespace = identity.namespace.as_ref().map(|fact| fact.value.clone());
            container.pod = identity.pod.as_ref().map(|fact| fact.value.clone());
            container.why = Some(origin.decide(&force.config).why);
        }
        container
    }
}

fn listener(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(group) = group {
        // Of this thread only: what it makes belongs to the group, without the capability to give files away.
        setfsgid(Gid::from_raw(group));
    }
    let socket = bound(path)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

/// A socket at `path` that refuses everybody until it listens: whatever the mask is, its mode is set before that.
fn bound(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// A line without its end.
fn line(stream: &mut UnixStream, end: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0; MAX_LINE];
    while line.len() < MAX_LINE {
        stream.set_read_timeout(Some(left(end)?))?;
        let count = stream.read(&mut chunk)?;
        line.extend_from_slice(&chunk[..count]);
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if count == 0 {
            break;
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn put(stream: &mut UnixStream, mut answer: &[u8], end: Instant) -> io::Result<()> {
    while !answer.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(answer)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => answer = &answer[count..],
        }
    }
    Ok(())
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_bounded_in_length_and_time() {
        let ask = |text: &[u8], patience: Duration| {
            let (mut asker, mut daemon) = UnixStream::pair().unwrap();
            asker.write_all(text).unwrap();
            let answer = line(&mut daemon, Instant::now() + patience);
            drop(asker);
            answer.map_err(|error| error.kind())
        };
        let long = Duration::from_mins(1);
        assert_eq!(ask(b"status\nmore", long), Ok(b"status".to_vec()));
        assert_eq!(ask(&[b'x'; 10 * MAX_LINE], long), Err(io::ErrorKind::InvalidData));
        let late = ask(b"sta", Duration::from_millis(20)).unwrap_err();
        assert!(matches!(late, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{late}");
    }

    #[test]
    fn who_does_not_read_keeps_nobody_waiting() {
        let (_asker, mut daemon) = UnixStream::pair().unwrap();
        let answer = vec![0; 8 << 20];
        let error = put(&mut daemon, &answer, Instant::now() + Duration::from_millis(50));
        let kind = error.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{kind}");
    }

    #[test]
    fn a_socket_was_open_to_everyone_until_it_had_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _socket = bound(&path).unwrap();
        let error = UnixStream::connect(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_socket_is_for_root_or_a_group() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let one = listener(&path, None).unwrap();
        assert_eq!(mode(), 0o600);
        let _asker = UnixStream::connect(&path).unwrap();
        one.accept().unwrap();
        // One that was left behind makes place.
        let _other = listener(&path, Some(nix::unistd::getgid().as_raw())).unwrap();
        assert_eq!(mode(), 0o660);
    }
}
