//! Drops the records of containers whose tasks ended uncounted.
//!
//! On kernels before 6.2 task storage cannot be read in a softirq that came while it was in use on the same
//! processor, and that is where most tasks are freed (`bpf_task_storage_trylock`,
//! `kernel/bpf/bpf_task_storage.c`, 6.1). `task_free` counts how often that happened; if it did, records are held
//! against the processes that there are. Programs that modify return values are skipped there on every kernel, while
//! the same one runs on that processor; the kernel counts that.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use lockc_common::{Container, Counter, SELF_TEST, UNATTRIBUTED};
use nix::unistd::Pid;

use super::registry::Registry;
use crate::bpf::{
    fdinfo,
    labels::Labels,
    maps::{Maps, wait_for_programs},
};

/// How often records are looked at.
const EVERY: Duration = Duration::from_secs(10);

/// Compares records with processes when there is a reason to.
#[derive(Debug)]
pub(super) struct Reconciler {
    labels: Arc<Labels>,
    next: Instant,
    /// The program that counts ends, if it can be skipped.
    end: Option<OwnedFd>,
    /// Whether nothing was looked at yet: what programs of an earlier daemon have missed, nobody knows.
    is_first: bool,
}

impl Reconciler {
    pub(super) fn new(labels: Arc<Labels>, end: Option<OwnedFd>) -> Self {
        let is_first = end.is_some();
        Self { labels, next: Instant::now(), end, is_first }
    }

    /// How many ends may have gone uncounted.
    fn uncounted(&mut self, maps: &Maps) -> u64 {
        if std::mem::take(&mut self.is_first) {
            return u64::MAX;
        }
        // Where the kernel does not tell, any number.
        let skips = self.end.as_ref().map(|end| fdinfo::skips(end.as_fd()).unwrap_or(u64::MAX));
        maps.counter(Counter::Uncounted).saturating_add(skips.unwrap_or(0))
    }

    /// Drops records that no task belongs to. Looks for processes only if the end of a task has gone
    /// uncounted, and a container may have fewer than it counts because of that.
    pub(super) fn run(&mut self, maps: &Maps, registry: &Registry) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        let uncounted = self.uncounted(maps);
        if uncounted == 0 {
            return;
        }
        // One that counts more tasks than were missed has a task.
        let suspects: Vec<(u64, Container)> = maps
            .handles()
            .into_iter()
            .filter(|handle| *handle != UNATTRIBUTED && handle & SELF_TEST == 0)
            .filter_map(|handle| Some((handle, maps.container(handle)?)))
            .filter(|(_, record)| record.tasks <= uncounted)
            .collect();
        if suspects.is_empty() {
            return;
        }
        let live = match self.live(maps) {
            Ok(live) => live,
            Err(error) => {
                // They take room, and nothing else.
                log::debug!("records of ended containers stay for now: {error}");
                return;
            }
        };
        for (handle, before) in suspects {
            // No task was there all the time, and none was added: there is none that could add one.
            if !live.contains(&handle)
                && maps.container(handle).is_some_and(|record| record.joins == before.joins)
            {
                maps.drop_container(handle);
                registry.forget(handle);
                maps.forget(handle);
            }
        }
    }

    /// Handles of all containers that a process belongs to or waits to. What is there from the beginning to
    /// the end of this is found: a registration, the process that took it up, or any other.
    fn live(&self, maps: &Maps) -> io::Result<HashSet<u64>> {
        // A program that has just made a record ends with its registration or its label in place, and one
        // that takes a registration up with the label.
        wait_for_programs()?;
        let mut live: HashSet<u64> = maps
            .pending_tids()
            .into_iter()
            .filter_map(|tid| maps.pending(tid))
            .map(|pending| pending.container)
            .collect();
        wait_for_programs()?;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            live.extend(self.labels.of_process(Pid::from_raw(pid))?.map(|label| label.container));
        }
        Ok(live)
    }
}
