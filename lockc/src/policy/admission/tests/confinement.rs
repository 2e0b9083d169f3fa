//! `AppArmor`, SELinux, seccomp, and what kubelet leaves open.

use super::{
    super::Standard::{Baseline, Restricted},
    *,
};
use crate::runtime::bundle::{Process, Seccomp, SyscallRule};

#[test]
fn apparmor() {
    for (profile, objects) in [
        (None, false),
        (Some(""), false),
        (Some("docker-default"), false),
        (Some("containers-default-0.62.2"), false),
        (Some("unconfined-not"), false),
        (Some("unconfined"), true),
        (Some(" unconfined (mode)"), true),
        (Some(":root:unconfined"), true),
        (Some(":root://unconfined"), true),
        (Some("docker-default//&unconfined"), true),
        (Some("docker-default\0"), true),
    ] {
        let found = found(Control::Apparmor, Baseline, |facts| {
            facts.process.as_mut().unwrap().apparmor_profile = profile.map(str::to_owned);
        });
        assert_eq!(found.is_some(), objects, "{profile:?}");
    }
}

#[test]
fn selinux() {
    for (label, objects) in [
        (None, false),
        (Some(""), false),
        (Some("system_u:system_r:container_t:s0:c1,c2"), false),
        (Some("system_u:system_r:container_init_t:s0"), false),
        (Some("system_u:system_r:container_kvm_t:s0"), false),
        (Some("system_u:system_r:container_engine_t:s0"), false),
        (Some("system_u:system_r:spc_t:s0"), true),
        (Some("system_u:system_r:unconfined_t:s0"), true),
        (Some("unconfined_u:system_r:container_t:s0"), true),
        (Some("system_u:unconfined_r:container_t:s0"), true),
        (Some("container_t"), true),
        (Some("system_u:system_r"), true),
        (Some("system_u:system_r:container_t\0:s0"), true),
    ] {
        let found = found(Control::Selinux, Baseline, |facts| {
            facts.process.as_mut().unwrap().selinux_label = label.map(str::to_owned);
        });
        assert_eq!(found.is_some(), objects, "{label:?}");
    }
}

fn filter(default_action: &str, rules: &[&str]) -> Seccomp {
    let syscalls =
        rules.iter().map(|action| SyscallRule { action: ToString::to_string(action) }).collect();
    Seccomp { default_action: default_action.into(), syscalls }
}

#[test]
fn seccomp() {
    let everything = Some("a seccomp filter that allows everything");
    for (filter, expected) in [
        (None, Some("no seccomp filter")),
        (Some(filter("SCMP_ACT_ERRNO", &[])), None),
        (Some(filter("SCMP_ACT_KILL_PROCESS", &["SCMP_ACT_ALLOW"])), None),
        (Some(filter("SCMP_ACT_ALLOW", &["SCMP_ACT_ERRNO"])), None),
        (Some(filter("SCMP_ACT_ALLOW", &[])), everything),
        (Some(filter("SCMP_ACT_LOG", &["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])), everything),
        (Some(filter("", &[])), everything),
    ] {
        for standard in [Baseline, Restricted] {
            let filter = filter.clone();
            let found = found(Control::Seccomp, standard, |facts| facts.linux.seccomp = filter);
            assert_eq!(found.as_deref(), expected);
        }
    }
}

/// A container without seccomp, with an annotation and a control group.
fn noted(key: &str, kind: &str, cgroup: &str) -> impl Fn(&mut Facts) {
    let (key, kind, cgroup) = (key.to_owned(), kind.to_owned(), cgroup.to_owned());
    move |facts| {
        facts.annotations.insert(key.clone(), kind.clone());
        facts.linux.cgroups_path = Some(cgroup.clone());
        facts.linux.seccomp = None;
    }
}

#[test]
fn kubelet_asks_for_no_filter_unless_the_pod_does() {
    const CRI: &str = "io.kubernetes.cri.container-type";
    const CRIO: &str = "io.kubernetes.cri-o.ContainerType";
    for (key, kind, cgroup, objects) in [
        (CRI, "container", "kubepods-besteffort-pod1.slice:cri-containerd:0a1b", false),
        (CRI, "container", "/kubepods/besteffort/pod1/0a1b", false),
        (CRI, "container", "/k8s.io/kubepods/pod1/0a1b", false),
        (CRIO, "container", "kubepods-pod1.slice:crio:0a1b", false),
        (CRI, "container", "kubepods-pod1.slice:docker:0a1b", true),
        (CRI, "container", "kubepods-pod1.slice:libpod:0a1b", true),
        (CRI, "container", "system.slice:cri-containerd:0a1b", true),
        (CRI, "container", "/docker/0a1b", true),
        (CRI, "container", "/kubepodsx/0a1b", true),
        (CRI, "other", "/kubepods/pod1/0a1b", true),
        ("io.kubernetes.cri", "container", "/kubepods/pod1/0a1b", true),
    ] {
        let change = noted(key, kind, cgroup);
        let baseline = found(Control::Seccomp, Baseline, &change);
        assert_eq!(baseline.is_some(), objects, "{key} {kind} {cgroup}");
        assert!(found(Control::Seccomp, Restricted, &change).is_some());
    }
}

#[test]
fn sandboxes_are_judged_by_baseline() {
    let root = |facts: &mut Facts| {
        noted("io.kubernetes.cri.container-type", "sandbox", "/kubepods/pod1/0a1b")(facts);
        let process = facts.process.as_mut().unwrap();
        let bounding = vec!["CAP_CHOWN".to_owned()];
        let capabilities =
            crate::runtime::bundle::Capabilities { given: true, bounding, ..Default::default() };
        *process = Process { capabilities, ..Process::default() };
    };
    assert_eq!(judged(Restricted, root), []);
    let found = found(Control::HostNamespaces, Restricted, |facts| {
        root(facts);
        facts.linux.namespaces.retain(|entry| entry.kind != "network");
    });
    assert_eq!(found.as_deref(), Some("shares the network namespace of the host"));
    let outside = |facts: &mut Facts| {
        root(facts);
        facts.linux.cgroups_path = Some("system.slice:docker:0a1b".into());
    };
    let controls: Vec<_> =
        judged(Restricted, outside).into_iter().map(|finding| finding.control).collect();
    let expected = [
        Control::Capabilities,
        Control::Seccomp,
        Control::PrivilegeEscalation,
        Control::RunAsNonRoot,
    ];
    assert_eq!(controls, expected);
}
