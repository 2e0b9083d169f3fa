//! Typed access to the maps.

use std::sync::Mutex;

use aya::maps::{
    Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key,
};
use lockc_common::{
    CONTAINER_ID_LEN, Container, ContainerName, Counter, InodeKey, MAX_POLICIES, NAME_LEN,
    PATH_RULE_LEN, POLICY_NAME_LEN, PathKey, PathVerdict, Pending, Policy, PolicyName, RuntimeName,
    UNATTRIBUTED,
};

use super::{
    events::Events,
    load::{Kernel, LoadError},
};

/// A policy as the programs need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicy {
    /// Name, for messages.
    pub name: String,
    /// [`lockc_common::PolicyFlags`].
    pub flags: u32,
    /// Paths with their closing `/`, at most [`PATH_RULE_LEN`] bytes each.
    pub paths: Vec<(Vec<u8>, PathVerdict)>,
}

impl CompiledPolicy {
    /// FNV-1a over everything that distinguishes two policies. Not a defence: only the daemon
    /// writes these.
    fn digest(&self) -> u64 {
        let mut paths: Vec<_> = self.paths.iter().collect();
        paths.sort_by(|a, b| a.0.cmp(&b.0));
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes.iter().chain(&[0]) {
                digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        add(self.name.as_bytes());
        add(&self.flags.to_ne_bytes());
        for (path, verdict) in paths {
            add(path);
            add(&[*verdict as u8]);
        }
        digest
    }
}

fn path_key(policy: u32, path: &[u8]) -> Option<PathKey> {
    let mut key = PathKey { policy, path: [0; PATH_RULE_LEN] };
    key.path.get_mut(..path.len())?.copy_from_slice(path);
    Some(key)
}

/// Every directory above `path` (which ends with `/`), the root excepted, and `path` itself.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|(at, byte)| **byte == b'/' && *at > 0)
        .map(|(at, _)| &path[..=at])
}

/// The maps. Reads take no lock; the few maps the daemon itself writes have one each.
pub struct Maps {
    containers: Mutex<HashMap<MapData, u64, Container>>,
    container_names: Mutex<HashMap<MapData, u64, ContainerName>>,
    counters: PerCpuArray<MapData, u64>,
    mount_namespaces: Mutex<HashMap<MapData, u64, u64>>,
    pending: HashMap<MapData, u32, Pending>,
    policies: Mutex<Policies>,
    runtime_files: Mutex<HashMap<MapData, InodeKey, u64>>,
    runtime_names: Mutex<HashMap<MapData, RuntimeName, u32>>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

struct Policies {
    slots: Array<MapData, Policy>,
    names: HashMap<MapData, u32, PolicyName>,
    rules: LpmTrie<MapData, PathKey, u32>,
    ancestors: HashMap<MapData, PathKey, u32>,
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
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Maps {
    /// Takes the maps out of the loaded object.
    pub fn take(kernel: &mut Kernel) -> Result<Self, LoadError> {
        Ok(Self {
            containers: Mutex::new(take(kernel, "CONTAINERS")?),
            container_names: Mutex::new(take(kernel, "CONTAINER_NAMES")?),
            counters: take(kernel, "COUNTERS")?,
            mount_namespaces: Mutex::new(take(kernel, "MOUNT_NAMESPACES")?),
            pending: take(kernel, "PENDING")?,
            policies: Mutex::new(Policies {
                slots: take(kernel, "POLICIES")?,
                names: take(kernel, "POLICY_NAMES")?,
                rules: take(kernel, "PATH_RULES")?,
                ancestors: take(kernel, "PATH_ANCESTORS")?,
            }),
            runtime_files: Mutex::new(take(kernel, "RUNTIME_FILES")?),
            runtime_names: Mutex::new(take(kernel, "RUNTIME_NAMES")?),
        })
    }

    /// Installs a policy and returns its id; the id of an equal one that is installed already,
    /// if there is one. Rules come before the policy itself, so nobody sees half of it.
    pub fn install(&self, policy: &CompiledPolicy) -> Result<u32, LoadError> {
        let failed = |name, error: MapError| LoadError::Map { name, reason: error.to_string() };
        let digest = policy.digest();
        let mut maps = lock(&self.policies);
        for entry in maps.names.iter().flatten() {
            if entry.1.digest == digest {
                return Ok(entry.0);
            }
        }
        let id = (0..MAX_POLICIES)
            .find(|id| maps.slots.get(id, 0).is_ok_and(|slot| slot.used == 0))
            .ok_or(LoadError::Map { name: "POLICIES", reason: "every slot is in use".into() })?;
        for (path, verdict) in &policy.paths {
            let too_long = || LoadError::Map {
                name: "PATH_RULES",
                reason: format!("a path of policy {} is too long", policy.name),
            };
            let bits = 8 * (size_of::<u32>() + path.len());
            let key = Key::new(
                u32::try_from(bits).map_err(|_| too_long())?,
                path_key(id, path).ok_or_else(too_long)?,
            );
            maps.rules.insert(&key, *verdict as u32, 0).map_err(|e| failed("PATH_RULES", e))?;
            if *verdict == PathVerdict::Deny {
                for above in ancestors(path) {
                    let key = path_key(id, above).ok_or_else(too_long)?;
                    maps.ancestors.insert(key, 1, 0).map_err(|e| failed("PATH_ANCESTORS", e))?;
                }
            }
        }
        maps.slots
            .set(id, Policy { flags: policy.flags, used: 1 }, 0)
            .map_err(|e| failed("POLICIES", e))?;
        let mut name = PolicyName { digest, len: 0, name: [0; POLICY_NAME_LEN] };
        let shown = &policy.name.as_bytes()[..policy.name.len().min(POLICY_NAME_LEN)];
        name.name[..shown.len()].copy_from_slice(shown);
        name.len = shown.len() as u64;
        maps.names.insert(id, name, 0).map_err(|e| failed("POLICY_NAMES", e))?;
        Ok(id)
    }

    /// Name of a policy.
    pub fn policy_name(&self, id: u32) -> Option<String> {
        let name = lock(&self.policies).names.get(&id, 0).ok()?;
        let len = usize::try_from(name.len).ok()?;
        Some(String::from_utf8_lossy(name.name.get(..len)?).into_owned())
    }

    /// Sets the policy of tasks that nobody registered.
    pub fn set_default(&self, policy: u32) -> Result<(), LoadError> {
        // Never dropped, so its task count does not matter, and starts where it cannot reach 0.
        let record = Container { policy, tasks: 1 << 32, ..Container::default() };
        lock(&self.containers)
            .insert(UNATTRIBUTED, record, 0)
            .map_err(|error| LoadError::Map { name: "CONTAINERS", reason: error.to_string() })
    }

    /// The registration that waits for thread `tid`.
    pub fn pending(&self, tid: u32) -> Option<Pending> {
        self.pending.get(&tid, 0).ok()
    }

    /// Thread ids of all registrations that wait.
    pub fn pending_tids(&self) -> Vec<u32> {
        self.pending.keys().flatten().collect()
    }

    /// The record of a container.
    pub fn container(&self, handle: u64) -> Option<Container> {
        lock(&self.containers).get(&handle, 0).ok()
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
        let mut namespaces = lock(&self.mount_namespaces);
        let owned: Vec<u64> = namespaces
            .iter()
            .flatten()
            .filter(|(_, owner)| *owner == handle)
            .map(|(namespace, _)| namespace)
            .collect();
        for namespace in owned {
            let _ = namespaces.remove(&namespace);
        }
    }

    /// Forgets all mount namespaces whose owner has no record any more.
    pub fn forget_orphans(&self) {
        let live: std::collections::HashSet<u64> = self.handles().into_iter().collect();
        let mut namespaces = lock(&self.mount_namespaces);
        let orphans: Vec<u64> = namespaces
            .iter()
            .flatten()
            .filter(|(_, owner)| !live.contains(owner))
            .map(|(namespace, _)| namespace)
            .collect();
        for namespace in orphans {
            let _ = namespaces.remove(&namespace);
        }
    }

    /// Makes `names` the names by which the kernel side recognises runtimes. One that does not
    /// fit is returned: it is recognised by its file alone.
    pub fn set_runtime_names<'a>(
        &self,
        names: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<&'a [u8]> {
        let mut map = lock(&self.runtime_names);
        let old: Vec<RuntimeName> = map.keys().flatten().collect();
        let mut kept = Vec::new();
        let mut refused = Vec::new();
        for name in names {
            let mut key = RuntimeName { name: [0; NAME_LEN] };
            if name.len() < NAME_LEN {
                key.name[..name.len()].copy_from_slice(name);
                if map.insert(key, 1, 0).is_ok() {
                    kept.push(key);
                    continue;
                }
            }
            refused.push(name);
        }
        for key in old.iter().filter(|key| !kept.contains(key)) {
            let _ = map.remove(key);
        }
        refused
    }

    /// Drops runtime files that scan number `scan` did not find again.
    pub fn prune_runtime_files(&self, scan: u64) {
        let mut map = lock(&self.runtime_files);
        let stale: Vec<InodeKey> =
            map.iter().flatten().filter(|(_, seen)| *seen != scan).map(|(key, _)| key).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_are_all_directories_above_and_the_path_itself() {
        let all: Vec<_> = ancestors(b"/run/secrets/k8s/").collect();
        assert_eq!(all, [&b"/run/"[..], b"/run/secrets/", b"/run/secrets/k8s/"]);
    }

    #[test]
    fn digest_tells_policies_apart_and_ignores_the_order_of_rules() {
        let a = CompiledPolicy {
            name: "a".into(),
            flags: 1,
            paths: vec![
                (b"/x/".to_vec(), PathVerdict::Deny),
                (b"/y/".to_vec(), PathVerdict::Allow),
            ],
        };
        let mut b = a.clone();
        b.paths.reverse();
        assert_eq!(a.digest(), b.digest());
        b.paths[0].1 = PathVerdict::Deny;
        assert_ne!(a.digest(), b.digest());
    }
}
