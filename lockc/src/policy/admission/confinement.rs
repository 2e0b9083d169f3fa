//! The other security modules and seccomp: what confines a container besides lockc.

use super::{
    Control, Standard, kubelet,
    text::{Objection, quoted},
};
use crate::runtime::bundle::{Facts, Seccomp};

/// An `AppArmor` profile by the name of `unconfined`, also as a part of a stack or of a namespace
/// (apparmor.d(5)). No profile at all is what hosts without `AppArmor` have.
pub(super) fn apparmor(facts: &Facts) -> Option<Objection> {
    let profile = facts.process.as_ref()?.apparmor_profile.as_deref()?;
    let unconfined =
        |name: &str| name.split_whitespace().next().is_some_and(|name| name == "unconfined");
    if !profile.contains('\0') && !profile.split(['/', ':', '&']).any(unconfined) {
        return None;
    }
    Some(Objection::new(Control::Apparmor, format!("AppArmor profile {}", quoted(profile))))
}

/// Types that are admitted (Kubernetes 1.33, "Pod Security Standards").
const TYPES: &[&str] =
    &["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// A SELinux user, role or type of one's own. No label at all is what hosts without SELinux have.
///
/// The standards admit no user and no role; in a bundle that is the pair which every engine takes
/// from the host's policy (`lxc_contexts` of container-selinux).
pub(super) fn selinux(facts: &Facts) -> Option<Objection> {
    let label = facts.process.as_ref()?.selinux_label.as_deref()?;
    let mut parts = label.split(':');
    let (user, role, kind) = (parts.next(), parts.next(), parts.next());
    let usual = user == Some("system_u")
        && role == Some("system_r")
        && kind.is_some_and(|kind| TYPES.contains(&kind));
    if label.is_empty() || usual {
        return None;
    }
    Some(Objection::new(Control::Selinux, format!("SELinux label {}", quoted(label))))
}

/// No seccomp filter, or one that stops nothing.
///
/// What a filter stops is not judged, as the standards admit every profile of the host. Under
/// Baseline they also admit a pod that says nothing about seccomp, and kubelet then asks for no
/// filter; the bundle looks the same as if the pod had asked for none.
pub(super) fn seccomp(facts: &Facts, standard: Standard) -> Option<Objection> {
    if facts.linux.seccomp.as_ref().is_some_and(stops_something)
        || standard == Standard::Baseline && kubelet::role(facts).is_some()
    {
        return None;
    }
    let found = match facts.linux.seccomp {
        None => "no seccomp filter",
        Some(_) => "a seccomp filter that allows everything",
    };
    Some(Objection::new(Control::Seccomp, found.to_owned()))
}

fn stops_something(filter: &Seccomp) -> bool {
    let stops = |action: &str| !matches!(action, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "");
    stops(&filter.default_action) || filter.syscalls.iter().any(|rule| stops(&rule.action))
}
