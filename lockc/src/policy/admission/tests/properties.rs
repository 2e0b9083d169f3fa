//! What holds for every bundle and every policy.

use proptest::{prelude::*, sample::select};

use super::*;
use crate::runtime::bundle::{
    Capabilities, Device, DeviceRule, Linux, Namespace, Process, Resources, Root, Seccomp, User,
};

const WORDS: &[&str] = &[
    "",
    "/",
    "/etc",
    "/srv",
    "/srv/..",
    "/run",
    "/run/docker.sock",
    "/var/run/x",
    "x",
    "\0",
    "\u{202e}",
    "pid",
    "ipc",
    "network",
    "mount",
    "cgroup",
    "/proc/1/ns/net",
    "/proc/7/ns/net",
    "/run/netns/x",
    "CAP_CHOWN",
    "CAP_SYS_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "unconfined",
    "a:b:c",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "bind",
    "overlay",
    "lowerdir=/etc:/srv",
    "tmpfs",
    "sysfs",
    "ro",
    "c",
    "b",
    "a",
    "rwm",
    "m",
    "kernel.msgmax",
    "net.ipv4.tcp_rmem",
    "/proc/kcore",
    "/proc/sys",
    "sandbox",
    "container",
    "kubepods.slice:crio:x",
    "io.kubernetes.cri.container-type",
    "/var/lib/docker/volumes/v/_data",
    "/etc/localtime",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![9 => select(WORDS).prop_map(str::to_owned), 1 => any::<String>()]
}

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(word(), 0..4)
}

fn number() -> impl Strategy<Value = Option<i64>> {
    prop::option::of(prop_oneof![-1..12i64, any::<i64>()])
}

fn process() -> impl Strategy<Value = Process> {
    let sets = (any::<bool>(), words(), words(), words()).prop_map(
        |(given, bounding, effective, ambient)| Capabilities {
            given,
            bounding,
            effective,
            ambient,
            ..Capabilities::default()
        },
    );
    let labels = (prop::option::of(word()), prop::option::of(word()));
    (sets, 0..2u32, any::<bool>(), labels).prop_map(
        |(capabilities, uid, no_new_privileges, (apparmor_profile, selinux_label))| Process {
            capabilities,
            user: User { uid, gid: 0 },
            no_new_privileges,
            apparmor_profile,
            selinux_label,
            ..Process::default()
        },
    )
}

fn mount() -> impl Strategy<Value = Mount> {
    let option = || prop::option::of(word());
    (word(), option(), option(), words(), option()).prop_map(
        |(destination, kind, source, options, resolved)| Mount {
            destination,
            kind,
            source,
            options,
            resolved,
        },
    )
}

fn devices() -> impl Strategy<Value = (Vec<Device>, Resources)> {
    let node = (word(), word(), number(), number()).prop_map(|(kind, path, major, minor)| Device {
        kind,
        path,
        major,
        minor,
    });
    let rule =
        (any::<bool>(), prop::option::of(word()), number(), prop::option::of(word())).prop_map(
            |(allow, kind, major, access)| DeviceRule { allow, kind, major, minor: major, access },
        );
    let rules = prop::collection::vec(rule, 0..4).prop_map(|devices| Resources { devices });
    (prop::collection::vec(node, 0..3), rules)
}

fn linux() -> impl Strategy<Value = Linux> {
    let namespace =
        (word(), prop::option::of(word())).prop_map(|(kind, path)| Namespace { kind, path });
    let seccomp =
        word().prop_map(|default_action| Seccomp { default_action, syscalls: Vec::new() });
    (
        prop::collection::vec(namespace, 0..6),
        prop::option::of(seccomp),
        prop::collection::btree_map(word(), word(), 0..3),
        devices(),
        (words(), words()),
        prop::option::of(word()),
    )
        .prop_map(
            |(namespaces, seccomp, sysctl, (devices, resources), paths, cgroups_path)| {
                let (masked_paths, readonly_paths) = paths;
                Linux {
                    namespaces,
                    seccomp,
                    sysctl,
                    devices,
                    resources,
                    masked_paths,
                    readonly_paths,
                    cgroups_path,
                    ..Linux::default()
                }
            },
        )
}

fn facts() -> impl Strategy<Value = Facts> {
    (
        prop::option::of(process()),
        prop::option::of(word()),
        prop::collection::vec(mount(), 0..6),
        prop::collection::btree_map(word(), word(), 0..3),
        linux(),
    )
        .prop_map(|(process, root, mounts, annotations, linux)| Facts {
            process,
            root: root.map(|path| Root { path, readonly: false }),
            mounts,
            annotations,
            linux,
            ..Facts::default()
        })
}

fn controls(facts: &Facts, rules: &Admission) -> Vec<Control> {
    evaluate(facts, rules).into_iter().map(|finding| finding.control).collect()
}

proptest! {
    #[test]
    fn findings_are_text_of_bounded_length(facts in facts()) {
        for standard in [Standard::Baseline, Standard::Restricted] {
            for Finding { found, remedy, .. } in evaluate(&facts, &admission(standard)) {
                for text in [found, remedy] {
                    prop_assert!(text.len() < 8192);
                    prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", text);
                }
            }
        }
    }

    #[test]
    fn baseline_objects_to_nothing_that_restricted_admits(facts in facts()) {
        let restricted = controls(&facts, &admission(Standard::Restricted));
        for control in controls(&facts, &admission(Standard::Baseline)) {
            prop_assert!(restricted.contains(&control), "{}", control.name());
        }
    }

    #[test]
    fn an_exception_never_adds_a_finding(
        facts in facts(), capabilities in words(), host_paths in words(),
        off in select(&Control::ALL[..]), baseline in any::<bool>(),
    ) {
        let standard = if baseline { Standard::Baseline } else { Standard::Restricted };
        let mut rules = admission(standard);
        let mut before = controls(&facts, &rules);
        rules.capabilities = capabilities;
        let with_capabilities = controls(&facts, &rules);
        prop_assert!(with_capabilities.iter().all(|control| before.contains(control)));
        rules.host_paths = host_paths;
        let with_paths = controls(&facts, &rules);
        prop_assert!(with_paths.iter().all(|control| with_capabilities.contains(control)));
        // Switched off, one control is gone and no other changes.
        before.retain(|control| *control != off);
        let mut rules = admission(standard);
        rules.set(off, Handling::Off);
        prop_assert_eq!(controls(&facts, &rules), before);
    }

    /// Something more in the bundle never takes a finding away, except a rule that denies devices.
    #[test]
    fn a_mount_or_capability_more_never_removes_a_finding(
        facts in facts(), mount in mount(), capability in word(), baseline in any::<bool>(),
    ) {
        let standard = if baseline { Standard::Baseline } else { Standard::Restricted };
        let before = controls(&facts, &admission(standard));
        let mut more = facts;
        more.mounts.push(mount);
        if let Some(process) = &mut more.process {
            process.capabilities.bounding.push(capability);
        }
        let after = controls(&more, &admission(standard));
        prop_assert!(before.iter().all(|control| after.contains(control)));
    }
}
