//! What programs of another layout version know of the containers that run: a daemon that takes over from one goes by
//! it.
//!
//! Little of a layout is the same in all versions: a label begins with the container's handle and state, a container's
//! record with its policy's number, and the tables of names are as they are. What is not so is not understood, and the
//! containers are found as if no lockc had been there.

use std::{
    collections::HashMap,
    fs,
    mem::MaybeUninit,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use aya::{
    maps::{HashMap as HashMapOf, Map, MapData, MapInfo},
    programs::loaded_programs,
};
use lockc_common::{ContainerName, LAYOUT_VERSION, PolicyName, SELF_TEST, State, UNATTRIBUTED};
use nix::unistd::Uid;

use super::{
    labels::{keys, lookup, open_process},
    pin::{self, ROOT},
};
use crate::runtime::cmdline::ContainerId;

/// Bytes of a label that every version has: handle, state.
const LABEL_LEN: usize = 12;
/// Bytes of a container's record that every version has: the policy's number.
const RECORD_LEN: usize = 4;

/// The maps of another version.
#[derive(Debug)]
pub struct Predecessor {
    /// Its directory of pins.
    directory: PathBuf,
    labels: Raw,
    records: Option<Raw>,
    containers: Option<HashMapOf<MapData, u64, ContainerName>>,
    policies: Option<HashMapOf<MapData, u32, PolicyName>>,
}

/// A map of values that are known in part.
#[derive(Debug)]
struct Raw {
    map: MapData,
    value_len: usize,
}

impl Raw {
    fn new(map: MapData, known: usize) -> Option<Self> {
        let value_len = usize::try_from(map.info().ok()?.value_size()).ok()?;
        (value_len >= known).then_some(Self { map, value_len })
    }

    /// The first `N` bytes of the value of `key`.
    fn get<const N: usize>(&self, key: &[u8]) -> Option<[u8; N]> {
        let mut value = vec![MaybeUninit::new(0); self.value_len];
        lookup(&self.map, key, &mut value).ok()?;
        // SAFETY: every byte was initialised above, and the kernel has written over them.
        let bytes = value.get(..N)?.iter().map(|byte| unsafe { byte.assume_init() });
        bytes.collect::<Vec<u8>>().try_into().ok()
    }
}

/// Ids of the maps of the programs whose links are pinned, by name.
fn held_maps(directory: &Path) -> HashMap<String, u32> {
    let programs = pin::programs(directory);
    let held = loaded_programs().flatten().filter(|program| programs.contains(&program.id()));
    let maps = held.filter_map(|program| program.map_ids().ok()?).flatten();
    maps.filter_map(|id| Some((MapInfo::from_id(id).ok()?.name_as_str()?.to_owned(), id))).collect()
}

/// A container as its predecessor knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Who started it, and its id, if it has a name.
    pub name: Option<(Uid, ContainerId)>,
    /// Name of its policy.
    pub policy: Option<String>,
}

impl Predecessor {
    /// Those that there are. What has another form is left out.
    pub fn find() -> Vec<Self> {
        let own = format!("v{LAYOUT_VERSION}");
        let versions = fs::read_dir(ROOT).into_iter().flatten().flatten();
        versions
            .filter(|version| version.file_name().to_str() != Some(own.as_str()))
            .filter_map(|version| Self::open(&version.path()))
            .collect()
    }

    /// What is pinned in a directory, of whatever version.
    pub(super) fn open(directory: &Path) -> Option<Self> {
        let pin = |name: &str| directory.join("maps").join(name);
        let held = held_maps(directory);
        let raw = |name: &str, known: usize| {
            // What the programs hold is what they go by, whatever is pinned.
            let map = held.get(name).and_then(|id| MapData::from_id(*id).ok());
            Raw::new(map.or_else(|| MapData::from_pin(pin(name)).ok())?, known)
        };
        let map = |name: &str| MapData::from_pin(pin(name)).ok().map(Map::HashMap);
        Some(Self {
            directory: directory.to_owned(),
            labels: raw("LABELS", LABEL_LEN)?,
            records: raw("CONTAINERS", RECORD_LEN),
            // Fails if a value has another size.
            containers: map("CONTAINER_NAMES").and_then(|map| HashMapOf::try_from(map).ok()),
            policies: map("POLICY_NAMES").and_then(|map| HashMapOf::try_from(map).ok()),
        })
    }

    /// The directory of its pins.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Handle and state of the container of a process.
    pub fn label(&self, pid: u32) -> Option<(u64, State)> {
        let pidfd = open_process(pid.cast_signed()).ok()?;
        let label: [u8; LABEL_LEN] = self.labels.get(&pidfd.as_raw_fd().to_ne_bytes())?;
        let (handle, state) = label.split_first_chunk::<8>()?;
        let state = match u32::from_ne_bytes(state.try_into().ok()?) {
            1 => State::Runtime,
            2 => State::Contained,
            _ => return None,
        };
        Some((u64::from_ne_bytes(*handle), state))
    }

    /// What is known of every container that has a record.
    pub(super) fn containers(&self) -> Vec<Former> {
        let handles = self.records.as_ref().map(|records| keys(&records.map)).unwrap_or_default();
        let is_container = |handle: &u64| *handle != UNATTRIBUTED && handle & SELF_TEST == 0;
        handles.into_iter().filter(is_container).map(|handle| self.container(handle)).collect()
    }

    /// What is known of a container.
    pub fn container(&self, handle: u64) -> Former {
        let name = self.containers.as_ref().and_then(|names| {
            let name = names.get(&handle, 0).ok()?;
            let id = name.id.get(..usize::try_from(name.len).ok()?)?;
            Some((Uid::from_raw(name.owner), ContainerId::new(id)?))
        });
        let policy = self.records.as_ref().and_then(|records| {
            let policy = u32::from_ne_bytes(records.get(&handle.to_ne_bytes())?);
            let name = self.policies.as_ref()?.get(&policy, 0).ok()?;
            let name = name.name.get(..usize::try_from(name.len).ok()?)?;
            Some(String::from_utf8_lossy(name).into_owned())
        });
        Former { name, policy }
    }
}
