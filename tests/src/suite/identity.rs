//! Who a container's processes are, and what they may not do as anybody.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    harness::{
        Attack, Bundle, Container, Context, Entry, Expect, Level, Phase, attack,
        attack::{attack_under, no_preparation},
        process,
        runner::{Daemon, Test, With},
    },
    sys,
};

pub(crate) const TESTS: &[Test] = &[
    test("set-user", With::EachKind, set_user),
    test("programs", With::EachKind, programs),
    test("mapped", With::One, mapped),
    test("exec-as-root", With::EachKind, exec_as_root),
    test("user-namespaces", With::EachKind, user_namespaces),
    test("join", With::One, join),
    test("io-uring", With::One, io_uring),
    test("terminals", With::One, terminals),
    test("calls", With::One, calls),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "identity", name, daemon: Daemon::OffThenOn, with, run }
}

const ROOT: &[&str] = &["root"];
/// Longest time that an `exec` may take.
const DEADLINE: Duration = Duration::from_mins(2);
/// What a user namespace of the tests maps 0 to.
const MAPPED: u32 = 100_000;

/// `run_as_non_root = true`.
const NON_ROOT: Level = Level::Own("non-root");
/// What the tests' configuration allows besides, or other attacks would end early.
const CONFINED: Level = Level::Own("confined");

/// Calls by a user who has the capability for them.
fn set_user(context: &Context) -> Result<()> {
    let attacks = [
        Attack::denied("user", "set-user 0", ROOT),
        Attack::denied("effective", "set-effective 0", ROOT),
        Attack::denied("saved", "set-saved 0", ROOT),
        Attack::denied("files", "set-files 0", ROOT),
        Attack::ordinary("other-user", "set-user 1001"),
        Attack::ordinary("other-effective", "set-effective 1001"),
        Attack::ordinary("other-files", "set-files 1001"),
        Attack::ordinary("same-user", "set-user 1000"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.user(1000).ambient(&["CAP_SETUID"]);
    };
    attack_under(context, NON_ROOT, "set-user", setup, &attacks)
}

/// A file system with copies of the probe: one as it is, one setuid for `owner`, one with capabilities.
/// Unmounted when dropped.
struct Programs(PathBuf);

impl Programs {
    fn new(context: &Context, owner: u32) -> Result<Self> {
        let directory = context.scratch().join(format!("programs-{owner}"));
        fs::create_dir_all(&directory)?;
        // Of its own, because `/tmp` may be mounted `nosuid`, which would make all of them alike.
        mount(Some("tmpfs"), &directory, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount tmpfs on {}", directory.display()))?;
        let programs = Self(directory);
        fs::set_permissions(&programs.0, fs::Permissions::from_mode(0o755))?;
        for (name, mode) in [("plain", 0o755), ("setuid", 0o4755), ("capable", 0o755)] {
            let path = programs.0.join(name);
            fs::copy("/proc/self/exe", &path)
                .with_context(|| format!("make {}", path.display()))?;
            chown(&path, Some(owner), Some(owner))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            if name == "capable" {
                sys::machine::give_capability(&path, CAP_CHOWN)
                    .context("give a file capabilities")?;
            }
        }
        Ok(programs)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // Fails only when it is unmounted already.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

const CAP_CHOWN: u32 = 0;

/// Executes `program` and wants the first line of its output to be `gain`.
fn run_program(name: &'static str, program: &str, gain: &str) -> Attack {
    Attack { gain: gain.to_owned(), ..Attack::denied(name, &format!("exec {program}"), ROOT) }
}

/// What gives `gain` with lockc as it does without.
fn same(name: &'static str, line: &str, gain: &str) -> Attack {
    Attack { expect: Expect::Same(format!("OK {gain}")), ..Attack::denied(name, line, &[]) }
}

/// Files by which a user becomes root, or gets capabilities.
fn programs(context: &Context) -> Result<()> {
    let programs = Programs::new(context, 0)?;
    let attacks = [
        run_program("setuid", "/mnt/setuid probe who", "who OK user 0"),
        Attack {
            expect: Expect::DeniedOrKilled(ROOT),
            ..run_program(
                "capable",
                "/mnt/capable probe capabilities",
                "capabilities OK 0000000000000001",
            )
        },
        same("plain", "exec /mnt/plain probe who", "who OK user 1000"),
        same("nothing", "exec /mnt/plain probe capabilities", "capabilities OK 0000000000000000"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.user(1000).bind(&programs.0, "/mnt");
    };
    attack_under(context, NON_ROOT, "programs", setup, &attacks)
}

/// Root of a user namespace is somebody on the machine, and root all the same.
fn mapped(context: &Context) -> Result<()> {
    let programs = Programs::new(context, MAPPED)?;
    let attacks = [
        Attack::denied("user", "set-user 0", ROOT),
        run_program("setuid", "/mnt/setuid probe who", "who OK user 0"),
        same("plain", "exec /mnt/plain probe who", "who OK user 1000"),
        Attack::ordinary("other-user", "set-user 1001"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.user(1000).ambient(&["CAP_SETUID"]).user_namespace(MAPPED, 65_536);
        bundle.bind(&programs.0, "/mnt");
    };
    attack_under(context, NON_ROOT, "mapped", setup, &attacks)
}

/// `exec` as root into a container that runs as a user.
fn exec_as_root(context: &Context) -> Result<()> {
    let levels = match context.phase() {
        Phase::Off => &[Level::Privileged][..],
        _ => &[NON_ROOT, Level::Privileged],
    };
    for level in levels {
        let id = context.id("exec-root");
        let mut bundle = context.bundle(&id, &["/bin/sleep", "1000"]);
        level.annotate(&mut bundle);
        bundle.user(1000);
        let container = Container::new(context.runtime(), &id, &bundle)?;
        container.start()?;
        // With the group: crun takes no notice of a user alone.
        let exec = |user: &str| {
            let mut command = container.exec_command(&["--user", user], &["/bin/probe", "who"]);
            process::run(&mut command, DEADLINE)
        };
        let name = level.name();
        let output = exec("1000:1000")?.success("exec as a user")?;
        ensure!(output.stdout.contains("OK user 1000"), "{name}: {output}");
        let output = exec("0:0")?;
        let is_root = output.stdout.contains("OK user 0");
        if *level == Level::Privileged {
            ensure!(is_root, "{name}: {output}");
            continue;
        }
        ensure!(!is_root && !output.status.success(), "{name}: {output}");
        context.with_lockc(|lockc| {
            lockc.wait_for_line(&format!("denial of {id}"), |line| {
                line.contains(&format!("denied root container={id} "))
            })
        })?;
    }
    Ok(())
}

/// Making user namespaces; the others are made as before.
fn user_namespaces(context: &Context) -> Result<()> {
    let attacks = [
        Attack {
            gain: "hello".to_owned(),
            ..Attack::denied("user-ns", "user-ns hello", &["user-namespace"])
        },
        same("mnt-ns", "mnt-ns hello", "hello"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.capabilities(&["CAP_SYS_ADMIN"]);
    };
    attack_under(context, CONFINED, "user-ns", setup, &attacks)
}

/// Namespaces of the machine that the container has as files.
fn join(context: &Context) -> Result<()> {
    let attacks = [
        Attack::denied("uts", "set-ns /etc/uts", &["namespace"]),
        Attack::denied("net", "set-ns /etc/net", &["namespace"]),
        Attack::denied("own", "set-ns /proc/self/ns/ipc", &["namespace"]),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.capabilities(&["CAP_SYS_ADMIN"]);
        bundle.bind("/proc/1/ns/uts".as_ref(), "/etc/uts");
        bundle.bind("/proc/1/ns/net".as_ref(), "/etc/net");
    };
    attack(context, "join", &Entry::Run, no_preparation, setup, &attacks)
}

/// Making a ring; see `token` for what is done with one where it is allowed.
fn io_uring(context: &Context) -> Result<()> {
    let attacks = [Attack::denied("ring", "ring", &["io-uring"]), same("hello", "hello", "hello")];
    attack_under(context, CONFINED, "io-uring", |_| {}, &attacks)
}

/// Typing into a terminal that somebody else reads.
fn terminals(context: &Context) -> Result<()> {
    const INPUT: &[&str] = &["terminal-input"];
    let attacks = [
        Attack::denied("type", "type", INPUT),
        Attack::denied("paste", "paste", INPUT),
        Attack::ordinary("resize", "resize"),
    ];
    let setup = |bundle: &mut Bundle| {
        // From 6.2 on typing takes it, unless `dev.tty.legacy_tiocsti` is set.
        bundle.capabilities(&["CAP_SYS_ADMIN"]);
    };
    attack(context, "terminals", &Entry::Run, no_preparation, setup, &attacks)
}

/// Calls that act on the machine's memory and disks, and have no hook.
fn calls(context: &Context) -> Result<()> {
    let attacks = [Attack::denied("swap-off", "swap-off", &["machine-call"])];
    let setup = |bundle: &mut Bundle| {
        bundle.capabilities(&["CAP_SYS_ADMIN"]);
    };
    attack(context, "machine-calls", &Entry::Run, no_preparation, setup, &attacks)
}
