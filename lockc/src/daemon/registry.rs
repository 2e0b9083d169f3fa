//! Which handle stands for which container.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lockc_common::{Counter, UNATTRIBUTED};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Uid,
};

use crate::{
    bpf::{calls, maps::Maps},
    config::Config,
    policy::{self, Decision, Subject},
    runtime::{caller, cmdline::ContainerId, engine::Identity, plan::ContainerKey},
};

/// Containers of this node, by key and by handle.
#[derive(Debug, Default)]
pub(super) struct Registry {
    known: Mutex<Known>,
    last_handle: AtomicU64,
    reported_lost: AtomicU64,
    reported_suppressed: AtomicU64,
}

/// Most bytes of facts that are kept of one container, and of all. Who starts containers writes them;
/// lockc must not run out of memory by that.
const MAX_ORIGIN: usize = 64 << 10;
const MAX_ORIGINS: usize = 4 << 20;

#[derive(Debug, Default)]
struct Known {
    handles: HashMap<ContainerKey, u64>,
    keys: HashMap<u64, ContainerKey>,
    origins: HashMap<u64, Arc<Origin>>,
    /// Bytes of all origins.
    origins_size: usize,
}

impl Known {
    /// Keeps an origin if there is room.
    fn keep(&mut self, handle: u64, origin: Origin) {
        let size = origin.size();
        if size > MAX_ORIGIN || self.origins_size + size > MAX_ORIGINS {
            log::warn!(
                "the facts of a container are too long to be kept: its policy stays when rules change"
            );
            return;
        }
        self.origins_size += size;
        if let Some(old) = self.origins.insert(handle, Arc::new(origin)) {
            self.origins_size -= old.size();
        }
    }

    fn drop_origin(&mut self, handle: u64) {
        if let Some(old) = self.origins.remove(&handle) {
            self.origins_size -= old.size();
        }
    }
}

/// What the decision about a container depended on, for when the rules change.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) owner: Uid,
    pub(super) runtime: String,
    pub(super) identity: Identity,
}

impl Origin {
    /// Bytes that it takes, roughly.
    fn size(&self) -> usize {
        size_of::<Self>() + self.runtime.len() + self.identity.size()
    }

    /// Decides again.
    pub(super) fn decide(&self, config: &Config) -> Decision {
        let Self { owner, runtime, identity } = self;
        policy::decide(Subject { owner: *owner, runtime, identity }, config)
    }
}

impl Registry {
    /// Takes over what an earlier daemon has named.
    pub(super) fn restore(maps: &Maps) -> Self {
        let registry = Self::default();
        registry.reported_lost.store(maps.counter(Counter::Lost), Ordering::Relaxed);
        registry.reported_suppressed.store(maps.counter(Counter::Suppressed), Ordering::Relaxed);
        maps.forget_orphans();
        for (handle, owner, id) in maps.container_names() {
            match ContainerId::new(id) {
                Some(id) if maps.container(handle).is_some() => {
                    // The state directory is not kept; an id that only one container has is found
                    // without it.
                    let key = ContainerKey { owner: Uid::from_raw(owner), root: None, id };
                    registry.insert(key, handle, None);
                }
                _ => maps.forget(handle),
            }
        }
        registry
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Both maps are changed between two statements that cannot panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle that was never used before on this boot, by any daemon: the time, moved on if two
    /// are wanted at once.
    pub(super) fn new_handle(&self) -> u64 {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
            u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000
                + u64::try_from(now.tv_nsec()).unwrap_or(0)
        });
        let now = now.max(UNATTRIBUTED + 1);
        let last = self
            .last_handle
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)))
            .unwrap_or(0);
        now.max(last + 1)
    }

    /// Makes `handle` the container of `key`; one of the same key that was there before keeps its
    /// record until its last task is gone.
    pub(super) fn insert(&self, key: ContainerKey, handle: u64, origin: Option<Origin>) {
        let mut known = self.known();
        if let Some(origin) = origin {
            known.keep(handle, origin);
        }
        known.keys.insert(handle, key.clone());
        known.handles.insert(key, handle);
    }

    /// The handle of the container that `key` means.
    pub(super) fn find(&self, key: &ContainerKey) -> Option<u64> {
        key.find(&self.known().handles).copied()
    }

    /// What is known of a container since it started; nothing of those that an earlier daemon saw.
    pub(super) fn origin(&self, handle: u64) -> Option<Arc<Origin>> {
        self.known().origins.get(&handle).cloned()
    }

    /// The id of a container.
    pub(super) fn id(&self, handle: u64) -> Option<String> {
        self.known().keys.get(&handle).map(|key| key.id.to_string())
    }

    /// Forgets a container whose record is gone.
    pub(super) fn forget(&self, handle: u64) {
        let mut known = self.known();
        known.drop_origin(handle);
        if let Some(key) = known.keys.remove(&handle)
            && known.handles.get(&key) == Some(&handle)
        {
            known.handles.remove(&key);
        }
    }

    /// Withdraws registrations whose task is not there any more, forgets containers whose last
    /// event was lost, and reports what could not be reported.
    pub(super) fn sweep(&self, maps: &Maps) {
        for tid in maps.pending_tids() {
            let Some(pending) = maps.pending(tid) else {
                continue;
            };
            if start_ticks(tid) != Some(pending.start_ticks) {
                calls::delete_container(u64::from(tid));
            }
        }
        let lost = maps.counter(Counter::Lost);
        let suppressed = maps.counter(Counter::Suppressed);
        let new_lost = lost - self.reported_lost.swap(lost, Ordering::Relaxed).min(lost);
        let new_suppressed = suppressed
            - self.reported_suppressed.swap(suppressed, Ordering::Relaxed).min(suppressed);
        if new_suppressed > 0 {
            log::warn!("{new_suppressed} events not reported: their containers made too many");
        }
        if new_lost > 0 {
            log::warn!("{new_lost} events lost: the ring buffer was full");
            let gone: Vec<u64> = self
                .known()
                .keys
                .keys()
                .copied()
                .filter(|handle| maps.container(*handle).is_none())
                .collect();
            for handle in gone {
                self.forget(handle);
                maps.forget(handle);
            }
        }
    }
}

fn start_ticks(tid: u32) -> Option<u64> {
    caller::start_ticks(&fs::read(format!("/proc/{tid}/stat")).ok()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runtime::engine::{Engine, Fact};

    fn origin(len: usize) -> Origin {
        let fact = Fact { value: "x".repeat(len), source: String::new(), trusted: false };
        let identity = Identity {
            engine: Fact { value: Engine::None, source: String::new(), trusted: false },
            namespace: None,
            pod: None,
            container: None,
            image: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::from([("key".to_owned(), fact)]),
            notes: Vec::new(),
        };
        Origin { owner: Uid::from_raw(1000), runtime: "runc".into(), identity }
    }

    #[test]
    fn facts_of_containers_do_not_fill_the_memory() {
        let mut known = Known::default();
        known.keep(0, origin(MAX_ORIGIN));
        assert!(known.origins.is_empty());
        for handle in 1..1000 {
            known.keep(handle, origin(MAX_ORIGIN / 2));
        }
        let kept = known.origins.len();
        assert!((100..=MAX_ORIGINS / (MAX_ORIGIN / 2)).contains(&kept), "{kept}");
        assert!(known.origins_size <= MAX_ORIGINS);
        for handle in 0..1000 {
            known.drop_origin(handle);
        }
        assert_eq!(known.origins_size, 0);
        known.keep(7, origin(10));
        known.keep(7, origin(20));
        assert_eq!(known.origins_size, origin(20).size());
    }
}
