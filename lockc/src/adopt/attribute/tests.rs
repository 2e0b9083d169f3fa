use std::path::PathBuf;

use nix::unistd::Uid;

use super::*;
use crate::runtime::{
    cmdline::{ContainerId, Dialect},
    state::{First, Kept, State as Kind},
};

const HOST: u64 = 1;
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Id, parent, mount namespace, role, control group.
type Row = (u32, u32, u64, Role, &'static str);

fn runc() -> Role {
    Role::Runtime("runc".to_owned())
}

fn snapshot(rows: &[Row]) -> Snapshot {
    let process = |(pid, parent, mount_ns, role, cgroup): &Row| Process {
        pid: *pid,
        parent: *parent,
        start_ticks: u64::from(*pid) * 10,
        mount_ns: *mount_ns,
        user: 0,
        cgroup: cgroup.as_bytes().to_vec(),
        role: role.clone(),
    };
    let processes = rows.iter().map(|row| (row.0, process(row))).collect();
    Snapshot { processes, host_ns: HOST }
}

fn container(id: &str, pid: u32, waits: bool) -> Running {
    let first = First { pid, start_ticks: None, waits };
    Running {
        kept: Kept {
            id: ContainerId::new(id).unwrap(),
            dir: PathBuf::from("/run/runc").join(id),
            owner: Uid::from_raw(0),
        },
        state: Kind { dialect: Dialect::Runc, bundle: "/b".into(), first: Some(first) },
        first,
    }
}

/// Who is said to belong where, as short text.
fn said(rows: &[Row], running: &[Running]) -> Vec<String> {
    said_with(rows, running, &Formers::new())
}

fn said_with(rows: &[Row], running: &[Running], formers: &Formers) -> Vec<String> {
    attribute(&snapshot(rows), running, formers, |_| false)
        .into_iter()
        .map(|it| {
            assert_eq!(it.start_ticks, u64::from(it.pid) * 10);
            let place = match it.place {
                Place::Container(index) => format!("c{index}"),
                Place::Runtime(pid) => format!("r{pid}"),
                Place::Unknown(pid) => format!("u{pid}"),
                Place::Former { handle, first } => format!("f{handle}-{first}"),
            };
            let state = if it.state == State::Runtime { " runtime" } else { "" };
            let mut flags = String::new();
            for (flag, name) in [
                (AdoptionFlags::FIRST, " first"),
                (AdoptionFlags::OWN_NAMESPACE, " own"),
                (AdoptionFlags::INSIDE, " inside"),
            ] {
                if it.flags & flag != 0 {
                    flags.push_str(name);
                }
            }
            format!("{} {place}{state}{flags}", it.pid)
        })
        .collect()
}

#[test]
fn processes_of_a_container() {
    let rows = [
        (1, 0, HOST, Role::Other, "/init"),
        (10, 1, HOST, Role::Shim, "/s"),
        (11, 10, 5, Role::Other, "/c"),
        // Born of it, brought in by somebody else, and with a namespace that it made.
        (12, 11, 5, Role::Other, "/c"),
        (13, 1, 5, Role::Other, "/elsewhere"),
        (14, 12, 6, Role::Other, "/c"),
        (15, 14, HOST, Role::Other, "/c"),
        (16, 1, HOST, Role::Other, "/s"),
    ];
    let wanted = ["11 c0 first own", "12 c0", "13 c0", "14 c0 own", "15 c0"];
    assert_eq!(said(&rows, &[container("x", 11, false)]), wanted);
}

#[test]
fn the_machine_and_what_its_services_have_for_themselves_stay_as_they_are() {
    let rows = [
        (1, 0, HOST, Role::Other, "/init"),
        (2, 1, 7, Role::Other, "/system.slice/private.service"),
        (3, 1, HOST, Role::Shim, "/s"),
        // What a shim starts on the machine's side.
        (4, 3, HOST, Role::Other, "/s"),
    ];
    assert!(said(&rows, &[]).is_empty());
}

#[test]
fn without_a_mount_namespace_descent_and_control_group_tell() {
    let rows = [
        (1, 0, HOST, Role::Other, "/init"),
        (20, 1, HOST, Role::Other, "/box"),
        (21, 20, HOST, Role::Other, "/box"),
        (22, 1, HOST, Role::Other, "/box/inner"),
        (23, 1, HOST, Role::Other, "/box2"),
    ];
    // Nobody's namespace is the container's: it is the machine's.
    let wanted = ["20 c0 first", "21 c0", "22 c0"];
    assert_eq!(said(&rows, &[container("box", 20, false)]), wanted);
}

#[test]
fn runtimes_are_followed() {
    let rows = [
        (1, 0, HOST, Role::Other, "/init"),
        (30, 1, HOST, runc(), "/s"),
        (31, 30, 5, runc(), "/s"),
        (32, 30, HOST, Role::Other, "/s"),
        // Created, and waits: its runtime has ended.
        (40, 1, 6, runc(), "/s"),
    ];
    let wanted = ["30 r30 runtime", "31 r30 runtime inside", "40 c0 runtime inside"];
    assert_eq!(said(&rows, &[container("x", 40, true)]), wanted);
}

#[test]
fn who_calls_itself_a_runtime_inside_a_container_is_not_believed() {
    let rows = [
        (1, 0, HOST, Role::Other, "/init"),
        (50, 1, 5, runc(), "/c"),
        (51, 50, 5, runc(), "/c"),
        // `runc exec` on its way in.
        (52, 1, HOST, runc(), "/s"),
        (53, 52, 5, runc(), "/c"),
    ];
    let wanted = ["50 c0 first own", "51 c0", "52 r52 runtime", "53 c0"];
    assert_eq!(said(&rows, &[container("x", 50, false)]), wanted);
}

#[test]
fn containers_that_nobody_keeps() {
    let group: &'static str = format!("/system.slice/docker-{ID}.scope").leak();
    let below: &'static str = format!("{group}/below").leak();
    let conmon: &'static str = format!("/machine.slice/libpod-conmon-{ID}.scope").leak();
    let rows = [
        (1, 0, HOST, Role::Other, "/init"),
        (60, 1, HOST, Role::Shim, "/s"),
        (61, 60, 5, Role::Other, "/k"),
        (62, 61, 5, Role::Other, "/k"),
        (70, 1, 6, Role::Other, group),
        (71, 1, HOST, Role::Other, below),
        (72, 1, 7, Role::Other, conmon),
    ];
    let wanted = ["61 u61 first own", "62 u61", "70 u70 first own", "71 u70"];
    assert_eq!(said(&rows, &[]), wanted);
}

#[test]
fn a_container_in_a_container_is_the_outer_ones() {
    let rows = [
        (1, 0, HOST, Role::Other, "/init"),
        (80, 1, 5, Role::Other, "/c"),
        (81, 80, 5, Role::Shim, "/c"),
        (82, 81, 6, Role::Other, "/c"),
        (83, 82, 6, Role::Other, "/c"),
    ];
    let wanted = ["80 c0 first own", "81 c0", "82 c0 own", "83 c0 own"];
    assert_eq!(said(&rows, &[container("x", 80, false)]), wanted);
}

#[test]
fn what_another_lockc_has_said_counts() {
    let rows = [
        (1, 0, HOST, Role::Other, "/init"),
        (20, 1, 5, Role::Other, "/c"),
        // Moved elsewhere, and adopted by another parent.
        (21, 1, HOST, Role::Other, "/elsewhere"),
        // Of a container that nobody keeps: the lower number is not the first.
        (30, 1, 6, Role::Other, "/x"),
        (25, 1, 6, Role::Other, "/x"),
        (40, 1, HOST, runc(), "/s"),
    ];
    let contained = State::Contained;
    let mut formers = Formers::from([
        (20, (7, contained)),
        (21, (7, contained)),
        (25, (8, contained)),
        (30, (8, contained)),
        (40, (9, State::Runtime)),
    ]);
    let wanted =
        ["20 c0 first own", "21 c0", "25 f8-25 first own", "30 f8-25", "40 f9-40 runtime inside"];
    let running = [container("x", 20, false)];
    assert_eq!(said_with(&rows, &running, &formers), wanted);
    // What has ended meanwhile says nothing.
    formers.insert(99, (10, contained));
    assert_eq!(said_with(&rows, &running, &formers), wanted);
}

#[test]
fn who_has_a_label_is_left_alone() {
    let rows = [(1, 0, HOST, Role::Other, "/"), (90, 1, 5, Role::Other, "/c")];
    let running = [container("x", 90, false)];
    assert!(attribute(&snapshot(&rows), &running, &Formers::new(), |pid| pid == 90).is_empty());
}

#[test]
fn ids_in_control_groups() {
    assert_eq!(group_of(b"/a/box/c", b"box"), Some(&b"/a/box"[..]));
    assert_eq!(group_of(b"/a/inbox/c", b"box"), None);
    let path = format!("/kubepods/cri-containerd-{ID}.scope/x");
    let end = path.len() - 2;
    assert_eq!(group_of(path.as_bytes(), ID.as_bytes()), Some(&path.as_bytes()[..end]));
    assert_eq!(engine_group(path.as_bytes()), Some(&path.as_bytes()[..end]));
    assert_eq!(engine_group(b"/user.slice/user-1000.slice"), None);
    assert_eq!(engine_group(b""), None);
}
