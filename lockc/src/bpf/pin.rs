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

/// Longest wait for programs to be detached.
const DETACH_PATIENCE: Duration = Duration::from_mins(1);
const DETACH_PAUSE: Duration = Duration::from_millis(20);

/// Where all pins live.
pub const ROOT: &str = "/sys/fs/bpf/lockc";

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
    /// The pins are gone, their programs are not.
    #[error("programs are still attached; does another process hold them?")]
    StillLoaded,
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

    /// Removes the links of all other generations; what they enforced is enforced by this one.
    pub fn retire_others(&self) -> Result<(), PinError> {
        let links = self.directory.join("links");
        for generation in generations(&links)? {
            if generation != self.generation {
                remove_links(&links.join(generation.to_string()))?;
            }
        }
        Ok(())
    }
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

/// Removes every pin of every layout version, and waits until their programs are gone: the kernel
/// detaches them after the fact, one by one. Returns how many pins there were.
pub fn remove_all() -> Result<usize, PinError> {
    let root = Path::new(ROOT);
    let mut programs = HashSet::new();
    collect_programs(root, &mut programs);
    let removed = remove_below(root)?;
    let end = Instant::now() + DETACH_PATIENCE;
    while loaded_programs().flatten().any(|program| programs.contains(&program.id())) {
        if Instant::now() >= end {
            return Err(PinError::StillLoaded);
        }
        thread::sleep(DETACH_PAUSE);
    }
    Ok(removed)
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

fn remove_below(path: &Path) -> Result<usize, PinError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(io_error("list", path)(error)),
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            removed += remove_below(&path)?;
        } else {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
            removed += 1;
        }
    }
    fs::remove_dir(path).map_err(io_error("remove", path))?;
    Ok(removed)
}
