//! Containers that runtimes say are running.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::snapshot::{Process, Role, Snapshot};
use crate::{
    config::Runtime,
    runtime::{
        cmdline::{self, Dialect},
        plan::ContainerKey,
        state::{First, Kept, Listing, State},
    },
};

/// State directories that runtimes use without `--root`: a container in one has no root in its key.
const DEFAULTS: [&str; 3] = ["/run/runc", "/run/crun", "/run/youki"];

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Where its runtime keeps it.
    pub kept: Kept,
    /// What its runtime says of it.
    pub state: State,
    /// Its first process.
    pub first: First,
}

impl Running {
    /// The key by which the gate knows it.
    pub fn key(&self) -> ContainerKey {
        let root = self.kept.dir.parent().filter(|root| {
            !self.kept.owner.is_root() || !DEFAULTS.iter().any(|it| Path::new(it) == *root)
        });
        ContainerKey {
            owner: self.kept.owner,
            root: root.map(Path::to_owned),
            id: self.kept.id.clone(),
        }
    }
}

/// State directories beside the usual ones: those that are configured, and those of runtimes that run.
pub fn places(runtimes: &[Runtime], snapshot: &Snapshot) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        runtimes.iter().flat_map(|runtime| &runtime.state).map(PathBuf::from).collect();
    // The memory of a user's process may never answer; what users keep is where users keep it.
    for process in snapshot.processes.values().filter(|process| process.user == 0) {
        let Role::Runtime(name) = &process.role else { continue };
        let words = words(process);
        let root = cmdline::parse(Dialect::of(name), &words, false).ok().and_then(|it| it.root);
        places.extend(root.filter(|root| root.is_absolute()));
    }
    places.sort();
    places.dedup();
    places
}

/// The command line of a process that runs.
pub fn words(process: &Process) -> Vec<Vec<u8>> {
    let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let line = line.strip_suffix(&[0]).unwrap_or(&line);
    line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// The containers of a listing whose first process is there, and what kept others from being found, for people.
pub fn running(listing: Listing, snapshot: &Snapshot) -> (Vec<Running>, Vec<String>) {
    let (mut found, mut troubles) = (Vec::new(), listing.troubles);
    for kept in listing.containers {
        let state = match kept.state() {
            Ok(state) => state,
            Err(_) if kept.is_of_runtime() => continue,
            Err(error) => {
                troubles.push(error.to_string());
                continue;
            }
        };
        if let Some(first) = state.first
            && is_there(&first, snapshot)
            && (kept.owner.is_root() || belongs_to(first.pid, kept.owner.as_raw()))
        {
            found.push(Running { kept, state, first });
        }
    }
    (found, troubles)
}

/// Whether it is the process that the runtime has seen, and not a later one of the same number.
fn is_there(first: &First, snapshot: &Snapshot) -> bool {
    let process = snapshot.processes.get(&first.pid);
    process.is_some_and(|it| first.start_ticks.is_none_or(|ticks| ticks == it.start_ticks))
}

/// Whether a container is a user's, by its first process: what users write into their state directories may name
/// anybody's. Theirs lives in a user namespace to which their id was given, without which a user makes no container. Its
/// own id says nothing: images choose those, and root's containers run as the ids of users of the machine, too.
fn belongs_to(pid: u32, user: u32) -> bool {
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    has_user(&map, user)
}

/// Understands `/proc/PID/uid_map` (`user_namespaces(7)`). The machine's own namespace has everybody.
fn has_user(map: &str, user: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (Some(Ok(_)), Some(Ok(outside)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        count != u32::MAX && user.checked_sub(outside).is_some_and(|offset| offset < count)
    })
}

/// The id of a container as a part of paths of control groups.
pub(super) fn id_in_paths(running: &Running) -> &[u8] {
    running.kept.id.as_bytes()
}

/// Whether a file is one of a runtime's, by its path: for [`Snapshot::take`].
pub fn real_paths<'p>(files: impl Iterator<Item = (&'p Path, &'p str)>) -> Vec<(PathBuf, String)> {
    let mut paths: Vec<(PathBuf, String)> = Vec::new();
    for (path, name) in files {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if real.as_os_str().as_bytes().len() > 1 {
            paths.push((real, name.to_owned()));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// crun keeps seccomp filters there; a warning at every start would hide one that says something.
    #[test]
    fn what_crun_keeps_for_itself_is_no_container_that_is_missed() {
        let directory = tempfile::tempdir().unwrap();
        for id in [".cache", ".empty-directory", "half-made"] {
            fs::create_dir(directory.path().join(id)).unwrap();
        }
        let (found, troubles) = running(Listing::of_root(directory.path()), &Snapshot::default());
        assert!(found.is_empty());
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(troubles[0].contains("/half-made/status"), "{troubles:?}");
        // Older versions let containers be called so.
        fs::write(directory.path().join(".cache/status"), "{}").unwrap();
        let (_, troubles) = running(Listing::of_root(directory.path()), &Snapshot::default());
        assert_eq!(troubles.len(), 2, "{troubles:?}");
    }

    #[test]
    fn whose_process_it_is() {
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert!(has_user(rootless, 1000));
        assert!(has_user(rootless, 100_999));
        assert!(!has_user(rootless, 1001));
        assert!(!has_user("         0          0 4294967295\n", 1000));
        assert!(!has_user("0 1000\n", 1000));
    }
}
