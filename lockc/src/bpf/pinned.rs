//! What the pinned maps say while no daemon runs.

use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use lockc_common::{Container, ContainerName, LAYOUT_VERSION, Policy, PolicyFlags, PolicyName};

use super::pin::ROOT;
use crate::{policy::Mode, state};

/// The containers that are enforced, by what is pinned of this layout version.
/// Fails where nothing is pinned, or not by this version.
pub fn containers() -> Result<Vec<state::Container>, MapError> {
    let directory = directory();
    let records: HashMap<_, u64, Container> = open(&directory, "CONTAINERS", Map::HashMap)?;
    let names: HashMap<_, u64, ContainerName> = open(&directory, "CONTAINER_NAMES", Map::HashMap)?;
    let policies: HashMap<_, u32, PolicyName> = open(&directory, "POLICY_NAMES", Map::HashMap)?;
    let slots: Array<_, Policy> = open(&directory, "POLICIES", Map::Array)?;
    let described = |(handle, record): (u64, Container)| {
        let mut container = state::Container::of_record(handle, &record)?;
        if let Ok(name) = names.get(&handle, 0) {
            container.owner = Some(name.owner);
            container.id = text(&name.id, name.len.into());
        }
        if let Ok(name) = policies.get(&record.policy, 0) {
            container.policy = text(&name.name, name.len);
        }
        if let Ok(policy) = slots.get(&record.policy, 0) {
            let is_audit = policy.flags() & PolicyFlags::AUDIT != 0;
            let mode = if is_audit { Mode::Audit } else { Mode::Enforce };
            container.mode = Some(mode.name().to_owned());
        }
        Some(container)
    };
    Ok(records.iter().flatten().filter_map(described).collect())
}

/// Where the pins of this version are.
pub fn directory() -> PathBuf {
    Path::new(ROOT).join(format!("v{LAYOUT_VERSION}")).join("maps")
}

fn open<T>(directory: &Path, name: &str, kind: impl FnOnce(MapData) -> Map) -> Result<T, MapError>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(kind(MapData::from_pin(directory.join(name))?))
}

fn text(bytes: &[u8], len: u64) -> Option<String> {
    let bytes = bytes.get(..usize::try_from(len).ok()?)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}
