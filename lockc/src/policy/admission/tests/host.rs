//! Namespaces, devices, kernel interfaces.

use super::{super::Standard::Baseline, *};
use crate::runtime::bundle::{Device, DeviceRule, Namespace};

#[test]
fn namespaces() {
    let without = |kind: &'static str| {
        found(Control::HostNamespaces, Baseline, move |facts| {
            facts.linux.namespaces.retain(|entry| entry.kind != kind);
        })
    };
    for (kind, objects) in [
        ("pid", true),
        ("ipc", true),
        ("network", true),
        ("mount", true),
        ("uts", false),
        ("cgroup", false),
    ] {
        let expected = objects.then(|| format!("shares the {kind} namespace of the host"));
        assert_eq!(without(kind), expected);
    }
}

#[test]
fn namespaces_by_path() {
    for (kind, path, objects) in [
        ("network", "", false),
        ("network", "/proc/4711/ns/net", false),
        ("network", "/proc/4711/task/4712/ns/net", false),
        ("network", "/run/netns/cni-1", false),
        ("network", "/var/run/netns/cni-1", false),
        ("network", "/run/docker/netns/0a1b", false),
        ("network", "/run/user/1000/netns/netns-1", false),
        ("ipc", "/var/run/ipcns/0a1b", false),
        ("pid", "/proc/4711/ns/pid", false),
        ("pid", "/proc/1/ns/pid", true),
        ("pid", "/proc//1/./ns/pid", true),
        ("pid", "/proc/self/ns/pid", true),
        ("pid", "/proc/thread-self/ns/pid", true),
        ("pid", "/proc/4711/root/proc/1/ns/pid", true),
        ("pid", "/proc/4711/task/1/ns/pid", true),
        ("network", "/var/run/docker/netns/default", true),
        ("network", "/run/netns/../../proc/1/ns/net", true),
        ("network", "/srv/ns", true),
        ("network", "ns", true),
        ("network", "/proc/1\0/ns/net", true),
        ("mount", "/proc/4711/ns/mnt", true),
        ("uts", "/proc/1/ns/uts", false),
    ] {
        let found = found(Control::HostNamespaces, Baseline, |facts| {
            facts.linux.namespaces.retain(|entry| entry.kind != kind);
            facts.linux.namespaces.push(Namespace { kind: kind.into(), path: Some(path.into()) });
        });
        assert_eq!(found.is_some(), objects, "{kind} {path:?}: {found:?}");
    }
    // Which of two a runtime takes is its own affair.
    let twice = found(Control::HostNamespaces, Baseline, |facts| {
        let path = Some("/proc/1/ns/ipc".to_owned());
        facts.linux.namespaces.push(Namespace { kind: "ipc".into(), path });
    });
    assert_eq!(twice.as_deref(), Some("shares the ipc namespace `/proc/1/ns/ipc`"));
}

#[test]
fn control_groups_of_the_host() {
    for (own, read_only, objects) in
        [(true, true, false), (true, false, false), (false, true, false), (false, false, true)]
    {
        let found = found(Control::HostNamespaces, Baseline, |facts| {
            if !own {
                facts.linux.namespaces.retain(|entry| entry.kind != "cgroup");
            }
            if !read_only {
                let cgroup = |mount: &&mut Mount| mount.kind.as_deref() == Some("cgroup");
                facts.mounts.iter_mut().find(cgroup).unwrap().options.clear();
            }
        });
        assert_eq!(found.is_some(), objects, "{own} {read_only}");
    }
}

fn node(kind: &str, path: &str, major: i64, minor: i64) -> Device {
    let (major, minor) = (Some(major), Some(minor));
    Device { kind: kind.into(), path: path.into(), major, minor }
}

#[test]
fn device_nodes() {
    for (node, expected) in [
        (node("c", "/dev/null", 1, 3), None),
        (node("u", "/dev/urandom", 1, 9), None),
        (node("c", "/dev/pts/0", 136, 7), None),
        (node("p", "/dev/fifo", 0, 0), None),
        (node("c", "/dev/mem", 1, 1), Some("`/dev/mem` (c 1:1)")),
        (node("c", "/dev/kmsg", 1, 11), Some("`/dev/kmsg` (c 1:11)")),
        (node("b", "/dev/sda", 8, 0), Some("`/dev/sda` (b 8:0)")),
        // The name says nothing.
        (node("b", "/dev/null", 1, 3), Some("`/dev/null` (b 1:3)")),
        (node("c", "/dev/null", 1, 1), Some("`/dev/null` (c 1:1)")),
        (node("", "/dev/null", 1, 3), Some("`/dev/null` ( 1:3)")),
        (Device { kind: "c".into(), ..Device::default() }, Some("`` (c *:*)")),
    ] {
        let shown = format!("{node:?}");
        let found = found(Control::Devices, Baseline, |facts| facts.linux.devices.push(node));
        let expected = expected.map(|text| format!("devices of the host: {text}"));
        assert_eq!(found, expected, "{shown}");
    }
}

/// `TYPE MAJOR:MINOR ACCESS`, with a sign before it.
fn rule(text: &str) -> DeviceRule {
    let words: Vec<_> = text.split([' ', ':']).collect();
    let [sign, kind, major, minor, access] = words[..] else { panic!("{text}") };
    let number = |word: &str| word.parse().ok();
    DeviceRule {
        allow: sign == "+",
        kind: (kind != "-").then(|| kind.to_owned()),
        major: number(major),
        minor: number(minor),
        access: (access != "-").then(|| access.to_owned()),
    }
}

#[test]
fn device_rules() {
    for (rules, expected) in [
        (&["+ c 1:3 rwm", "+ c 136:* rwm", "+ c *:* m", "+ b *:* m"][..], None),
        (&["- c 10:229 rwm"], None),
        (&["+ c 1:11 r"], Some("rule `c 1:11 r`")),
        (&["+ c *:* rwm"], Some("rule `c *:* rwm`")),
        (&["+ c 1:* rw"], Some("rule `c 1:* rw`")),
        (&["+ b 8:0 r"], Some("rule `b 8:0 r`")),
        (&["+ b 1:3 rwm"], Some("rule `b 1:3 rwm`")),
        (&["+ - *:* rwm"], Some("rule `a *:* rwm`")),
        (&["+ a 1:3 rwm"], Some("rule `a 1:3 rwm`")),
        (&["+ c -1:-1 -"], Some("rule `c *:* rwm`")),
        // Taken back as a whole, and in part.
        (&["+ b 8:* rwm", "- a *:* rwm"], None),
        (&["+ b 8:* rwm", "- - -1:-1 mwr"], None),
        (&["+ b 8:* rwm", "- a *:* rw"], Some("rule `b 8:* rwm`")),
        (&["+ b 8:* rwm", "- a 8:0 rwm"], Some("rule `b 8:* rwm`")),
        (&["+ b 8:* rwm", "- a *:0 rwm"], Some("rule `b 8:* rwm`")),
        (&["+ b 8:* rwm", "- b 8:* rwm"], Some("rule `b 8:* rwm`")),
        (&["+ b 8:* rwm", "- - *:* -"], Some("rule `b 8:* rwm`")),
    ] {
        let found = found(Control::Devices, Baseline, |facts| {
            facts.linux.resources.devices.extend(rules.iter().map(|text| rule(text)));
        });
        let expected = expected.map(|text| format!("devices of the host: {text}"));
        assert_eq!(found, expected, "{rules:?}");
    }
}

#[test]
fn kernel_interfaces() {
    let without = |path: &'static str| {
        found(Control::ProcMount, Baseline, move |facts| {
            facts.linux.masked_paths.retain(|entry| entry != path);
            facts.linux.readonly_paths.retain(|entry| entry != path);
        })
    };
    let facts = ordinary();
    assert_eq!(without("/proc/uptime"), None);
    for (paths, how) in
        [(facts.linux.masked_paths, "masked"), (facts.linux.readonly_paths, "read-only")]
    {
        for path in paths {
            let expected = format!("kernel interfaces: {path} is not {how}");
            assert_eq!(without(path.leak()), Some(expected));
        }
    }
    // Hidden is more than read-only, and a directory hides what is in it.
    let better = found(Control::ProcMount, Baseline, |facts| {
        facts.linux.readonly_paths.clear();
        facts.linux.masked_paths = vec!["/proc/".into(), "/sys".into()];
    });
    assert_eq!(better, None);
    let other = found(Control::ProcMount, Baseline, |facts| {
        facts.linux.masked_paths.retain(|path| path != "/proc/keys");
        facts.linux.masked_paths.extend(["/proc/keys\0".into(), "/proc/keysx".into()]);
    });
    assert_eq!(other.as_deref(), Some("kernel interfaces: /proc/keys is not masked"));
    let writable = found(Control::ProcMount, Baseline, |facts| {
        for mount in &mut facts.mounts {
            mount.options.retain(|option| option != "ro" || mount.destination != "/sys");
        }
    });
    assert_eq!(writable.as_deref(), Some("kernel interfaces: `/sys` is writable"));
}

#[test]
fn kernel_parameters() {
    for (name, objects) in [
        ("net.ipv4.ip_unprivileged_port_start", false),
        ("net.ipv4.ping_group_range", false),
        ("net.ipv4.tcp_rmem", false),
        ("kernel.shm_rmid_forced", false),
        ("kernel.core_pattern", true),
        ("kernel.msgmax", true),
        ("net.core.somaxconn", true),
        ("net.ipv4.ip_forward", true),
        ("net/ipv4/ping_group_range", true),
        ("net.ipv4.ping_group_range\0", true),
        ("", true),
    ] {
        let found = found(Control::Sysctls, Baseline, |facts| {
            facts.linux.sysctl.insert(name.into(), "1".into());
        });
        assert_eq!(found.is_some(), objects, "{name:?}");
    }
}
