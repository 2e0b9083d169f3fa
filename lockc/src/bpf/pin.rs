//! Pins: what keeps enforcing when the daemon is gone.
//!
//! `/sys/fs/bpf/lockc/v<layout>/maps/NAME` and `.../links/<generation>/NAME`. A
//! starting daemon attaches a new generation of programs to the same maps and
//! removes the old generations once its own is proven, so nothing pauses.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{
    links::{FdLink, PinnedLink},
    loaded_programs,
};
use lockc_common::LAYOUT_VERSION;
use thiserror::Error;

use super::shape::PINNED_MAPS;

/// Where all pins live.
pub const ROOT: &str = "/sys/fs/bpf/lockc";

/// Longest wait for programs to be detached.
const DETACH_PATIENCE: Duration = Duration::from_mins(1);
const DETACH_PAUSE: Duration = Duration::from_millis(20);

/// A pin that could not be made, listed or removed.
#[derive(Debug, Error)]
pub enum PinError {
    /// An operation on a path failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `/sys/fs/bpf` is no BPF file system.
    #[error("/sys/fs/bpf is not a BPF file system; run `mount -t bpf bpf /sys/fs/bpf`")]
    NoBpfFs,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |source| PinError::Io { action, path, source }
}

/// The pins of this layout version.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    generation: u64,
}

impl Pins {
    /// Makes the directories for a new generation of links.
    pub fn prepare() -> Result<Self, PinError> {
        let bpf_fs = Path::new("/sys/fs/bpf");
        let found = nix::sys::statfs::statfs(bpf_fs)
            .map_err(|errno| io_error("inspect", bpf_fs)(errno.into()))?;
        if found.filesystem_type() != nix::sys::statfs::BPF_FS_MAGIC {
            return Err(PinError::NoBpfFs);
        }
        let directory = Path::new(ROOT).join(format!("v{LAYOUT_VERSION}"));
        if let Some(trouble) = trouble(&directory) {
            set_aside(&directory, &trouble)?;
        }
        for path in [directory.join("maps"), directory.join("links")] {
            fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        }
        let last = generations(&directory.join("links"))?.into_iter().max().unwrap_or(0);
        let pins = Self { directory, generation: last + 1 };
        let links = pins.links();
        fs::create_dir(&links).map_err(io_error("create", &links))?;
        Ok(pins)
    }

    /// Path of a map's pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory.join("maps").join(name)
    }

    /// Path of a link's pin in this generation.
    pub fn link(&self, name: &str) -> PathBuf {
        self.links().join(name)
    }

    fn links(&self) -> PathBuf {
        self.directory.join("links").join(self.generation.to_string())
    }

    /// Removes this generation again: the programs did not prove themselves.
    pub fn discard(&self) {
        if let Err(error) = remove_links(&self.links()) {
            log::error!("{error}");
        }
    }

    /// Removes the links of all other generations, and waits until their programs are gone; what they enforced is
    /// enforced by this one. A registration would not outlive two generations that see the same `execve`: the first
    /// takes it up, and the second takes that for one whose `execve` has failed.
    pub fn retire_others(&self) -> Result<(), PinError> {
        let links = self.directory.join("links");
        let mut gone = HashSet::new();
        for generation in generations(&links)? {
            if generation != self.generation {
                let path = links.join(generation.to_string());
                gone.extend(programs(&path));
                remove_links(&path)?;
            }
        }
        await_end(&gone);
        Ok(())
    }
}

/// Waits until these are gone.
fn await_end(programs: &HashSet<u32>) {
    let held = still_loaded(programs);
    if !held.is_empty() {
        // Somebody looks at them, most likely. What is attached enforces.
        log::error!("programs of an earlier daemon are still loaded: {held:?}");
    }
}

/// What is wrong with the pins that are there; nothing where there are none.
fn trouble(directory: &Path) -> Option<String> {
    let maps = directory.join("maps");
    // A daemon that died before it had pinned a map has enforced nothing.
    if fs::read_dir(&maps).is_ok_and(|mut entries| entries.next().is_none()) || !directory.exists()
    {
        return None;
    }
    PINNED_MAPS.iter().find_map(|map| {
        let path = maps.join(map.name);
        map.trouble(&path).map(|trouble| format!("{} {trouble}", path.display()))
    })
}

/// Moves pins out of the way. Their programs go on, and what they know is taken over as from another layout version.
fn set_aside(directory: &Path, trouble: &str) -> Result<(), PinError> {
    // No dots: names with one are the file system's own (`bpf_lookup`, kernel/bpf/inode.c, 6.12).
    let free = (1..).map(|number| directory.with_file_name(format!("aside-{number}")));
    let aside = free.take(1000).find(|path| !path.exists()).unwrap_or_default();
    log::warn!("{trouble}: setting these pins aside, as {}", aside.display());
    fs::rename(directory, &aside).map_err(io_error("rename", directory))
}

/// Removes what other layout versions have pinned, and waits until their programs are gone: what they enforced is
/// enforced without them, and to them whoever starts from now on has the default policy. Returns which.
pub fn retire_layouts() -> Result<Vec<PathBuf>, PinError> {
    let root = Path::new(ROOT);
    let own = root.join(format!("v{LAYOUT_VERSION}"));
    let entries = fs::read_dir(root).map_err(io_error("list", root))?;
    let (mut removed, mut gone) = (Vec::new(), HashSet::new());
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| *path != own) {
        if path.is_dir() {
            gone.extend(programs(&path));
            remove_below(&path)?;
        } else {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        removed.push(path);
    }
    await_end(&gone);
    Ok(removed)
}

fn generations(links: &Path) -> Result<Vec<u64>, PinError> {
    let entries = fs::read_dir(links).map_err(io_error("list", links))?;
    Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
}

fn remove_links(directory: &Path) -> Result<(), PinError> {
    let entries = fs::read_dir(directory).map_err(io_error("list", directory))?;
    for entry in entries.flatten() {
        let path = entry.path();
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
    }
    fs::remove_dir(directory).map_err(io_error("remove", directory))
}

/// Those of `programs` that are still there after a while: the kernel detaches them after the fact, one by one, and frees
/// them when they are detached (`bpf_link_free`, kernel/bpf/syscall.c, 6.1 and 6.12).
pub(super) fn still_loaded(programs: &HashSet<u32>) -> Vec<u32> {
    let end = Instant::now() + DETACH_PATIENCE;
    loop {
        if programs.is_empty() {
            return Vec::new();
        }
        let loaded = loaded_programs().flatten().map(|program| program.id());
        let held: Vec<u32> = loaded.filter(|id| programs.contains(id)).collect();
        if held.is_empty() || Instant::now() >= end {
            return held;
        }
        thread::sleep(DETACH_PAUSE);
    }
}

/// Ids of the programs whose links are pinned below a directory.
pub(super) fn programs(directory: &Path) -> HashSet<u32> {
    let mut programs = HashSet::new();
    collect_programs(directory, &mut programs);
    programs
}

fn collect_programs(path: &Path, programs: &mut HashSet<u32>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_programs(&path, programs);
        } else if path.components().any(|part| part.as_os_str() == "links")
            && let Ok(link) = PinnedLink::from_pin(&path)
            && let Ok(info) = FdLink::from(link).info()
        {
            programs.insert(info.program_id());
        }
    }
}

fn remove_below(path: &Path) -> Result<(), PinError> {
    let entries = fs::read_dir(path).map_err(io_error("list", path))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&path)?;
        } else {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    fs::remove_dir(path).map_err(io_error("remove", path))
}
