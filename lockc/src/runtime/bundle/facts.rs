//! What `config.json` says, as far as a decision may depend on it.
//!
//! Tolerant, because the file is written for the runtime and not for us: unknown
//! fields are skipped, everything is optional, and `null` is nothing, which is
//! how Go writes an empty list. Fields are those of the OCI runtime specification
//! 1.0 to 1.2 (config.md, config-linux.md). A field that is there but has another
//! type, or is there twice, or in another case, is an error: then we and the
//! runtime would read different things.

mod linux;
pub(super) mod spelling;

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};

pub use self::linux::{Device, DeviceRule, Linux, Namespace, Resources, Seccomp, SyscallRule};

/// Most entries of any list or map. A small file may hold millions of empty
/// entries, each of which costs more memory than text.
pub const MAX_ENTRIES: usize = 16_384;

/// The facts of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Facts {
    /// Version of the specification, as text.
    #[serde(deserialize_with = "or_default")]
    pub oci_version: String,
    /// Free-form, from whoever made the bundle.
    #[serde(deserialize_with = "map")]
    pub annotations: BTreeMap<String, String>,
    /// Host name inside the container.
    pub hostname: Option<String>,
    /// The container's first process; absent if `start` is never to be called.
    pub process: Option<Process>,
    /// The root file system.
    pub root: Option<Root>,
    /// Mounts, in order.
    #[serde(deserialize_with = "list")]
    pub mounts: Vec<Mount>,
    /// Programs that the runtime executes on the way.
    #[serde(deserialize_with = "or_default")]
    pub hooks: Hooks,
    /// What is specific to Linux.
    #[serde(deserialize_with = "or_default")]
    pub linux: Linux,
}

/// `process`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    /// Whether it has a terminal of its own.
    #[serde(deserialize_with = "or_default")]
    pub terminal: bool,
    /// Who it runs as.
    #[serde(deserialize_with = "or_default")]
    pub user: User,
    /// Program and arguments.
    #[serde(deserialize_with = "list")]
    pub args: Vec<String>,
    /// Working directory inside the container.
    #[serde(deserialize_with = "or_default")]
    pub cwd: String,
    /// Capability sets.
    #[serde(deserialize_with = "capabilities")]
    pub capabilities: Capabilities,
    /// Whether `execve` may not give new privileges.
    #[serde(deserialize_with = "or_default")]
    pub no_new_privileges: bool,
    /// Name of the `AppArmor` profile.
    pub apparmor_profile: Option<String>,
    /// SELinux label.
    pub selinux_label: Option<String>,
}

/// `process.user`: ids inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// User id.
    #[serde(deserialize_with = "or_default")]
    pub uid: u32,
    /// Group id.
    #[serde(deserialize_with = "or_default")]
    pub gid: u32,
}

/// `process.capabilities`, by name (`CAP_…`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Whether the object is there at all: youki drops nothing without it (0.5,
    /// libcontainer/src/process/init/process.rs), while runc and crun drop everything.
    #[serde(skip)]
    pub given: bool,
    /// What `execve` can ever give.
    #[serde(deserialize_with = "list")]
    pub bounding: Vec<String>,
    /// What is checked.
    #[serde(deserialize_with = "list")]
    pub effective: Vec<String>,
    /// What `execve` keeps for files that ask for it.
    #[serde(deserialize_with = "list")]
    pub inheritable: Vec<String>,
    /// What the process may make effective.
    #[serde(deserialize_with = "list")]
    pub permitted: Vec<String>,
    /// What `execve` keeps.
    #[serde(deserialize_with = "list")]
    pub ambient: Vec<String>,
}

/// `root`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Root {
    /// The directory, absolute or relative to the bundle.
    #[serde(deserialize_with = "or_default")]
    pub path: String,
    /// Whether it is read-only inside the container.
    #[serde(deserialize_with = "or_default")]
    pub readonly: bool,
}

/// One of `mounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Where, inside the container.
    #[serde(deserialize_with = "or_default")]
    pub destination: String,
    /// File-system type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What: a host path, a device or a name.
    pub source: Option<String>,
    /// Options; `bind` or `rbind` among them makes it a bind mount.
    #[serde(deserialize_with = "list")]
    pub options: Vec<String>,
    /// Where symbolic links in `source` led when the bundle was read, if that is elsewhere. Not in the
    /// file.
    #[serde(skip)]
    pub resolved: Option<String>,
}

/// `hooks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// On the host side (deprecated).
    #[serde(deserialize_with = "list")]
    pub prestart: Vec<Hook>,
    /// On the host side.
    #[serde(deserialize_with = "list")]
    pub create_runtime: Vec<Hook>,
    /// Host programs in the container's namespaces, before `pivot_root`.
    #[serde(deserialize_with = "list")]
    pub create_container: Vec<Hook>,
    /// Programs of the container.
    #[serde(deserialize_with = "list")]
    pub start_container: Vec<Hook>,
    /// On the host side.
    #[serde(deserialize_with = "list")]
    pub poststart: Vec<Hook>,
    /// On the host side.
    #[serde(deserialize_with = "list")]
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// The program.
    #[serde(deserialize_with = "or_default")]
    pub path: String,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn capabilities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Capabilities, D::Error> {
    let sets = Option::<Capabilities>::deserialize(deserializer)?;
    Ok(sets.map_or_else(Capabilities::default, |sets| Capabilities { given: true, ..sets }))
}

fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(ListVisitor(PhantomData))
}

fn map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_any(MapVisitor)
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = seq.next_element()? {
            if list.len() == MAX_ENTRIES {
                return Err(too_many());
            }
            list.push(entry);
        }
        Ok(list)
    }
}

struct MapVisitor;

impl<'de> Visitor<'de> for MapVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, Option<String>>()? {
            if map.len() == MAX_ENTRIES {
                return Err(too_many());
            }
            if map.contains_key(&key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format_args!("duplicate key `{key}`")));
            }
            map.insert(key, value.unwrap_or_default());
        }
        Ok(map)
    }
}

fn too_many<E: serde::de::Error>() -> E {
    E::custom(format_args!("more than {MAX_ENTRIES} entries"))
}
