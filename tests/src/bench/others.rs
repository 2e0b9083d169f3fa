//! Others that watch or restrict, to compare with.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::libc;

use super::ground::{FILES, PROGRAM};
use crate::harness::{
    container::DEADLINE,
    process::{self, Running, wait_for},
};

/// What `cargo xtask bench` shares: AppArmor's parser, and a profile as Docker's default one.
const PARSER: &str = "/mnt/share/apparmor_parser";
const PROFILES: &str = "/mnt/share/profile";
/// Name of the profile.
pub(super) const PROFILE: &str = "lockc-bench";

pub(super) fn load_profile() -> Result<()> {
    let mut parser = Command::new(PARSER);
    parser.args(["--skip-cache", "--replace", PROFILES]);
    process::run(&mut parser, DEADLINE)?.success(PARSER).map(drop)
}

/// Somebody who allows every `execve` of a file, while this is kept.
pub(super) fn allow_execve(path: &str) -> Result<Running> {
    let mut command = Command::new("/proc/self/exe");
    let mut running = Running::start(command.args(["probe", "allow-execve", path]))?;
    wait_for("the mark", DEADLINE, || Ok((running.stdout() == "ready\n").then_some(())))?;
    Ok(running)
}

/// What `cargo xtask bench` shares of fapolicyd: the program, its loader and libraries, tables of file types, and rules.
const FAPOLICYD: &str = "/mnt/share/fapolicyd";
/// What is other than in the configuration that Debian ships: the user, whom a guest has not, and what is trusted.
const FAPOLICYD_CHANGES: &[(&str, &str)] = &[
    ("\nuid = fapolicyd\n", "\nuid = root\n"),
    ("\ngid = fapolicyd\n", "\ngid = root\n"),
    ("\ntrust = debdb\n", "\ntrust = file\n"),
];

/// fapolicyd, while this is kept: the measured program is trusted, and what is not is refused, so that it is at work.
pub(super) fn start_fapolicyd() -> Result<Running> {
    let other = Path::new(FILES).join("untrusted");
    fs::copy(PROGRAM, &other).context("copy the program")?;
    let len = fs::metadata(PROGRAM).with_context(|| PROGRAM.to_owned())?.len();
    let said =
        process::run(Command::new("sha256sum").arg(PROGRAM), DEADLINE)?.success("sha256sum")?;
    let digest = said.stdout.split(' ').next().unwrap_or_default();
    for directory in
        ["/etc/fapolicyd", "/var/lib/fapolicyd", "/usr/share/fapolicyd", "/usr/lib/file"]
    {
        fs::create_dir_all(directory).with_context(|| format!("create {directory}"))?;
    }
    let write = |name: &str, text: &str| {
        let path = Path::new("/etc/fapolicyd").join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    let shipped = Path::new(FAPOLICYD).join("fapolicyd.conf");
    let mut config =
        fs::read_to_string(&shipped).with_context(|| format!("read {}", shipped.display()))?;
    for (from, to) in FAPOLICYD_CHANGES {
        ensure!(config.contains(from), "{}: no {from:?}", shipped.display());
        config = config.replace(from, to);
    }
    write("fapolicyd.conf", &config)?;
    write("fapolicyd.trust", &format!("{PROGRAM} {len} {digest}\n"))?;
    for (name, to) in [
        ("compiled.rules", "/etc/fapolicyd/compiled.rules"),
        ("fapolicyd-magic.mgc", "/usr/share/fapolicyd/fapolicyd-magic.mgc"),
        ("magic.mgc", "/usr/lib/file/magic.mgc"),
    ] {
        let from = Path::new(FAPOLICYD).join(name);
        fs::copy(&from, to).with_context(|| format!("copy {} to {to}", from.display()))?;
    }
    let mut command = Command::new(format!("{FAPOLICYD}/ld-linux-x86-64.so.2"));
    command.args(["--library-path", FAPOLICYD, &format!("{FAPOLICYD}/fapolicyd"), "--debug-deny"]);
    let mut running = Running::start(&mut command)?;
    wait_for("fapolicyd", DEADLINE, || match Command::new(&other).status() {
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(Some(())),
        Err(error) => Err(error.into()),
    })
    .with_context(|| running.stderr())?;
    Ok(running)
}
