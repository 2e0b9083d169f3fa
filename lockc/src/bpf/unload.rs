//! The end of all enforcement: every pin of every layout version goes.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::links::{FdLink, PinnedLink};

use super::{
    pin::still_loaded,
    predecessor::{Former, Predecessor},
};

/// What was removed, and what was not.
#[derive(Debug, Default)]
pub struct Removal {
    /// What was below each directory of pins, in the order of their names.
    pub groups: Vec<Group>,
    /// Containers that were enforced, each once.
    pub containers: Vec<Former>,
    /// What could not be removed.
    pub left: Vec<Left>,
    /// Programs that run without a pin: a process holds them.
    pub held: Vec<u32>,
}

/// Pins that were removed of one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its name: `v6`, or `aside-1`.
    pub name: String,
    /// Pins of programs' links.
    pub programs: usize,
    /// Pins of maps.
    pub maps: usize,
    /// What lockc does not make.
    pub others: usize,
}

/// What could not be removed.
#[derive(Debug)]
pub struct Left {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Links,
    Maps,
    Other,
}

impl Removal {
    /// Removes everything below `root`, and `root`. Then waits until the programs are gone: the kernel detaches them after
    /// the fact, one by one. What cannot be removed keeps nothing else from being removed.
    pub fn of(root: &Path) -> Self {
        let mut removal = Self::default();
        let Some(directories) = removal.list(root) else { return removal };
        // Before the programs go, of which some look into maps that they hold.
        removal.containers = containers(&directories);
        let mut programs = HashSet::new();
        for path in directories {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut group = Group { name, ..Group::default() };
            // What enforces before what it enforces by.
            for (part, kind) in [("links", Kind::Links), ("maps", Kind::Maps)] {
                let part = path.join(part);
                if part.is_dir() {
                    removal.remove(&part, kind, &mut group, &mut programs);
                }
            }
            removal.remove(&path, Kind::Other, &mut group, &mut programs);
            removal.groups.push(group);
        }
        if removal.left.is_empty() {
            removal.attempt(root, fs::remove_dir(root));
        }
        removal.held = still_loaded(&programs);
        removal
    }

    /// Whether there was anything.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.left.is_empty()
    }

    /// Whether nothing is left.
    pub fn is_whole(&self) -> bool {
        self.left.is_empty() && self.held.is_empty()
    }

    fn list(&mut self, directory: &Path) -> Option<Vec<PathBuf>> {
        let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        match entries {
            Ok(entries) => {
                let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
                paths.sort();
                Some(paths)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.left.push(Left { path: directory.to_owned(), error });
                None
            }
        }
    }

    fn attempt(&mut self, path: &Path, outcome: io::Result<()>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(error) => {
                self.left.push(Left { path: path.to_owned(), error });
                false
            }
        }
    }

    /// Removes what is at `path`.
    fn remove(&mut self, path: &Path, kind: Kind, group: &mut Group, programs: &mut HashSet<u32>) {
        // Links are not followed: no pin is one.
        if fs::symlink_metadata(path).is_ok_and(|it| it.is_dir()) {
            let left = self.left.len();
            for below in self.list(path).unwrap_or_default() {
                self.remove(&below, kind, group, programs);
            }
            // With something in it, it says nothing more that it stays.
            if self.left.len() == left {
                self.attempt(path, fs::remove_dir(path));
            }
            return;
        }
        let program = (kind == Kind::Links).then(|| program_of(path)).flatten();
        if self.attempt(path, fs::remove_file(path)) {
            programs.extend(program);
            *match kind {
                Kind::Links => &mut group.programs,
                Kind::Maps => &mut group.maps,
                Kind::Other => &mut group.others,
            } += 1;
        }
    }
}

/// The program whose link is pinned at `path`.
fn program_of(path: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(path).ok()?);
    Some(link.info().ok()?.program_id())
}

/// Containers that the programs of these directories enforce.
fn containers(directories: &[PathBuf]) -> Vec<Former> {
    let mut found: Vec<Former> = Vec::new();
    for former in directories.iter().filter_map(|it| Predecessor::open(it)) {
        for container in former.containers() {
            // A daemon that died while it took over leaves the same container in two of them.
            let is_known =
                container.name.is_some() && found.iter().any(|it| it.name == container.name);
            if !is_known {
                found.push(container);
            }
        }
    }
    found
}

/// Processes that hold one of these programs, or a link of one: process id and name.
pub fn holders(programs: &[u32]) -> Vec<(u32, String)> {
    let holds = |pid: u32| {
        let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        infos
            .filter_map(|info| fs::read_to_string(info.path()).ok())
            .any(|info| program_in(&info).is_some_and(|id| programs.contains(&id)))
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| holds(*pid))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            (pid, name.trim_end().to_owned())
        })
        .collect()
}

/// The program of a descriptor, by its `/proc/PID/fdinfo/FD` (`bpf_prog_show_fdinfo` and `bpf_link_show_fdinfo`,
/// kernel/bpf/syscall.c, 6.12).
fn program_in(info: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins are files to whoever removes them.
    fn pins(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn all_is_removed_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("lockc");
        assert!(Removal::of(&root).is_empty());
        let files =
            ["v6/maps/A", "v6/maps/B", "v6/links/1/a", "v6/links/2/a", "v6/new", "aside-1/maps/A"];
        pins(&root, &files);
        fs::create_dir(root.join("v5")).unwrap();
        let removal = Removal::of(&root);
        let group = |name: &str, programs, maps, others| Group {
            name: name.to_owned(),
            programs,
            maps,
            others,
        };
        let wanted = [group("aside-1", 0, 1, 0), group("v5", 0, 0, 0), group("v6", 2, 2, 1)];
        assert_eq!(removal.groups, wanted);
        assert!(removal.is_whole() && !removal.is_empty() && removal.containers.is_empty());
        assert!(!root.exists());
    }

    #[test]
    fn what_cannot_be_removed_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("lockc");
        pins(&root, &["v6/links/1/a", "v6/maps/A"]);
        // Unlike a file that may not be removed, that fails for root, too.
        let stuck = PathBuf::from("/proc/self/fdinfo/0");
        let mut removal = Removal::default();
        let mut group = Group::default();
        removal.remove(&stuck, Kind::Maps, &mut group, &mut HashSet::new());
        assert_eq!(group, Group::default());
        assert!(!removal.is_whole());
        let left: Vec<_> = removal.left.iter().map(|left| left.path.as_path()).collect();
        assert_eq!(left, [stuck.as_path()]);
        // A directory that holds such a thing is not told as well.
        removal.remove("/proc/self/attr".as_ref(), Kind::Maps, &mut group, &mut HashSet::new());
        let left = removal.left.iter().map(|left| left.path.as_path());
        assert!(left.clone().count() > 1 && !left.into_iter().any(|it| it.ends_with("attr")));
    }

    #[test]
    fn programs_of_descriptors() {
        let link = "pos:\t0\nflags:\t02000000\nlink_type:\ttracing\nlink_id:\t3\nprog_id:\t17\n";
        assert_eq!(program_in(link), Some(17));
        assert_eq!(program_in("pos:\t0\nprog_tag:\tabc\n"), None);
        assert_eq!(program_in("prog_id:\tx\n"), None);
    }
}
