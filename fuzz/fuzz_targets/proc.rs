//! Files of `/proc`: `stat` and `status` of a task, in which its name is its own choice, and
//! `mountinfo`, in which paths are the choice of whoever mounts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockc::{
    policy::{HostError, Mounts, PathRule},
    runtime::caller::{Ids, start_ticks},
};
use lockc_common::{HOST_PREFIX, PATH_RULE_LEN, PathVerdict};

fuzz_target!(|data: &[u8]| {
    tasks(data);
    if let Ok(mounts) = Mounts::parse(data) {
        for path in ["/", "/mnt/x", "/var/run/docker.sock"] {
            check(&mounts, PathRule::new(path).expect("a path"));
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        mounted_at(text);
    }
});

/// Whatever a task is called, it has the start time and the ids that it has.
fn tasks(data: &[u8]) {
    let _ = (start_ticks(data), Ids::parse(data));
    let tail = b") S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0 184467\n";
    assert_eq!(start_ticks(&[b"7 (", data, tail].concat()), Some(4711));
    // The kernel escapes these two (`proc_task_name`, fs/proc/array.c, 6.12).
    let name: Vec<u8> = data.iter().copied().filter(|byte| !b"\\\n".contains(byte)).collect();
    let tail = b"\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
    let ids = Ids::parse(&[b"Name:\t", &name[..], tail].concat()).expect("ids");
    assert_eq!((ids.euid.as_raw(), ids.fsuid.as_raw(), ids.fsgid.as_raw()), (2, 4, 8));
}

fn check(mounts: &Mounts, path: PathRule) {
    let read_link = |path: &[u8]| (path == b"/var/run").then(|| b"../run".to_vec());
    let found = match mounts.rules(&[path], read_link) {
        Ok(found) => found.rules,
        Err(error) => {
            assert!(!matches!(error, HostError::Line { .. }), "{error}");
            return;
        }
    };
    for (key, _) in &found {
        assert!(key.len() > HOST_PREFIX && key.len() <= PATH_RULE_LEN, "{key:?}");
        assert!(key.starts_with(b"/") && key.ends_with(b"/"), "{key:?}");
    }
    assert!(found.is_sorted_by_key(|(key, _)| key));
    assert!(found.iter().any(|(_, verdict)| *verdict == PathVerdict::Deny), "{found:?}");
}

/// What is mounted at a path is out of reach by the path's rule, however the path is called.
fn mounted_at(text: &str) {
    let Ok(path) = PathRule::new(&format!("/{text}")) else { return };
    let at = path.as_bytes().strip_suffix(b"/").unwrap_or_default();
    let mut line = b"23 22 0:30 / /".to_vec();
    for byte in at.strip_prefix(b"/").unwrap_or_default() {
        // `mangle`, fs/proc_namespace.c, 6.12.
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => line.extend(format!("\\{byte:03o}").bytes()),
            _ => line.push(*byte),
        }
    }
    let mountinfo =
        [b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", &line[..], b" rw - tmpfs tmpfs rw\n"].concat();
    let mounts = Mounts::parse(&mountinfo).expect("two mounts");
    // A path may be too long with what it is on.
    let found = match mounts.rules(&[path], |_| None) {
        Ok(found) => found.rules,
        Err(error) => {
            assert!(matches!(error, HostError::Long { .. }), "{error}");
            return;
        }
    };
    assert!(found.contains(&(b"/\x1e\0\0\0/".to_vec(), PathVerdict::Deny)), "{found:?}");
}
