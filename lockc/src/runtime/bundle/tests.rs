use std::{error::Error as _, fmt::Write as _, path::Path};

use proptest::prelude::*;

use super::{Facts, MAX_ENTRIES, parse};

fn read(json: &str) -> Result<Facts, String> {
    parse(json.as_bytes(), Path::new("/b/config.json"))
        .map_err(|error| format!("{error}: {}", error.source().unwrap()))
}

#[test]
fn everything_is_optional() {
    assert_eq!(read("{}").unwrap(), Facts::default());
    let nothing = r#"{"ociVersion":null,"annotations":null,"hostname":null,"process":null,
        "root":null,"mounts":null,"hooks":null,"linux":null,"unheard-of":{"deep":[[[]]]}}"#;
    assert_eq!(read(nothing).unwrap(), Facts::default());
    let hollow = r#"{"process":{"user":null,"args":null,"capabilities":null},"root":{},
        "mounts":[{}],"hooks":{"prestart":null},"linux":{"namespaces":[{}],"seccomp":null}}"#;
    let facts = read(hollow).unwrap();
    assert_eq!(facts.mounts.len(), 1);
    assert_eq!(facts.linux.seccomp, None);
    // Nothing said, and said that there is nothing.
    assert!(!facts.process.unwrap().capabilities.given);
    let facts = read(r#"{"process":{"capabilities":{}}}"#).unwrap();
    assert!(facts.process.unwrap().capabilities.given);
}

#[test]
fn what_an_engine_writes() {
    let facts = read(
        r#"{
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "user": {"uid": 1000, "gid": 100, "additionalGids": [5]},
            "args": ["sh", "-c", "true"],
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
            "apparmorProfile": "docker-default"
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"]}
        ],
        "hooks": {"createContainer": [{"path": "/usr/bin/toolkit", "args": ["x"]}]},
        "annotations": {"io.kubernetes.cri.container-name": "web"},
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null}
            ]},
            "maskedPaths": ["/proc/kcore"],
            "sysctl": {"net.ipv4.ping_group_range": "0 0"},
            "devices": [{"type": "c", "path": "/dev/kmsg", "major": 1, "minor": 11, "uid": 0}],
            "resources": {"pids": {"limit": 100}, "devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}
            ]}
        }
    }"#,
    )
    .unwrap();
    let process = facts.process.unwrap();
    assert_eq!((process.user.uid, process.user.gid), (1000, 100));
    assert_eq!(process.args, ["sh", "-c", "true"]);
    assert!(process.terminal && process.no_new_privileges);
    assert_eq!(process.capabilities.effective, ["CAP_KILL"]);
    let root = facts.root.unwrap();
    assert_eq!((root.path.as_str(), root.readonly), ("rootfs", true));
    assert_eq!(facts.mounts[1].source.as_deref(), Some("/srv"));
    assert_eq!(facts.mounts[1].options, ["rbind", "ro"]);
    assert_eq!(facts.hooks.create_container[0].path, "/usr/bin/toolkit");
    assert_eq!(facts.annotations["io.kubernetes.cri.container-name"], "web");
    assert_eq!(facts.linux.namespaces[1].path.as_deref(), Some("/run/netns/x"));
    let linux = facts.linux;
    let seccomp = linux.seccomp.unwrap();
    assert_eq!(seccomp.default_action, "SCMP_ACT_ERRNO");
    assert_eq!(seccomp.syscalls[0].action, "SCMP_ACT_ALLOW");
    assert_eq!(linux.sysctl["net.ipv4.ping_group_range"], "0 0");
    assert_eq!((linux.devices[0].path.as_str(), linux.devices[0].minor), ("/dev/kmsg", Some(11)));
    let rules = linux.resources.devices;
    assert_eq!((rules[0].allow, rules[0].major), (false, None));
    assert_eq!((rules[1].allow, rules[1].access.as_deref()), (true, Some("r")));
}

#[test]
fn errors_name_the_file_and_the_place() {
    for (json, expected) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("{\"root\":\n{\"path\":\"x", "EOF while parsing a string at line 2 column 10"),
        ("[]x", "trailing characters at line 1 column 3"),
        ("{} x", "trailing characters at line 1 column 4"),
        ("null", "invalid type: null, expected struct Facts at line 1 column 4"),
        ("{\"root\":7}", "invalid type: integer `7`, expected struct Root at line 1 column 9"),
        ("{\"mounts\":{}}", "invalid type: map, expected a list at line 1 column 12"),
        ("{\"root\":null,\"root\":{}}", "duplicate field `root` at line 1 column 19"),
        ("{\"root\":{},\"Mounts\":[]}", "field `Mounts` for `mounts` at line 1 column 19"),
        ("{\"annotations\":{\"a\":\"1\",\"a\":\"2\"}}", "duplicate key `a` at line 1 column 32"),
        (
            "{\"process\":{\"user\":{\"uid\":-1}}}",
            "invalid value: integer `-1`, expected u32 at line 1 column 28",
        ),
    ] {
        let message = read(json).unwrap_err();
        assert_eq!(message, format!("cannot understand /b/config.json: {expected}"), "{json}");
    }
    let error = parse(b"{\"hostname\":\"\xff\"}", Path::new("c")).unwrap_err();
    let place = error.source().unwrap().to_string();
    assert_eq!(place, "invalid unicode code point at line 1 column 14");
}

#[test]
fn a_key_that_is_there_twice_cannot_forge_a_line() {
    let error = read(r#"{"annotations":{"a\n\u001b":"1","a\n\u001b":"2"}}"#).unwrap_err();
    assert!(error.contains(r"duplicate key `a\n\u{1b}` at line 1"), "{error}");
}

#[test]
fn depth_is_bounded() {
    let deep = |key: &str, depth: usize| {
        format!("{{\"{key}\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
    };
    let unclosed = format!("{{\"linux\":{}", "[".repeat(1 << 20));
    assert!(read(&unclosed).unwrap_err().contains("invalid type: sequence"));
    // What is not looked at is skipped, at any depth, and on the heap.
    assert!(read(&deep("unheard-of", 1 << 20)).is_ok());
    assert!(read(&format!("{{\"x\":{}", "[".repeat(1 << 20))).is_err());
}

#[test]
fn the_number_of_entries_is_bounded() {
    let mounts = |n| format!("{{\"mounts\":[{}]}}", vec!["{}"; n].join(","));
    assert_eq!(read(&mounts(MAX_ENTRIES)).unwrap().mounts.len(), MAX_ENTRIES);
    assert!(read(&mounts(MAX_ENTRIES + 1)).unwrap_err().contains("more than 16384 entries"));
    let mut annotations = "{\"annotations\":{\"\":\"\"".to_owned();
    for n in 0..MAX_ENTRIES {
        write!(annotations, ",\"{n}\":\"\"").unwrap();
    }
    assert!(read(&(annotations + "}}")).unwrap_err().contains("more than 16384 entries"));
}

proptest! {
    #[test]
    fn never_panics(json in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&json, Path::new("x"));
    }

    #[test]
    fn a_truncated_file_is_an_error(cut in 0usize..200) {
        let json = br#"{"root":{"path":"rootfs"},"mounts":[{"destination":"/proc"}],
            "annotations":{"a":"b"},"linux":{"namespaces":[{"type":"pid"}]}}"#;
        let cut = cut.min(json.len() - 1);
        prop_assert!(parse(&json[..cut], Path::new("x")).is_err());
    }
}
