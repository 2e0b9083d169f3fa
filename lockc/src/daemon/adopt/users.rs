//! A look at the containers of users, in a thread of its own.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::judge::{Judged, Whose, find, judge};
use crate::{adopt::Snapshot, config::Config, watch::runtimes::Runtimes};

/// A look at the containers of users, which may never end.
#[derive(Debug)]
pub(in crate::daemon) struct Users {
    found: Receiver<io::Result<Vec<Judged>>>,
    ready: Arc<EventFd>,
}

impl Users {
    /// Looks in a thread of its own.
    pub(in crate::daemon) fn look(runtimes: &Runtimes, config: Config) -> io::Result<Self> {
        let ready = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (send, found) = mpsc::channel();
        let files = runtimes.real_paths();
        let wake = Arc::clone(&ready);
        thread::Builder::new().name("users".into()).spawn(move || {
            // Fails only when the daemon ends.
            let _ = send.send(judge_users(&files, &config));
            let _ = wake.write(1);
        })?;
        Ok(Self { found, ready })
    }

    /// Readable when the look has ended.
    pub(in crate::daemon) fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    /// What was found, if that is known by the end of `patience`.
    pub(in crate::daemon) fn take(&self, patience: Duration) -> Option<io::Result<Vec<Judged>>> {
        self.found.recv_timeout(patience).ok()
    }
}

fn judge_users(files: &[(PathBuf, String)], config: &Config) -> io::Result<Vec<Judged>> {
    let snapshot = Snapshot::take(files)?;
    let found = find(Whose::Users, &snapshot, config);
    Ok(found.into_iter().map(|running| judge(running, config)).collect())
}
