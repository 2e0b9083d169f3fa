//! Which handle stands for which container.

use std::{
    collections::{HashMap, HashSet},
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
    event::record::{self, Record},
    policy::{self, Decision, Subject},
    runtime::{
        caller,
        cmdline::ContainerId,
        engine::{Fact, Identity},
        plan::ContainerKey,
    },
    state::unattributed,
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
/// Of these, what containers of users may take: root's have the rest in any case.
const MAX_USERS_ORIGINS: usize = MAX_ORIGINS / 4;
/// Containers of one user, and of all users: half of the table of containers. A user with a range of subordinate ids
/// is many users.
const MAX_OF_USER: usize = 4096;
const MAX_OF_USERS: usize = 16_384;

#[derive(Debug, Default)]
struct Known {
    handles: HashMap<ContainerKey, u64>,
    keys: HashMap<u64, ContainerKey>,
    origins: HashMap<u64, Arc<Origin>>,
    /// Bytes of all origins.
    origins_size: usize,
    /// Bytes of those of users.
    users_origins_size: usize,
    /// Who has started the containers that users have started.
    users: HashMap<u64, Uid>,
    /// How many each of them has.
    of_user: HashMap<Uid, usize>,
}

impl Known {
    /// Keeps an origin if there is room.
    fn keep(&mut self, handle: u64, origin: Arc<Origin>) {
        let size = origin.size();
        let of_users = if origin.owner.is_root() { 0 } else { size };
        if size > MAX_ORIGIN
            || self.origins_size + size > MAX_ORIGINS
            || self.users_origins_size + of_users > MAX_USERS_ORIGINS
        {
            log::warn!(
                "the facts of a container are too long to be kept: its policy stays when rules change"
            );
            return;
        }
        self.drop_origin(handle);
        self.origins_size += size;
        self.users_origins_size += of_users;
        self.origins.insert(handle, origin);
    }

    fn drop_origin(&mut self, handle: u64) {
        if let Some(old) = self.origins.remove(&handle) {
            self.origins_size -= old.size();
            if !old.owner.is_root() {
                self.users_origins_size -= old.size();
            }
        }
    }

    /// Counts a container of a user. False if there are too many.
    fn admit(&mut self, handle: u64, owner: Uid) -> bool {
        if owner.is_root() {
            return true;
        }
        let count = self.of_user.get(&owner).copied().unwrap_or(0);
        if count >= MAX_OF_USER || self.users.len() >= MAX_OF_USERS {
            return false;
        }
        self.of_user.insert(owner, count + 1);
        self.users.insert(handle, owner);
        true
    }

    fn dismiss(&mut self, handle: u64) {
        let Some(owner) = self.users.remove(&handle) else { return };
        if let Some(count) = self.of_user.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.of_user.remove(&owner);
            }
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

    /// Says who the container is, as far as that is known.
    pub(super) fn describe(&self, event: &mut Record) {
        let Identity { engine, container, image, .. } = &self.identity;
        let value =
            |fact: &Option<Fact<String>>| fact.as_ref().map(|fact| record::cut(&fact.value));
        event.engine = Some(engine.value.name().to_owned());
        event.name = value(container);
        event.image = value(image);
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
                    // Those that are there stay, however many.
                    registry.known().admit(handle, key.owner);
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

    /// A new handle for a container of `owner`, until it is forgotten; nothing if a user has too many.
    pub(super) fn admit(&self, owner: Uid) -> Option<u64> {
        let handle = self.new_handle();
        self.known().admit(handle, owner).then_some(handle)
    }

    /// Makes `handle` the container of `key`; one of the same key that was there before keeps its
    /// record until its last task is gone.
    pub(super) fn insert(&self, key: ContainerKey, handle: u64, origin: Option<Arc<Origin>>) {
        let mut known = self.known();
        if let Some(origin) = origin {
            known.keep(handle, origin);
        }
        if let Some(old) = known.keys.insert(handle, key.clone())
            && old != key
        {
            known.handles.remove(&old);
        }
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

    /// The key of a container.
    pub(super) fn key(&self, handle: u64) -> Option<ContainerKey> {
        self.known().keys.get(&handle).cloned()
    }

    /// How people know a container: by its id, if it has one.
    pub(super) fn shown_id(&self, handle: u64) -> String {
        let id = self.known().keys.get(&handle).map(|key| key.id.to_string());
        id.unwrap_or_else(|| unattributed(&format!("{handle:x}")))
    }

    /// Forgets a container whose record is gone.
    pub(super) fn forget(&self, handle: u64) {
        let mut known = self.known();
        known.drop_origin(handle);
        known.dismiss(handle);
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
            let handles: HashSet<u64> = {
                let known = self.known();
                known.keys.keys().chain(known.users.keys()).copied().collect()
            };
            let gone = handles.into_iter().filter(|handle| maps.container(*handle).is_none());
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
    use crate::runtime::engine::Engine;

    fn origin(owner: u32, len: usize) -> Arc<Origin> {
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
        Arc::new(Origin { owner: Uid::from_raw(owner), runtime: "runc".into(), identity })
    }

    #[test]
    fn facts_of_containers_do_not_fill_the_memory() {
        let mut known = Known::default();
        known.keep(0, origin(0, MAX_ORIGIN));
        assert!(known.origins.is_empty());
        for handle in 1..1000 {
            known.keep(handle, origin(0, MAX_ORIGIN / 2));
        }
        let kept = known.origins.len();
        assert!((100..=MAX_ORIGINS / (MAX_ORIGIN / 2)).contains(&kept), "{kept}");
        assert!(known.origins_size <= MAX_ORIGINS);
        for handle in 0..1000 {
            known.drop_origin(handle);
        }
        assert_eq!(known.origins_size, 0);
        known.keep(7, origin(0, 10));
        known.keep(7, origin(0, 20));
        assert_eq!(known.origins_size, origin(0, 20).size());
    }

    #[test]
    fn facts_of_users_leave_room_for_roots() {
        let mut known = Known::default();
        for handle in 1..1000 {
            known.keep(handle, origin(1000, MAX_ORIGIN / 2));
        }
        assert!(known.users_origins_size > MAX_USERS_ORIGINS / 2);
        for handle in 1000..1050 {
            known.keep(handle, origin(0, MAX_ORIGIN / 2));
            assert!(known.origins.contains_key(&handle));
        }
        for handle in 0..2000 {
            known.drop_origin(handle);
        }
        assert_eq!((known.origins_size, known.users_origins_size), (0, 0));
    }

    #[test]
    fn users_have_a_limited_number_of_containers() {
        let mut known = Known::default();
        let users = u64::try_from(MAX_OF_USERS / MAX_OF_USER).unwrap();
        for handle in 0..MAX_OF_USER as u64 {
            assert!(known.admit(handle, Uid::from_raw(1000)));
        }
        assert!(!known.admit(1 << 40, Uid::from_raw(1000)), "one more of the same user");
        // What a range of subordinate ids can do: many users with one container each.
        let room = (users - 1) * MAX_OF_USER as u64;
        for id in 0..room {
            assert!(known.admit(1 << 41 | id, Uid::from_raw(100_000 + u32::try_from(id).unwrap())));
        }
        assert!(!known.admit(1 << 42, Uid::from_raw(7)), "one more of another user");
        assert!(known.admit(1 << 43, Uid::from_raw(0)), "root's");
        known.dismiss(0);
        assert!(known.admit(1 << 44, Uid::from_raw(1000)));
        for handle in known.users.keys().copied().collect::<Vec<_>>() {
            known.dismiss(handle);
        }
        assert!(known.of_user.is_empty());
    }
}
