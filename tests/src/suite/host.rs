//! The host goes on as before: what containers may not do, its processes may, at the same time.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{
    Container, Context,
    container::DEADLINE,
    fixture::{SECRET, TOKEN},
    process,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[Test {
    group: "host",
    name: "untouched",
    daemon: Daemon::OffThenOn,
    with: With::One,
    run: untouched,
}];

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
