//! Ordinary software notices nothing: real programs do the same work without lockc and under each
//! level, with the same result, byte for byte, and without a denial.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::harness::{
    Bundle, Container, Context, Level, Phase, Runtime,
    attack::difference,
    daemon::Wanted,
    fixture::TOKEN,
    overlay::Overlay,
    process,
    runner::{Daemon, Test, With},
};

/// Who the software runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Root with the capabilities that Docker gives.
    Root,
    /// A user without any, in a container that the Pod Security Standards' level Restricted admits.
    User,
}
use Who::{Root, User};

/// One script of `tests/compatibility`.
macro_rules! program {
    ($name:literal, $who:expr) => {
        program!($name, $who, &[])
    };
    ($name:literal, $who:expr, $refused:expr) => {
        Test {
            group: "compatibility",
            name: $name,
            daemon: Daemon::OffThenOn,
            with: With::One,
            run: |context| {
                let script = include_str!(concat!("../../compatibility/", $name, ".sh"));
                same_work(context, $name, $who, script, $refused)
            },
        }
    };
}

pub(crate) const TESTS: &[Test] = &[
    program!("archive", Root),
    program!("build", User),
    program!("bus", User),
    program!("debugger", User),
    program!("dpkg", Root),
    program!("git", User),
    // The kernel refuses it all by itself, but asks security modules before it looks at capabilities.
    program!("mounts", Root, &["mount"]),
    program!("network", User),
    program!("nginx", Root),
    program!("nodejs", User),
    program!("perl", User),
    program!("ping", User),
    program!("postgresql", User),
    program!("python", User),
    program!("shell", User),
    program!("sqlite", User),
    program!("users", Root),
    program!("valkey", User),
];

/// Longest time that one program may take on an emulated machine.
const DEADLINE: Duration = Duration::from_mins(4);

/// Stands between what the program said and what the marker says.
const END: &str = "--- end of the program";
/// What every level denies, and the process that tries it behind the program: it shows that the
/// container is contained, and once its denial is in the log, all denials before it are.
const MARKER: &str = "marker";
const DENIED: &str = "/run/secrets/kubernetes.io/token";

/// Runs `script` as `who` and compares what it says with what it said without lockc; `refused` are the
/// operations whose denial may be logged.
fn same_work(
    context: &Context,
    name: &str,
    who: Who,
    script: &str,
    refused: &[&str],
) -> Result<()> {
    if context.phase() == Phase::Off {
        let (_, said, marker) = work(context, name, who, script, Level::Baseline)?;
        ensure!(said.contains("\nexit code 0\n"), "it fails: {said}");
        ensure!(marker.contains(TOKEN), "the token cannot be read without lockc: {marker}");
        if context.is_checking_itself() {
            let (_, again, _) = work(context, name, who, script, Level::Baseline)?;
            ensure!(said == again, "not repeatable: {}", difference(&said, &again));
        }
        context.record(name, said);
        return Ok(());
    }
    let before = context.recorded(name)?;
    for level in [Level::Baseline, Level::Restricted] {
        let with = level.name();
        let (id, said, marker) = work(context, name, who, script, level)?;
        let denials = context.with_lockc(|lockc| {
            let wanted = [Wanted { operations: &["open"], comm: Some(MARKER) }];
            ensure!(lockc.missing_denials(&id, &wanted)?.is_empty(), "with {with}: not contained");
            Ok(lockc
                .log()?
                .lines()
                .filter(|line| line.contains(&format!("container={id} ")))
                .filter(|line| line.contains("denied ") && !line.contains(MARKER))
                .filter(|line| !refused.iter().any(|it| line.contains(&format!("denied {it} "))))
                .map(str::to_owned)
                .collect::<Vec<_>>())
        })?;
        let denials = denials.join("\n");
        ensure!(said == before, "with {with}: {}\n{denials}", difference(&before, &said));
        ensure!(denials.is_empty(), "with {with}: denials\n{denials}");
        ensure!(marker.contains("not permitted"), "with {with}: the token can be read: {marker}");
    }
    Ok(())
}

/// Runs `script` in a container that looks like the guest: its id, what the script said with its exit
/// code, and what the marker said.
fn work(
    context: &Context,
    name: &str,
    who: Who,
    script: &str,
    level: Level,
) -> Result<(String, String, String)> {
    let id = context.id(name);
    let overlay = Overlay::new(&context.scratch().join("overlay"))?;
    let root = overlay.root();
    let place = root.join("compatibility");
    fs::create_dir(&place)?;
    fs::write(place.join("script"), script)?;
    fs::set_permissions(place.join("script"), fs::Permissions::from_mode(0o755))?;
    symlink("/usr/bin/cat", place.join(MARKER))?;
    let token = root.join(DENIED.trim_start_matches('/'));
    fs::create_dir_all(token.parent().context("the token has no directory")?)?;
    fs::write(&token, TOKEN)?;
    // As engines write it.
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 box\n")?;

    let commands = format!(
        "/compatibility/script </dev/null 2>&1; echo \"\nexit code $?\n{END}\"; \
         exec /compatibility/{MARKER} {DENIED} 2>&1"
    );
    let args = ["/bin/sh", "-c", commands.as_str()];
    let mut bundle = Bundle::new(context.scratch().join("bundles").join(&id), &root, &args);
    level.annotate(&mut bundle);
    complete(&mut bundle, who);
    let container = Container::new(runtime(context), &id, &bundle)?;
    let output = process::run(&mut container.command("run", &[]), DEADLINE)?;
    let (said, marker) = output
        .stdout
        .split_once(END)
        .with_context(|| format!("with {}: it did not end: {output}", level.name()))?;
    Ok((id, said.to_owned(), marker.to_owned()))
}

/// crun: runc 1.1 copies itself at every start, which takes an emulated machine several times as long.
fn runtime(context: &Context) -> &Runtime {
    let mut all = context.runtimes().iter();
    all.find(|runtime| runtime.kind() == "crun").unwrap_or_else(|| context.runtime())
}

/// Makes the container one that an engine would make.
fn complete(bundle: &mut Bundle, who: Who) {
    if let Some(mounts) = bundle.config["mounts"].as_array_mut() {
        // Engines leave it in the root file system.
        mounts.retain(|mount| mount["destination"] != "/tmp");
    }
    bundle.mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
    bundle.mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
    let home = match who {
        Root => {
            bundle.unshare("cgroup").mask();
            "HOME=/root"
        }
        User => {
            bundle.harden();
            "HOME=/home/edge"
        }
    };
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    bundle.config["process"]["env"] = json!([path, home, "TERM=dumb", "LC_ALL=C.UTF-8"]);
    // As Docker from 20.10 on has it.
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "0 2147483647" });
}
