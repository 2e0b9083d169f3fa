mod confinement;
mod host;
mod paths;
mod process;
mod properties;

use serde_json::json;

use super::{Admission, Control, Finding, Handling, Standard, evaluate};
use crate::runtime::bundle::{Facts, Mount, parse};

/// A container that neither standard objects to.
fn ordinary() -> Facts {
    let bundle = json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 1000, "gid": 1000},
            "capabilities": {"bounding": ["CAP_NET_BIND_SERVICE"]},
            "noNewPrivileges": true,
            "apparmorProfile": "docker-default",
            "selinuxLabel": "system_u:system_r:container_t:s0:c1,c2"
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "network"}, {"type": "mount"},
                {"type": "uts"}, {"type": "cgroup"}
            ],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": [
                "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
                "/sys/firmware"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    });
    parse(bundle.to_string().as_bytes(), "config.json".as_ref()).unwrap()
}

fn bind(source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: "/x".into(),
        kind: Some("bind".into()),
        source: Some(source.into()),
        options: options.iter().map(ToString::to_string).collect(),
        resolved: None,
    }
}

fn admission(standard: Standard) -> Admission {
    Admission::new(standard, Handling::Enforce)
}

/// What a standard says about the ordinary container after a change.
fn judged(standard: Standard, change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = ordinary();
    change(&mut facts);
    evaluate(&facts, &admission(standard))
}

/// What one control, the only one that may object, says about the container after a change.
fn found(control: Control, standard: Standard, change: impl FnOnce(&mut Facts)) -> Option<String> {
    let findings = judged(standard, change);
    let others: Vec<_> = findings.iter().filter(|finding| finding.control != control).collect();
    assert!(others.is_empty(), "{others:?}");
    findings.first().map(|finding| finding.found.clone())
}

#[test]
fn the_ordinary_container_is_admitted() {
    for standard in [Standard::Baseline, Standard::Restricted] {
        assert_eq!(judged(standard, |_| {}), [], "{standard:?}");
    }
}

#[test]
fn an_empty_bundle_has_the_hosts_namespaces_and_no_protection() {
    let findings = evaluate(&Facts::default(), &admission(Standard::Restricted));
    let controls: Vec<_> = findings.iter().map(|finding| finding.control).collect();
    assert_eq!(controls, [Control::HostNamespaces, Control::ProcMount, Control::Seccomp]);
}

#[test]
fn findings_say_what_comes_of_them_and_how_to_allow_them() {
    let mut facts = ordinary();
    facts.process.as_mut().unwrap().capabilities.ambient = vec!["CAP_NET_ADMIN".into()];
    facts.mounts.push(bind("/etc", &[]));
    facts.linux.seccomp = None;
    let mut rules = admission(Standard::Baseline);
    rules.set(Control::HostPaths, Handling::Audit);
    rules.set(Control::Seccomp, Handling::Off);
    let text: Vec<_> = evaluate(&facts, &rules)
        .into_iter()
        .map(|finding| {
            let Finding { control, handling, found, remedy } = finding;
            format!("{} {}: {found}; {remedy}", handling.name(), control.name())
        })
        .collect();
    assert_eq!(
        text,
        [
            "enforce capabilities: capabilities `CAP_NET_ADMIN`; \
             allow_capabilities = [\"CAP_NET_ADMIN\"] under [policy.NAME.admission]",
            "audit host_paths: mounts of the host: `/etc`; \
             allow_host_paths = [\"/etc\"] under [policy.NAME.admission]",
        ]
    );
    rules.capabilities.push("CAP_NET_ADMIN".into());
    rules.host_paths.push("/etc".into());
    assert_eq!(evaluate(&facts, &rules), []);
}

#[test]
fn values_are_escaped_cut_and_counted() {
    let evil = format!("CAP_\n{}\"", "é".repeat(100));
    let findings = judged(Standard::Baseline, |facts| {
        let sets = &mut facts.process.as_mut().unwrap().capabilities;
        sets.bounding = (0..20).map(|n| format!("{evil}{n}")).collect();
    });
    let [Finding { found, remedy, .. }] = &findings[..] else { panic!("{findings:?}") };
    assert!(found.is_ascii() && !found.contains('\n') && found.len() < 4096, "{found}");
    assert!(found.contains("CAP_\\n\\u{e9}") && found.ends_with("...` and 12 more"), "{found}");
    assert_eq!(remedy, "capabilities = \"off\" under [policy.NAME.admission]");
}

#[test]
fn remedies_are_exceptions_where_they_can_be() {
    let capabilities = |number| {
        let findings = judged(Standard::Baseline, |facts| {
            let sets = &mut facts.process.as_mut().unwrap().capabilities;
            sets.bounding = (0..number).map(|n| format!("CAP_{n}")).collect();
        });
        findings[0].remedy.clone()
    };
    assert!(capabilities(14).starts_with("allow_capabilities = [\"CAP_0\", \"CAP_1\", "));
    assert_eq!(capabilities(15), "capabilities = \"off\" under [policy.NAME.admission]");
    for (sources, expected) in [
        (&["/etc", "/etc", "/usr"][..], "allow_host_paths = [\"/etc\", \"/usr\"]"),
        // No exception admits the second one.
        (&["/etc", "/srv/.."], "host_paths = \"off\""),
        (&["/etc/a\"b"], "host_paths = \"off\""),
    ] {
        let findings = judged(Standard::Baseline, |facts| {
            facts.mounts.extend(sources.iter().map(|source| bind(source, &[])));
        });
        let expected = format!("{expected} under [policy.NAME.admission]");
        assert_eq!(findings[0].remedy, expected, "{sources:?}");
    }
}

/// A bundle as large as one can be is judged well before the gate's deadline.
#[test]
fn the_work_is_bounded() {
    use crate::runtime::bundle::MAX_ENTRIES;

    let start = std::time::Instant::now();
    let findings = judged(Standard::Baseline, |facts| {
        facts.mounts = vec![bind("/home/x/y/z", &[]); MAX_ENTRIES - 1];
        facts.mounts.push(Mount {
            kind: Some("overlay".into()),
            options: vec![format!("lowerdir={}", "/a:".repeat(4 << 20))],
            ..Mount::default()
        });
        facts.mounts.push(bind(&"/a".repeat(4 << 20), &[]));
    });
    let [Finding { control: Control::HostPaths, found, .. }] = &findings[..] else {
        panic!("{findings:?}")
    };
    assert_eq!(found, "mounts of the host: too many mounts");
    // Without optimisation, on a machine that is busy: seconds, and what is not bounded takes hours.
    assert!(start.elapsed() < std::time::Duration::from_mins(2), "{:?}", start.elapsed());
}
