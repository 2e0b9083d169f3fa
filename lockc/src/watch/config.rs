//! Noticing that the configuration may have changed.
//!
//! Editors rename, configuration management replaces symbolic links, and a drop-in directory may come
//! later: so directories are watched, those of the files and those of every link on the way to them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};

/// Most symbolic links that are followed, as by the kernel (`MAXSYMLINKS`, include/linux/namei.h, 6.12).
const MAX_LINKS: usize = 40;

/// Watches the directories that a configuration depends on.
#[derive(Debug)]
pub struct ConfigWatch {
    paths: Vec<PathBuf>,
    /// What is looked at; also by the watcher's thread.
    entries: Arc<Mutex<BTreeSet<PathBuf>>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever is in there is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConfigWatch {
    /// Calls `wake` from a thread of its own whenever something happens to one of `paths`, files or
    /// directories that need not exist, or to what they are links to. Often nothing has changed:
    /// whoever wakes looks.
    pub fn start(
        paths: Vec<PathBuf>,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Self, notify::Error> {
        let entries = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&entries);
        let watcher = notify::recommended_watcher(move |event: Result<Event, notify::Error>| {
            // An error may be an overflow, after which anything may have changed.
            if event.map_or(true, |event| is_change(event.kind) && is_near(&event, &lock(&seen))) {
                wake();
            }
        })?;
        let state = Mutex::new(State { watcher, watched: BTreeSet::new() });
        let watch = Self { paths, entries, state };
        watch.refresh()?;
        Ok(watch)
    }

    /// Watches what the paths lead through now. To be called after every change, before looking: what
    /// changes later is noticed again.
    pub fn refresh(&self) -> Result<(), notify::Error> {
        let mut entries: BTreeSet<PathBuf> = BTreeSet::new();
        let mut wanted: BTreeSet<PathBuf> = BTreeSet::new();
        for path in &self.paths {
            for (directory, name) in places(path) {
                entries.insert(name.map_or(directory.clone(), |name| directory.join(name)));
                wanted.insert(directory);
            }
        }
        *lock(&self.entries) = entries;
        let mut state = lock(&self.state);
        let State { watcher, watched } = &mut *state;
        for gone in watched.difference(&wanted) {
            // A directory that was removed is not watched any more.
            let _ = watcher.unwatch(gone);
        }
        let mut outcome = Ok(());
        for directory in &wanted {
            // Again also where it was: another directory may have taken the name.
            let _ = watcher.unwatch(directory);
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                outcome = Err(error);
            }
        }
        *watched = wanted;
        outcome
    }
}

/// Whether an event is about one of `entries`, about something in one of them, or about nothing that is
/// named. Others in the same directories come and go as they like.
fn is_near(event: &Event, entries: &BTreeSet<PathBuf>) -> bool {
    event.paths.is_empty()
        || event.paths.iter().any(|path| {
            entries.contains(path)
                || path.parent().is_some_and(|parent| entries.contains(parent))
                || entries.iter().any(|entry| entry.starts_with(path))
        })
}

/// Opening and reading changes nothing, and lockc does it itself.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// The directories in which an entry decides what `path` is, with the entry's name: its parent, or the
/// nearest one above it that exists, the same for the target of every symbolic link on the way; and the
/// path itself if it is a directory, all of whose entries count.
fn places(path: &Path) -> BTreeSet<(PathBuf, Option<OsString>)> {
    let mut found = BTreeSet::new();
    let mut links = 0;
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = rest.pop() {
        let mut at = PathBuf::new();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let parent = at.clone();
            at.push(part);
            if let Component::ParentDir = part {
                at = fs::canonicalize(&at).unwrap_or(at);
                continue;
            }
            let here = || (parent.clone(), Some(part.as_os_str().to_owned()));
            let Ok(metadata) = at.symlink_metadata() else {
                found.insert(here());
                break;
            };
            if metadata.is_symlink() {
                found.insert(here());
                links += 1;
                if let Ok(target) = fs::read_link(&at)
                    && links <= MAX_LINKS
                {
                    rest.push(parent.join(target).join(parts.collect::<PathBuf>()));
                }
                break;
            }
            if parts.peek().is_none() {
                found.insert(here());
                if metadata.is_dir() {
                    found.insert((at.clone(), None));
                }
            }
        }
    }
    // The root directory is in no other.
    found.retain(|(directory, _)| directory != Path::new(""));
    found
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::mpsc::{Receiver, channel},
        time::Duration,
    };

    use super::*;

    fn under(dir: &Path, path: &str) -> Vec<String> {
        let shown = |(path, name): (PathBuf, Option<OsString>)| {
            let path = path.strip_prefix(dir).unwrap().display().to_string();
            name.map_or(format!("{path}/"), |name| format!("{path}/{}", name.display()))
        };
        places(&dir.join(path)).into_iter().map(shown).collect()
    }

    #[test]
    fn places_of_files_links_and_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("etc/lockc.d")).unwrap();
        fs::create_dir_all(at("etc/..1")).unwrap();
        fs::write(at("etc/plain.toml"), "").unwrap();
        fs::write(at("etc/..1/lockc.toml"), "").unwrap();
        symlink("..1", at("etc/..data")).unwrap();
        symlink("..data/lockc.toml", at("etc/lockc.toml")).unwrap();
        symlink("loop", at("etc/loop")).unwrap();
        assert_eq!(under(dir.path(), "etc/plain.toml"), ["etc/plain.toml"]);
        assert_eq!(
            under(dir.path(), "etc/lockc.toml"),
            ["etc/..data", "etc/lockc.toml", "etc/..1/lockc.toml"]
        );
        assert_eq!(under(dir.path(), "etc/lockc.d"), ["etc/lockc.d", "etc/lockc.d/"]);
        assert_eq!(under(dir.path(), "etc/absent/more/lockc.toml"), ["etc/absent"]);
        assert_eq!(under(dir.path(), "etc/loop"), ["etc/loop"]);
    }

    fn watched(path: &Path) -> (ConfigWatch, Receiver<()>) {
        let (sender, receiver) = channel();
        let watch = ConfigWatch::start(vec![path.to_owned()], move || {
            // The test may have ended.
            let _ = sender.send(());
        });
        (watch.unwrap(), receiver)
    }

    fn is_noticed(receiver: &Receiver<()>) -> bool {
        let first = receiver.recv_timeout(Duration::from_secs(10)).is_ok();
        while receiver.recv_timeout(Duration::from_millis(50)).is_ok() {}
        first
    }

    type Change<'a> = (&'a str, Box<dyn Fn() + 'a>);

    #[test]
    fn every_way_to_change_a_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let file = at("lockc.toml");
        let (watch, receiver) = watched(&file);
        let changes: [Change<'_>; 6] = [
            ("created", Box::new(|| fs::write(&file, "a").unwrap())),
            ("written", Box::new(|| fs::write(&file, "b").unwrap())),
            (
                "replaced",
                Box::new(|| {
                    fs::write(at("new"), "c").unwrap();
                    fs::rename(at("new"), &file).unwrap();
                }),
            ),
            ("removed", Box::new(|| fs::remove_file(&file).unwrap())),
            (
                "linked",
                Box::new(|| {
                    fs::create_dir(at("..1")).unwrap();
                    fs::write(at("..1/lockc.toml"), "d").unwrap();
                    symlink("..1/lockc.toml", &file).unwrap();
                }),
            ),
            (
                "written through the link",
                Box::new(|| fs::write(at("..1/lockc.toml"), "e").unwrap()),
            ),
        ];
        for (what, change) in changes {
            change();
            assert!(is_noticed(&receiver), "{what}");
            watch.refresh().unwrap();
            while receiver.recv_timeout(Duration::from_millis(50)).is_ok() {}
        }
    }

    #[test]
    fn other_files_are_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lockc.toml");
        fs::write(&file, "a").unwrap();
        let (_watch, receiver) = watched(&file);
        fs::write(dir.path().join("log"), "a line").unwrap();
        assert!(receiver.recv_timeout(Duration::from_millis(300)).is_err());
        fs::write(&file, "b").unwrap();
        assert!(is_noticed(&receiver));
    }

    #[test]
    fn reading_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lockc.toml");
        fs::write(&file, "a").unwrap();
        let (_watch, receiver) = watched(&file);
        for _ in 0..10 {
            fs::read(&file).unwrap();
            fs::read_dir(dir.path()).unwrap().for_each(drop);
        }
        assert!(receiver.recv_timeout(Duration::from_millis(300)).is_err());
    }
}
