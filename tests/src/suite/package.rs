//! The package, as apt installs, upgrades, downgrades, removes and purges it on a machine on which containers run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{
    Context,
    daemon::{LOCKC, PINS},
    engine::Sleeper,
    process::{self, wait_for},
    runner::{Daemon, Test, With},
    systemd::{self, DEADLINE},
};

pub(crate) const TESTS: &[Test] =
    &[Test { group: "package", name: "deb", daemon: Daemon::Own, with: With::One, run: deb }];

const DEB: &str = "/usr/share/lockc-tests/lockc.deb";
const NEXT: &str = "/usr/share/lockc-tests/lockc-next.deb";
const UNIT: &str = "lockc.service";
const CONFIG: &str = "/etc/lockc/lockc.toml";
const DROP_IN: &str = "/etc/lockc/lockc.d/own.toml";

/// What the guest has of lockc without a package: it is out of the way until this is dropped.
struct Unpackaged(Vec<(PathBuf, PathBuf)>);

impl Unpackaged {
    fn put_aside() -> Result<Self> {
        let mut moved = Vec::new();
        for path in [LOCKC, "/etc/lockc"].map(PathBuf::from) {
            let aside = path.with_added_extension("aside");
            fs::rename(&path, &aside).with_context(|| format!("move {}", path.display()))?;
            moved.push((path, aside));
        }
        Ok(Self(moved))
    }
}

impl Drop for Unpackaged {
    fn drop(&mut self) {
        // What is left of it fails the next test.
        let _ = apt(&["purge", "lockc"]);
        for (path, aside) in &self.0 {
            let _ = fs::rename(aside, path);
        }
    }
}

/// What it said.
fn apt(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["--yes", "--quiet"]).args(arguments);
    let output = process::run(&mut command, DEADLINE)?.success("apt-get")?;
    Ok(format!("{}{}", output.stdout, output.stderr))
}

fn version() -> Result<String> {
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat=${db:Status-Status} ${Version}", "lockc"]);
    Ok(process::run(&mut command, DEADLINE)?.stdout)
}

fn is_active() -> Result<bool> {
    Ok(systemd::show(UNIT, "ActiveState")? == "active")
}

fn deb(context: &Context) -> Result<()> {
    let running = Sleeper::start(context, &[])?;
    running.ensure(true, "without lockc")?;
    let _unpackaged = Unpackaged::put_aside()?;

    let said = apt(&["install", DEB])?;
    // The guest leaves out manual pages.
    for path in [CONFIG, "/usr/share/bash-completion/completions/lockc"] {
        ensure!(Path::new(path).exists(), "the package has not brought {path}: {said}");
    }
    wait_for("the service", DEADLINE, || Ok(is_active()?.then_some(())))?;
    ensure!(systemd::show(UNIT, "UnitFileState")? == "enabled", "not enabled: {said}");
    running.ensure(false, "with the package installed")?;
    let first = version()?;

    // A change of one's own, in both ways in which one can be made.
    let text = fs::read_to_string(CONFIG)?;
    let changed = text.replace("log_format = \"text\"", "log_format = \"json\"");
    ensure!(changed != text, "the configuration is not as expected: {text}");
    fs::write(CONFIG, &changed)?;
    fs::create_dir_all("/etc/lockc/lockc.d")?;
    fs::write(DROP_IN, "[policy.own]\nextends = \"baseline\"\n")?;

    let main_pid = || systemd::show(UNIT, "MainPID");
    let before = main_pid()?;
    apt(&["install", NEXT])?;
    ensure!(version()? == "installed 99.0-1", "the upgrade gave {}", version()?);
    wait_for("the new daemon", DEADLINE, || {
        Ok((is_active()? && main_pid()? != before).then_some(()))
    })?;
    running.ensure(false, "after an upgrade")?;
    ensure!(fs::read_to_string(CONFIG)? == changed, "the upgrade has changed the configuration");

    apt(&["install", "--allow-downgrades", DEB])?;
    ensure!(version()? == first, "the downgrade gave {}, not {first}", version()?);
    wait_for("the old daemon", DEADLINE, || Ok(is_active()?.then_some(())))?;
    running.ensure(false, "after a downgrade")?;
    ensure!(fs::read_to_string(CONFIG)? == changed, "the downgrade has changed the configuration");

    apt(&["remove", "lockc"])?;
    ensure!(!is_active()?, "the service runs after the removal");
    ensure!(!Path::new(PINS).exists(), "pins are left after the removal");
    running.ensure(true, "after the removal")?;
    ensure!(fs::read_to_string(CONFIG)? == changed, "the removal has changed the configuration");
    let kept = Path::new(DROP_IN).exists();
    ensure!(kept, "the removal has taken a file of the administrator's");

    apt(&["purge", "lockc"])?;
    for path in [LOCKC, "/etc/lockc", "/run/lockc", PINS] {
        ensure!(!Path::new(path).exists(), "{path} is left after the purge");
    }
    Ok(())
}
