//! Host paths of policies follow what is mounted.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
};

use crate::{
    bpf::LoadError,
    config::Config,
    policy::{HostRule, Mounts},
};

/// The mounts that the daemon sees: those of its mount namespace.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Rules of every policy that has host paths, by its name.
pub(super) type HostRules = BTreeMap<String, Vec<HostRule>>;

/// A file that is ready, as for an exception, when something was mounted or unmounted since the last look (`proc_pid_mountinfo(5)`).
#[derive(Debug)]
pub(super) struct MountWatch(File);

impl MountWatch {
    pub(super) fn new() -> io::Result<Self> {
        File::open(MOUNTINFO).map(Self)
    }
}

impl AsFd for MountWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Looks where the host paths of `config` are now.
pub(super) fn resolve(config: &Config) -> Result<HostRules, LoadError> {
    let policies: Vec<_> =
        config.policies.values().filter(|policy| !policy.host_paths.is_empty()).collect();
    let mut all = HostRules::new();
    if policies.is_empty() {
        return Ok(all);
    }
    let text =
        fs::read(MOUNTINFO).map_err(|source| LoadError::Read { path: MOUNTINFO.into(), source })?;
    let mounts = Mounts::parse(&text)?;
    for policy in policies {
        let found = mounts.rules(&policy.host_paths, read_link)?;
        for place in found.left_out {
            log::error!(
                "policy {}: what is mounted at {} is not out of reach: its path on its file system is too long",
                policy.name,
                place.display()
            );
        }
        all.insert(policy.name.clone(), found.rules);
    }
    Ok(all)
}

fn read_link(path: &[u8]) -> Option<Vec<u8>> {
    let target = fs::read_link(Path::new(std::ffi::OsStr::from_bytes(path))).ok()?;
    Some(target.into_os_string().into_vec())
}
