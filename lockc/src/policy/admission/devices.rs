//! Devices of the host: nodes in the container, and what its device allow list lets it use.

use super::{
    Control,
    text::{Objection, listed, quoted},
};
use crate::runtime::bundle::{Device, DeviceRule, Facts};

/// Character devices that every container has (OCI runtime specification 1.2, config-linux.md,
/// "Default Devices"), major and minor number; `/dev/console` and terminals besides.
const DEFAULT: &[(i64, i64)] = &[(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
/// Major number of the terminals of devpts, whose minor numbers are free.
const PTS: i64 = 136;

/// Devices besides those that every container has.
pub(super) fn decide(facts: &Facts) -> Option<Objection> {
    let nodes =
        facts.linux.devices.iter().filter(|device| !is_default_node(device)).map(|device| {
            let (kind, major, minor) = (&device.kind, number(device.major), number(device.minor));
            format!("{} ({})", quoted(&device.path), word(&format!("{kind} {major}:{minor}")))
        });
    let rules = in_force(facts).into_iter().filter(|rule| !is_harmless(rule)).map(|rule| {
        let kind = rule.kind.as_deref().unwrap_or("a");
        let (major, minor) = (number(rule.major), number(rule.minor));
        let access = rule.access.as_deref().unwrap_or("rwm");
        format!("rule {}", quoted(&format!("{kind} {major}:{minor} {access}")))
    });
    let shown: Vec<String> = nodes.chain(rules).collect();
    Some(Objection::new(Control::Devices, listed("devices of the host:", &shown)?))
}

/// Whether the allow list lets the container use every device.
pub(super) fn are_all_allowed(facts: &Facts) -> bool {
    in_force(facts).iter().any(|rule| is_about_everything(rule) && gives_use(rule))
}

/// The rules that give something, from the last one on that takes everything away.
///
/// A bundle without rules is what podman writes without root: there no device is open that the user
/// could not open anyway. As root, runc would then deny all but the default devices (1.2,
/// libcontainer/specconv), and crun none (1.21, src/libcrun/cgroup-resources.c).
fn in_force(facts: &Facts) -> Vec<&DeviceRule> {
    let mut rules = Vec::new();
    for rule in &facts.linux.resources.devices {
        if rule.allow {
            rules.push(rule);
        } else if takes_all(rule) {
            rules.clear();
        }
    }
    rules
}

fn is_about_everything(rule: &DeviceRule) -> bool {
    // With type `a` the kernel ignores the numbers (cgroup-v1/devices.rst), crun does not.
    matches!(rule.kind.as_deref(), None | Some("a"))
}

fn takes_all(rule: &DeviceRule) -> bool {
    let all = |number: Option<i64>| number.is_none_or(|number| number == -1);
    is_about_everything(rule)
        && all(rule.major)
        && all(rule.minor)
        && rule.access.as_deref().is_some_and(|access| "rwm".chars().all(|c| access.contains(c)))
}

/// Reading or writing. Making a node alone gives nothing, and container engines allow it for all.
fn gives_use(rule: &DeviceRule) -> bool {
    rule.access.as_deref().is_none_or(|access| access != "m")
}

fn is_harmless(rule: &DeviceRule) -> bool {
    !gives_use(rule) || rule.kind.as_deref() == Some("c") && is_default(rule.major, rule.minor)
}

fn is_default_node(device: &Device) -> bool {
    match device.kind.as_str() {
        "c" | "u" => is_default(device.major, device.minor),
        // A FIFO is no device.
        "p" => true,
        _ => false,
    }
}

fn is_default(major: Option<i64>, minor: Option<i64>) -> bool {
    match (major, minor) {
        (Some(PTS), _) => true,
        (Some(major), Some(minor)) => DEFAULT.contains(&(major, minor)),
        _ => false,
    }
}

fn number(number: Option<i64>) -> String {
    number.filter(|number| *number >= 0).map_or_else(|| "*".to_owned(), |number| number.to_string())
}

fn word(text: &str) -> String {
    quoted(text).trim_matches('`').to_owned()
}
