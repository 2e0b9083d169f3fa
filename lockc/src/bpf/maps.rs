//! Typed access to the maps.

use std::sync::Mutex;

use aya::maps::{
    Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key,
};
use lockc_common::{
    Adoption, BY_USER, CONTAINER_ID_LEN, Container, ContainerName, Counter, InodeKey, KnownFile,
    Label, NAME_LEN, NameEnd, Number, Pending, RuntimeName, UNATTRIBUTED, UNATTRIBUTED_TASKS,
};

pub use super::policies::{CompiledPolicy, wait_for_programs};
use super::{
    calls,
    events::Events,
    load::{Kernel, LoadError},
    policies::Policies,
};
use crate::config::{NamePattern, separate};

/// The maps. Reads take no lock; the few maps the daemon itself writes have one each.
pub struct Maps {
    pub(super) adopted: Mutex<LpmTrie<MapData, Number, Label>>,
    pub(super) adoptions: Mutex<LpmTrie<MapData, u32, Adoption>>,
    clock: Mutex<Array<MapData, i64>>,
    user_records: Mutex<Array<MapData, u64>>,
    containers: Mutex<HashMap<MapData, u64, Container>>,
    container_names: Mutex<HashMap<MapData, u64, ContainerName>>,
    counters: PerCpuArray<MapData, u64>,
    mount_namespaces: Mutex<LpmTrie<MapData, Number, u64>>,
    pending: HashMap<MapData, u32, Pending>,
    policies: Mutex<Policies>,
    known_files: Mutex<HashMap<MapData, InodeKey, KnownFile>>,
    runtime_names: Mutex<LpmTrie<MapData, RuntimeName, NameEnd>>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

fn take<T>(kernel: &mut Kernel, name: &'static str) -> Result<T, LoadError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = kernel
        .ebpf
        .take_map(name)
        .ok_or(LoadError::Map { name, reason: "it is not in the BPF object".into() })?;
    T::try_from(map).map_err(|error| LoadError::Map { name, reason: error.to_string() })
}

/// The ring buffer, for the thread that drains it.
pub fn take_events(kernel: &mut Kernel) -> Result<Events, LoadError> {
    take::<RingBuf<MapData>>(kernel, "EVENTS").map(Events::new)
}

/// A lock whose holder panicked guards maps that are still whole: every update is one syscall.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Maps {
    /// Takes the maps out of the loaded object.
    pub fn take(kernel: &mut Kernel) -> Result<Self, LoadError> {
        Ok(Self {
            adopted: Mutex::new(take(kernel, "ADOPTED")?),
            adoptions: Mutex::new(take(kernel, "ADOPTIONS")?),
            clock: Mutex::new(take(kernel, "CLOCK")?),
            user_records: Mutex::new(take(kernel, "USER_RECORDS")?),
            containers: Mutex::new(take(kernel, "CONTAINERS")?),
            container_names: Mutex::new(take(kernel, "CONTAINER_NAMES")?),
            counters: take(kernel, "COUNTERS")?,
            mount_namespaces: Mutex::new(take(kernel, "MOUNT_NAMESPACES")?),
            pending: take(kernel, "PENDING")?,
            policies: Mutex::new(Policies::new(
                take(kernel, "POLICIES")?,
                take(kernel, "POLICY_NAMES")?,
                take(kernel, "PATH_RULES")?,
                take(kernel, "HOST_DEVICES")?,
                take(kernel, "NETWORK_RULES")?,
            )),
            known_files: Mutex::new(take(kernel, "KNOWN_FILES")?),
            runtime_names: Mutex::new(take(kernel, "RUNTIME_NAMES")?),
        })
    }

    /// Installs policies under their names and modes, in place of those that were there, and returns
    /// their ids. The containers of each change over in one step; after an error that leaves no room
    /// for one of them, all are as they were.
    pub fn install(&self, policies: &[CompiledPolicy]) -> Result<Vec<u32>, LoadError> {
        lock(&self.policies).install(policies)
    }

    /// Removes policies that are not among `wanted`, which no container may have.
    pub fn retire_policies(&self, wanted: &[u32]) -> Result<(), LoadError> {
        let mut used: std::collections::HashSet<u32> = wanted.iter().copied().collect();
        used.extend(lock(&self.containers).iter().flatten().map(|(_, record)| record.policy));
        lock(&self.policies).retire(&used)
    }

    /// [`lockc_common::PolicyFlags`] of all policies that are installed.
    pub fn flags_in_use(&self) -> u32 {
        lock(&self.policies).flags()
    }

    /// Name of a policy.
    pub fn policy_name(&self, id: u32) -> Option<String> {
        lock(&self.policies).name(id)
    }

    /// Sets the policy of tasks that nobody registered.
    pub fn set_default(&self, policy: u32) -> Result<(), LoadError> {
        let record = Container { policy, tasks: UNATTRIBUTED_TASKS, ..Container::default() };
        lock(&self.containers)
            .insert(UNATTRIBUTED, record, 0)
            .map_err(|error| LoadError::Map { name: "CONTAINERS", reason: error.to_string() })?;
        // What `bpf(2)` changes, the programs do not notice: they would go by what they remember.
        calls::move_container(UNATTRIBUTED, policy.into());
        Ok(())
    }

    /// The registration that waits for thread `tid`.
    pub fn pending(&self, tid: u32) -> Option<Pending> {
        self.pending.get(&tid, 0).ok()
    }

    /// Says that the time of day is `difference` ns ahead of the time since boot. By this the programs tell whether a
    /// file has changed since a container started, and times of files from before a clock was set back stay later
    /// than the start.
    pub fn set_clock(&self, difference: i64) -> Result<(), LoadError> {
        lock(&self.clock)
            .set(0, difference, 0)
            .map_err(|error| LoadError::Map { name: "CLOCK", reason: error.to_string() })?;
        for handle in self.handles() {
            calls::lower_clock(handle, difference.cast_unsigned());
        }
        Ok(())
    }

    /// Thread ids of all registrations that wait.
    pub fn pending_tids(&self) -> Vec<u32> {
        self.pending.keys().flatten().collect()
    }

    /// The record of a container.
    pub fn container(&self, handle: u64) -> Option<Container> {
        lock(&self.containers).get(&handle, 0).ok()
    }

    /// Drops the record of a container that has no task.
    pub fn drop_container(&self, handle: u64) {
        // If a task of it is there after all, it has the default policy from here on, and nothing else is remembered.
        if let Some(default) = self.container(UNATTRIBUTED) {
            calls::move_container(handle, default.policy.into());
        }
        // Absent is as good as removed.
        if lock(&self.containers).remove(&handle).is_ok() && handle & BY_USER != 0 {
            let mut records = lock(&self.user_records);
            // A program that counts meanwhile makes it wrong by one, on kernels that lose more than that: the limit is
            // one less or one more for it.
            let count = records.get(&0, 0).unwrap_or(0);
            let _ = records.set(0, count.saturating_sub(1), 0);
        }
    }

    /// Handles of all records.
    pub fn handles(&self) -> Vec<u64> {
        lock(&self.containers).keys().flatten().collect()
    }

    /// Keeps the id of a container for messages, of this daemon and later ones.
    pub fn name_container(&self, handle: u64, owner: u32, id: &[u8]) -> Result<(), LoadError> {
        let shown = &id[..id.len().min(CONTAINER_ID_LEN)];
        let mut name = ContainerName { len: 0, owner, id: [0; CONTAINER_ID_LEN] };
        name.id[..shown.len()].copy_from_slice(shown);
        name.len = u32::try_from(shown.len()).unwrap_or(0);
        lock(&self.container_names)
            .insert(handle, name, 0)
            .map_err(|error| LoadError::Map { name: "CONTAINER_NAMES", reason: error.to_string() })
    }

    /// Owner and id of every named container.
    pub fn container_names(&self) -> Vec<(u64, u32, Vec<u8>)> {
        lock(&self.container_names)
            .iter()
            .flatten()
            .filter_map(|(handle, name)| {
                let id = name.id.get(..usize::try_from(name.len).ok()?)?;
                Some((handle, name.owner, id.to_vec()))
            })
            .collect()
    }

    /// Forgets what is kept of a container whose record is gone.
    pub fn forget(&self, handle: u64) {
        // Absent is as good as removed.
        let _ = lock(&self.container_names).remove(&handle);
        self.disown(|owner| owner == handle);
    }

    /// Forgets all mount namespaces whose owner has no record any more.
    pub fn forget_orphans(&self) {
        let live: std::collections::HashSet<u64> = self.handles().into_iter().collect();
        self.disown(|owner| !live.contains(&owner));
    }

    /// Forgets the mount namespaces of the owners that are meant.
    fn disown(&self, is_meant: impl Fn(u64) -> bool) {
        let mut namespaces = lock(&self.mount_namespaces);
        let owned = namespaces.iter().flatten().filter(|(_, owner)| is_meant(*owner));
        for (namespace, _) in owned.collect::<Vec<_>>() {
            let _ = namespaces.remove(&namespace);
        }
    }

    /// Makes `names` the names by which the kernel side recognises runtimes. Those that do not fit are returned: they
    /// are recognised by their files alone.
    pub fn set_runtime_names(&self, names: Vec<NamePattern>) -> Vec<NamePattern> {
        let mut map = lock(&self.runtime_names);
        let same = |a: &Key<RuntimeName>, b: &Key<RuntimeName>| {
            (a.prefix_len(), a.data().name) == (b.prefix_len(), b.data().name)
        };
        let old: Vec<_> = map.keys().flatten().collect();
        let (names, mut refused) = separate(names);
        let mut kept = Vec::new();
        for name in names {
            match name_entry(&name) {
                Some((key, end)) if map.insert(&key, end, 0).is_ok() => kept.push(key),
                _ => refused.push(name),
            }
        }
        for key in old.iter().filter(|key| !kept.iter().any(|kept| same(key, kept))) {
            let _ = map.remove(key);
        }
        refused
    }

    /// Drops files that scan number `scan` did not find again.
    pub fn prune_known_files(&self, scan: u64) {
        let mut map = lock(&self.known_files);
        let stale: Vec<InodeKey> = map
            .iter()
            .flatten()
            .filter(|(_, known)| known.scan() != scan)
            .map(|(key, _)| key)
            .collect();
        for key in &stale {
            let _ = map.remove(key);
        }
    }

    /// Sum of a counter over all CPUs.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters
            .get(&(counter as u32), 0)
            .map_or(0, |values| values.iter().fold(0_u64, |sum, v| sum.wrapping_add(*v)))
    }
}

/// `None` if it is too long.
fn name_entry(pattern: &NamePattern) -> Option<(Key<RuntimeName>, NameEnd)> {
    let mut key = RuntimeName { name: [0; NAME_LEN] };
    let mut end = NameEnd { len: 0, begin: 0, end: [0; NAME_LEN] };
    if !pattern.fits() {
        return None;
    }
    let len = pattern.begin.len();
    key.name.get_mut(..len)?.copy_from_slice(&pattern.begin);
    // With the zero behind it a name stands for itself.
    let counted = len + usize::from(pattern.end.is_none());
    end.begin = u32::try_from(len).ok()?;
    if let Some(bytes) = &pattern.end {
        end.len = u32::try_from(bytes.len()).ok()?;
        end.end.get_mut(..bytes.len())?.copy_from_slice(bytes);
    }
    Some((Key::new(8 * u32::try_from(counted).ok()?, key), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_beginnings_and_ends() {
        let entry = |begin: &str, end: Option<&str>| {
            let pattern = NamePattern { begin: begin.into(), end: end.map(Into::into) };
            let (key, found) = name_entry(&pattern)?;
            Some((key.prefix_len(), found.begin, found.len))
        };
        assert_eq!(entry("runc", None), Some((40, 4, 0)));
        assert_eq!(entry("runc-", Some("")), Some((40, 5, 0)));
        assert_eq!(entry("", Some("-runc")), Some((0, 0, 5)));
        assert_eq!(entry(&"x".repeat(NAME_LEN - 1), None), Some((256, 31, 0)));
        assert_eq!(entry(&"x".repeat(NAME_LEN), None), None);
    }
}
