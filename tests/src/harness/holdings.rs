//! What a daemon holds, in the kernel and itself.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use super::daemon::PINS;
use crate::sys::bpf;

/// What could leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    descriptors: usize,
    threads: usize,
    /// Entries by map.
    pub(crate) maps: BTreeMap<String, usize>,
}

impl Holdings {
    pub(super) fn of(pid: Pid) -> Result<Self> {
        let count = |name: &str| -> Result<usize> {
            let path = format!("/proc/{pid}/{name}");
            Ok(fs::read_dir(&path).with_context(|| path.clone())?.count())
        };
        let mut maps = BTreeMap::new();
        count_maps(PINS.as_ref(), &mut maps)?;
        Ok(Self { descriptors: count("fd")?, threads: count("task")?, maps })
    }

    /// Whether nothing is more than it was `before`; what was dropped meanwhile is no leak.
    pub(crate) fn is_within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.maps.iter().all(|(map, count)| Some(count) <= before.maps.get(map))
    }

    /// The record of the safe default is the only one, and nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        let wanted = [("CONTAINERS", 1), ("CONTAINER_NAMES", 0), ("PENDING", 0)];
        wanted.iter().all(|(name, entries)| {
            self.maps
                .iter()
                .any(|(map, count)| map.ends_with(&format!("/{name}")) && count == entries)
        })
    }
}

/// Counts the entries of every hash map pinned below a directory.
fn count_maps(directory: &Path, maps: &mut BTreeMap<String, usize>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            count_maps(&path, maps)?;
        } else if path.parent().is_some_and(|parent| parent.ends_with("maps"))
            && let Some(count) =
                bpf::count_entries(&path).with_context(|| path.display().to_string())?
        {
            maps.insert(path.display().to_string(), count);
        }
    }
    Ok(())
}
