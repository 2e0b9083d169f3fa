//! Capabilities, privileges, user.

use super::{
    super::Standard::{Baseline, Restricted},
    *,
};
use crate::runtime::bundle::{Capabilities, DeviceRule};

fn with(change: impl FnOnce(&mut Capabilities)) -> impl FnOnce(&mut Facts) {
    |facts| change(&mut facts.process.as_mut().unwrap().capabilities)
}

#[test]
fn capabilities_by_name() {
    for (name, baseline, restricted) in [
        ("CAP_NET_BIND_SERVICE", false, false),
        ("CAP_CHOWN", false, true),
        ("CAP_NET_RAW", false, true),
        ("CAP_MKNOD", false, true),
        ("CAP_SYS_ADMIN", true, true),
        ("CAP_NET_ADMIN", true, true),
        ("CAP_BPF", true, true),
        ("CAP_OF_THE_FUTURE", true, true),
        ("cap_chown", true, true),
        ("CHOWN", true, true),
        ("CAP_CHOWN\0", true, true),
        ("", true, true),
    ] {
        for (standard, objects) in [(Baseline, baseline), (Restricted, restricted)] {
            let change = with(|sets| sets.permitted.push(name.into()));
            let found = found(Control::Capabilities, standard, change);
            let expected = objects.then(|| format!("capabilities `{}`", name.escape_default()));
            assert_eq!(found, expected, "{standard:?}");
        }
    }
}

#[test]
fn every_set_counts() {
    let set: [fn(&mut Capabilities) -> &mut Vec<String>; 5] = [
        |sets| &mut sets.bounding,
        |sets| &mut sets.effective,
        |sets| &mut sets.inheritable,
        |sets| &mut sets.permitted,
        |sets| &mut sets.ambient,
    ];
    for set in set {
        let change = with(|sets| set(sets).push("CAP_SYS_ADMIN".into()));
        assert!(found(Control::Capabilities, Baseline, change).is_some());
    }
    let none = found(Control::Capabilities, Restricted, with(|sets| sets.bounding.clear()));
    assert_eq!(none, None);
    // youki keeps them all.
    let absent = with(|sets| *sets = Capabilities::default());
    assert_eq!(
        found(Control::Capabilities, Baseline, absent).as_deref(),
        Some("no capability sets, and then a runtime may keep all capabilities")
    );
}

#[test]
fn privileged() {
    // Linux 3.16 to 6.12, in their order (include/uapi/linux/capability.h).
    let all: Vec<String> = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID \
         SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK \
         IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT \
         SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL \
         SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ"
        .split_whitespace()
        .map(|name| format!("CAP_{name}"))
        .collect();
    let everything = DeviceRule { allow: true, access: Some("rwm".into()), ..Default::default() };
    for (capabilities, devices, expected) in [
        (all.len(), true, true),
        (all.len() - 1, true, false),
        (all.len(), false, false),
        (0, true, false),
    ] {
        let findings = judged(Baseline, |facts| {
            with(|sets| sets.bounding = all[..capabilities].to_vec())(facts);
            facts.linux.resources.devices.extend(devices.then(|| everything.clone()));
        });
        let found = findings.iter().find(|finding| finding.control == Control::Privileged);
        assert_eq!(found.is_some(), expected, "{capabilities} {devices}");
    }
}

#[test]
fn new_privileges() {
    for (standard, objects) in [(Baseline, false), (Restricted, true)] {
        let found = found(Control::PrivilegeEscalation, standard, |facts| {
            facts.process.as_mut().unwrap().no_new_privileges = false;
        });
        assert_eq!(found.is_some(), objects);
    }
}

#[test]
fn user() {
    for (standard, uid, objects) in
        [(Baseline, 0, false), (Restricted, 0, true), (Restricted, 1, false)]
    {
        let found = found(Control::RunAsNonRoot, standard, |facts| {
            facts.process.as_mut().unwrap().user.uid = uid;
        });
        assert_eq!(found.is_some(), objects, "{uid}");
    }
    // Also under Baseline, if the policy wants it.
    let mut facts = ordinary();
    facts.process.as_mut().unwrap().user.uid = 0;
    let mut rules = admission(Baseline);
    rules.set(Control::RunAsNonRoot, Handling::Audit);
    let findings = evaluate(&facts, &rules);
    assert_eq!(findings[0].handling, Handling::Audit);
    assert_eq!(findings[0].found, "runs as user 0");
}
