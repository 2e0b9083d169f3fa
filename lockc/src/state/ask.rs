//! Asking the daemon.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{DIRECTORY, Query, SOCKET};

/// Longest wait for a part of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes: tens of thousands of containers take less.
const MAX_ANSWER: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("lockc is not running")]
    NotRunning,
    /// The socket is not for this user.
    #[error(
        "may not connect to {}: needs root, or a member of the group that `daemon.group` names", path.display()
    )]
    Refused {
        /// The socket.
        path: PathBuf,
    },
    /// There is no use in what came.
    #[error("no answer from lockc at {}: {source}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Asks the daemon of this machine.
pub fn ask<T: DeserializeOwned>(query: Query) -> Result<T, AskError> {
    ask_at(&Path::new(DIRECTORY).join(SOCKET), query)
}

fn ask_at<T: DeserializeOwned>(path: &Path, query: Query) -> Result<T, AskError> {
    let failed = |source: io::Error| AskError::Failed { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        // Left behind by one that was killed.
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::NotRunning,
        ErrorKind::PermissionDenied => AskError::Refused { path: path.to_owned() },
        _ => failed(error),
    })?;
    let answer = exchange(stream, query).map_err(failed)?;
    serde_json::from_slice(&answer).map_err(|error| failed(error.into()))
}

fn exchange(mut stream: UnixStream, query: Query) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", query.line()).as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;
    use crate::state::Status;

    /// What is made of `answer`.
    fn asked(answer: &'static [u8]) -> Result<Status, AskError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 7];
            stream.read_exact(&mut line).unwrap();
            stream.write_all(answer).unwrap();
            line
        });
        let outcome = ask_at(&path, Query::Status);
        assert_eq!(&daemon.join().unwrap(), b"status\n");
        outcome
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        assert_eq!(asked(br#"{"pid": 5}"#).unwrap().pid, 5);
        assert!(matches!(asked(b"{"), Err(AskError::Failed { .. })));
        assert!(matches!(asked(b""), Err(AskError::Failed { .. })));
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_nobody_running() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let ask = || ask_at::<Status>(&path, Query::Status);
        assert!(matches!(ask(), Err(AskError::NotRunning)));
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(ask(), Err(AskError::NotRunning)));
    }
}
