//! What the first process of a container may do: capabilities, user, new privileges.

use std::collections::BTreeSet;

use super::{
    Admission, Control, Standard, devices,
    text::{Objection, exceptions, listed, quoted},
};
use crate::runtime::bundle::{Capabilities, Facts};

/// What may be added under Baseline (Kubernetes 1.33, "Pod Security Standards"), and `CAP_NET_RAW`:
/// the standard does not let a pod add it, but Docker and containerd give it to every container, and
/// a bundle does not show which capabilities were added.
const BASELINE: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What may be left under Restricted.
const RESTRICTED: &[&str] = &["CAP_NET_BIND_SERVICE"];

impl Standard {
    /// Whether a container may have this capability without an exception.
    pub(in crate::policy) fn admits(self, capability: &str) -> bool {
        let admitted = match self {
            Self::Baseline => BASELINE,
            Self::Restricted => RESTRICTED,
        };
        admitted.contains(&capability)
    }
}

/// Capabilities beyond [`BASELINE`] that every engine knows (capabilities(7), Linux 3.16): newer
/// ones are missing in the bundles of engines that do not know them.
const MORE: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// All capabilities and all devices, as `--privileged` gives them.
pub(super) fn privileged(facts: &Facts) -> Option<Objection> {
    let sets = &facts.process.as_ref()?.capabilities;
    let names: BTreeSet<&str> = names(sets).collect();
    let every = |list: &[&str]| list.iter().all(|name| names.contains(name));
    let all = !sets.given || every(BASELINE) && every(MORE);
    if !all || !devices::are_all_allowed(facts) {
        return None;
    }
    Some(Objection::new(Control::Privileged, "all capabilities and all devices".to_owned()))
}

/// Capabilities in any set that are not of the standard.
pub(super) fn capabilities(
    facts: &Facts,
    rules: &Admission,
    standard: Standard,
) -> Option<Objection> {
    let sets = &facts.process.as_ref()?.capabilities;
    if !sets.given {
        let found = "no capability sets, and then a runtime may keep all capabilities";
        return Some(Objection::new(Control::Capabilities, found.to_owned()));
    }
    let excess: BTreeSet<&str> = names(sets)
        .filter(|name| !standard.admits(name))
        .filter(|name| !rules.capabilities.iter().any(|allowed| allowed == name))
        .collect();
    let excess: Vec<&str> = excess.into_iter().collect();
    let shown: Vec<String> = excess.iter().map(|name| quoted(name)).collect();
    let remedy = exceptions(Control::Capabilities, "allow_capabilities", &excess);
    Some(Objection { found: listed("capabilities", &shown)?, remedy })
}

/// Whatever set a capability is in, the container can come to have it, or a program in it can.
fn names(sets: &Capabilities) -> impl Iterator<Item = &str> {
    let Capabilities { given: _, bounding, effective, inheritable, permitted, ambient } = sets;
    [bounding, effective, inheritable, permitted, ambient].into_iter().flatten().map(String::as_str)
}

/// `execve` gives the privileges of set-user-ID files and of file capabilities.
pub(super) fn privilege_escalation(facts: &Facts) -> Option<Objection> {
    if facts.process.as_ref()?.no_new_privileges {
        return None;
    }
    Some(Objection::new(Control::PrivilegeEscalation, "noNewPrivileges is not set".to_owned()))
}

/// The first process is user 0 of the container.
pub(super) fn run_as_non_root(facts: &Facts) -> Option<Objection> {
    if facts.process.as_ref()?.user.uid != 0 {
        return None;
    }
    Some(Objection::new(Control::RunAsNonRoot, "runs as user 0".to_owned()))
}
