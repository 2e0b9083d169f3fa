//! What the pinned maps look like. A pin that is something else was made by somebody else, or is left of an accident.

use std::path::Path;

use aya::maps::{MapInfo, MapType, lpm_trie};
use lockc_common::{
    Container, ContainerName, HostDevice, InodeKey, KnownFile, Label, NameEnd, NetworkKey, Number,
    PathKey, PathRule, Pending, Policy, PolicyName, RuntimeName,
};

/// A map that lives as long as the machine is up: a starting daemon takes it over.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its name, which is also that of its pin.
    pub name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
}

const fn shape<K, V>(name: &'static str, kind: MapType) -> Shape {
    Shape { name, kind, key: size_of::<K>(), value: size_of::<V>() }
}

/// As they are defined in `lockc-ebpf/src/maps.rs`.
pub const PINNED_MAPS: &[Shape] = &[
    shape::<u32, i64>("CLOCK", MapType::Array),
    shape::<u64, Container>("CONTAINERS", MapType::Hash),
    shape::<u64, ContainerName>("CONTAINER_NAMES", MapType::Hash),
    shape::<u32, u64>("COUNTERS", MapType::PerCpuArray),
    shape::<InodeKey, u8>("DRIFTED", MapType::Hash),
    shape::<u32, u64>("EPOCH", MapType::Array),
    shape::<(), ()>("EVENTS", MapType::RingBuf),
    shape::<lpm_trie::Key<HostDevice>, u8>("HOST_DEVICES", MapType::LpmTrie),
    shape::<InodeKey, KnownFile>("KNOWN_FILES", MapType::Hash),
    shape::<u32, Label>("LABELS", MapType::TaskStorage),
    shape::<lpm_trie::Key<Number>, u64>("MOUNT_NAMESPACES", MapType::LpmTrie),
    shape::<lpm_trie::Key<NetworkKey>, u32>("NETWORK_RULES", MapType::LpmTrie),
    shape::<lpm_trie::Key<PathKey>, PathRule>("PATH_RULES", MapType::LpmTrie),
    shape::<u32, Pending>("PENDING", MapType::Hash),
    shape::<u32, Policy>("POLICIES", MapType::Array),
    shape::<u32, PolicyName>("POLICY_NAMES", MapType::Hash),
    shape::<lpm_trie::Key<RuntimeName>, NameEnd>("RUNTIME_NAMES", MapType::LpmTrie),
    shape::<u32, u64>("USER_RECORDS", MapType::Array),
];

impl Shape {
    /// What is wrong with the pin at `path`; nothing if it is this map.
    pub(super) fn trouble(&self, path: &Path) -> Option<String> {
        if !path.exists() {
            return Some("is not there".to_owned());
        }
        let info = match MapInfo::from_pin(path) {
            Ok(info) => info,
            Err(error) => return Some(format!("is no map: {error}")),
        };
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        let is_same = info.map_type().is_ok_and(|kind| kind == self.kind)
            && key == self.key
            && value == self.value;
        (!is_same)
            .then(|| format!("is another map, with {key} bytes per key and {value} per value"))
    }
}
