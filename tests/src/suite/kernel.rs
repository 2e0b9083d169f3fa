//! The kernel's log and the mount tree stay as the runtime left them.

use std::fs;

use anyhow::Result;

use crate::harness::{
    Attack, Bundle, Context, Entry, Expect, attack,
    attack::no_preparation,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("log", With::One, log),
    test("mount", With::EachAndYouki, mount),
    test("new-mount-api", With::One, new_mount_api),
    test("own-namespaces", With::One, own_namespaces),
    test("pivot-root", With::One, pivot),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "kernel", name, daemon: Daemon::OffThenOn, with, run }
}

/// Where the capability is asked for first, that is what is refused.
const LOG: &[&str] = &["kernel-log", "capability"];
const MOUNT: &[&str] = &["mount"];

fn try_to(
    name: &'static str,
    line: &str,
    gain: &str,
    operations: &'static [&'static str],
) -> Attack {
    Attack {
        name,
        line: line.to_owned(),
        gain: gain.to_owned(),
        expect: Expect::Denied(operations),
    }
}

fn mount_by(name: &'static str, line: &str) -> Attack {
    try_to(name, line, "done", MOUNT)
}

/// `syslog(2)`, the log device under its own and another name, and procfs's view of it.
fn log(context: &Context) -> Result<()> {
    let attacks = [
        try_to("syslog", "syslog", "log", LOG),
        try_to("kmsg-read", "kmsg-read /dev/kmsg", "log", LOG),
        try_to("kmsg-write", "kmsg-write /dev/kmsg", "done", LOG),
        try_to("other-name", "kmsg-read /dev/harmless", "log", LOG),
        try_to("proc-kmsg", "kmsg-read /proc/kmsg", "log", LOG),
        try_to("proc-bound", "kmsg-read /mnt/log", "log", LOG),
    ];
    let bound = context.scratch().join("bound");
    fs::create_dir_all(&bound)?;
    fs::write(bound.join("log"), "")?;
    let setup = |bundle: &mut Bundle| {
        bundle.device("/dev/kmsg", 1, 11).device("/dev/harmless", 1, 11);
        bundle.bind(&bound, "/mnt").bind("/proc/kmsg".as_ref(), "/mnt/log");
        bundle.capabilities(&["CAP_SYSLOG"]);
    };
    attack(context, "log", &Entry::Run, no_preparation, setup, &attacks)
}

/// A container with tmpfs mounts at `/a`, `/b`, …, for the attacks to do as they like with.
fn mounts(bundle: &mut Bundle) {
    for place in ["/a", "/b", "/c", "/d", "/e", "/f"] {
        bundle.mount(place, "tmpfs", "tmpfs", &["mode=755"]);
    }
    bundle.mount("/ro", "tmpfs", "tmpfs", &["ro"]);
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
}

/// `mount(2)` and `umount(2)` by a process with `CAP_SYS_ADMIN`.
fn mount(context: &Context) -> Result<()> {
    let attacks = [
        mount_by("tmpfs", "mount tmpfs /mnt"),
        mount_by("proc", "mount proc /mnt2"),
        mount_by("bind", "bind /etc /data"),
        mount_by("rbind", "rbind / /root"),
        mount_by("remount", "remount /a"),
        mount_by("remount-bind", "remount-bind /b"),
        mount_by("propagation", "propagation /c"),
        mount_by("umount", "umount /d"),
        mount_by("detach", "detach /e"),
        mount_by("move", "move-mount /f /srv"),
    ];
    attack(context, "mount", &Entry::Run, no_preparation, mounts, &attacks)
}

/// `fsopen(2)` and what follows it, `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`.
fn new_mount_api(context: &Context) -> Result<()> {
    let attacks = [
        mount_by("fsmount", "fsmount tmpfs /mnt"),
        mount_by("fsmount-proc", "fsmount proc /mnt2"),
        mount_by("tree", "tree /etc /data"),
        mount_by("tree-root", "tree / /root"),
        mount_by("setattr", "setattr /ro"),
        try_to("proc-detached", "fsmount-read proc sys/kernel/ostype", "Linux", MOUNT),
    ];
    attack(context, "new-api", &Entry::Run, no_preparation, mounts, &attacks)
}

/// A process that gives itself a user and a mount namespace may mount as little.
fn own_namespaces(context: &Context) -> Result<()> {
    let attacks = [
        mount_by("user-ns", "user-ns mount tmpfs /mnt"),
        mount_by("user-ns-bind", "user-ns bind /etc /mnt"),
        mount_by("user-ns-fs", "user-ns fsmount tmpfs /mnt"),
        mount_by("user-ns-tree", "user-ns tree /etc /mnt"),
        mount_by("mnt-ns", "mnt-ns mount tmpfs /mnt"),
        mount_by("mnt-ns-umount", "mnt-ns umount /a"),
        mount_by("twice", "user-ns user-ns mount tmpfs /mnt"),
        mount_by("twice-mnt", "user-ns mnt-ns mount tmpfs /mnt"),
    ];
    attack(context, "own-ns", &Entry::Run, no_preparation, mounts, &attacks)
}

/// `pivot_root(2)` onto a mount that the runtime made.
fn pivot(context: &Context) -> Result<()> {
    let given = context.scratch().join("new-root");
    fs::create_dir_all(given.join("old"))?;
    let attacks = [mount_by("pivot", "mnt-ns pivot /mnt /mnt/old")];
    let setup = |bundle: &mut Bundle| {
        bundle.bind(&given, "/mnt");
        bundle.capabilities(&["CAP_SYS_ADMIN"]);
    };
    attack(context, "pivot", &Entry::Run, no_preparation, setup, &attacks)
}
