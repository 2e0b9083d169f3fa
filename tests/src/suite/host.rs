//! The host goes on as before: what containers may not do, its processes may, at the same time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};

use super::adoption::Lurkers;
use crate::{
    harness::{
        Container, Context,
        container::DEADLINE,
        daemon::{LOCKC, PINS, pinned_map},
        fixture::{SECRET, SERVICE_ACCOUNT, TOKEN},
        process::{self, Output, wait_for},
        runner::{Daemon, Test, With},
    },
    sys::bpf,
};

pub(crate) const TESTS: &[Test] = &[Test {
    group: "host",
    name: "untouched",
    daemon: Daemon::OffThenOn,
    with: With::One,
    run: untouched,
}];

/// Those about the end of enforcement.
pub(crate) const END_TESTS: &[Test] = &[
    Test { group: "host", name: "unload", daemon: Daemon::Own, with: With::One, run: unload },
    Test {
        group: "host",
        name: "unload-held",
        daemon: Daemon::Own,
        with: With::One,
        run: unload_held,
    },
];

/// The probe's verbs, tried by processes of the host while a container runs.
fn untouched(context: &Context) -> Result<()> {
    let id = context.id("beside");
    let bundle = context.token_bundle(&id, &["/bin/sleep", "1000"]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    container.start()?;

    let directory = context.scratch().join("untouched");
    for name in ["one", "mount"] {
        fs::create_dir_all(directory.join(name))?;
    }
    let _mounts = PrivateMounts::of(&directory)?;
    fs::write(directory.join("one/secret"), format!("{SECRET}\n"))?;
    let runtime = context.node_bin().join("runc-untouched");
    fs::write(&runtime, "#!/bin/sh\n")?;
    let (here, runtime) = (directory.display(), runtime.display());
    let (token, volume) = (context.token().token(), context.token().dir());
    let (token, volume) = (token.display(), volume.display());
    let attempts = [
        (format!("read {token}"), TOKEN),
        (format!("o-path {token}"), TOKEN),
        (format!("orphan {token}"), TOKEN),
        (format!("chroot {volume} /token"), TOKEN),
        (format!("handle {token}"), TOKEN),
        (format!("tree-read {volume} token"), TOKEN),
        (format!("user-ns read {token}"), TOKEN),
        (format!("rename {here}/one {here}/two {here}/two/secret"), SECRET),
        (format!("mnt-ns mount tmpfs {here}/mount"), "done"),
        (format!("mnt-ns fsmount tmpfs {here}/mount"), "done"),
        (format!("mnt-ns bind-read {volume} {here}/mount {here}/mount/token"), TOKEN),
        ("syslog".to_owned(), "log"),
        ("kmsg-read /dev/kmsg".to_owned(), "log"),
        (format!("append {runtime} #"), "done"),
        (format!("move {runtime} {runtime}.old"), "done"),
        (format!("unlink {runtime}.old"), "done"),
    ];
    let program = std::env::current_exe().context("find this program")?;
    for (line, gain) in attempts {
        let item = format!("host:{line}");
        let output = process::run(Command::new(&program).args(["probe", "one", &item]), DEADLINE)?;
        let expected = format!("host OK {gain}\n");
        ensure!(output.stdout == expected, "a host process, `{line}`: {output}");
    }
    // The container is still what it was.
    ensure!(container.is_running(), "the container is gone");
    Ok(())
}

/// A directory from which mounts do not propagate, so that those made there in a namespace of its own
/// go with that; unmounted when dropped.
struct PrivateMounts<'d>(&'d Path);

impl<'d> PrivateMounts<'d> {
    fn of(directory: &'d Path) -> Result<Self> {
        let none = None::<&str>;
        mount(Some(directory), directory, none, MsFlags::MS_BIND, none).context("bind mount")?;
        let mounts = Self(directory);
        mount(none, directory, none, MsFlags::MS_PRIVATE, none).context("make a mount private")?;
        Ok(mounts)
    }
}

impl Drop for PrivateMounts<'_> {
    fn drop(&mut self) {
        // Fails only when it is unmounted already.
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

/// `lockc unload` refuses while the daemon runs, says what it removes and what it cannot, and leaves nothing behind.
fn unload(context: &Context) -> Result<()> {
    let unload = || process::run(Command::new(LOCKC).arg("unload"), DEADLINE);
    let id = context.id("unload");
    let bundle = context.token_bundle(&id, &["/bin/sleep", "1000"]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    container.start()?;
    let says = |wanted: &str, when: &str| -> Result<()> {
        let token = format!("{SERVICE_ACCOUNT}/token");
        let output = container.exec(&["/bin/probe", "read", &token])?;
        ensure!(output.stdout.starts_with(&format!("read {wanted}")), "{when}: {output}");
        Ok(())
    };
    let free = format!("OK {TOKEN}");
    says(&free, "without lockc")?;
    let output = unload()?.success("with nothing to remove")?;
    ensure!(
        output.stdout == format!("nothing was enforced: there is nothing in {PINS}\n"),
        "{output}"
    );

    let mut lockc = context.start_lockc(&context.config())?;
    says("EPERM open", "with lockc")?;
    let pid = lockc.pid()?;
    let output = unload()?;
    complains(&output, &[&format!("lockc is running (pid {pid}), nothing was removed")])?;
    says("EPERM open", "after an unload that was refused")?;

    lockc.kill();
    let pin = pinned_map("CLOCK")?;
    let none = None::<&str>;
    mount(Some("/dev/null"), &pin, none, MsFlags::MS_BIND, none).context("mount over a pin")?;
    let output = unload();
    umount(&pin).context("unmount a pin")?;
    let output = output?;
    let path = pin.display().to_string();
    complains(&output, &[&path, &format!("`umount {path}`")])?;
    let lines: Vec<_> = output.stdout.lines().collect();
    let [pins, files, containers] = lines[..] else { bail!("not three lines: {output}") };
    let (programs, maps) = counts(pins).with_context(|| format!("the first line of {output}"))?;
    ensure!(programs > 20 && maps > 10, "too few pins: {output}");
    ensure!(files.starts_with("removed /run/lockc ("), "{output}");
    ensure!(containers == format!("1 container is no longer enforced: {id}"), "{output}");
    says(&free, "after the unload")?;

    fs::create_dir(Path::new(PINS).join("aside-1")).context("make a directory of pins")?;
    let output = unload()?.success("the second unload")?;
    for line in [
        "removed no pins of aside-1, pins that were set aside",
        "removed 1 map of layout version ",
        "no container was enforced",
    ] {
        ensure!(output.stdout.lines().any(|it| it.starts_with(line)), "no {line:?}: {output}");
    }
    for path in [PINS, "/run/lockc"] {
        ensure!(!Path::new(path).exists(), "{path} is left");
    }
    let output = process::run(Command::new(LOCKC).arg("status"), DEADLINE)?;
    ensure!(output.stdout == "not running; nothing is enforced\n", "{output}");
    Ok(())
}

/// A program that another process has open is not gone, and goes on: `lockc unload` says so, and who has it.
fn unload_held(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    let mut lurkers = Lurkers::start(context, |_| ())?;
    lockc.kill();
    let link = bpf::open(&pinned_link("file_open")?, 0).context("open a link")?;
    let unload = || process::run(Command::new(LOCKC).arg("unload"), DEADLINE);
    let who = format!("held by process {} (lockc-tests); end what holds them", std::process::id());
    complains(&unload()?, &["not everything could be removed", "1 program without a pin", &who])?;
    // Those that it makes from now on are nobody's: what labels them is gone.
    let said = lurkers.lurk.try_it()?;
    ensure!(said.contains(&"first EPERM open".to_owned()), "while a program is held: {said:?}");

    drop(link);
    let is_detached = || Ok((bpf::count_objects()?[2] == 0).then_some(()));
    wait_for("the end of the program", DEADLINE, is_detached)?;
    lurkers.ensure_all(&format!("OK {TOKEN}")).context("when nothing is held any more")?;
    unload()?.success("once more").map(drop)
}

/// Where the link of this name is pinned, of whatever generation.
fn pinned_link(name: &str) -> Result<PathBuf> {
    let below = |path: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    for version in below(PINS.as_ref())? {
        for generation in below(&version.join("links"))? {
            let path = generation.join(name);
            if path.exists() {
                return Ok(path);
            }
        }
    }
    bail!("no link {name} below {PINS}")
}

/// Checks that a command has failed, and said why.
fn complains(output: &Output, wanted: &[&str]) -> Result<()> {
    ensure!(output.status.code() == Some(1), "exit code: {output}");
    for wanted in wanted {
        ensure!(output.stderr.contains(wanted), "no {wanted:?}: {output}");
    }
    Ok(())
}

/// Numbers of programs and maps in `removed N programs and M maps of layout version L`.
fn counts(line: &str) -> Option<(u32, u32)> {
    let (programs, rest) = line.strip_prefix("removed ")?.split_once(" programs and ")?;
    let (maps, version) = rest.split_once(" maps of layout version ")?;
    version.parse::<u32>().ok()?;
    programs.parse().ok().zip(maps.parse().ok())
}
