//! What a daemon holds, in the kernel and itself.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use super::{
    daemon::{Lockc, PINS, pinned_map},
    process::wait_for,
};
use crate::sys::bpf;

/// Which 64-bit word of a container's record is the number of its tasks (`Container`, lockc-common).
const TASKS_WORD: usize = 1;

/// Longest time until everything is tidied up.
pub(crate) const TIDY: Duration = Duration::from_mins(1);

/// What could leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    descriptors: usize,
    threads: usize,
    /// Marks of fanotify and inotify.
    marks: usize,
    pins: usize,
    /// Programs, maps and links in the kernel.
    objects: [usize; 3],
    /// Tasks that all records together count.
    pub(crate) tasks: u64,
    /// Entries by map.
    pub(crate) maps: BTreeMap<String, usize>,
}

impl Holdings {
    pub(super) fn of(pid: Pid) -> Result<Self> {
        let count = |name: &str| -> Result<usize> {
            let path = format!("/proc/{pid}/{name}");
            Ok(fs::read_dir(&path).with_context(|| path.clone())?.count())
        };
        let (mut maps, mut pins) = (BTreeMap::new(), 0);
        count_maps(PINS.as_ref(), &mut maps, &mut pins)?;
        Ok(Self {
            descriptors: count("fd")?,
            threads: count("task")?,
            marks: marks(pid)?,
            pins,
            objects: bpf::count_objects().context("count programs, maps and links")?,
            tasks: bpf::sum(&pinned_map("CONTAINERS")?, TASKS_WORD).context("count tasks")?,
            maps,
        })
    }

    /// Whether nothing is more than it was `before`; what was dropped meanwhile is no leak.
    pub(crate) fn is_within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.marks <= before.marks
            && self.pins <= before.pins
            && self.objects.iter().zip(&before.objects).all(|(now, before)| now <= before)
            && self.tasks <= before.tasks
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

/// What the daemon holds once that is `wanted`, or no container is left.
pub(crate) fn settled(lockc: &Lockc, wanted: Option<&Holdings>) -> Result<Holdings> {
    let mut last = lockc.holdings()?;
    let found = wait_for("everything as before", TIDY, || {
        let now = lockc.holdings()?;
        let settled = wanted.map_or_else(|| now.is_idle(), |wanted| now.is_within(wanted));
        last = now;
        Ok(settled.then(|| last.clone()))
    });
    found.with_context(|| {
        let path = last.maps.keys().find(|path| path.ends_with("/CONTAINERS"));
        let records = path.map(|path| bpf::dump(path.as_ref()));
        format!("before {wanted:?}, after {last:?}, records {records:x?}")
    })
}

/// Resident memory of a process in KiB.
pub(crate) fn resident(pid: Pid) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let value = line.split_whitespace().nth(1).context("no value")?;
    value.parse().context("VmRSS is no number")
}

/// The mappings of a process of which more than a few pages are resident, in KiB (`proc_pid_smaps(5)`).
pub(crate) fn mappings(pid: Pid) -> Result<String> {
    const FEW: u64 = 64;
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut mapping, mut found) = ("", Vec::new());
    for line in smaps.lines() {
        match line.split_once(':') {
            Some(("Rss", rest)) => {
                let number = rest.split_whitespace().next().context("no value")?;
                if number.parse::<u64>().context("Rss is no number")? > FEW {
                    found.push(format!("{number} {mapping}"));
                }
            }
            Some((name, _))
                if name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') => {}
            _ => mapping = line,
        }
    }
    Ok(found.join("\n"))
}

/// Marks that a process has set (`show_mark_fhandle` and its callers, fs/notify/fdinfo.c, 6.1).
fn marks(pid: Pid) -> Result<usize> {
    let mut marks = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        let is_mark = |line: &&str| {
            ["fanotify ino:", "fanotify mnt_id:", "fanotify sdev:", "inotify wd:"]
                .iter()
                .any(|kind| line.starts_with(kind))
        };
        marks += info.lines().filter(is_mark).count();
    }
    Ok(marks)
}

/// Counts what is pinned below a directory, and the entries of every hash map among it.
fn count_maps(
    directory: &Path,
    maps: &mut BTreeMap<String, usize>,
    pins: &mut usize,
) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            count_maps(&path, maps, pins)?;
            continue;
        }
        *pins += 1;
        if path.parent().is_some_and(|parent| parent.ends_with("maps"))
            && let Some(count) =
                bpf::count_entries(&path).with_context(|| path.display().to_string())?
        {
            maps.insert(path.display().to_string(), count);
        }
    }
    Ok(())
}
