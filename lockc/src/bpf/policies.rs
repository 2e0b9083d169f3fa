//! Policies in the kernel, and their replacement while containers have them.
//!
//! A policy keeps its id, by which records of containers name it, for as long as its name and mode are
//! configured. What it says is one word, flags and the number of its path rules, so that a change is
//! one store: the new rules are there before, under a number of their own, and the old ones go when no
//! program can still be looking at them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use lockc_common::{
    EXEC_RULES, HOST_PREFIX, HOST_RULES, HostDevice, MAX_POLICIES, NetworkKey, PATH_RULE_LEN,
    POLICY_NAME_LEN, PathKey, PathRule, PathVerdict, PathsBelow, Policy, PolicyFlags, PolicyName,
};
use nix::{errno::Errno, libc};

use super::{calls, load::LoadError};
use crate::policy::{HostRule, NetworkRule};

/// A policy as the programs need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicy {
    /// Name, for messages. One with [`PolicyFlags::AUDIT`] is another policy than one without.
    pub name: String,
    /// [`PolicyFlags`].
    pub flags: u32,
    /// Paths with their closing `/`, at most [`PATH_RULE_LEN`] bytes each.
    pub paths: Vec<(Vec<u8>, PathVerdict)>,
    /// Rules about executing, as those about paths.
    pub exec: Vec<(Vec<u8>, PathVerdict)>,
    /// Rules about paths of the host: see [`crate::policy::Mounts::rules`].
    pub host: Vec<HostRule>,
    /// Rules about addresses and families of sockets.
    pub network: Vec<NetworkRule>,
}

impl CompiledPolicy {
    fn is_audit(&self) -> bool {
        self.flags & PolicyFlags::AUDIT != 0
    }

    /// FNV-1a over everything that distinguishes two policies. Not a defence: only the daemon
    /// writes these.
    fn digest(&self) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes.iter().chain(&[0]) {
                digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        add(self.name.as_bytes());
        add(&self.flags.to_ne_bytes());
        for rules in [&self.paths, &self.exec, &self.host] {
            let mut rules: Vec<_> = rules.iter().collect();
            rules.sort_by(|a, b| a.0.cmp(&b.0));
            for (path, verdict) in rules {
                add(path);
                add(&[*verdict as u8]);
            }
            add(&[u8::MAX]);
        }
        for NetworkRule { key, bits, verdict } in &self.network {
            for word in [u32::from(key.kind), u32::from(key.port), *bits, verdict.0] {
                add(&word.to_ne_bytes());
            }
            add(&key.address.map(u32::to_ne_bytes).concat());
        }
        digest
    }
}

fn path_key(rules: u32, path: &[u8]) -> Option<PathKey> {
    let mut key = PathKey { rules, path: [0; PATH_RULE_LEN] };
    key.path.get_mut(..path.len())?.copy_from_slice(path);
    Some(key)
}

/// Every directory above `path` (which ends with `/`), the root first, and `path` itself.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..=at])
}

/// Entries of the trie: what `rules` say of each path that has one, and of all directories above.
fn entries(
    rules: &[(Vec<u8>, PathVerdict)],
    below: impl Fn(PathVerdict) -> u32,
) -> BTreeMap<&[u8], PathRule> {
    let own: BTreeMap<&[u8], PathVerdict> =
        rules.iter().map(|(path, verdict)| (path.as_slice(), *verdict)).collect();
    let mut all: BTreeMap<&[u8], PathsBelow> = BTreeMap::new();
    for (path, verdict) in &own {
        for above in ancestors(path) {
            all.entry(above).or_insert(PathsBelow(0)).0 |= below(*verdict);
        }
    }
    let entry = |(path, below): (_, PathsBelow)| {
        let verdict = ancestors(path).filter_map(|above| own.get(above)).last();
        let len = u32::try_from(path.len()).unwrap_or(u32::MAX);
        (path, PathRule::new(verdict.copied().unwrap_or(PathVerdict::Allow), below, len))
    };
    all.into_iter().map(entry).collect()
}

/// What a rule about paths of a container, or about executing, says of the directories above.
fn below(verdict: PathVerdict) -> u32 {
    match verdict {
        PathVerdict::Allow => PathsBelow::ALLOWED,
        PathVerdict::Deny | PathVerdict::NotRoot => PathsBelow::DENIED,
        PathVerdict::ReadOnly => PathsBelow::READ_ONLY | PathsBelow::ALLOWED,
        PathVerdict::Default => 0,
    }
}

/// As [`below`], of a rule about the host: whatever has one keeps its name.
fn kept(_: PathVerdict) -> u32 {
    PathsBelow::DENIED
}

/// Without the bits by which rules about executing and about the host are told.
fn number(rules: u32) -> u32 {
    rules & !(EXEC_RULES | HOST_RULES)
}

/// The device that a rule about the host is about.
fn device(rule: &[u8]) -> Option<u32> {
    rule.get(1..HOST_PREFIX)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// Removes what is meant from a trie.
pub(super) fn remove_from_trie<K: Pod, V: Pod>(
    map: &mut LpmTrie<MapData, K, V>,
    is_meant: impl Fn(&K) -> bool,
) {
    let keys: Vec<_> = map.keys().flatten().filter(|key| is_meant(&key.data())).collect();
    for key in keys {
        // Absent is as good as removed.
        let _ = map.remove(&key);
    }
}

/// The maps that make up policies.
pub(super) struct Policies {
    slots: Array<MapData, Policy>,
    names: HashMap<MapData, u32, PolicyName>,
    rules: LpmTrie<MapData, PathKey, u32>,
    /// File systems that rules about the host are about.
    devices: LpmTrie<MapData, HostDevice, u8>,
    network: LpmTrie<MapData, NetworkKey, u32>,
    /// Numbers of rules that no policy has any more, and that programs may still be looking at.
    retired: BTreeSet<u32>,
}

/// A policy that lies ready.
struct Change {
    id: u32,
    policy: Policy,
    name: PolicyName,
    /// Number of the rules that the id has had so far, 0 for none.
    old: u32,
}

fn failed(name: &'static str) -> impl FnOnce(MapError) -> LoadError {
    move |error| LoadError::Map { name, reason: error.to_string() }
}

impl Policies {
    pub(super) fn new(
        slots: Array<MapData, Policy>,
        names: HashMap<MapData, u32, PolicyName>,
        rules: LpmTrie<MapData, PathKey, u32>,
        devices: LpmTrie<MapData, HostDevice, u8>,
        network: LpmTrie<MapData, NetworkKey, u32>,
    ) -> Self {
        let mut policies = Self { slots, names, rules, devices, network, retired: BTreeSet::new() };
        // What a daemon that was killed had installed or retired by half.
        let live: HashSet<u32> =
            policies.ids().into_iter().map(|id| policies.slot(id).rules()).collect();
        let mut found = policies.numbers();
        found.retain(|number| !live.contains(number));
        policies.retired = found;
        policies
    }

    fn slot(&self, id: u32) -> Policy {
        self.slots.get(&id, 0).unwrap_or_default()
    }

    fn ids(&self) -> Vec<u32> {
        self.names.keys().flatten().collect()
    }

    /// Flags of all policies that are installed.
    pub(super) fn flags(&self) -> u32 {
        self.ids().into_iter().fold(0, |flags, id| flags | self.slot(id).flags())
    }

    /// Numbers of all rules in the maps.
    fn numbers(&self) -> BTreeSet<u32> {
        let rules = self.rules.keys().flatten().map(|key| number(key.data().rules));
        let network = self.network.keys().flatten().map(|key| key.data().rules);
        let devices = self.devices.keys().flatten().map(|key| key.data().rules);
        rules.chain(devices).chain(network).collect()
    }

    pub(super) fn name(&self, id: u32) -> Option<String> {
        let name = self.names.get(&id, 0).ok()?;
        let len = usize::try_from(name.len).ok()?;
        Some(String::from_utf8_lossy(name.name.get(..len)?).into_owned())
    }

    /// See [`super::maps::Maps::install`].
    pub(super) fn install(&mut self, policies: &[CompiledPolicy]) -> Result<Vec<u32>, LoadError> {
        let (mut ids, mut changes) = (Vec::new(), Vec::new());
        for policy in policies {
            match self.prepare(policy, &ids) {
                Ok((id, change)) => {
                    ids.push(id);
                    changes.extend(change);
                }
                Err(error) => {
                    for change in changes {
                        self.remove_rules(change.policy.rules());
                    }
                    return Err(error);
                }
            }
        }
        // All of them are there; from here on nothing can be too much for a map.
        for change in &changes {
            self.commit(change)?;
        }
        self.clear_retired();
        Ok(ids)
    }

    /// Chooses an id that is not in `taken`, and adds the rules, if the policy is not there as it is.
    fn prepare(
        &mut self,
        policy: &CompiledPolicy,
        taken: &[u32],
    ) -> Result<(u32, Option<Change>), LoadError> {
        let digest = policy.digest();
        let mut name = PolicyName { digest, len: 0, name: [0; POLICY_NAME_LEN] };
        let shown = &policy.name.as_bytes()[..policy.name.len().min(POLICY_NAME_LEN)];
        name.name[..shown.len()].copy_from_slice(shown);
        name.len = shown.len() as u64;

        let known = self.names.iter().flatten().find(|(id, found)| {
            let is_audit = self.slot(*id).flags() & PolicyFlags::AUDIT != 0;
            (found.len, found.name, is_audit) == (name.len, name.name, policy.is_audit())
        });
        if let Some((id, found)) = &known
            && found.digest == digest
        {
            return Ok((*id, None));
        }
        let used: HashSet<u32> = self.ids().into_iter().chain(taken.iter().copied()).collect();
        let id = known
            .as_ref()
            .map(|(id, _)| *id)
            .or_else(|| (0..MAX_POLICIES).find(|id| !used.contains(id)))
            .ok_or(LoadError::Map { name: "POLICIES", reason: "every slot is in use".into() })?;
        let has_rules = !policy.paths.is_empty()
            || !policy.exec.is_empty()
            || !policy.host.is_empty()
            || !policy.network.is_empty();
        let rules = if has_rules { self.free_number() } else { 0 };
        if let Err(error) = self.add_rules(rules, policy) {
            self.remove_rules(rules);
            return Err(error);
        }
        // A slot without a name may hold what was left of another policy.
        let old = known.map_or(0, |(id, _)| self.slot(id).rules());
        let policy = Policy::new(policy.flags | PolicyFlags::INSTALLED, rules);
        Ok((id, Some(Change { id, policy, name, old })))
    }

    /// Lets a prepared policy take effect.
    fn commit(&mut self, change: &Change) -> Result<(), LoadError> {
        let Change { id, policy, name, old } = *change;
        calls::set_policy(u64::from(id), policy.0);
        if self.slot(id) != policy {
            self.remove_rules(policy.rules());
            return Err(LoadError::Map {
                name: "POLICIES",
                reason: format!("policy {id} was not taken up"),
            });
        }
        if old != 0 {
            self.retired.insert(old);
        }
        self.names.insert(id, name, 0).map_err(failed("POLICY_NAMES"))
    }

    /// See [`super::maps::Maps::retire_policies`].
    pub(super) fn retire(&mut self, used: &HashSet<u32>) -> Result<(), LoadError> {
        for id in self.ids() {
            if used.contains(&id) {
                continue;
            }
            let rules = self.slot(id).rules();
            calls::set_policy(u64::from(id), 0);
            self.names.remove(&id).map_err(failed("POLICY_NAMES"))?;
            if rules != 0 {
                self.retired.insert(rules);
            }
        }
        self.clear_retired();
        Ok(())
    }

    /// A number that no rule has.
    fn free_number(&self) -> u32 {
        let used = self.numbers();
        // There are fewer rules than numbers.
        let numbers = 1..HOST_RULES;
        numbers.clone().find(|number| !used.contains(number)).unwrap_or(numbers.end - 1)
    }

    fn add_rules(&mut self, rules: u32, policy: &CompiledPolicy) -> Result<(), LoadError> {
        for (rules, entries) in [
            (rules, entries(&policy.paths, below)),
            (rules | EXEC_RULES, entries(&policy.exec, below)),
            (rules | HOST_RULES, entries(&policy.host, kept)),
        ] {
            for (path, rule) in entries {
                let too_long = || LoadError::Map {
                    name: "PATH_RULES",
                    reason: format!("a path of policy {} is too long", policy.name),
                };
                let bits = 8 * (size_of::<u32>() + path.len());
                let key = Key::new(
                    u32::try_from(bits).map_err(|_| too_long())?,
                    path_key(rules, path).ok_or_else(too_long)?,
                );
                self.rules.insert(&key, rule.0, 0).map_err(failed("PATH_RULES"))?;
            }
        }
        for (path, _) in &policy.host {
            let device = device(path).ok_or_else(|| LoadError::Map {
                name: "HOST_DEVICES",
                reason: format!("a rule of policy {} is about no device", policy.name),
            })?;
            let key = Key::new(HostDevice::BITS, HostDevice { rules, device });
            self.devices.insert(&key, 0, 0).map_err(failed("HOST_DEVICES"))?;
        }
        for NetworkRule { key, bits, verdict } in &policy.network {
            let key = Key::new(*bits, NetworkKey { rules, ..*key });
            self.network.insert(&key, verdict.0, 0).map_err(failed("NETWORK_RULES"))?;
        }
        Ok(())
    }

    fn remove_rules(&mut self, rules: u32) {
        remove_from_trie(&mut self.rules, |key| number(key.rules) == rules);
        remove_from_trie(&mut self.devices, |key| key.rules == rules);
        remove_from_trie(&mut self.network, |key| key.rules == rules);
    }

    /// Removes retired rules once no program can still be using them; otherwise they wait for the next
    /// time.
    fn clear_retired(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        if let Err(errno) = wait_for_programs() {
            log::debug!("rules that are not in force stay for now: membarrier: {errno}");
            return;
        }
        for rules in std::mem::take(&mut self.retired) {
            self.remove_rules(rules);
        }
    }
}

/// Waits until every BPF program that runs now has ended: they run under RCU, and this is
/// `synchronize_rcu` (`MEMBARRIER_CMD_GLOBAL`, kernel/sched/membarrier.c, 6.12).
pub fn wait_for_programs() -> nix::Result<()> {
    const GLOBAL: libc::c_long = 1;
    // SAFETY: takes three integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_are_all_directories_above_and_the_path_itself() {
        let all: Vec<_> = ancestors(b"/run/secrets/k8s/").collect();
        assert_eq!(all, [&b"/"[..], b"/run/", b"/run/secrets/", b"/run/secrets/k8s/"]);
    }

    #[test]
    fn directories_above_know_what_is_below_and_what_covers_them() {
        use PathVerdict::{Allow, Default, Deny, ReadOnly};
        let rule = |path: &str, verdict| (path.as_bytes().to_vec(), verdict);
        let mut rules = vec![
            rule("/a/b/", Deny),
            rule("/a/c/", ReadOnly),
            rule("/d/", Allow),
            rule("/a/b/x/y/", Allow),
        ];
        let all = |rules: &[_]| -> Vec<(String, PathRule)> {
            let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
            entries(rules, below).iter().map(|(path, rule)| (text(path), *rule)).collect()
        };
        let is = |path: &str, verdict, bits| {
            let len = u32::try_from(path.len()).unwrap_or(u32::MAX);
            (path.to_owned(), PathRule::new(verdict, PathsBelow(bits), len))
        };
        let rest = [
            is("/a/b/", Deny, 5),
            is("/a/b/x/", Deny, 4),
            is("/a/b/x/y/", Allow, 4),
            is("/a/c/", ReadOnly, 6),
            is("/d/", Allow, 4),
        ];
        let above = |verdict| vec![is("/", verdict, 7), is("/a/", verdict, 7)];
        assert_eq!(all(&rules), [above(Allow), rest.to_vec()].concat());
        rules.push(rule("/", Default));
        assert_eq!(all(&rules), [above(Default), rest.to_vec()].concat());
        assert_eq!(all(&[rule("/", Default)]), [is("/", Default, 0)]);
    }

    #[test]
    fn an_entry_is_one_word() {
        let len = u32::try_from(PATH_RULE_LEN).unwrap_or(u32::MAX);
        let rule = PathRule::new(PathVerdict::NotRoot, PathsBelow(7), len);
        assert_eq!((rule.verdict(), rule.below(), rule.len()), (4, 7, len));
        assert!(PathRule::default().is_empty() && !rule.is_empty());
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
            exec: Vec::new(),
            host: Vec::new(),
            network: Vec::new(),
        };
        let mut b = a.clone();
        b.paths.reverse();
        assert_eq!(a.digest(), b.digest());
        b.paths[0].1 = PathVerdict::Deny;
        assert_ne!(a.digest(), b.digest());
        let mut c = a.clone();
        c.exec = std::mem::take(&mut c.paths);
        assert_ne!(a.digest(), c.digest());
        let mut d = c.clone();
        d.host = std::mem::take(&mut d.exec);
        assert_ne!(c.digest(), d.digest());
    }

    #[test]
    fn what_has_a_rule_about_the_host_keeps_its_name() {
        let rule = |path: &[u8], verdict| (path.to_vec(), verdict);
        // The second byte of the device is a slash.
        let rules = [
            rule(b"/\x01/\0\0/a/b/", PathVerdict::Deny),
            rule(b"/\x01/\0\0/a/", PathVerdict::Allow),
        ];
        let paths: Vec<_> = entries(&rules, kept).into_keys().collect();
        assert_eq!(
            paths,
            [&b"/"[..], b"/\x01/", b"/\x01/\0\0/", b"/\x01/\0\0/a/", b"/\x01/\0\0/a/b/"]
        );
        for bits in [0, EXEC_RULES, HOST_RULES] {
            assert_eq!(number(7 | bits), 7);
        }
        for (rule, _) in &rules {
            assert_eq!(device(rule), Some(0x2f01));
        }
        assert_eq!(device(b"/\x01/"), None);
    }

    #[test]
    fn a_policy_is_one_word() {
        let policy = Policy::new(PolicyFlags::INSTALLED | PolicyFlags::PATHS, 7);
        assert_eq!(policy.flags(), PolicyFlags::INSTALLED | PolicyFlags::PATHS);
        assert_eq!(policy.rules(), 7);
        assert_eq!(size_of::<Policy>(), 8);
    }
}
