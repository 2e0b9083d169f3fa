//! What engines keep on disk about a container, as far as its bundle does not say it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};

use super::{BundlePlace, Engine, Keeper, kept, place::Layout};
use crate::runtime::{bundle::Facts, caller::Caller, cmdline::ContainerId};

/// The records of one container, each with its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Docker's.
    pub docker: Option<(DockerRecord, PathBuf)>,
    /// That of podman's storage.
    pub storage: Option<(StorageRecord, PathBuf)>,
    /// Why a record that should be there is missing.
    pub notes: Vec<String>,
}

/// Docker's record: `containers/ID/config.v2.json` below its data root (container/container.go,
/// Docker 26.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DockerRecord {
    /// Whose record it is.
    #[serde(rename = "ID", deserialize_with = "or_default")]
    pub id: String,
    /// `/` and the container's name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// What was asked for.
    #[serde(deserialize_with = "or_default")]
    pub config: DockerConfig,
}

/// `Config` of Docker's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DockerConfig {
    /// The image as the user named it.
    #[serde(deserialize_with = "or_default")]
    pub image: String,
    /// The container's labels and the image's.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

/// What podman's storage knows of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct StorageRecord {
    /// The container's name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The image's name, in full; empty for a container without image.
    #[serde(rename = "image-name", deserialize_with = "or_default")]
    pub image: String,
}

/// One entry of `containers.json` (containers.go, containers/storage 1.55).
#[derive(Debug, Deserialize)]
struct StorageEntry {
    id: String,
    /// JSON in a string: the storage does not look at it.
    #[serde(default, deserialize_with = "or_default")]
    metadata: String,
}

/// Files of containers/storage: one that lasts, one for containers that need not survive a reboot
/// (`--rm`).
const STORAGE_FILES: [&str; 2] = ["containers.json", "volatile-containers.json"];

const DOCKER_FILE: &str = "config.v2.json";

impl Records {
    /// Reads the records of container `id`. Nothing is read for a bundle that lies in no engine's
    /// place, or in one that others than root can write to.
    pub(super) fn read(
        facts: &Facts,
        place: &BundlePlace,
        id: &ContainerId,
        caller: &Caller,
    ) -> Self {
        let read = |dir: &Path, name: &str| match place.keeper {
            Keeper::Root => kept::read(dir, name),
            Keeper::User | Keeper::Anyone => kept::read_as(caller, &dir.join(name)),
        };
        let mut records = Self::default();
        if place.keeper == Keeper::Anyone {
            return records;
        }
        match (place.engine(facts, id).value, place.layout(id)) {
            (Engine::Docker, _) => {
                for dir in docker_dirs(facts, id) {
                    let path = dir.join(DOCKER_FILE);
                    let record = read(&dir, DOCKER_FILE).map_err(|error| error.to_string());
                    match record.and_then(|json| DockerRecord::parse(&json, id, &path)) {
                        Ok(record) => {
                            records.docker = Some((record, path));
                            records.notes.clear();
                            break;
                        }
                        Err(note) => records.notes.push(note),
                    }
                }
            }
            (Engine::Podman, Some(Layout::Storage { containers })) => {
                for name in STORAGE_FILES {
                    let path = containers.join(name);
                    let record = read(containers, name).map_err(|error| error.to_string());
                    match record.and_then(|json| StorageRecord::parse(&json, id, &path)) {
                        Ok(record) => {
                            records.storage = Some((record, path));
                            records.notes.clear();
                            break;
                        }
                        Err(note) => records.notes.push(note),
                    }
                }
            }
            _ => {}
        }
        records
    }
}

/// Where Docker's record of container `id` may lie, the better sign first.
///
/// The root file system's path is Docker's own choice: three names below the data root, whatever
/// the storage driver (`overlay2/LAYER/merged`, `rootfs/SNAPSHOTTER/ID`, `vfs/dir/LAYER`). The files
/// that Docker mounts over `/etc` lie beside the record, but a user may have mounted others there.
pub(super) fn docker_dirs(facts: &Facts, id: &ContainerId) -> Vec<PathBuf> {
    let own = Path::new("containers").join(OsStr::from_bytes(id.as_bytes()));
    let mut dirs = Vec::new();
    let root = facts.root.as_ref().map(|root| Path::new(&root.path));
    if let Some(data) = root.and_then(|root| root.ancestors().nth(3)) {
        dirs.push(data.join(&own));
    }
    for file in ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"] {
        // The last one is what the container sees.
        let of_file = facts.mounts.iter().rfind(|mount| mount.destination == file);
        let source = of_file.and_then(|mount| mount.source.as_deref());
        let dir = source.and_then(|source| Path::new(source).parent());
        if let Some(dir) = dir.filter(|dir| dir.ends_with(&own) && !dirs.iter().any(|it| it == dir))
        {
            dirs.push(dir.to_owned());
        }
    }
    // A bundle's paths may be millions of bytes long.
    dirs.retain(|dir| dir.as_os_str().len() <= kept::MAX_PATH_LEN);
    dirs
}

impl DockerRecord {
    /// Understands Docker's record, if it is that of container `id`; `path` is for messages.
    pub fn parse(json: &[u8], id: &ContainerId, path: &Path) -> Result<Self, String> {
        let record: Self = understood(json, path)?;
        if record.id.as_bytes() != id.as_bytes() {
            return Err(format!("{} is the record of another container", path.display()));
        }
        Ok(record)
    }
}

impl StorageRecord {
    /// Finds container `id` in a file of podman's storage; `path` is for messages.
    pub fn parse(json: &[u8], id: &ContainerId, path: &Path) -> Result<Self, String> {
        let entries: Vec<StorageEntry> = understood(json, path)?;
        let mut found = entries.iter().filter(|entry| entry.id.as_bytes() == id.as_bytes());
        match (found.next(), found.next()) {
            (Some(entry), None) => understood(entry.metadata.as_bytes(), path),
            (None, _) => Err(format!("{} does not have the container", path.display())),
            (Some(_), Some(_)) => Err(format!("{} has the container twice", path.display())),
        }
    }
}

fn understood<'j, T: Deserialize<'j>>(json: &'j [u8], path: &Path) -> Result<T, String> {
    serde_json::from_slice(json)
        .map_err(|error| format!("cannot understand {}: {error}", path.display()))
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
