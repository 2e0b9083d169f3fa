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

pub(crate) const TESTS: &[Test] = &[test("deb", deb), test("rpm", rpm), test("vagrant", vagrant)];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "package", name, daemon: Daemon::Own, with: With::One, run }
}

const DEB: &str = "/usr/share/lockc-tests/lockc_amd64.deb";
const NEXT_DEB: &str = "/usr/share/lockc-tests/lockc-next.deb";
const RPM: &str = "/usr/share/lockc-tests/lockc.rpm";
const NEXT_RPM: &str = "/usr/share/lockc-tests/lockc-next.rpm";
const UNIT: &str = "lockc.service";
const CONFIG: &str = "/etc/lockc/lockc.toml";
const DROP_IN: &str = "/etc/lockc/lockc.d/own.toml";

/// What the guest has of lockc without a package: it is out of the way until this is dropped.
struct Unpackaged {
    moved: Vec<(PathBuf, PathBuf)>,
    remove: fn() -> Result<String>,
}

impl Unpackaged {
    fn put_aside(remove: fn() -> Result<String>) -> Result<Self> {
        let mut moved = Vec::new();
        for path in [LOCKC, "/etc/lockc"].map(PathBuf::from) {
            let aside = path.with_added_extension("aside");
            fs::rename(&path, &aside).with_context(|| format!("move {}", path.display()))?;
            moved.push((path, aside));
        }
        Ok(Self { moved, remove })
    }
}

impl Drop for Unpackaged {
    fn drop(&mut self) {
        // What is left of it fails the next test.
        let _ = (self.remove)();
        let _ = fs::remove_dir_all("/etc/lockc");
        for (path, aside) in &self.moved {
            let _ = fs::rename(aside, path);
        }
    }
}

/// What it said.
fn said(command: &mut Command) -> Result<String> {
    let output = process::run(command, DEADLINE)?.success(format_args!("{command:?}"))?;
    Ok(format!("{}{}", output.stdout, output.stderr))
}

fn apt(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["--yes", "--quiet"]).args(arguments);
    said(&mut command)
}

/// What a package asks for (a shell) is there, and not as a package of this kind.
fn rpm_of(arguments: &[&str]) -> Result<String> {
    said(Command::new("rpm").arg("--nodeps").args(arguments))
}

fn version() -> Result<String> {
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat=${db:Status-Status} ${Version}", "lockc"]);
    Ok(process::run(&mut command, DEADLINE)?.stdout)
}

fn is_active() -> Result<bool> {
    Ok(systemd::show(UNIT, "ActiveState")? == "active")
}

fn rpm_version() -> Result<String> {
    Ok(process::run(
        Command::new("rpm").args(["--query", "--queryformat", "%{VERSION}", "lockc"]),
        DEADLINE,
    )?
    .stdout)
}

/// Installs a package, and waits until its daemon is another than the one of `before`.
fn install(how: impl FnOnce() -> Result<String>, before: &str) -> Result<String> {
    let said = how()?;
    wait_for("the daemon of the package", DEADLINE, || {
        Ok((is_active()? && systemd::show(UNIT, "MainPID")? != before).then_some(()))
    })
    .with_context(|| said.clone())?;
    Ok(said)
}

/// A change of the configuration in both ways in which one can be made, and the text that the file has then.
fn configure() -> Result<String> {
    let text = fs::read_to_string(CONFIG)?;
    let changed = text.replace("log_format = \"text\"", "log_format = \"json\"");
    ensure!(changed != text, "the configuration is not as expected: {text}");
    fs::write(CONFIG, &changed)?;
    fs::create_dir_all("/etc/lockc/lockc.d")?;
    fs::write(DROP_IN, "[policy.own]\nextends = \"baseline\"\n")?;
    Ok(changed)
}

/// What `vagrant up` runs in its machine: it shows what lockc changes, and that it is as expected.
fn vagrant(_context: &Context) -> Result<()> {
    let _unpackaged = Unpackaged::put_aside(|| apt(&["purge", "lockc"]))?;
    let directory = Path::new(DEB).parent().context("no directory")?;
    let script = directory.join("provision.sh");
    let said = said(Command::new("sh").arg(&script).arg(directory))?;
    for wanted in ["the token, with lockc", "ordinary work", "denied open container="] {
        ensure!(said.contains(wanted), "no {wanted:?}: {said}");
    }
    ensure!(!said.contains("UNEXPECTED"), "{said}");
    Ok(())
}

/// As [`deb`], by `rpm`, with the scripts of that package and systemd.
fn rpm(context: &Context) -> Result<()> {
    let running = Sleeper::start(context, &[])?;
    running.ensure(true, "without lockc")?;
    let _unpackaged = Unpackaged::put_aside(|| rpm_of(&["--erase", "lockc"]))?;

    let said = install(|| rpm_of(&["--install", RPM]), "")?;
    ensure!(systemd::show(UNIT, "UnitFileState")? == "enabled", "not enabled: {said}");
    running.ensure(false, "with the package installed")?;
    let first = rpm_version()?;
    let changed = configure()?;

    let before = systemd::show(UNIT, "MainPID")?;
    install(|| rpm_of(&["--upgrade", NEXT_RPM]), &before)?;
    ensure!(rpm_version()? == "99.0", "the upgrade gave {}", rpm_version()?);
    running.ensure(false, "after an upgrade")?;
    ensure!(fs::read_to_string(CONFIG)? == changed, "the upgrade has changed the configuration");

    let before = systemd::show(UNIT, "MainPID")?;
    install(|| rpm_of(&["--upgrade", "--oldpackage", RPM]), &before)?;
    ensure!(rpm_version()? == first, "the downgrade gave {}, not {first}", rpm_version()?);
    running.ensure(false, "after a downgrade")?;
    ensure!(fs::read_to_string(CONFIG)? == changed, "the downgrade has changed the configuration");

    rpm_of(&["--erase", "lockc"])?;
    ensure!(!is_active()?, "the service runs after the removal");
    for path in [PINS, LOCKC, "/run/lockc"] {
        ensure!(!Path::new(path).exists(), "{path} is left after the removal");
    }
    running.ensure(true, "after the removal")?;
    let saved = fs::read_to_string(format!("{CONFIG}.rpmsave"))?;
    ensure!(saved == changed, "the removal has lost the configuration");
    ensure!(Path::new(DROP_IN).exists(), "the removal has taken a file of the administrator's");
    Ok(())
}

fn deb(context: &Context) -> Result<()> {
    let running = Sleeper::start(context, &[])?;
    running.ensure(true, "without lockc")?;
    let _unpackaged = Unpackaged::put_aside(|| apt(&["purge", "lockc"]))?;

    let said = install(|| apt(&["install", DEB]), "")?;
    // The guest leaves out manual pages.
    for path in [CONFIG, "/usr/share/bash-completion/completions/lockc"] {
        ensure!(Path::new(path).exists(), "the package has not brought {path}: {said}");
    }
    ensure!(systemd::show(UNIT, "UnitFileState")? == "enabled", "not enabled: {said}");
    running.ensure(false, "with the package installed")?;
    let first = version()?;
    let changed = configure()?;

    let before = systemd::show(UNIT, "MainPID")?;
    install(|| apt(&["install", NEXT_DEB]), &before)?;
    ensure!(version()? == "installed 99.0-1", "the upgrade gave {}", version()?);
    running.ensure(false, "after an upgrade")?;
    ensure!(fs::read_to_string(CONFIG)? == changed, "the upgrade has changed the configuration");

    let before = systemd::show(UNIT, "MainPID")?;
    install(|| apt(&["install", "--allow-downgrades", DEB]), &before)?;
    ensure!(version()? == first, "the downgrade gave {}, not {first}", version()?);
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
